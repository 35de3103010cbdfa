# Shared by the scripts of this folder. Sourced with the program as $1; leaves the shell in a
# temporary folder that goes away at exit.
ppsim=$1
failures=0
folder=$(mktemp -d /tmp/ppsim-cli-XXXXXX)
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

finish() {
    [ "$failures" -eq 0 ] || exit 1
    exit 0
}
