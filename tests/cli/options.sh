# Options: every spelling, what goes together, what must be refused rather than ignored.
. "$(dirname "$0")/common.sh"

# same ARGUMENTS... -- ARGUMENTS...: two calls print the same
same() {
    first=
    while [ "$1" != -- ]; do first="$first $1" && shift; done
    shift
    # shellcheck disable=SC2086
    "$ppsim" $first >a 2>err || fail "ppsim$first: $(cat err)"
    "$ppsim" "$@" >b 2>err || fail "ppsim $*: $(cat err)"
    cmp -s a b || fail "not the same: ppsim$first / ppsim $*"
}

same simulate --schedule 1f1b -K 4 -M 8 --costs 1,1,1 --json -- simulate --schedule=1f1b -K4 -M8 --costs=1,1,1 --json
same simulate --schedule 1f1b -K 4 -M 8 --costs 1,1,1 --json -- simulate --json --ranks 4 --chunks=8 -V1 --costs 1,1,1 --schedule 1f1b
same simulate --schedule 1f1b -K 4 -M 8 --costs 1,1,1 -- simulate --schedule 1f1b -K 3 -K 4 --microbatches 8 --costs 1,1,1
same schedule --list -- schedules
same help plan -- plan -h
expect 2 "no such option" simulate --sched 1f1b
expect 2 'takes no value' simulate --json=yes
expect 2 'needs a value' simulate --schedule
expect 2 'cannot be opened' simulate -- --json
! "$ppsim" help schedule | grep -q ' $' || fail "help has blanks at the ends of lines"

# zero is a value where it can be one, and refused where it cannot
expect 2 '1 or more' plan --model gpt-nano --batch 0
expect 2 '1 or more' plan --model gpt-nano --batch 8 --sequence 0
expect 2 '1 or more' plan --model gpt-nano --batch 8 --microbatch-size 0
expect 2 '1 or more' profile --db x.db --delete 0
expect 2 'above 0' plan --model gpt-nano --batch 8 --limit-seconds 0
expect 2 '--batch' plan --model gpt-nano --batch 9223372036854775807

# what does not go together
expect 2 'not both' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --stage-costs x.csv
expect 2 'not both' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --activation-limit 1 --activation-bytes 1
expect 2 'fourth number' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --comm 1
expect 2 'goes with a plan' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --reduce-buckets 2
expect 2 'goes with a plan' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --replications 2 --db x.db
expect 2 'goes with --replications' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --db x.db
expect 2 'needs --db' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --replications 2
expect 2 'goes with --replications' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --transfer-jitter 5%
expect 2 'write 5% or 0.05' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --jitter 5 --replications 2
expect 2 'separated by commas' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --slow rank=1:2x,
expect 2 'rank from 0 to 1' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --slow rank=2:2x
expect 0 'step time    12.0 s' simulate --schedule 1f1b -K 1 -M 2 --costs 1,1,1 --slow rank=0:1.5x,rank=0:1.333333333333
expect 0 'mean 6.00 s' simulate --schedule 1f1b -K 1 -M 2 --costs 1,1,1 --transfer-jitter 5% --replications 2
expect 2 'needs data to read' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --prefetch
expect 0 'step time    7.00 s' simulate --schedule 1f1b -K 1 -M 2 --costs 1,1,1 --load-s 0.5
expect 0 'step time    6.00 s' simulate --schedule 1f1b -K 1 -M 2 --costs 1,1,1 --load-s 0.5 --prefetch
# orders of v-half and v-min for the times given, and as published for equal ones
same simulate --schedule v-half -K 4 -M 8 --costs 1,1,1 -- simulate --schedule v-half -K 4 -M 8 --costs 1,1,1,0
expect 0 'v-half: K=4 M=8 V=2' simulate --schedule v-half -K 4 -M 8 --costs 1,1.5,0.5,0.1
expect 2 'goes with --check' schedule 1f1b -K 2 -M 2 --blocking
"$ppsim" schedule 1f1b -K 3 -M 4 --format csv >file.csv
expect 0 'finishes' schedule --check file.csv -K 3 -M 4 -V 1
expect 2 'contradicts' schedule --check file.csv -K 4
expect 2 'contradicts' schedule --check file.csv --chunks 3
expect 2 'contradicts' simulate --schedule file.csv -V 2 --costs 1,1,1
expect 2 'do not go with it' schedule gpipe --check file.csv
expect 2 'do not go with it' schedule --check file.csv --format csv
expect 2 'for schedules by name' simulate --schedule file.csv --recompute full --costs 1,1,1
printf '0F0\n' >half.csv
expect 2 'matched       not reached' schedule --check half.csv

