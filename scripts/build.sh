# Sourced by the test scripts, which run in the root of the repository.

# build PRESET [TARGET]: configures and builds, says nothing unless something is wrong
build() {
    log=build/$1.log
    mkdir -p build
    { cmake --preset "$1" && cmake --build --preset "$1" ${2:+--target "$2"}; } >"$log" 2>&1 && return
    grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking|Generating)' "$log" | tail -n 60 >&2
    echo "the build of '$1' failed; all of it is in $PWD/$log" >&2
    exit 1
}
