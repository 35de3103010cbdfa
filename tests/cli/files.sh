# Files under bad luck: full disks, missing folders, closed pipes.
. "$(dirname "$0")/common.sh"

expect 2 'no folder' simulate --schedule 1f1b -K 2 -M 2 --costs 1,1,1 --trace no/such/folder/t.json
"$ppsim" models show gpt-nano >/dev/full 2>err
[ $? -eq 1 ] || fail "a full standard output is not exit 1"
grep -q 'standard output' err || fail "a full standard output has no message"
"$ppsim" schedule gpipe -K 64 -M 512 2>err | head -c 10 >/dev/null
[ ! -s err ] || fail "a closed pipe made noise: $(cat err)"

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

# same bytes in another locale and time zone
"$ppsim" simulate --schedule 1f1b -K 4 -M 8 --costs 0.1,0.2,0.3 --json >a.json
LC_ALL=de_DE.UTF-8 TZ=Asia/Tokyo "$ppsim" simulate --schedule 1f1b -K 4 -M 8 --costs 0.1,0.2,0.3 --json >b.json
cmp -s a.json b.json || fail "output depends on the locale"

finish
