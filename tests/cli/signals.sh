# Ctrl-C and SIGTERM: what was finished is reported, nothing is half written, the exit status says
# which signal it was; a second signal is immediate.
# usage: signals.sh PPSIM [ROUNDS]
. "$(dirname "$0")/common.sh"
rounds=${2:-1}
tiny_model >tiny.json

# start ARGUMENTS...: in the background; a shell starts such jobs with SIGINT ignored, env gives it
# back. Waits until ppsim is what runs.
start() {
    rm -f out err
    env --default-signal=INT "$ppsim" "$@" >out 2>err </dev/null &
    pid=$!
    until [ "$(cat /proc/$pid/comm 2>/dev/null)" != sh ] && [ "$(cat /proc/$pid/comm 2>/dev/null)" != env ]; do :; done
}

# stop SIGNAL: sends it and waits; the exit status goes to $got
stop() {
    kill -s "$1" $pid 2>/dev/null
    wait $pid 2>/dev/null
    got=$?
}

# ---- a run reports the steps that it finished -----------------------------------------------------

"$ppsim" plan --model gpt-nano --ranks 2 --batch 8 --out plan.json >out 2>err || fail "no plan: $(cat err)"
for pair in INT:130 TERM:143; do
    signal=${pair%:*} status=${pair#*:}
    export PPSIM_LOG=run:info
    start run plan.json --steps 100000 --trace t.json
    unset PPSIM_LOG
    tries=0
    until grep -q 'step 1/' err 2>/dev/null || [ $tries -ge 200 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    stop "$signal"
    [ "$got" -eq "$status" ] || fail "SIG$signal: exit $got, expected $status"
    grep -q 'step time' out || fail "SIG$signal: the finished steps are not reported"
    [ ! -e t.json ] || fail "SIG$signal: a trace was written"
    ! grep -q 'never freed' err || fail "SIG$signal: $(grep 'never freed' err)"
done

# ---- every subcommand, at random moments ----------------------------------------------------------

# Both signals, $rounds times each, at random moments of the first SECONDS. A command that was faster
# than the signal has done all.
# interrupted SECONDS ARGUMENTS...
interrupted() {
    seconds=$1
    shift
    for delay in $(delays "$rounds" "$seconds" 2>>seeds); do
        for pair in INT:130 TERM:143; do
            signal=${pair%:*} status=${pair#*:}
            rm -f made.*
            start "$@"
            sleep "$delay"
            stop "$signal"
            what="SIG$signal after $delay s: ppsim $*"
            case $got in
            0) [ -s out ] || ls made.* >/dev/null 2>&1 || fail "$what: exit 0 and nothing made" ;;
            "$status") ;;
            *) fail "$what: exit $got, expected $status: $(head -c 400 err)" ;;
            esac
            ! grep -q 'never freed' err || fail "$what: $(grep 'never freed' err)"
            [ -z "$(find . -name '*.part-*')" ] || fail "$what: left $(find . -name '*.part-*')"
            case "$(tail -c 1 made.json 2>/dev/null)" in
            '' | '}') ;; # the newline after the last brace, or nothing
            *) fail "$what: made.json is cut" ;;
            esac
            [ ! -e made.svg ] || tail -n 1 made.svg | grep -q '</svg>' || fail "$what: made.svg is cut"
        done
    done
}

"$ppsim" plan --model tiny.json --ranks 2 --batch 8 --out tiny-plan.json >out 2>err || fail "no plan: $(cat err)"
"$ppsim" schedule gpipe -K 64 -M 512 --format csv >big.csv
"$ppsim" simulate --schedule 1f1b -K 16 -M 256 --costs 1,1,1 --trace big.json >out 2>err || fail "no trace: $(cat err)"

