# Ctrl-C and SIGTERM: what was finished is reported, the exit status says which signal it was.
. "$(dirname "$0")/common.sh"

"$ppsim" plan --model gpt-nano --ranks 2 --batch 8 --out plan.json >/dev/null 2>err || fail "no plan: $(cat err)"
for pair in INT:130 TERM:143; do
    signal=${pair%:*} status=${pair#*:}
    # a shell starts background jobs with SIGINT ignored; env gives it back
    PPSIM_LOG=run:info env --default-signal=INT "$ppsim" run plan.json --steps 100000 --trace t.json >out 2>err &
    pid=$!
    tries=0
    until grep -q 'step 1/' err 2>/dev/null || [ $tries -ge 200 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -s "$signal" "$pid"
    wait "$pid"
    got=$?
    [ "$got" -eq "$status" ] || fail "SIG$signal: exit $got, expected $status"
    grep -q 'step time' out || fail "SIG$signal: the finished steps are not reported"
    [ ! -e t.json ] || fail "SIG$signal: a trace was written"
    ! grep -q 'never freed' err || fail "SIG$signal: $(grep 'never freed' err)"
done

finish
