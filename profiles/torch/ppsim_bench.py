"""A layer of a PyTorch model on the bench: forward, input gradient, weight gradient and optimizer step,
each timed for itself.

How the phases are told apart. ppsim's backward pass has two parts: I makes the gradient of a layer's
inputs, W those of its parameters from what I left. Over a kept graph

    forward  module(*inputs), with all that autograd keeps
    input    torch.autograd.grad(outputs, inputs): the engine runs what lies between the two, and an
             operator computes only the gradients that are asked for
    weight   torch.autograd.backward(outputs, inputs=inputs and parameters) takes I + W, gradients
             added up in .grad as in training; W is what it takes longer than `input` of the same round

    W is not torch.autograd.grad(outputs, parameters): inside a block that has to go back through all
    later operators too, which is I again. A layer whose inputs need no gradient has W alone, a layer
    without parameters I alone. `optimizer` is one step of AdamW over copies of the parameters (of bf16
    ones: over fp32 copies, written back).

Protocol, as that of `ppsim profile`: a matrix product is repeated until it is steady (the canary, again
at the end: its drift is stored and warned about); each layer is warmed up; a sample is the mean of so
many calls that it lasts 2 ms; inputs and graphs rotate, so that a call does not find its data in the
cache; phases are timed in rounds in random order, layers in random order, in several passes over all of
them, by a seeded generator; every sample is kept, and the median, its 95 % interval and the median
absolute deviation are printed. On CUDA events on the stream are read, the calls are issued as eager
PyTorch issues them.
"""
import collections
import math
import statistics
import time

try:
    import torch
except ImportError:  # told by who needs it
    torch = None

SAMPLE_S = 2e-3  # least duration of a sample
SETS_MAX, SETS_BYTES = 4, 64 << 20  # inputs that take turns; more than fill this tell nothing new
LEAST_ROUNDS = 3  # of a layer in a pass
INTERVAL = 0.01  # a pass ends early when medians are known this well
CANARY_STEADY = 0.02


# ---- nested values: what modules take and give ----

