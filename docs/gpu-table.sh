#!/bin/sh
# The steps recorded on an H200 beside what their plans predicted from the profile alone: a Markdown
# table. usage: docs/gpu-table.sh [build/release/cli/ppsim]
set -eu
ppsim=${1:-build/release/cli/ppsim}
data=$(dirname "$0")/../datasets
echo '| model | ranks, microbatches, schedule | step time, predicted | measured | difference | bubble, predicted | measured | difference | peak memory off by at most |'
echo '|---|---|---|---|---|---|---|---|---|'
for model in 124m 774m; do
    for plan in $(cd "$data/h200-gpt2-$model" && ls plan-*.json | sort -t- -k2,2n -k3,3n -k4); do
        name=$(basename "$plan" .json)
        name=${name#plan-}
        schedule=${name#*-*-}
        counts=${name%-"$schedule"}
        "$ppsim" validate "$data/h200-gpt2-$model/$plan" --measured "$data/h200-gpt2-$model/run-$name.json" \
            --tolerance 100% | awk -v model="$model" -v what="${counts%-*}, ${counts#*-}, $schedule" '
            /^step time  / { step = $3 " " $4 " | " $5 " " $6 " | " $7 " " $8 }
            /^bubble / { bubble = $2 " " $3 " | " $4 " " $5 " | " $6 " " $7 }
            /peak memory/ { off = $(NF - 1); sub(/[-+]/, "", off); if (off + 0 > worst) worst = off + 0 }
            END { printf "| %s | %s | %s | %s | %.2f %% |\n", model, what, step, bubble, worst }'
    done
done
