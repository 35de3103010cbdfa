# The same call gives the same bytes: twice, at another time, in another folder, locale and time zone,
# with another number of threads of the BLAS. Exempt are measured values and how long a search took.
. "$(dirname "$0")/common.sh"
tiny_model >tiny.json
printf 'layer,forward_ms,backward_ms,parameter_bytes,activation_bytes,output_bytes\na,1.5,2.25,4,8,16\nb,0.1,0.3,4,8,16\n' >layers.csv
"$ppsim" profile tiny.json --db cpu.db --microbatch 1,2 --cap 0.01 --alone >out 2>err || fail "profile: $(cat err)"
"$ppsim" plan --model tiny.json --cluster dgx-h100:1 --ranks 2 --batch 8 --dtype fp32 --out plan.json >out 2>err || fail "plan: $(cat err)"

# A locale with a decimal comma, where there is something to make one from.
export LOCPATH="$folder/locales"
mkdir -p "$LOCPATH"
localedef -i de_DE -f UTF-8 "$LOCPATH/de_DE.UTF-8" >/dev/null 2>&1 || unset LOCPATH

# without what is exempt
steady() {
    sed -e 's/"seconds": [0-9.e+-]*/"seconds": _/g' "$1"
}

# A file of each call's standard output and each file that it writes, into the folder $1.
everything() {
    into=$1
    mkdir -p "$into/work"
    cp tiny.json layers.csv cpu.db plan.json "$into/work"
    cd "$into/work" || exit 1
    call() {
        to=$1
        shift
        "$ppsim" "$@" >raw 2>err </dev/null || fail "ppsim $*: $(head -c 400 err)"
        steady raw >"../$to.out"
    }
    call help help
    call man help man
    call completion help bash-completion
    call models models
    call clusters clusters
    call schedules schedules
    for model in $("$ppsim" models | awk '{ print $1 }'); do call "model-$model" models show "$model"; done
    for name in $("$ppsim" schedules | awk '{ print $1 }'); do
        call "show-$name" schedules show "$name"
        for format in text csv json; do
            call "schedule-$name-$format" schedule "$name" -K 4 -M 8 --format $format
        done
        call "simulate-$name" simulate --schedule "$name" -K 4 -M 8 --costs 0.1,0.2,0.3 --json --trace "../$name.trace.json"
    done
    call simulate-auto simulate --schedule auto -K 4 -M 8 --costs 1,1.1,0.9,0.1 --json --trace ../auto.trace.json
    call simulate-jitter simulate --schedule 1f1b -K 4 -M 8 --costs 1,1,1 --jitter 5% --replications 20 --json
    call plan-text plan --model gpt2-124m --cluster dgx-a100:1 --batch 64 --explain --out ../gpt2.json
    call plan-json plan --model gpt2-124m --cluster dgx-a100:1 --batch 64 --json
    call plan-measured plan --model tiny.json --ranks 2 --batch 8 --db cpu.db --explain --out ../measured.json
    call list profile --db cpu.db --list
    call import import layers layers.csv --profile-batch 3 --out ../layers.json
    call export export pytorch ../gpt2.json
    call simulate-plan simulate ../gpt2.json --trace ../gpt2-trace.json
    call simulate-json simulate ../gpt2.json --json
    for ending in png svg pdf; do
        call timeline-$ending render plan.json -o ../timeline.$ending
        call memory-$ending render plan.json --what memory -o ../memory.$ending
    done
    "$ppsim" run plan.json --steps 3 --seed 7 --json 2>err >raw || fail "run: $(cat err)"
    grep -o '"loss": [^,]*' raw >../losses
    cd ../.. && rm -rf "$into/work"
}

export PPSIM_LOG=error
(everything one && [ $failures -eq 0 ]) || exit 1
(
    export LC_ALL=de_DE.UTF-8 LANG=de_DE.UTF-8 TZ=Asia/Tokyo OPENBLAS_NUM_THREADS=1 COLUMNS=40
    umask 077
    everything two && [ $failures -eq 0 ]
) || exit 1
diff -rq one two || fail "the second time differs"
[ "$(find one -type f | wc -l)" -gt 60 ] || fail "only $(find one -type f | wc -l) files were compared"

finish
