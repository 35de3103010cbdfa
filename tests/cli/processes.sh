# One plan over several processes that mpirun starts: the same bits, one voice, one end. Skipped where
# there is no MPI.
# usage: processes.sh PPSIM
. "$(dirname "$0")/common.sh"
if ! command -v mpirun >/dev/null || [ ! -e "$(dirname "$ppsim")/libppsim_mpi.so" ]; then
    echo "no MPI here: skipped"
    exit 77
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # CI is root
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_base_warn_component_unused=0
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" # MPI's own; ours are counted
tiny_model >tiny.json

losses() { grep -oE '"(loss|gradient_norm)": [^,}]*' "$1"; }

# together COUNT ARGUMENTS...: exit status in $got
together() {
    processes=$1
    shift
    timeout 60 mpirun -n "$processes" "$ppsim" "$@" >out 2>err </dev/null
    got=$?
    ! grep -q 'never freed' err || fail "$processes x ppsim $*: $(grep 'never freed' err)"
}

# ---- the same bits --------------------------------------------------------------------------------

# same PROCESSES PLAN-ARGUMENTS...: losses of three steps, and norms of gradients, to the last digit
same() {
    counts=$1
    shift
    "$ppsim" plan --model tiny.json --batch 8 "$@" --out same.json >out 2>err || fail "no plan $*: $(cat err)"
    "$ppsim" run same.json --steps 3 --clip 0.1 --json >one 2>err || fail "one process, $*: $(cat err)"
    [ "$(losses one | grep -c '[0-9]')" -eq 6 ] || fail "$*: no losses or norms"
    for count in $counts; do
        together "$count" run same.json --steps 3 --clip 0.1 --json
        [ "$got" -eq 0 ] || fail "$count processes, $*: exit $got: $(head -c 400 err)"
        [ "$(losses out)" = "$(losses one)" ] || fail "$count processes, $*: $(losses out), one: $(losses one)"
        [ "$(grep -c '"steps"' out)" -eq 1 ] || fail "$count processes: not one voice"
    done
}

same 4 --ranks 4 --schedule 1f1b --virtual 1
same 2 --ranks 2 --schedule zbv
same 2 --ranks 2 --schedule dualpipev --microbatches 4
same 3 --ranks 2 --dp 2 --schedule gpipe --virtual 1
same '2 4' --ranks 4 --schedule chimera --microbatches 4
same '2 4' --ranks 2 --dp 2 --zero 1 --schedule 1f1b --virtual 1

# Where replicas share out the optimizer, each sums what it steps and no more, unless gradients are
# clipped: not a bit may change. shared PROCESSES PLAN-ARGUMENTS...
shared() {
    counts=$1
    shift
    for zero in 0 1; do
        "$ppsim" plan --model tiny.json --batch 24 --zero $zero "$@" --out zero$zero.json >out 2>err || fail "no plan $*: $(cat err)"
        grep -q "\"zero\": $zero" zero$zero.json || fail "$*: not ZeRO-$zero"
        "$ppsim" run zero$zero.json --steps 4 --json >one$zero 2>err || fail "ZeRO-$zero, $*: $(cat err)"
    done
    [ "$(losses one0 | grep -c '[0-9]')" -ge 4 ] || fail "$*: no losses"
    [ "$(losses one0)" = "$(losses one1)" ] || fail "$*: $(losses one1) with ZeRO-1, $(losses one0) without"
    for count in $counts; do
        together "$count" run zero1.json --steps 4 --json
        [ "$got" -eq 0 ] || fail "$count processes, ZeRO-1, $*: exit $got: $(head -c 400 err)"
        [ "$(losses out)" = "$(losses one0)" ] || fail "$count processes, ZeRO-1, $*: $(losses out), one: $(losses one0)"
    done
}

shared '2 4' --ranks 2 --dp 2 --schedule 1f1b --virtual 1
shared 3 --ranks 1 --dp 3 --schedule gpipe
shared 4 --ranks 2 --dp 3 --schedule zbv
shared 2 --ranks 2 --dp 2 --schedule chimera --microbatches 4