# what belongs to later versions is refused, not ignored
expect 2 'graph.txt: cannot be opened' import pipedream graph.txt --out x.json
expect 2 'needs a FORMAT and a FILE' import pipedream
expect 2 "no format 'onnx' to import; known: pipedream" import onnx graph.txt --out x.json
expect 2 'plan.json: cannot be opened' export pytorch plan.json
expect 2 'needs a SYSTEM and a PLAN' export pytorch
expect 2 'known: pytorch, megatron, deepspeed, vllm' export jax plan.json
expect 2 'no such option' run plan.json --checkpoint folder
expect 2 'no such option' run plan.json --resume
expect 2 '3 devices cannot share the 4 heads' plan --model gpt-nano --batch 8 --ranks 1 --tp 3
expect 0 'run cannot execute this plan yet' plan --model gpt-nano --batch 8 --ranks 1 --tp 2 --out tp.json
expect 2 'run cannot split layers over devices yet (tp = 2)' run tp.json
expect 2 '--zero' plan --model gpt-nano --batch 8 --zero 3
expect 2 '--recompute' plan --model gpt-nano --batch 8 --recompute sometimes
expect 2 '--split' plan --model gpt-nano --batch 8 --split evenly
expect 2 '--device' profile gpt-nano --db x.db --device abacus

# the fields of the JSON, and null where there is nothing to say
"$ppsim" simulate --schedule gpipe -K 2 -M 4 --costs 1,1,1 --json >sim.json
for key in schedule ranks microbatches virtual makespan span bubble_fraction span_bubble_fraction \
    closed_form_bubble lower_bound gap throughput actions rank busy idle peak_activations \
    peak_activation_weight peak_bytes bytes parameters gradients optimizer activations \
    weight_versions buffers; do
    grep -q "\"$key\":" sim.json || fail "simulate --json lacks $key"
done
"$ppsim" schedule gpipe -K 2 -M 4 --format json >order.json
for key in name ranks virtual microbatches placement chains actions; do
    grep -q "\"$key\":" order.json || fail "schedule --format json lacks $key"
done
"$ppsim" plan --model gpt-nano --ranks 2 --batch 8 --json >plan.json 2>err
for key in plan ranks virtual microbatches microbatch_size dp tp schedule recompute order splits placement \
    split method bottleneck lower_bound stages first last replicas seconds predicted iteration_time throughput \
    tokens_per_s mfu cost_per_step bubble_fraction rank busy peak_bytes alternatives gap stats searched pruned; do
    grep -q "\"$key\":" plan.json || fail "plan --json lacks $key"
done
expect 0 '"closed_form_bubble": null' simulate --schedule 1f1b -K 4 -M 8 --costs 0,0,0 --json
expect 0 '"throughput": null' simulate --schedule 1f1b -K 4 -M 8 --costs 0,0,0 --json

# costs of each stage: a closed form where they are equal, marks and comments of spreadsheets
header=forward_s,input_s,weight_s,activation_bytes,released_by_input_bytes
printf '\357\273\277# by hand\r\n%s\r\n1,1,1,100,50\r\n# second\r\n1,1,1,100,50\r\n' $header >equal.csv
printf '%s\n1,1,1,100,50\n2,1,1,100,50\n' $header >unequal.csv
printf '%s\n1,1,1,100,150\n1,1,1,100,50\n' $header >released.csv
expect 0 '"closed_form_bubble": 0.2,' simulate --schedule 1f1b -K 2 -M 4 --stage-costs equal.csv --json
expect 0 '"closed_form_bubble": null' simulate --schedule 1f1b -K 2 -M 4 --stage-costs unequal.csv --json
expect 0 '"closed_form_bubble": null' simulate --schedule 1f1b -K 2 -M 4 --stage-costs equal.csv --comm 1 --json
expect 2 'released.csv:2: released' simulate --schedule 1f1b -K 2 -M 4 --stage-costs released.csv
expect 0 '' simulate --schedule 1f1b -K 2 -M 4 --stage-costs equal.csv --activation-limit 2
expect 3 'limit is 199' simulate --schedule 1f1b -K 2 -M 4 --stage-costs equal.csv --activation-limit 1.99

# a schedule that was printed is read again and takes the same time, with and without transfers
for schedule in naive gpipe 1f1b; do
    for transfers in '' --transfers; do
        for format in csv json; do
            "$ppsim" schedule $schedule -K 4 -M 6 --format $format $transfers >printed.$format
            expect 0 'under every timing' schedule --check printed.$format
            "$ppsim" simulate --schedule $schedule -K 4 -M 6 --costs 1,2,3,0.5 --json | sed 2d >named
            "$ppsim" simulate --schedule ./printed.$format --costs 1,2,3,0.5 --json | sed 2d >read
            cmp -s named read || fail "$schedule read from $format $transfers differs from $schedule"
        done
    done
done
# as torch.distributed.pipelining writes them: comments, empty cells, a V of stages
printf '# a comment\n# placement: 0,1,1,0\n\n0F0,3F0,,3B0,0B0\n,1F0,2F0,2B0,1B0,\n' >v.csv
expect 0 'under every timing' schedule --check v.csv
expect 0 'V=2' simulate --schedule v.csv --costs 1,1,1

# a small search is complete without being told so
"$ppsim" plan --model gpt-nano --batch 8 --ranks 2 --out plain.json >/dev/null 2>err || fail "plan: $(cat err)"
"$ppsim" plan --model gpt-nano --batch 8 --ranks 2 --exact --out exact.json >/dev/null 2>err || fail "plan --exact: $(cat err)"
cmp -s plain.json exact.json || fail "--exact found another plan"

finish
