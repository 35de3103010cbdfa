"""Times the layers of anybody's PyTorch model for ppsim: PyTorch is yours, all else is the standard
library's.

    import ppsim_profile
    ppsim_profile.profile(model, example, out="mine.db", name="mine")

    python3 ppsim_profile.py --module mymodel:build --input-shape 3,224,224 --out mine.db

It writes the samples into a profile store and a model document beside it (mine.json). Then
`ppsim plan --model mine.json --db mine.db …` plans with them.

What is a layer: each child of an nn.Sequential, or the modules that `layers` names (dotted names, or
a regular expression that matches them whole), in the order in which a forward pass of the whole model
calls them. Inputs are captured there, at every microbatch size: `example` is one batch, whose rows
(dimension 0) are repeated or left out to make the others.

How forward, input gradient and weight gradient are told apart and timed: ppsim_bench.py.

Bytes: of parameters; of the outputs; and of activations, which is what autograd keeps for the backward
pass (saved-tensor hooks), every storage once and parameters and buffers not, the layer's input
included where it is kept. A tensor that two layers keep counts in both. Parameters that layers share
become a tie. The loss is part of the profile only where the model computes it in one of the layers.
"""
import argparse
import collections
import contextlib
import importlib
import math
import os
import platform
import random
import re
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ppsim_store import Refused, add_session, check_store, opaque_signature, write_model  # noqa: E402

from ppsim_bench import (Bench, Clock, canary, doubt_of, mapped, median_of, optimizer_times,  # noqa: E402
                         size_bytes, split_both, storage_of, tensors_in, torch, with_wanted, writes_inputs)

PASSES = 3  # over all layers
DRIFT = 0.05
WIDE = 0.1  # half of W's interval, of W: beyond, what is planned with is noise …
MATTERS = 0.01  # … unless it is this small a part of the layer's time
TORCH_DTYPES = {"float32": "fp32", "float64": "fp64", "bfloat16": "bf16"}


# ---- which modules ----

def chosen_layers(model, layers):
    """[(dotted name, module)] in the model's own order."""
    named = {name: module for name, module in model.named_modules() if name}
    if layers is None:
        if not isinstance(model, torch.nn.Sequential):
            raise Refused("layers: the model is no nn.Sequential; name its layers, as dotted names or "
                          "as a regular expression such as 'model\\.layers\\.\\d+'")
        return list(model.named_children())
    if isinstance(layers, str):
        layers = [name for name in named if re.fullmatch(layers, name)]
    missing = [name for name in layers if name not in named]
    if missing or not layers:
        some = ", ".join(list(named)[:8])
        raise Refused(f"layers: the model has no module {missing[0] if missing else 'that matches'}; it "
                      f"has {some}, …")
    for outer in layers:
        inside = [name for name in layers if name.startswith(outer + ".")]
        if inside:
            raise Refused(f"layers: '{inside[0]}' is a part of '{outer}'; choose one of them")
    return [(name, named[name]) for name in layers]


# ---- one forward pass of the whole model ----

class Call:
    """What one layer was called with. args, kwargs: copies; wanted: which of their tensors need a
    gradient."""

    def __init__(self, args, kwargs):
        given = tensors_in((args, kwargs))
        for item in (*args, *kwargs.values()):
            if type(item).__name__.endswith("Cache"):
                raise Refused("a layer is given a cache of keys and values; switch that off for training "
                              "(use_cache=False)")
        copy = lambda t: t.detach().clone()
        self.args, self.kwargs = mapped(tuple(args), copy), mapped(dict(kwargs), copy)
        self.wanted = [t.requires_grad and t.is_floating_point() for t in given]
        self.inputs = [id(t) for t in given]
        self.outputs = []


