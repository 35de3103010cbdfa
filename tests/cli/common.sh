# Shared by the scripts of this folder. Sourced with the program as $1; leaves the shell in a
# temporary folder that goes away at exit.
ppsim=$1
failures=0
folder=$(mktemp -d "${TMPDIR:-/tmp}/ppsim-cli-XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1

fail() {
    echo "FAIL: $*" >&2
    failures=$((failures + 1))
}

# expect STATUS FRAGMENT ARGUMENTS...: the exit status, a fragment of what it said, no lost memory
expect() {
    status=$1 fragment=$2
    shift 2
    "$ppsim" "$@" >out 2>err </dev/null
    got=$?
    [ "$got" -eq "$status" ] || fail "ppsim $*: exit $got, expected $status: $(head -c 400 err)"
    [ -z "$fragment" ] || cat out err | grep -qF -- "$fragment" || fail "ppsim $*: '$fragment' is not in: $(cat out err | head -c 600)"
    ! grep -q 'never freed' err || fail "ppsim $*: $(grep 'never freed' err)"
    if [ "$status" -ne 0 ]; then
        [ "$(grep -c '^ppsim:' err)" -ge 1 ] || fail "ppsim $*: no message"
    fi
}

# delays COUNT SECONDS: random times below SECONDS; the seed is printed so that a failure can be repeated
delays() {
    seed=${PPSIM_TEST_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
    echo "delays: PPSIM_TEST_SEED=$seed" >&2
    awk -v seed="$seed" -v n="$1" -v most="$2" \
        'BEGIN { srand(seed); for (i = 0; i < n; i++) printf "%.4f\n", rand() * most }'
}

# A model that is quick to profile and to train.
tiny_model() {
    cat <<'END'
{"format": "ppsim-model", "version": 1, "name": "tiny", "layers": [
  {"name": "embed", "op": "embedding", "vocabulary": 256, "dim": 16, "sequence": 8, "tie": "wte"},
  {"name": "block0", "op": "gpt_block", "dim": 16, "heads": 2, "sequence": 8},
  {"name": "block1", "op": "gpt_block", "dim": 16, "heads": 2, "sequence": 8},
  {"name": "head", "op": "lm_head", "vocabulary": 256, "dim": 16, "sequence": 8, "tie": "wte"}]}
END
}

finish() {
    [ "$failures" -eq 0 ] || exit 1
    exit 0
}