interrupted 0.7 profile tiny.json --db signals.db --microbatch 1,2,4 --cap 0.2
interrupted 0.5 plan --model gpt2-774m --cluster dgx-h100:8 --batch 512 --out made.json
interrupted 0.5 plan --model gpt2-774m --cluster dgx-h100:8 --batch 512 --json
interrupted 0.5 simulate --schedule 1f1b -K 32 -M 512 --costs 1,1,1 --trace made.json
interrupted 0.5 simulate --schedule 1f1b -K 512 -M 8192 --costs 1,1,1
interrupted 0.2 simulate tiny-plan.json --json
interrupted 0.3 schedule gpipe -K 128 -M 4096 --format json
interrupted 0.2 schedule --check big.csv
interrupted 0.5 render big.json -o made.svg
interrupted 0.5 run tiny-plan.json --steps 100000 --trace made.json
interrupted 0.5 run tiny-plan.json --backend replay --steps 100000 --json
interrupted 0.5 validate tiny-plan.json --steps 100000 --trace made.json
interrupted 0.05 models show gpt2-1.5b
interrupted 0.05 clusters
interrupted 0.05 schedules
interrupted 0.05 doctor
interrupted 0.05 help man

# of the interrupted profiles only whole sessions are in the store
if [ -e signals.db ]; then
    expect 0 '' profile --db signals.db --list
    [ "$(grep -c ' tiny ' out)" -eq 0 ] || expect 0 '' plan --model tiny.json --ranks 1 --batch 8 --db signals.db
fi

# ---- where nothing moves --------------------------------------------------------------------------

mkfifo nobody
start simulate nobody
sleep 0.2
stop INT
[ $got -eq 130 ] || fail "SIGINT while opening: exit $got"
sleep 5 >nobody &
holder=$!
start simulate nobody
sleep 0.2
stop TERM
[ $got -eq 143 ] || fail "SIGTERM while reading: exit $got"
kill $holder
wait $holder 2>/dev/null

# a pipe that is full: the first signal is enough
{ sh -c 'echo $$ >pid; exec "$@" 2>err' - env --default-signal=INT "$ppsim" schedule gpipe -K 64 -M 2048; echo $? >status; } | {
    sleep 1
    kill -s INT "$(cat pid)"
    sleep 0.5
    ! kill -0 "$(cat pid)" 2>/dev/null || echo "still there" >&2
    kill -s KILL "$(cat pid)" 2>/dev/null
}
[ "$(cat status)" -eq 130 ] || fail "SIGINT while writing to a full pipe: exit $(cat status)"

# A second signal ends at once what does not look at requests (drawing): of the other kind, both
# handled in one go when it continues, and of the same kind, when the first has been handled.
"$ppsim" simulate --schedule 1f1b -K 64 -M 1024 --costs 1,1,1 --trace huge.json >out 2>err || fail "no trace: $(cat err)"
# halt: it stands still, or has ended
halt() {
    kill -s STOP $pid
    until grep -q '^State:[[:space:]]*[TZ]' /proc/$pid/status; do :; done
}
# Stops it while it draws. Where the machine was so busy that the picture is there before anything
# was sent, once more.
drawing() {
    for try in 1 2 3 4 5; do
        rm -f made.svg
        start render huge.json -o made.svg
        sleep 0.1
        halt
        [ -e made.svg ] || return
        stop KILL
    done
    fail "the picture is always there before a signal can be"
}
for pair in INT:TERM TERM:INT; do
    drawing
    kill -s ${pair%:*} $pid
    kill -s ${pair#*:} $pid
    stop CONT
    [ $got -eq 130 ] || [ $got -eq 143 ] || fail "SIG$pair together: exit $got: $(cat err)"
    [ ! -e made.svg ] || fail "SIG$pair together: the picture was finished"
done
for try in 1 2 3 4 5; do
    drawing
    kill -s INT $pid
    kill -s CONT $pid
    while grep -q '^SigCgt:.*[2367abef]$' /proc/$pid/status 2>/dev/null; do :; done
    halt
    [ -e made.svg ] || break
    stop KILL # the picture was there before the second one could be sent
done
kill -s INT $pid
stop CONT
[ $got -eq 130 ] || fail "SIGINT twice: exit $got: $(cat err)"
[ ! -e made.svg ] || fail "SIGINT twice: the picture was finished"

finish
