# Plans as the files and flags of other systems: exact texts, refusals, warnings.
. "$(dirname "$0")/common.sh"

# plan FILE ARGUMENTS...: gpt2-124m on a box of 8, batch 16, microbatches of 2, tp 1
plan() {
    out=$1
    shift
    "$ppsim" plan --model gpt2-124m --cluster dgx-h100:1 --batch 16 --microbatch-size 2 --tp 1 "$@" --out "$out" >/dev/null 2>err || fail "no plan $out: $(cat err)"
}
# same NAME: out is what stands on standard input
same() {
    cat >wanted
    cmp -s wanted out || fail "$1 is not as wanted: $(diff wanted out | head -20)"
}
plan plain.json --ranks 4 --dp 1 --schedule 1f1b --recompute none --split 4,8,11
plan even.json --ranks 2 --dp 4 --schedule 1f1b --recompute full --split 7 --zero 1 --dtype fp32 --optimizer sgd
plan looped.json --ranks 2 --dp 1 -V 2 --schedule interleaved --recompute none --split 4,7,10
plan vshape.json --ranks 2 --dp 1 --schedule zbv --recompute none --split 4,7,10

# ---- megatron ----
expect 0 '' export megatron plain.json
same "Megatron's flags" <<'END'
# gpt2-124m: 1f1b, K=4, M=8 of 2 samples, recompute none
# 4 processes; vocabulary 50257
MEGATRON_ARGS=(
  --tensor-model-parallel-size 1
  --pipeline-model-parallel-size 4
  --pipeline-model-parallel-layout "Ettt|t*4|ttt|ttL"
  --micro-batch-size 2
  --global-batch-size 16
  --bf16
  --optimizer adam
  --num-layers 12
  --hidden-size 768
  --ffn-hidden-size 3072
  --num-attention-heads 12
  --seq-length 1024
  --max-position-embeddings 1024
)
END
expect 0 '' export megatron even.json
same "Megatron's flags of equal stages" <<'END'
# gpt2-124m: 1f1b, K=2, M=2 of 2 samples, dp=4, recompute full
# 8 processes; vocabulary 50257
MEGATRON_ARGS=(
  --tensor-model-parallel-size 1
  --pipeline-model-parallel-size 2
  --micro-batch-size 2
  --global-batch-size 16
  --optimizer sgd
  --use-distributed-optimizer
  --recompute-granularity full --recompute-method uniform --recompute-num-layers 6
  --num-layers 12
  --hidden-size 768
  --ffn-hidden-size 3072
  --num-attention-heads 12
  --seq-length 1024
  --max-position-embeddings 1024
)
END
expect 0 '  --num-layers-per-virtual-pipeline-stage 3' export megatron looped.json
plan many.json --ranks 8 --dp 1 --schedule 1f1b --recompute none --split 1,3,5,7,9,11,13
expect 0 'layout "E|(tt|)*6,L"' export megatron many.json
plan one.json --ranks 8 --dp 1 --schedule 1f1b --recompute none --split 2,3,5,7,9,11,12
expect 0 'layout "Et|t|(tt|)*4,t|tL"' export megatron one.json
expect 2 'its schedules are 1f1b and interleaved, not zbv' export megatron vshape.json
plan last.json --ranks 2 --dp 1 --schedule 1f1b --recompute except-last --split 7
expect 2 "it has no recomputation 'except-last'" export megatron last.json
plan every.json --ranks 2 --dp 1 --schedule 1f1b --recompute every:3 --split 7
expect 0 '--recompute-method uniform --recompute-num-layers 3' export megatron every.json
plan five.json --ranks 2 --dp 1 --schedule 1f1b --recompute every:5 --split 7
expect 2 '5 do not divide the 6 layers of stage 0' export megatron five.json
plan attention.json --ranks 2 --dp 1 --schedule 1f1b --recompute attention --split 7
expect 0 '--recompute-granularity selective --recompute-modules core_attn' export megatron attention.json
# by hand: plan does not choose these
sed 's/"blocking": false,/"blocking": true,/' looped.json >blocking.json
expect 0 '--no-overlap-p2p-communication' export megatron blocking.json
sed 's/"blocking": false,/"blocking": false, "reduce_buckets": 4,/' even.json >buckets.json
expect 0 '--overlap-grad-reduce' export megatron buckets.json
expect 0 'in 4 buckets for each stage: DeepSpeed takes that from' export deepspeed buckets.json

