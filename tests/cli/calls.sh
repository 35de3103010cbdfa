# Calls and their answers: help, lists, schedules, simulations, and wrong calls with their messages.
. "$(dirname "$0")/common.sh"

expect 2 'which subcommand'
expect 2 'is not a subcommand' fly
expect 0 'subcommands:' help
expect 0 'subcommands:' --help
expect 0 'ppsim 0.' --version
expect 0 'SQLite' --version
expect 0 '.TH PPSIM 1' help man
expect 0 'complete -o filenames' help bash-completion
expect 2 'is no topic' help nonsense
expect 0 'backend cpu' doctor
for name in profile plan simulate render run validate schedule models clusters schedules doctor help; do
    expect 0 "usage: ppsim $name" help $name
    expect 0 "usage: ppsim $name" $name --help
    expect 2 'no such option' $name --no-such-option
done

# lists
expect 0 'gpt2-124m' models
expect 0 '"format": "ppsim-model"' models show gpt-nano
expect 2 'gpt-huge' models show gpt-huge
expect 0 'dgx-h100:N' clusters
expect 0 '"format": "ppsim-cluster"' clusters show dgx-h100:2
expect 2 'dgx-h100:0' clusters show dgx-h100:0
expect 0 '1f1b' schedules
expect 0 'source:' schedules show gpipe
expect 2 'is no schedule' schedules show 2f2b

# schedules
expect 0 'rank 1: 1F0 1B0 1F1 1B1' schedule 1f1b -K 2 -M 2
expect 0 '0F0,0F1,0B0,0B1' schedule 1f1b -K 2 -M 2 --format csv
expect 0 '0SEND_F0' schedule 1f1b -K 2 -M 2 --format csv --transfers
expect 0 '"microbatches": 2' schedule gpipe -K 2 --chunks 2 --format json
expect 0 '0R0' schedule gpipe -K 2 -M 2 --recompute full
expect 2 'is not one of' schedule gpipe -K 2 -M 2 --format xml
expect 2 'needs -K' schedule gpipe -M 2
expect 2 '-K: ' schedule gpipe -K 0 -M 2
expect 2 '-K: ' schedule gpipe -K two -M 2
expect 2 'needs a value' schedule gpipe -M 2 -K
expect 2 '--ranks' schedule gpipe --ranks=1e3 -M 2
expect 2 '' schedule gpipe -K 60000 -M 16000000
expect 2 '' schedule gpipe -K 1000000000 -M 2
expect 2 '' schedule 1f1b -K 4 -M 4 -V 3
expect 2 'one argument too many' schedule gpipe 1f1b -K 2 -M 2

# checking files
"$ppsim" schedule 1f1b -K 4 -M 8 --format csv >good.csv
"$ppsim" schedule good.csv --format json >good.json
"$ppsim" schedule ./good.json --format csv | cmp -s - good.csv || fail "CSV to JSON and back is another order"
expect 0 '1RECV_F0' schedule good.json --transfers
expect 2 'contradicts' schedule good.csv -K 3
printf '0F0,0STEP,0B0\n' >stepped.csv
expect 2 '0B0 is still to come' schedule --check stepped.csv
"$ppsim" schedule 1f1b -K 4 -M 8 --format csv --transfers >lowered.csv
expect 0 'finishes      yes' schedule --check good.csv
expect 0 'peak activations per rank: 4 3 2 1' schedule --check lowered.csv
printf '0F0,0SEND_F0,0B0\n1F0,1B0\n' >half.csv
expect 2 '' schedule --check half.csv
printf '0F0,0B0\n1B0,1F0\n' >order.csv
expect 2 '' schedule --check order.csv
expect 2 'No such file' schedule --check nothing.csv
printf '0F0,0X0\n' >odd.csv
expect 2 'odd.csv:1:5' schedule --check odd.csv

