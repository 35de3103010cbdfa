# From somebody's profile to a plan that simulates; what import refuses and warns of.
. "$(dirname "$0")/common.sh"

mkdir tiny
cat >tiny/graph.txt <<'END'
node1 -- Input0 -- forward_compute_time=0.000, backward_compute_time=0.000, activation_size=0.0, parameter_size=0.000
node2 -- Conv2d(3, 64) -- forward_compute_time=3.000, backward_compute_time=5.000, activation_size=6400.0, parameter_size=6912.000
node3 -- ReLU -- forward_compute_time=1.000, backward_compute_time=1.000, activation_size=6400.0, parameter_size=0.000
node4 -- Add -- forward_compute_time=2.000, backward_compute_time=4.000, activation_size=6400.0, parameter_size=0.000
	node1 -- node2
	node2 -- node3
	node2 -- node4
	node3 -- node4
END
expect 0 'tiny: 3 layers, 3 edges; a sample takes 6.00 ms forward, 10.0 ms backward' import pipedream tiny/graph.txt --out tiny.json
expect 0 'tiny: 3 layers, 3 edges; a sample takes 1.50 ms forward' import pipedream tiny/graph.txt --profile-batch 4 --out four.json
"$ppsim" import pipedream tiny/graph.txt >printed.json 2>err || fail "import to standard output: $(cat err)"
cmp -s tiny.json printed.json || fail "what import prints is not what it writes"
"$ppsim" import pipedream - <tiny/graph.txt 2>err | sed 's/"imported"/"tiny"/' | cmp -s tiny.json - || fail "import reads standard input differently"
expect 0 '' plan --model tiny.json --cluster local --ranks 2 --batch 8 --out plan.json
expect 0 'step time' simulate plan.json
sed 's/Conv2d(3, 64)/Conv2d(3, 64, kernel_size=(11, 11), stride=(4, 4))/' tiny/graph.txt >long.txt
"$ppsim" import pipedream long.txt --out long.json >/dev/null
expect 0 'node2 Conv2d(3, 64, kernel_si…' plan --model long.json --cluster local --ranks 2 --batch 8

cat >layers.csv <<'END'
layer,forward_ms,backward_ms,parameter_bytes,activation_bytes,output_bytes
a,1,2,4,8,16
b,1,2,4,8,16
END
expect 0 'layers: 2 layers, 1 edges' import layers layers.csv --out layers.json
expect 0 'layers: anything else' import --list

cp tiny.json before.json
sed 's/=3.000/=-3/' tiny/graph.txt >bad.txt
expect 2 'bad.txt:2:48: forward_compute_time must be a number, 0 or more' import pipedream bad.txt --out tiny.json
cmp -s tiny.json before.json || fail "a refused import touched the old file"
expect 2 'would be overwritten' import pipedream tiny/graph.txt --out tiny/graph.txt
expect 2 'no folder' import pipedream tiny/graph.txt --out no/where.json
expect 2 '--tp: does not go with the format layers' import layers layers.csv --tp 2
expect 2 'needs a FORMAT and a FILE' import
expect 2 '1 or more' import layers layers.csv --profile-batch 0
expect 2 'Is a directory' import layers tiny
finish