# ---- deepspeed ----
expect 0 'ACTIVATION_CHECKPOINT_INTERVAL = 5' export deepspeed five.json
expect 2 "it has no recomputation 'attention'" export deepspeed attention.json
expect 0 'PARTS = [0, 4, 8, 11, 14]' export deepspeed plain.json
expect 0 'partition_method="uniform"' export deepspeed even.json
expect 0 'ACTIVATION_CHECKPOINT_INTERVAL = 7' export deepspeed even.json
expect 0 'num_pp=2, num_mp=1, num_dp=4' export deepspeed even.json
expect 0 '' export deepspeed even.json --out deepspeed
mv deepspeed/ds_config.json out
same "DeepSpeed's configuration" <<'END'
{
  "train_batch_size": 16,
  "train_micro_batch_size_per_gpu": 2,
  "gradient_accumulation_steps": 2,
  "optimizer": {"type": "SGD", "params": {"momentum": 0.9}},
  "bf16": {"enabled": false},
  "zero_optimization": {"stage": 1}
}
END
expect 2 'its pipeline engine runs 1f1b, not interleaved' export deepspeed looped.json

# ---- vllm ----
expect 0 'do not apply' export vllm plain.json
same "vLLM's flags" <<'END'
# gpt2-124m: 1f1b, K=4, M=8 of 2 samples, recompute none
export VLLM_PP_LAYER_PARTITION=3,4,3,2
VLLM_ARGS=(
  --pipeline-parallel-size 4
  --tensor-parallel-size 1
  --dtype bfloat16
)
END
expect 2 'one stage on each rank, the plan 2' export vllm looped.json
expect 0 'rank 0 has no transformer layer' export vllm many.json

# ---- pytorch: the CSV is the order that was simulated, without comments or what the runtime adds ----
expect 0 '' export pytorch vshape.json --out pytorch
[ -s err ] && fail "export pytorch warned: $(cat err)"
"$ppsim" schedule zbv -K 2 -M 8 --format csv | grep -v '^#' >out
cp pytorch/schedule.csv wanted
cmp -s wanted out || fail "schedule.csv is not the order of zbv"
for line in 'NUM_STAGES = 4' 'N_MICROBATCHES = 8' 'STAGE_TO_RANK = [0, 1, 1, 0]' \
    'SPLIT_POINTS = ["block3", "block6", "block9"]' 'MESH_SHAPE = (2, 1, 1)' \
    'SCHEDULE_CLASS = "ScheduleZBVZeroBubble"'; do
    grep -qF -- "$line" pytorch/pipeline.py || fail "pipeline.py lacks: $line"
done
expect 0 'torch.utils.checkpoint' export pytorch even.json --out pytorch
grep -q 'R\|STEP\|REDUCE' pytorch/schedule.csv && fail "schedule.csv has actions that PyTorch does not read"
"$ppsim" plan --model gpt2-124m --cluster dgx-h100:1 --batch 15 --microbatch-size 2 --tp 1 --ranks 2 --dp 1 --schedule 1f1b --out ragged.json >/dev/null 2>&1 && {
    expect 2 'its last microbatch is smaller' export megatron ragged.json
    expect 0 'nearly equal' export pytorch ragged.json
}
if command -v python3 >/dev/null; then
    "$ppsim" export deepspeed even.json --out deepspeed
    for file in pytorch/pipeline.py deepspeed/pipeline.py; do
        python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$file" || fail "$file is no Python"
    done
fi

# ---- the rest ----
expect 0 'vllm.sh' export --list
expect 2 'would be overwritten' export vllm plain.json --out plain.json
expect 2 'no folder' export vllm plain.json --out no/where.sh
expect 2 'no/where: cannot be made a folder' export pytorch plain.json --out no/where
"$ppsim" export megatron plain.json --out flags.sh
"$ppsim" export megatron plain.json | cmp -s - flags.sh || fail "what export prints is not what it writes"
finish
