"""The PyTorch profiler against models whose bytes and order of cost are known. Skips (77) without
PyTorch. Times are compared only where they differ by orders of magnitude.

usage: test_ppsim_profile.py PPSIM FOLDER-OF-THE-SCRIPTS [unittest's arguments]
"""
import contextlib
import io
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import unittest

PPSIM, SCRIPTS = sys.argv[1], sys.argv[2]
sys.path.insert(0, SCRIPTS)
try:
    import torch
    from torch import nn
except ImportError:
    print("PyTorch is not installed for this Python: skipped")
    sys.exit(77)
import ppsim_profile  # noqa: E402
from ppsim_bench import doubt_of, interval_rank, median_of, split_both  # noqa: E402
from ppsim_store import Refused, write_model  # noqa: E402


class Slow(nn.Module):
    """Much work for few bytes."""

    def __init__(self, times):
        super().__init__()
        self.inner, self.times = nn.Linear(32, 32), times

    def forward(self, x):
        for _ in range(self.times):
            x = self.inner(x)
        return x


class Decoder(nn.Module):
    """Called as Hugging Face's decoder layers are: words by keyword, a tuple comes back."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, hidden_states, attention_mask=None, position_ids=None):
        assert position_ids.dtype == torch.int64
        return (hidden_states + self.down(torch.tanh(self.up(hidden_states))) * attention_mask,)


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
        self.blocks = nn.ModuleList(Decoder() for _ in range(3))
        self.head.weight = self.embed.weight

    def forward(self, input_ids, mask):
        x = self.embed(input_ids)
        places = torch.arange(input_ids.shape[1]).unsqueeze(0)
        for block in self.blocks:
            x = block(x, attention_mask=mask.unsqueeze(-1), position_ids=places)[0]
        return {"logits": self.head(x)}


class Profile(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory(prefix="ppsim-torch-")
        self.addCleanup(made.cleanup)
        self.folder = made.name
        self.db = os.path.join(made.name, "x.db")
        torch.manual_seed(1)

    def profile(self, model, example, sizes=(1, 3), **more):
        return ppsim_profile.profile(model, example, self.db, microbatches=sizes, seconds=0.1, quiet=True, **more)

    def refused(self, what, model, example, **more):
        with self.assertRaisesRegex(Refused, what):
            self.profile(model, example, **more)

    def ppsim(self, *arguments):
        return subprocess.run([PPSIM, *arguments], capture_output=True, text=True)

    def test_bytes_of_a_chain(self):
        """Exact: Linear keeps its input, ReLU its output, LayerNorm its input and two statistics of each
        row; a Linear whose input needs no gradient keeps it all the same, for W."""
        model = nn.Sequential(nn.Linear(10, 30), nn.ReLU(), nn.LayerNorm(30), nn.Linear(30, 7, bias=False),
                              nn.Identity())
        made = self.profile(model, torch.randn(2, 5, 10), name="chain")
        rows = 5 * 4  # of a sample, in bytes of fp32
        expected = {"chain/0": (10 * 30 + 30, 10, 30), "chain/1": (0, 30, 30), "chain/2": (60, 32, 30),
                    "chain/3": (210, 30, 7), "chain/4": (0, 0, 7)}
        for layer in made["document"]["layers"]:
            parameters, kept, output = expected.pop(layer["name"])
            self.assertEqual(layer["parameter_bytes"], 4 * parameters, layer)
            self.assertEqual(layer["activation_bytes"], rows * kept, layer)
            self.assertEqual(layer["output_bytes"], rows * output, layer)
        self.assertFalse(expected)
        phases = {(layer, phase) for layer, phase, _ in made["samples"]}
        self.assertNotIn(("0", "input"), phases, "nobody wants the gradient of the data")
        self.assertNotIn(("1", "weight"), phases)
        self.assertTrue({("0", "weight"), ("1", "input"), ("3", "input"), ("3", "weight"),
                         ("3", "optimizer")} <= phases)

    def test_the_slow_layer_is_found_slow_and_plan_reads_it(self):
        model = nn.Sequential(Slow(1), Slow(200), Slow(1))
        made = self.profile(model, torch.randn(2, 32), name="slow")
        for phase in "forward", "weight":
            of = [median_of(made["samples"][layer, phase, 3])[0] for layer in "012"]
            self.assertGreater(of[1], 5 * max(of[0], of[2]), phase)
        self.assertEqual(self.profile(model, torch.randn(2, 32), name="slow")["session"], 2)
        planned = self.ppsim("plan", "--model", made["model"], "--db", self.db, "--ranks", "2", "--batch", "6",
                             "--dtype", "fp32", "--explain")
        self.assertEqual(planned.returncode, 0, planned.stderr)
        self.assertIn("Costs were measured", planned.stdout)

    def test_decoder_layers_by_name(self):
        model = Language()
        example = {"input_ids": torch.randint(50, (2, 8)), "mask": torch.ones(2, 8)}
        made = self.profile(model, example, name="lm", layers=r"embed|blocks\.\d+|head")
        layers = made["document"]["layers"]
        self.assertEqual([layer["name"] for layer in layers],
                         ["lm/embed", "lm/blocks.0", "lm/blocks.1", "lm/blocks.2", "lm/head"])
        self.assertNotIn("edges", made["document"])
        self.assertEqual(layers[0]["tie"], layers[4]["tie"])
        self.assertEqual([layer.get("tied_bytes") for layer in layers], [3200, None, None, None, 3200])
        self.assertFalse([w for w in made["warnings"] if "quiet" not in w])
        only = self.profile(model, example, name="part", layers=["blocks.0", "blocks.2"])
        self.assertTrue(any("in no layer" in warning for warning in only["warnings"]))
        shown = self.ppsim("plan", "--model", made["model"], "--db", self.db, "--ranks", "2", "--batch", "4",
                           "--dtype", "fp32")
        self.assertEqual(shown.returncode, 0, shown.stderr)

    def test_the_model_is_left_as_it_was(self):
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.5),
                              nn.Linear(8, 4))
        next(model.parameters()).grad = torch.full((8, 4), 3.0)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        example, state = torch.randn(4, 4), torch.random.get_rng_state()
        self.profile(model, example, sizes=(2, 4))
        for key, value in model.state_dict().items():
            self.assertTrue(torch.equal(before[key], value), key)
        gradients = [p.grad for p in model.parameters()]
        self.assertTrue(torch.equal(gradients[0], torch.full((8, 4), 3.0)))
        self.assertTrue(all(gradient is None for gradient in gradients[1:]))
        self.assertTrue(torch.equal(state, torch.random.get_rng_state()))
        self.assertFalse(any("forward" in module.__dict__ for module in model.modules()))

    def test_phases_give_the_gradients_of_training(self):
        """What is timed is what a backward pass computes."""
        layer, x = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), torch.randn(4, 6, requires_grad=True)
        call = ppsim_profile.Call((x,), {})
        bench = ppsim_profile.Bench(layer, call, ppsim_profile.Clock(torch.device("cpu")))
        bench.sets = bench.sets[:1]
        each = bench.sets[0]
        bench.run_both()
        mine = [p.grad.clone() for p in layer.parameters()] + [each["leaves"][0].grad.clone()]
        layer.zero_grad(set_to_none=True)
        leaf = x.detach().clone().requires_grad_()
        layer(leaf).backward(each["gradients"][0])
        theirs = [p.grad for p in layer.parameters()] + [leaf.grad]
        for a, b in zip(mine, theirs):
            self.assertTrue(torch.allclose(a, b))

    def test_skips_become_edges(self):
        class Skip(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
                self.c = nn.Bilinear(4, 4, 4)

            def forward(self, x):
                first = self.a(x)
                return self.c(first, self.b(first))
        made = self.profile(Skip(), torch.randn(2, 4), layers=["a", "b", "c"])
        self.assertEqual(made["document"]["edges"], [[0, 1], [0, 2], [1, 2]])

    def test_weight_is_what_both_take_longer(self):
        took = split_both({("a", "both", 1): [5.0, 2.0], ("a", "input", 1): [3.0, 2.5],
                           ("b", "both", 1): [4.0], ("c", "forward", 1): []})
        self.assertEqual(took, {("a", "weight", 1): [2.0, 0.0], ("a", "input", 1): [3.0, 2.5],
                                ("b", "weight", 1): [4.0]})

    def test_statistics(self):
        """1 … 20: from the 6th to the 15th value, as core/statistics.c has it."""
        self.assertEqual(median_of(list(range(20, 0, -1))), (10.5, 6, 15, 5.0))
        self.assertEqual(median_of([3.0]), (3.0, 3.0, 3.0, 0.0))
        self.assertEqual((doubt_of(list(range(20))), doubt_of([1.0] * 5)), (4.5, math.inf))

    def test_interval_is_exact_at_every_count(self):
        """Against sums of whole numbers; beyond 1074 values 2^-count is no float any more."""
        for count in (*range(6, 80), 500, 1074, 1075, 3000):
            rank, everything = interval_rank(count), 40 * 2 ** count // 40
            below = sum(math.comb(count, k) for k in range(rank))
            self.assertLessEqual(40 * below, everything, count)
            self.assertGreater(40 * (below + math.comb(count, rank)), everything, count)

    def test_doubtful_weights_are_told(self):
        """Times in ms of 36 rounds. fine: W 2 ± 0.02; noisy: W 2 ± 1; faint: W 0.01 ± 0.01 beside 20, which
        does not matter; lost: W below its noise."""
        chance = random.Random(4)
        took = {}

        def layer(name, forward, inputs, weight, spread):
            for phase, middle, by in (("forward", forward, 0.0), ("input", inputs, 0.0), ("weight", weight, spread)):
                took[name, phase, 4] = [1e-3 * max(chance.uniform(middle - by, middle + by), 0) for _ in range(36)]
        layer("fine", 1, 1, 2, 0.05)
        layer("noisy", 1, 1, 2, 1.9)
        layer("faint", 10, 10, 0.01, 0.01)
        layer("lost", 1, 1, -1, 3)
        took["lost", "weight", 1] = list(took["fine", "weight", 4])
        told = ppsim_profile.doubtful(took, 20.0)
        self.assertEqual(len(told), 2, told)
        self.assertRegex(told[0], "layer 'lost': W at microbatch 4 is known not even to be above 0, 0 ms ± ")
        self.assertRegex(told[1], r"layer 'noisy': W at microbatch 4 is known to ±\d+ % only, .*--seconds \d+ for")
        share = 100 * doubt_of(took["noisy", "weight", 4]) / statistics.median(took["noisy", "weight", 4])
        self.assertIn(f"±{share:.0f} %", told[1])

    def test_the_interval_is_stored(self):
        model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
        made = self.profile(model, torch.randn(2, 64), name="stored")
        for layer, row in zip("012", made["document"]["layers"]):
            samples = made["samples"].get((layer, "weight", 3))
            self.assertEqual(row.get("weight_doubt_s"), doubt_of(samples) / 3 if samples else None)
        self.assertEqual(made["warnings"][-len(ppsim_profile.doubtful(made["samples"], 0.1)) or 99:],
                         ppsim_profile.doubtful(made["samples"], 0.1))
        for layer in made["document"]["layers"]:
            layer.pop("weight_doubt_s", None)
        made["document"]["layers"][0].update(weight_s=0.1, weight_doubt_s=0.8)
        write_model(made["model"], made["document"])
        shown = self.ppsim("plan", "--model", made["model"], "--ranks", "2", "--batch", "6", "--dtype", "fp32",
                           "--explain")
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertRegex(shown.stdout, r"Doubtful: .* 100 ms give or take 800 ms \(stored/0\)")

    def test_what_is_refused(self):
        chain, x = nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4)
        twice = nn.Sequential(nn.Linear(4, 4))
        twice.append(twice[0]) if hasattr(twice, "append") else twice.add_module("1", twice[0])
        self.refused("expected a torch.nn.Module", 3, x)
        self.refused("expected a tensor", chain, None)
        self.refused("no nn.Sequential", nn.Linear(4, 4), x)
        self.refused("no module nothing", chain, x, layers=["nothing"])
        self.refused("no module that matches", chain, x, layers="nothing")
        self.refused("'0.0' is a part of '0'", nn.Sequential(chain), x, layers=["0", "0.0"])
        self.refused("called 2 times", twice, x, layers=["0"])
        self.refused("sizes from 1", chain, x, sizes=(0,))
        self.refused("control character", chain, x, name="a\nb")
        self.refused("float16", nn.Sequential(nn.Linear(4, 4)).half(), x.half())
        self.refused("dimension 0", chain, torch.tensor(1.0))

    def test_the_command(self):
        with open(os.path.join(self.folder, "mine.py"), "w", encoding="utf-8") as file:
            file.write("from torch import nn\ndef build():\n"
                       "    return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4))\n")
        here = os.getcwd()
        os.chdir(self.folder)
        self.addCleanup(os.chdir, here)
        said = io.StringIO()
        base = ["--module", "mine:build", "--out", "y.db", "--seconds", "0.1", "--microbatch", "1,2"]
        with contextlib.redirect_stderr(said):
            self.assertEqual(ppsim_profile.main([*base, "--input-shape", "6", "--vocabulary", "9"]), 0)
            self.assertEqual(ppsim_profile.main(base), 2)
            self.assertEqual(ppsim_profile.main([*base, "--input-shape", "six"]), 2)
            self.assertEqual(ppsim_profile.main(["--module", "nowhere:build", "--out", "y.db"]), 2)
            for device in "cuda:99", "nonsense":
                self.assertEqual(ppsim_profile.main([*base, "--input-shape", "6", "--device", device]), 2)
        for part in ("session 1", "forward", "--input-shape", "list of numbers", "nowhere", "--device cuda:99",
                     "--device nonsense"):
            self.assertIn(part, said.getvalue())


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