# ---- one trace, one report ------------------------------------------------------------------------

"$ppsim" plan --model tiny.json --batch 8 --ranks 4 --schedule 1f1b --virtual 1 --out plan.json >out 2>err
together 4 run plan.json --steps 3 --trace trace.json
[ $got -eq 0 ] || fail "trace: exit $got: $(cat err)"
grep -q '4 processes, one clock' trace.json || fail "the trace does not tell its clocks"
grep -q ', 4 processes$' out || fail "the report does not tell the processes: $(head -1 out)"
expect 0 '' render trace.json -o trace.svg
together 2 validate plan.json --backend replay --steps 3 --tolerance 100000%
[ $got -eq 0 ] || fail "validate: exit $got: $(cat err)"
[ "$(grep -c 'step time is off' out)" -eq 1 ] || fail "validate: not one voice"

# ---- refusals: one message ------------------------------------------------------------------------

# refused STATUS FRAGMENT COUNT ARGUMENTS...
refused() {
    status=$1 fragment=$2
    shift 2
    together "$@"
    [ "$got" -eq "$status" ] || fail "$*: exit $got, expected $status"
    [ "$(grep -c "^ppsim: .*$fragment" err)" -eq 1 ] || fail "$*: not one '$fragment' in $(cat err)"
}
refused 2 'cannot be opened' 3 run nothing.json
refused 2 'no such option' 2 run plan.json --bogus
refused 2 "5 processes are more than the plan's 4 ranks" 5 run plan.json

# ---- ends -----------------------------------------------------------------------------------------

# One of four processes; its number goes to $victim once the run trains.
start_four() {
    rm -f out err status
    { PPSIM_LOG=run:info timeout 60 mpirun -n 4 "$ppsim" run plan.json --steps 1000000 --timeout 2 --trace never.json >out 2>err </dev/null; echo $? >status; } &
    job=$!
    until grep -q 'step 2/' err 2>/dev/null || [ -e status ]; do sleep 0.05; done
    victim=
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/exe" 2>/dev/null)" = "$(readlink -f "$ppsim")" ] || continue
        grep -qz '^OMPI_COMM_WORLD_RANK=2$' "$process/environ" 2>/dev/null || continue
        [ "$(readlink "$process/cwd")" = "$(pwd -P)" ] && victim=${process#/proc/}
    done
    [ -n "$victim" ] || fail "process 2 is not there: $(cat err)"
}

start_four
kill -s TERM "$victim"
wait $job
[ "$(cat status)" -eq 143 ] || fail "SIGTERM to one: exit $(cat status): $(tail -5 err)"
grep -q 'step time' out || fail "SIGTERM to one: the finished steps are not reported"
[ "$(grep -c '^ppsim: stopped by a signal' err)" -eq 1 ] || fail "SIGTERM to one: $(tail -5 err)"

start_four
kill -s STOP "$victim"
wait $job
[ "$(cat status)" -ne 0 ] || fail "SIGSTOP to one: exit 0"
[ "$(grep -c '^ppsim: process 2 on .* no sign of life' err)" -eq 1 ] || fail "SIGSTOP to one: $(tail -15 err)"

start_four
kill -s KILL "$victim"
wait $job
[ "$(cat status)" -ne 0 ] || fail "SIGKILL to one: exit 0"
grep -q 'signal 9' err || fail "SIGKILL to one: $(tail -15 err)"

[ ! -e never.json ] || fail "a trace was written by a run that did not end"
[ -z "$(find . -name '*.part-*')" ] || fail "left $(find . -name '*.part-*')"

# ---- a launcher without its MPI -------------------------------------------------------------------

PMI_SIZE=2 PMI_RANK=0 "$ppsim" run plan.json >out 2>err
[ $? -eq 2 ] || fail "a launcher of another MPI: $(cat err)"
grep -q 'mpiexec started 2 processes, but MPI' err || fail "a launcher of another MPI: $(cat err)"

finish