@contextlib.contextmanager
def listening(layers, calls, alive):
    """Inside, every call of a layer is noted in calls[name]; alive keeps tensors, so that no address
    is used twice."""
    def wrap(name, module):
        forward = module.forward

        def listen(*args, **kwargs):
            call = Call(args, kwargs)
            output = forward(*args, **kwargs)
            call.outputs = [id(t) for t in tensors_in(output)]
            alive.append((args, kwargs, output))
            calls.setdefault(name, []).append(call)
            return output
        module.forward = listen

    try:
        for name, module in layers:
            wrap(name, module)
        yield
    finally:
        for _, module in layers:
            module.__dict__.pop("forward", None)


def resized(example, samples):
    """The example with `samples` rows: repeated, or cut off."""
    rows = next((len(t) for t in tensors_in(example) if t.dim() > 0), 0)
    if rows == 0:
        raise Refused("example: expected tensors whose dimension 0 is the batch")

    def change(tensor):
        if tensor.dim() == 0 or len(tensor) != rows:
            return tensor
        index = torch.arange(samples, device=tensor.device) % rows
        return tensor.index_select(0, index)
    return mapped(example, change)


def run_model(model, example):
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, (tuple, list)) else model(example)


def capture(model, layers, example, samples):
    """{name: Call} at this microbatch size, in the order of the calls."""
    calls, alive = {}, []
    with torch.enable_grad(), listening(layers, calls, alive):
        run_model(model, resized(example, samples))
    for name, _ in layers:
        count = len(calls.get(name, []))
        if count != 1:
            raise Refused(f"layer '{name}' is called {count} times in a forward pass; a layer of a pipeline is "
                          "called once" + ("" if count else ": leave it out"))
    return {name: made[0] for name, made in calls.items()}


def edges_of(calls):
    """[from, to] by position: whose outputs a layer is given, else the layer before."""
    made_by, edges = {}, []
    for at, call in enumerate(calls.values()):
        sources = {made_by[number] for number in call.inputs if number in made_by}
        if not sources and at > 0:
            sources = {at - 1}
        edges += [[source, at] for source in sorted(sources)]
        made_by.update((number, at) for number in call.outputs)
    return edges


# ---- bytes ----

def kept_bytes(module, call, fixed):
    """What autograd keeps of one forward, by storage, `fixed` ones (parameters, buffers) left out; and
    the bytes of the outputs."""
    kept, alive = {}, []

    def pack(tensor):
        alive.append(tensor)
        address, size = storage_of(tensor)
        if address not in fixed:
            kept[address] = size
        return tensor

    args, kwargs, _ = with_wanted(call)
    if writes_inputs(module, call):
        args, kwargs = mapped((args, kwargs), lambda t: t.clone())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(*args, **kwargs)
    return sum(kept.values()), sum(map(size_bytes, tensors_in(output)))


def ties_of(layers):
    """{layer name: (tie, bytes)} of parameters that several layers hold, and warnings. A layer can be in
    one tie, and all its members share the same tensors."""
    holders = {}
    for name, module in layers:
        for parameter in module.parameters():
            holders.setdefault(id(parameter), (parameter, []))[1].append(name)
    groups = {}
    for parameter, names in holders.values():
        if len(names) > 1:
            groups[tuple(names)] = groups.get(tuple(names), 0) + size_bytes(parameter)
    ties, warnings = {}, []
    for names, shared in groups.items():
        if any(set(names) & set(other) for other in groups if other != names):
            warnings.append(f"layers {', '.join(names)} share parameters in a way that a tie cannot say: they "
                            "count in each")
            continue
        for name in names:
            ties[name] = (f"shared by {names[0]} and {len(names) - 1} more"[:100], shared)
    return ties, warnings


# ---- all of it ----

