#!/bin/sh
# How much --split optimal wins in simulated step time over every named way to split, on PipeDream's
# own profiles: a Markdown table. Reads the profiles in the folder that PPSIM_TEST_DATA names.
#
#   PPSIM_TEST_DATA=… docs/split-table.sh [build/release/cli/ppsim [K [LINK_BYTES_PER_S]]]
#
# K ranks of one box, 4·K microbatches of one profiled minibatch each, 1F1B, no recomputation.
set -eu
ppsim=${1:-build/release/cli/ppsim}
ranks=${2:-8}
bandwidth=${3:-12500000000}
data=${PPSIM_TEST_DATA:?the folder with pipedream/MODEL/graph.txt}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/box.json" <<BOX
{"format": "ppsim-cluster", "version": 1, "name": "box",
 "devices": [{"name": "gpu", "memory_bytes": 10000000000000, "flops": {"fp32": 1.5e13},
              "memory_bandwidth_bytes_per_s": 9e11}],
 "nodes": [{"device": "gpu", "count": $ranks, "repeat": 1}],
 "intra": {"bandwidth_bytes_per_s": $bandwidth, "latency_s": 1e-5},
 "inter": {"bandwidth_bytes_per_s": $bandwidth, "latency_s": 1e-5}}
BOX

# Seconds of a step by one method, or nothing where it refuses.
step_time() {
    "$ppsim" plan --model "$work/model.json" --cluster "$work/box.json" --batch $((4 * ranks)) \
        --microbatch-size 1 --ranks "$ranks" --virtual 1 --dp 1 --schedule 1f1b --recompute none \
        --split "$1" --json 2>"$work/errors" |
        sed -n 's/^ *"iteration_time": \([^,]*\),*$/\1/p' | head -n 1
}

methods="bottleneck uniform parameters time memory pipedream"
printf '| model | optimal, s |'
for method in $methods; do printf ' %s |' "$method"; done
printf '\n|---|---|'
for method in $methods; do printf -- '---|'; done
printf '\n'
for model in alexnet vgg16 resnet18 resnet50 resnet101 resnext50 squeezenet1_0 densenet121 inception_v3 gnmt \
    gnmt_large; do
    "$ppsim" import pipedream "$data/pipedream/$model/graph.txt" --out "$work/model.json" >"$work/log"
    best=$(step_time optimal)
    printf '| %s | %.4f |' "$model" "$best"
    for method in $methods; do
        seconds=$(step_time "$method")
        if [ -n "$seconds" ]; then
            awk "BEGIN { printf \" +%.2f %% |\", 100 * ($seconds / $best - 1) }"
        else
            printf ' refused |'
        fi
    done
    printf '\n'
done
