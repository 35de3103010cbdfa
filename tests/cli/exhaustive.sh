# The search stops where its effort ends; what it found by then is what the exhaustive one finds.
known=$(cd "$(dirname "$0")/../../datasets/exhaustive" && pwd)
. "$(dirname "$0")/common.sh"

# the seconds of a plan document
seconds() {
    sed -n 's/.*"iteration_time": \([0-9.]*\).*/\1/p' "$1" | head -n 1
}

expect 0 'step time' plan --model gpt3-175b --cluster h200:128 --batch 1536 --dtype bf16 --out plan.json
found=$(seconds plan.json) best=$(seconds "$known/gpt3-175b-h200-128.json")
awk -v found="$found" -v best="$best" 'BEGIN { exit !(best > 0 && found > 0 && found <= best * (1 + 1e-9)) }' ||
    fail "gpt3-175b on 1024 devices: $found s, the best plan takes $best s"

finish