# simulations
expect 0 'closed form 0.2727' simulate --schedule 1f1b -K 4 -M 8 --costs 1,1,1
expect 0 '"makespan": 33' simulate --schedule 1f1b -K 4 -M 8 --costs 1,1,1 --json
expect 0 '"closed_form_bubble": null' simulate --schedule 1f1b -K 4 -M 8 --costs 1,1,1,0.5 --json
expect 0 '"peak_time": 1, "peak_action": "0F1"' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --json
expect 0 '"peak_bytes": null' simulate --schedule good.csv --costs 1,1,1 --json
# a hundred thousand devices are 64 ranks: one replica and one tensor-parallel group stand for all
expect 0 'dp=196, tp=8' plan --model llama-3-405b --cluster dgx-h100:12544 --batch 50176 --ranks 64 --tp 8 --dp 196 \
    --microbatch-size 1 --virtual 1 --schedule 1f1b --recompute full --out large.json
expect 0 '49152 compute actions' simulate large.json
expect 2 'contradicts' simulate --schedule good.csv -K 5 --costs 1,1,1
expect 2 'contradicts' simulate --schedule good.csv -M 5 --costs 1,1,1
expect 2 'three or four numbers' simulate --schedule 1f1b -K 4 -M 8 --costs 1,1
expect 2 'three or four numbers' simulate --schedule 1f1b -K 4 -M 8 --costs 1,-1,1
expect 2 'three or four numbers' simulate --schedule 1f1b -K 4 -M 8 --costs 1,nan,1
expect 2 'needs --costs' simulate --schedule 1f1b -K 4 -M 8
expect 2 'needs a PLAN or --schedule' simulate
expect 2 'known' simulate --schedule 9f9b -K 4 -M 8 --costs 1,1,1
expect 3 'the limit is 2' simulate --schedule 1f1b -K 4 -M 8 --costs 1,1,1 --activation-limit 2
expect 0 '"peak_activations": 4' simulate --schedule 1f1b -K 4 -M 8 --costs 1,1,1 --activation-limit 4 --json
printf 'forward_s,input_s,weight_s,activation_bytes,released_by_input_bytes\n1,1,1,100,50\n1,1,1,100,50\n' >stages.csv
expect 0 '"activations": 200' simulate --schedule 1f1b -K 2 -M 4 --stage-costs stages.csv --json
expect 3 'limit is 100' simulate --schedule 1f1b -K 2 -M 4 --stage-costs stages.csv --activation-limit 1
expect 3 'limit is 150' simulate --schedule 1f1b -K 2 -M 4 --stage-costs stages.csv --activation-bytes 150
expect 2 'fewer rows' simulate --schedule 1f1b -K 3 -M 4 --stage-costs stages.csv
printf 'forward_s\n1\n' >bad.csv
expect 2 'bad.csv:1' simulate --schedule 1f1b -K 2 -M 4 --stage-costs bad.csv

# documents that are not there or not right
expect 2 'No such file' simulate nothing.json
expect 2 'No such file' run nothing.json
expect 2 'No such file' render nothing.json -o x.png
expect 2 'needs -o' render nothing.json
printf '{"format": "ppsim-plan", "version": 1' >cut.json
expect 2 'cut.json:1:' simulate cut.json
expect 2 'needs --model' plan --batch 8
expect 2 'needs --batch' plan --model gpt-nano
expect 2 '' plan --model gpt-unknown --batch 8
expect 2 '' plan --model gpt-nano --batch 8 --cluster dgx-z:1
expect 2 '' plan --model gpt-nano --batch 8 --ranks 100
expect 2 'is not one of' plan --model gpt-nano --batch 8 --dtype fp8
expect 2 '--memory' plan --model gpt-nano --batch 8 --memory lots
expect 2 'No such file' plan --model nothing.json --batch 8
expect 2 'needs --db' profile gpt-nano
expect 2 'needs a MODEL' profile --db x.db
expect 2 '' profile --db x.db --delete 99
expect 2 'a list' profile gpt-nano --db x.db --microbatch 1,,2

finish
