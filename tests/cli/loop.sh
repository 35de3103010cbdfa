# The whole loop on a tiny model: profile, plan, simulate, draw, run, compare.
. "$(dirname "$0")/common.sh"

cat >tiny.json <<'END'
{"format": "ppsim-model", "version": 1, "name": "tiny", "layers": [
  {"name": "embed", "op": "embedding", "vocabulary": 256, "dim": 16, "sequence": 8, "tie": "wte"},
  {"name": "block0", "op": "gpt_block", "dim": 16, "heads": 2, "sequence": 8},
  {"name": "block1", "op": "gpt_block", "dim": 16, "heads": 2, "sequence": 8},
  {"name": "head", "op": "lm_head", "vocabulary": 256, "dim": 16, "sequence": 8, "tie": "wte"}]}
END
cat >opaque.json <<'END'
{"format": "ppsim-model", "version": 1, "name": "opaque", "layers": [
  {"name": "a", "op": "opaque", "forward_s": 0.001, "input_s": 0.001, "weight_s": 0.001,
   "parameter_bytes": 4096, "output_bytes": 1024, "activation_bytes": 2048},
  {"name": "b", "op": "opaque", "forward_s": 0.001, "input_s": 0.001, "weight_s": 0.001,
   "parameter_bytes": 4096, "output_bytes": 1024, "activation_bytes": 2048}]}
END
seq 1 3000 >text.txt

expect 0 'session 1' profile tiny.json --db cpu.db --microbatch 1,2 --cap 0.05
expect 0 'session 2' profile tiny.json --db cpu.db --microbatch 1 --cap 0.02 --alone
expect 0 'tiny' profile --db cpu.db --list
expect 0 '' profile --db cpu.db --delete 2
expect 2 'bf16' profile tiny.json --db cpu.db --dtype bf16 --cap 0.02

# a plan from measured and from modelled costs, twice the same bytes
expect 0 'cpu.db' plan --model tiny.json --ranks 2 --batch 8 --db cpu.db --out plan.json
expect 0 'modelled' plan --model tiny.json --ranks 2 --batch 8 --explain --out modelled.json
expect 0 '"alternatives"' plan --model tiny.json --ranks 2 --batch 8 --json --out again.json
cmp -s modelled.json again.json || fail "the same call wrote different plans"
expect 0 '' plan --model tiny.json --ranks 2 --batch 8 --db cpu.db --split 1 --schedule gpipe --recompute full -M 4 --out gpipe.json
expect 2 'rising positions' plan --model tiny.json --ranks 2 --batch 8 --split 7
expect 3 'rank' plan --model tiny.json --ranks 2 --batch 8 --memory 1KiB
expect 2 'ppsim profile' plan --model gpt-nano --ranks 2 --batch 8 --db cpu.db
expect 2 'schedule' plan --model tiny.json --ranks 2 --batch 8 --schedule none
expect 2 '' plan --model tiny.json --ranks 9 --batch 8

expect 0 '"makespan"' simulate plan.json --json --trace simulated.json
expect 0 '' render plan.json -o plan.png
expect 0 '' render plan.json -o plan.svg
expect 0 '' render plan.json -o plan.pdf
expect 2 'png' render plan.json -o plan.bmp
expect 2 'timeline' render plan.json -o plan.png --what pie
head -c 8 plan.png | grep -q PNG || fail "plan.png is not a PNG"

expect 0 'step time' run plan.json --steps 3 --trace run.json
expect 0 '"measured"' run plan.json --steps 2 --json --data text.txt
expect 0 'recompute full' run gpipe.json --steps 2 --data text.txt
expect 0 '' render run.json -o run.svg
expect 0 '' render plan.json run.json --what compare -o compare.png
expect 0 'within' validate plan.json --steps 3 --tolerance 100000%
expect 1 'off by' validate modelled.json --steps 2 --tolerance 0.000001%
expect 2 'backend' run plan.json --backend abacus
expect 2 'nothing.txt' run plan.json --data nothing.txt
expect 0 'step time' run plan.json --backend replay --steps 2

# opaque layers run under replay alone
expect 0 '' plan --model opaque.json --ranks 2 --batch 4 --out opaque-plan.json
expect 0 '"loss": null' run opaque-plan.json --steps 2 --json
expect 2 'replay' run opaque-plan.json --backend cpu

# a plan that was changed by hand
sed 's/"microbatch_size": [0-9]*/"microbatch_size": 3/' plan.json >edited.json
expect 2 'edited.json' run edited.json
sed 's/"dim": 16/"dim": 32/' plan.json >other.json
expect 2 'other.json' run other.json

# losses do not depend on the number of ranks
expect 0 '' plan --model tiny.json --ranks 1 --batch 8 -M 4 --out one.json
expect 0 '' plan --model tiny.json --ranks 3 --batch 8 -M 4 --out three.json
"$ppsim" run one.json --steps 4 --json 2>/dev/null | grep -o '"loss": [^,]*' >one.losses
"$ppsim" run three.json --steps 4 --json 2>/dev/null | grep -o '"loss": [^,]*' >three.losses
[ -s one.losses ] && cmp -s one.losses three.losses || fail "losses depend on the number of ranks"

finish
