# Several processes that profile into one file at once lose nothing, also when it is not there yet.
# usage: together.sh PPSIM [ROUNDS]
. "$(dirname "$0")/common.sh"
rounds=${2:-2}
processes=3
tiny_model >tiny.json

round=0
while [ $round -lt "$rounds" ]; do
    round=$((round + 1))
    db=store$round.db
    for i in $(seq $processes); do
        (
            "$ppsim" profile tiny.json --db $db --microbatch 1 --alone --cap 0.001 >out$i 2>err$i </dev/null
            echo $? >status$i
        ) &
    done
    wait
    for i in $(seq $processes); do
        [ "$(cat status$i)" -eq 0 ] || fail "process $i: $(cat err$i)"
    done
    ids=$(sed -n 's/.*session \([0-9]*\),.*/\1/p' out? | sort -n | tr '\n' ' ')
    [ "$ids" = "1 2 3 " ] || fail "sessions reported: $ids"
    "$ppsim" profile --db $db --list >list 2>err || fail "list: $(cat err)"
    [ "$(grep -c tiny list)" -eq $processes ] || fail "sessions stored: $(cat list)"
    # each with the samples that its process counted
    for i in $(seq $processes); do
        id=$(sed -n 's/.*session \([0-9]*\),.*/\1/p' out$i)
        samples=$(sed -n 's/.* \([0-9]*\) samples.*/\1/p' out$i)
        [ "$(awk -v id="$id" '$1 == id { print $NF }' list)" = "$samples" ] ||
            fail "session $id: $samples samples were reported: $(cat list)"
    done
done

finish