def tensors_in(value):
    """The tensors in nested tuples, lists and dicts, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [t for item in value for t in tensors_in(item)]
    return []


def mapped(value, change):
    """The same nesting with every tensor replaced."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if type(value) is dict:
        return {key: mapped(item, change) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(mapped(item, change) for item in value)
    return value


def size_bytes(tensor):
    return tensor.numel() * tensor.element_size()


def storage_of(tensor):
    """(address, bytes) of the memory behind a tensor."""
    storage = tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()
    return storage.data_ptr(), storage.nbytes()


# ---- time ----

class Clock:
    """Seconds that some work takes on the device."""

    def __init__(self, device):
        self.cuda = device.type == "cuda"

    def time(self, work):
        if not self.cuda:
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def canary(clock, device, most_s):
    """Seconds of a matrix product, repeated until five in a row agree or the time is up; and whether
    they did."""
    size = 4096 if device.type == "cuda" else 512
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seen, begin = collections.deque(maxlen=5), time.perf_counter()
    while True:
        seen.append(clock.time(lambda: [a @ b for _ in range(4)]) / 4)
        known = len(seen) == seen.maxlen
        near = known and max(seen) - min(seen) <= CANARY_STEADY * min(seen)
        if near or (known and time.perf_counter() - begin > most_s):
            return statistics.median(seen), near


# ---- statistics, as core/statistics.c has them ----

def interval_rank(count):
    """The largest k, at least 1, with P(Binomial(count, 1/2) < k) <= 2.5 %. Terms are relative to the
    middle one: 2^-count itself is no number beyond 1074."""
    half = count // 2
    terms = [1.0]  # of half, half - 1 … 0
    for j in range(half, 0, -1):
        terms.append(terms[-1] * j / (count - j + 1))
    below, k = math.fsum(terms[1:]), half
    limit = 0.025 * (2 * (below + 1) if count % 2 else 2 * below + 1)
    while k > 1 and below > limit:
        below -= terms[half - k + 1]
        k -= 1
    return max(k, 1)


def median_of(values):
    """(median, low, high, mad): the 95 % interval from order statistics, exact binomial ranks."""
    ordered, rank = sorted(values), interval_rank(len(values))
    middle = statistics.median(ordered)
    mad = statistics.median(abs(v - middle) for v in ordered)
    return middle, ordered[rank - 1], ordered[len(ordered) - rank], mad


def doubt_of(values):
    """Half of the median's 95 % interval; infinite below six values, which have none."""
    if len(values) < 6:
        return math.inf
    _, low, high, _ = median_of(values)
    return (high - low) / 2


def known_well(values):
    if len(values) < 9:
        return False
    middle = statistics.median(values)
    return middle <= 0 or doubt_of(values) <= INTERVAL * middle


# ---- a layer on the bench ----

def with_wanted(call):
    """Copies of what a layer is called with, and those that need a gradient, as leaves."""
    args, kwargs = mapped((call.args, call.kwargs), lambda t: t.clone())
    leaves = [t for t, wanted in zip(tensors_in((args, kwargs)), call.wanted) if wanted]
    for leaf in leaves:
        leaf.requires_grad_()
    return args, kwargs, leaves


def writes_inputs(module, call):
    """Does the layer work in place on what it is given?"""
    args, kwargs = mapped((call.args, call.kwargs), lambda t: t.clone())
    before = [t._version for t in tensors_in((args, kwargs))]
    with torch.no_grad():
        module(*args, **kwargs)
    return before != [t._version for t in tensors_in((args, kwargs))]


class Bench:
    """One layer at one microbatch size, with inputs and graphs that take turns."""

    def __init__(self, module, call, clock):
        self.module, self.clock = module, clock
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.wants_input = any(call.wanted)
        self.turn = 0
        self.writes_inputs = writes_inputs(module, call)
        given = sum(size_bytes(t) for t in tensors_in((call.args, call.kwargs)))
        count = max(1, min(SETS_MAX, SETS_BYTES // max(given, 1)))
        self.sets = [dict(zip(("args", "kwargs", "leaves"), with_wanted(call))) for _ in range(count)]
        outputs = self.forward(self.sets[0])
        self.differentiable = bool(outputs) and (self.wants_input or bool(self.parameters))
        if self.differentiable:
            for each in self.sets:
                each["outputs"] = self.forward(each)
                each["gradients"] = [torch.randn_like(t) for t in each["outputs"]]

    def call(self, each):
        """A leaf must not be written to: then a copy of it is."""
        args, kwargs = each["args"], each["kwargs"]
        if self.writes_inputs:
            args, kwargs = mapped((args, kwargs), lambda t: t.clone())
        return self.module(*args, **kwargs)

    def forward(self, each):
        """The outputs that a gradient can come back to."""
        return [t for t in tensors_in(self.call(each)) if t.requires_grad]

    def next(self):
        self.turn += 1
        return self.sets[self.turn % len(self.sets)]

    # the phases, one call each

    def run_forward(self):
        self.call(self.next())

    def run_input(self):
        each = self.next()
        torch.autograd.grad(each["outputs"], each["leaves"], each["gradients"], retain_graph=True,
                            allow_unused=True)

    def run_both(self):
        each = self.next()
        for leaf in each["leaves"]:
            leaf.grad = None  # given on, never added up
        torch.autograd.backward(each["outputs"], each["gradients"], retain_graph=True,
                                inputs=each["leaves"] + self.parameters)

    def phases(self):
        work = {"forward": self.run_forward}
        if self.differentiable and self.wants_input:
            work["input"] = self.run_input
        if self.differentiable and self.parameters:
            work["both"] = self.run_both
        return work

    def rounds(self, share_s, chance):
        """Seconds per call, {phase: [one for each round]}, until they are known well or the share of
        the time is spent."""
        work, end = self.phases(), time.perf_counter() + share_s
        repeat = {phase: self.repeat_of(run) for phase, run in work.items()}
        took = {phase: [] for phase in work}
        while len(took["forward"]) < LEAST_ROUNDS or (
                time.perf_counter() < end and not all(map(known_well, took.values()))):
            for phase in chance.sample(sorted(work), len(work)):
                elapsed = self.clock.time(lambda: [work[phase]() for _ in range(repeat[phase])][:0])
                took[phase].append(elapsed / repeat[phase])
        return took

    def repeat_of(self, run):
        self.clock.time(run)  # the first call allocates
        call_s = min(self.clock.time(run) for _ in range(2))
        return max(1, min(10000, math.ceil(SAMPLE_S / max(call_s, 1e-7))))

    def close(self):
        for parameter in self.parameters:
            parameter.grad = None


def optimizer_times(module, clock, rounds=9):
    """Seconds of a step of AdamW over copies of the parameters."""
    own = [p.detach().clone() for p in module.parameters() if p.requires_grad]
    if not own:
        return []
    masters = [p.float().clone() if p.dtype in (torch.bfloat16, torch.float16) else p for p in own]
    for master in masters:
        master.grad = torch.randn_like(master)
    stepper = torch.optim.AdamW(masters, lr=1e-6)

    def step():
        stepper.step()
        for parameter, master in zip(own, masters):
            if parameter is not master:
                parameter.copy_(master)
    step()
    repeat = max(1, min(1000, math.ceil(SAMPLE_S / max(clock.time(step), 1e-7))))
    return [clock.time(lambda: [step() for _ in range(repeat)]) / repeat for _ in range(rounds)]


def split_both(took):
    """W = both - input, round by round; never below 0."""
    made = {}
    for (name, phase, size), values in took.items():
        if phase != "both":
            made[name, phase, size] = values
            continue
        inputs = took.get((name, "input", size)) or [0.0] * len(values)
        made[name, "weight", size] = [max(b - i, 0.0) for b, i in zip(values, inputs)]
    return {key: values for key, values in made.items() if values}
