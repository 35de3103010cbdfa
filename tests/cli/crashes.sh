# kill -9 at random moments: under its final name a file is the old one or a complete new one, and a
# profile store holds every session that was reported.
# usage: crashes.sh PPSIM [ROUNDS]
. "$(dirname "$0")/common.sh"
rounds=${2:-4}
tiny_model >tiny.json

# killed DELAY FILE ARGUMENTS...: runs ppsim and kills it after so many seconds; on delay "write",
# as soon as the temporary file of FILE is there
killed() {
    delay=$1 file=$2
    shift 2
    "$ppsim" "$@" >out 2>err </dev/null &
    pid=$!
    tries=0
    if [ "$delay" = write ]; then
        until [ -e "$file.part-$pid-0" ] || [ $tries -ge 20000 ]; do tries=$((tries + 1)); done
    else
        sleep "$delay"
    fi
    kill -s KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    got=$?
}

# half of the rounds aim at the write
moments() {
    delays "$1" "$2"
    i=0
    while [ $i -lt "$1" ]; do i=$((i + 1)) && echo write; done
}

# ---- plans: the same call writes the same bytes, so new ones are known ----------------------------

plan() {
    echo plan --model gpt-nano --cluster dgx-h100:1 --batch 16 --ranks 2 -M "$1" --out "$2"
}
# shellcheck disable=SC2046
for m in 4 8; do "$ppsim" $(plan $m "new$m") >out 2>err || fail "plan: $(cat err)"; done
finished=0 survived=0
for moment in $(moments "$rounds" 0.3); do
    # shellcheck disable=SC2046
    for start in none new4; do
        rm -f plan.json
        [ $start = none ] || cp $start plan.json
        killed "$moment" plan.json $(plan 8 plan.json)
        if [ -e plan.json ] && cmp -s plan.json new8; then
            finished=$((finished + 1))
        elif { [ $start = none ] && [ ! -e plan.json ]; } || cmp -s plan.json $start; then
            survived=$((survived + 1))
        else
            fail "plan killed at $moment: plan.json is neither old nor new"
        fi
    done
done
echo "plans: $finished new, $survived old"
[ -n "$(find . -name '*.part-*')" ] || echo "(no temporary file was left: no write was hit)"

# ---- traces: what is there can be drawn -----------------------------------------------------------

"$ppsim" plan --model tiny.json --ranks 2 --batch 8 --out tiny-plan.json >out 2>err || fail "plan: $(cat err)"
"$ppsim" run tiny-plan.json --steps 2 --trace old-trace.json >out 2>err || fail "run: $(cat err)"
finished=0 survived=0
for moment in $(moments "$rounds" 0.15); do
    cp old-trace.json trace.json
    killed "$moment" trace.json run tiny-plan.json --steps 2 --trace trace.json
    if cmp -s trace.json old-trace.json; then
        survived=$((survived + 1))
    else
        finished=$((finished + 1))
        "$ppsim" render trace.json -o trace.svg >out 2>err || fail "run killed at $moment: $(cat err)"
    fi
done
echo "traces: $finished new, $survived old"

# ---- stores: what was reported is there, and can be planned with ----------------------------------

reported=0 tried=0
for delay in $(delays $((2 * rounds)) 0.6) 60; do
    case $delay in
    60) # the last one lives
        "$ppsim" profile tiny.json --db cpu.db --microbatch 1 --alone --cap 0.001 >out 2>err
        got=$?
        [ $got -eq 0 ] || fail "profile after kills: $(cat err)"
        ;;
    *) killed "$delay" cpu.db profile tiny.json --db cpu.db --microbatch 1 --alone --cap 0.001 ;;
    esac
    tried=$((tried + 1))
    ! grep -q 'session' out || reported=$((reported + 1))
    if [ -e cpu.db ] && "$ppsim" profile --db cpu.db --list >list 2>err; then
        stored=$(grep -c tiny list)
        [ "$stored" -ge "$reported" ] && [ "$stored" -le $tried ] ||
            fail "profile killed after $delay s: $stored sessions, $reported reported, $tried tried"
        [ "$stored" -eq 0 ] ||
            "$ppsim" plan --model tiny.json --ranks 1 --batch 8 --db cpu.db >out 2>err ||
            fail "profile killed after $delay s: $(cat err)"
    else
        [ $reported -eq 0 ] || fail "profile killed after $delay s: $(cat err)"
    fi
done
echo "stores: $reported of $tried sessions reported, ${stored:-0} stored"

finish
