#!/bin/sh
# The steps recorded on an H100 beside what their plans predicted from the profile alone: a Markdown
# table. usage: docs/gpu-table.sh [build/release/cli/ppsim]
set -eu
ppsim=${1:-build/release/cli/ppsim}
data=$(dirname "$0")/../datasets/h100-gpt2-124m
echo '| ranks, schedule | step time, predicted | measured | difference | bubble, predicted | measured | peak memory off by at most |'
echo '|---|---|---|---|---|---|---|'
for k in 1 2 4 8; do
    for schedule in gpipe 1f1b; do
        "$ppsim" validate "$data/plan-$k-$schedule.json" --measured "$data/run-$k-$schedule.json" \
            --tolerance 100% | awk -v what="$k, $schedule" '
            /^step time  / { step = $3 " " $4 " | " $5 " " $6 " | " $7 " " $8 }
            /^bubble / { bubble = $2 " " $3 " | " $4 " " $5 }
            /peak memory/ { off = $(NF - 1); sub(/[-+]/, "", off); if (off + 0 > worst) worst = off + 0 }
            END { printf "| %s | %s | %s | %.2f %% |\n", what, step, bubble, worst }'
    done
done
