#!/bin/sh
# Draws the timelines of docs/schedules.md into docs/images/schedules: each schedule on 4 ranks with 8
# microbatches and equal forwards, input and weight halves.
# usage: docs/draw-schedules.sh [PPSIM]     default: the release build
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
ppsim=${1:-$root/build/release/cli/ppsim}
out=$root/docs/images/schedules
trace=$(mktemp /tmp/ppsim-trace-XXXXXX.json)
trap 'rm -f "$trace"' EXIT
mkdir -p "$out"
for name in $("$ppsim" schedules | cut -d' ' -f1) auto; do
    "$ppsim" simulate --schedule "$name" -K 4 -M 8 --costs 0.01,0.01,0.01 --trace "$trace" >/dev/null
    "$ppsim" render "$trace" -o "$out/$name.svg"
done
