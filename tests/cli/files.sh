# Files under bad luck: full disks, missing folders, closed pipes.
. "$(dirname "$0")/common.sh"

expect 2 'no folder' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --trace no/such/folder/t.json
"$ppsim" models show gpt-nano >/dev/full 2>err
[ $? -eq 1 ] || fail "a full standard output is not exit 1"
grep -q 'standard output' err || fail "a full standard output has no message"
"$ppsim" plan --model gpt-nano --ranks 2 --batch 8 --out piped.json >out 2>err || fail "no plan: $(cat err)"
while read -r call; do
    # shellcheck disable=SC2086
    { "$ppsim" $call 2>err </dev/null; echo $? >status; } | head -c 1 >/dev/null
    [ ! -s err ] || fail "ppsim $call into a closed pipe made noise: $(cat err)"
    [ "$(cat status)" -eq 0 ] || fail "ppsim $call into a closed pipe: exit $(cat status)"
done <<'END'
schedule gpipe -K 64 -M 4096
schedule gpipe -K 64 -M 4096 --format json
schedules
clusters
models show gpt2-1.5b
help man
doctor
simulate --schedule 1f1b -K 512 -M 512 --costs 1,1,1 --json
simulate piped.json --trace -
plan --model gpt2-124m --cluster dgx-h100:1 --batch 8 --json
plan --model gpt2-124m --cluster dgx-h100:1 --batch 8 --out -
END

# a limit on file size stands for a full disk: the old file survives, nothing is left behind
"$ppsim" simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --trace trace.json >/dev/null
cp trace.json before.json
(
    trap '' XFSZ
    ulimit -f 1
    "$ppsim" simulate --schedule 1f1b -K 8 -M 64 --costs 1,1,1 --trace trace.json >/dev/null 2>err
)
[ $? -eq 1 ] || fail "a full disk is not exit 1"
cmp -s trace.json before.json || fail "a full disk damaged the old file"
[ "$(find . -name '*part*' | wc -l)" -eq 0 ] || fail "a full disk left a temporary file"

# outputs that are open files, pipes or links are written, never replaced
"$ppsim" plan --model gpt-nano --ranks 1 --batch 8 --out plan.json >/dev/null
"$ppsim" simulate plan.json --trace /dev/stdout --json >both 2>err || fail "/dev/stdout: $(cat err)"
grep -q '"traceEvents"' both && grep -q '"makespan"' both || fail "/dev/stdout does not hold both results"
[ ! -f /dev/stdout ] || [ -L /dev/stdout ] || fail "/dev/stdout was replaced"
"$ppsim" simulate plan.json --trace - | grep -q '"traceEvents"' || fail "'-' is not standard output"
printf 'old' >target.json
ln -s target.json link.json
"$ppsim" simulate plan.json --trace link.json >/dev/null
[ -L link.json ] && grep -q '"traceEvents"' target.json || fail "a link was replaced, not followed"

# nothing is read and overwritten, and nothing long is begun for an output that cannot be written
cp plan.json before.json
expect 2 'would be overwritten' simulate plan.json --trace plan.json
expect 2 'would be overwritten' simulate plan.json --trace ./plan.json
expect 2 'would be overwritten' run plan.json --steps 1 --trace plan.json
ln -s plan.json picture.png
expect 2 'would be overwritten' render plan.json -o picture.png
cmp -s plan.json before.json || fail "a plan was overwritten"
expect 2 'no folder' run plan.json --steps 1 --trace no/folder/t.json
expect 2 'no folder' plan --model gpt-nano --batch 8 --out no/folder/p.json
expect 2 'is a folder' plan --model gpt-nano --batch 8 --out .
expect 2 'Is a directory' simulate .
expect 2 'Is a directory' plan --model ./ --batch 8
expect 2 'cannot be opened' run ''
: >empty.json
expect 2 'empty.json:1:1' run empty.json
head -c 3000 /dev/zero >zero.json
expect 2 'zero.json:1:1' render zero.json -o x.png
awk 'BEGIN { for (i = 0; i < 100000; i++) printf "[" }' >deep.json
expect 2 'deep.json:1:' simulate deep.json
sed 's/"name": "[a-z0-9]*", *$/"name": "nobody",/; s/"name": "naive"/"name": "nobody"/' plan.json >nobody.json
expect 2 'nobody.json /' simulate nobody.json

# same bytes in another locale and time zone
"$ppsim" simulate --schedule 1f1b -K 4 -M 8 --costs 0.1,0.2,0.3 --json >a.json
LC_ALL=de_DE.UTF-8 TZ=Asia/Tokyo "$ppsim" simulate --schedule 1f1b -K 4 -M 8 --costs 0.1,0.2,0.3 --json >b.json
cmp -s a.json b.json || fail "output depends on the locale"

finish