def describe(device, before, after):
    """What all samples have in common."""
    if device.type == "cuda":
        name, driver = torch.cuda.get_device_name(device), f"CUDA {torch.version.cuda}"
    else:
        name, driver = _cpu_name(), f"{platform.system()} {platform.release()}"
    libraries = f"torch {torch.__version__}, {torch.get_num_threads()} threads, Python {platform.python_version()}"
    return {"device": name, "backend": device.type, "driver": driver, "libraries": libraries,
            "clocks": f"canary {before * 1e3:.4g} ms before, {after * 1e3:.4g} ms after",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def _cpu_name():
    with contextlib.suppress(OSError):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return f"{platform.machine()} processor"


def dtype_of(model, example):
    for tensor in [*model.parameters(), *tensors_in(example)]:
        if tensor.is_floating_point():
            known = TORCH_DTYPES.get(str(tensor.dtype).split(".")[-1])
            if known is None:
                raise Refused(f"the model computes in {tensor.dtype}; ppsim knows fp32, fp64 and bf16")
            return known
    return "fp32"


@contextlib.contextmanager
def left_as_it_was(model):
    """Gradients, buffers (running averages) and the random state of the model's owner."""
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    gradients = [(p, p.grad) for p in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(enabled=True):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient


class Progress:
    """A line that is written over, on a terminal."""

    def __init__(self, on):
        self.on = on

    def __call__(self, text=""):
        if self.on:
            print("\r" + text[:78].ljust(78) + "\r", end="", file=sys.stderr, flush=True)


def measure(model, layers, example, sizes, seconds, chance, clock, show):
    """{(name, phase, size): [seconds]}; phase "both" is I and W together."""
    took, done = collections.defaultdict(list), 0
    total = PASSES * len(sizes) * len(layers)
    for _ in range(PASSES):
        for size in chance.sample(sizes, len(sizes)):
            calls = capture(model, layers, example, size)
            for name, module in chance.sample(layers, len(layers)):
                bench = Bench(module, calls[name], clock)
                for phase, values in bench.rounds(seconds / total, chance).items():
                    took[name, phase, size] += values
                bench.close()
                del bench
                done += 1
                show(f"{done} of {total}: {name}, microbatch {size}")
    show()
    for name, module in layers:
        took[name, "optimizer", min(sizes)] = optimizer_times(module, clock)
    return split_both(took)


def model_document(name, layers, calls, took, model):
    """The ppsim-model: opaque layers, seconds per sample at the largest size, bytes of the worst."""
    fixed = {storage_of(t)[0] for t in [*model.parameters(), *model.buffers()]}
    modules, largest = dict(layers), max(calls)
    ties, warnings = ties_of(layers)
    written = []
    for layer in calls[largest]:
        module, bytes_of = modules[layer], []
        for size, made in calls.items():
            bytes_of.append([math.ceil(b / size) for b in kept_bytes(module, made[layer], fixed)])
        median = lambda phase: statistics.median(took.get((layer, phase, largest), [0.0])) / largest
        row = {"name": f"{name}/{layer}", "op": "opaque", "forward_s": median("forward"),
               "input_s": median("input"), "weight_s": median("weight"),
               "parameter_bytes": sum(map(size_bytes, module.parameters())),
               "output_bytes": max(b[1] for b in bytes_of),
               "activation_bytes": max(b[0] for b in bytes_of)}
        doubt = doubt_of(took.get((layer, "weight", largest), [])) / largest
        if 0 < doubt < math.inf:
            row["weight_doubt_s"] = doubt
        if layer in ties:
            row["tie"], row["tied_bytes"] = ties[layer]
        written.append(row)
    document = {"format": "ppsim-model", "version": 1, "name": name, "layers": written}
    edges = edges_of(calls[largest])
    if edges != [[i, i + 1] for i in range(len(written) - 1)]:
        document["edges"] = edges
    return document, warnings


def doubtful(took, seconds):
    """Warnings of layers whose W, a difference of two measurements, is lost in their noise: one for each
    layer, at its worst microbatch size."""
    worst = {}
    for (layer, phase, size), values in took.items():
        if phase != "weight":
            continue
        weight, doubt = statistics.median(values), doubt_of(values)
        whole = weight + sum(statistics.median(took.get((layer, other, size)) or [0.0])
                             for other in ("forward", "input"))
        if doubt > WIDE * weight and doubt > MATTERS * whole:
            found = (doubt / weight if weight > 0 else math.inf, layer, size, weight, doubt)
            worst[layer] = max(worst.get(layer, found), found)
    return [_doubt_text(*found, seconds) for found in sorted(worst.values(), reverse=True)]


def _doubt_text(share, layer, size, weight, doubt, seconds):
    known = f"to ±{100 * share:.0f} % only" if share < math.inf else "not even to be above 0"
    more, enough = "more time (--seconds)", seconds * (share / WIDE) ** 2  # it narrows with the root
    if enough < 3600:
        more = f"more time (--seconds {math.ceil(enough / 10) * 10} for ±{100 * WIDE:.0f} %)"
    return (f"layer '{layer}': W at microbatch {size} is known {known}, {weight * 1e3:.3g} ms ± {doubt * 1e3:.2g} ms, "
            f"since it is what the backward pass takes longer than I; give it {more}, larger microbatches or a "
            "quieter machine")


def table_of(took):
    lines = [f"{'layer':24} {'phase':10} {'size':>5} {'samples':>8} {'median':>11} {'95 %':>8} {'MAD':>11}"]
    for (name, phase, size), values in sorted(took.items(), key=lambda item: (item[0][0], item[0][2])):
        middle, low, high, mad = median_of(values)
        doubt = f"±{50 * (high - low) / middle:.1f} %" if middle > 0 else ""
        lines.append(f"{name[-24:]:24} {phase:10} {size:5} {len(values):8} {middle * 1e3:8.4f} ms "
                     f"{doubt:>8} {mad * 1e3:8.4f} ms")
    return "\n".join(lines)


def _checked(model, example, out, name, sizes):
    if not isinstance(model, torch.nn.Module):
        raise Refused(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if not tensors_in(example):
        raise Refused("example: expected a tensor, or a tuple or dict with tensors, of one batch")
    if not re.fullmatch(r"[^\x00-\x1f\x7f]{1,60}", name or ""):
        raise Refused("name: expected 1 to 60 characters, none of them a control character")
    if not sizes or any(type(size) is not int or not 1 <= size <= 1 << 20 for size in sizes):
        raise Refused("microbatches: expected sizes from 1 to 1048576, as in 1,2,4,8")
    check_store(out)


def profile(model, example, out, name=None, layers=None, microbatches=(1, 2, 4, 8), seconds=60.0, seed=0,
            model_out=None, quiet=False):
    """Times the layers; appends a session to the store `out` and writes the model document (model_out,
    or `out` with the ending .json). Returns {"session", "model", "samples", "document", "warnings"};
    samples is {(layer, phase, microbatch): [seconds]}. seconds: about what timing may take; more where that is not
    enough for a few rounds of each layer. The model is left as it was; its training mode counts."""
    name = name or type(model).__name__
    model_out = model_out or os.path.splitext(os.fspath(out))[0] + ".json"
    sizes, chance = sorted(set(microbatches)), random.Random(seed)
    _checked(model, example, out, name, sizes)
    say = (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    show = Progress(not quiet and sys.stderr.isatty())
    layers, dtype = chosen_layers(model, layers), dtype_of(model, example)
    device = next((t.device for t in [*model.parameters(), *tensors_in(example)]), torch.device("cpu"))
    clock = Clock(device)
    with left_as_it_was(model):
        torch.manual_seed(seed)
        calls = {size: capture(model, layers, example, size) for size in sizes}
        before, steady = canary(clock, device, min(5.0, seconds / 4))
        took = measure(model, layers, example, sizes, seconds, chance, clock, show)
        after, _ = canary(clock, device, 0)
        document, warnings = model_document(name, layers, calls, took, model)
    if not steady or abs(after / before - 1) > DRIFT:
        warnings.append(f"the machine is not quiet: the same matrix product took {before * 1e3:.3g} ms before and "
                        f"{after * 1e3:.3g} ms after")
    warnings += left_out(model, layers) + doubtful(took, seconds)
    session = dict(describe(device, before, after), dtype=dtype, model=name)
    samples = [(opaque_signature(f"{name}/{layer}"), phase, size, 0, value)
               for (layer, phase, size), values in sorted(took.items()) for value in values]
    number = add_session(out, session, samples)
    write_model(model_out, document)
    for warning in warnings:
        say(f"ppsim_profile: warning: {warning}")
    say(table_of(took) + f"\n{out}: session {number}, {len(samples)} samples; {model_out}")
    return {"session": number, "model": model_out, "samples": took, "document": document,
            "warnings": warnings}


def left_out(model, layers):
    inside = {id(p) for _, module in layers for p in module.parameters()}
    outside = [n for n, p in model.named_parameters() if id(p) not in inside]
    if not outside:
        return []
    return [f"{len(outside)} parameters are in no layer and missing from the plan, {outside[0]} first"]


# ---- the command line ----

def _numbers(text):
    try:
        return [int(item) for item in text.split(",")]
    except ValueError:
        raise Refused(f"'{text}' is not a list of numbers, as in 1,2,4") from None


def _build(place):
    """module:function, called without arguments: the model, or (model, example)."""
    module_name, _, function = place.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module_name), function or "build")()
    except (ImportError, AttributeError) as error:
        raise Refused(f"--module {place}: {error}; expected module:function") from error
    return made if isinstance(made, tuple) else (made, None)


def _example(options, dtype):
    shape = (max(options.microbatch), *_numbers(options.input_shape))
    if options.vocabulary:
        return torch.randint(options.vocabulary, shape)
    return torch.randn(shape).to(dtype)


def _run(options):
    if torch is None:
        raise Refused("PyTorch is not installed for this Python; install it, or take the Python that has it")
    options.microbatch = _numbers(options.microbatch)
    if min(options.microbatch) < 1:
        raise Refused("--microbatch: expected sizes from 1, as in 1,2,4,8")
    model, example = _build(options.module)
    if not isinstance(model, torch.nn.Module):
        raise Refused(f"--module {options.module}: made a {type(model).__name__}, no torch.nn.Module")
    if options.device:
        try:
            model = model.to(options.device)
        except (RuntimeError, AssertionError) as error:  # so does PyTorch refuse a device
            raise Refused(f"--device {options.device}: {str(error).splitlines()[0]}") from error
    first = next(iter(model.parameters()), torch.zeros(1))
    if options.input_shape:
        example = _example(options, first.dtype)
    if example is None:
        raise Refused("--input-shape: what one sample looks like is not known; give its shape, as in 3,224,224, "
                      "or let the function return (model, example)")
    profile(model, mapped(example, lambda t: t.to(first.device)), options.out, options.name,
            layers=options.layers, microbatches=options.microbatch, seconds=options.seconds,
            seed=options.seed, model_out=options.model_out)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="ppsim_profile.py", description="Times the layers of a PyTorch model "
                                     "for ppsim plan.")
    add = parser.add_argument
    add("--module", required=True, metavar="MODULE:FUNCTION", help="makes the model, or (model, example)")
    add("--out", required=True, metavar="FILE", help="the profile store; made if it is not there")
    add("--name", help="of the model (default: that of its class)")
    add("--input-shape", metavar="N,…", help="of one sample, for random inputs")
    add("--vocabulary", type=int, metavar="N", help="inputs are token ids below N")
    add("--layers", metavar="REGEX", help="dotted names of the layers (default: children of nn.Sequential)")
    add("--microbatch", default="1,2,4,8", metavar="LIST", help="sizes to time (default 1,2,4,8)")
    add("--device", help="as PyTorch names it, cuda:0 (default: where the model is)")
    add("--seconds", type=float, default=60.0, help="of timing, about (default 60)")
    add("--seed", type=int, default=0)
    add("--model-out", metavar="FILE", help="the model document (default: --out with .json)")
    try:
        _run(parser.parse_args(arguments))
    except Refused as refusal:
        print(f"ppsim_profile: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ppsim_profile: interrupted; nothing was stored", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
