#!/bin/sh
# Prints the bubble rates of tables 5 and 9 of "Zero bubble pipeline parallelism" (Qi et al. 2023,
# arXiv 2401.10241) as ppsim simulates them, beside the published ones. Bubble = 1 - M·T / span.
# usage: docs/zero-bubble-table.sh [PPSIM]     default: the release build
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
ppsim=${1:-$root/build/release/cli/ppsim}

# bubble SCHEDULE K M COSTS [OPTIONS]
bubble() {
    name=$1 k=$2 m=$3 costs=$4
    shift 4
    "$ppsim" simulate --schedule "$name" -K "$k" -M "$m" --costs "$costs" --json "$@" |
        awk -F': |,' '/"span_bubble_fraction"/ { printf "%.4f", $2 }'
}

printf '%-6s %3s %4s  %s\n' model K M '1F1B            ZB-H1           ZB-H2           auto K (ZB-1p)  auto 2K (ZB-2p)'
while read -r model k m costs p1 p2 p3 p4 p5; do
    printf '%-6s %3d %4d  ' "$model" "$k" "$m"
    printf '%s (%s)  ' "$(bubble 1f1b "$k" "$m" "$costs")" "$p1"
    printf '%s (%s)  ' "$(bubble zb-h1 "$k" "$m" "$costs")" "$p2"
    printf '%s (%s)  ' "$(bubble zb-h2 "$k" "$m" "$costs")" "$p3"
    printf '%s (%s)  ' "$(bubble auto "$k" "$m" "$costs" --activation-limit "$k")" "$p4"
    printf '%s (%s)\n' "$(bubble auto "$k" "$m" "$costs" --activation-limit $((2 * k)))" "$p5"
done <<END
1.5B 8 24 18.522,18.086,9.337,0.601 .2431 .1585 .1083 .1585 .0433
1.5B 8 32 18.513,18.086,9.331,0.626 .1985 .1242 .0837 .1242 .0039
1.5B 8 64 18.546,18.097,9.321,0.762 .1240 .0674 .0444 .0674 .0026
14.6B 16 48 11.347,11.248,8.132,0.377 .2552 .1397 .0672 .1397 .0066
14.6B 16 128 11.325,11.308,8.109,0.378 .1251 .0576 .0266 .0576 .0028
END
