"""GPT-2 trained by PyTorch on this machine's GPU, as a reference for `ppsim run` of one rank.

usage: torch_gpt2.py LAYERS HEADS DIM MICROBATCH MICROBATCHES [STEPS] [--eager] [--wait FILE]

The same model (T = 1024, 50257 tokens, tied head), batch and arithmetic: bf16 products under
autocast with fp32 parameters, fused attention, fused AdamW, gradients accumulated over the
microbatches; compiled unless --eager. Prints the median step and the tokens per second. With --wait it
prints `warm` after the steps that compile, and goes on once FILE is there: so that compiling does
not disturb what else is measured."""
import os
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

SEQUENCE, VOCABULARY = 1024, 50257
WARM_STEPS = 3


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        batch, length, dim = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(dim, 2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, length, dim))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, layers, heads, dim):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, dim), nn.Embedding(SEQUENCE, dim)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens, targets):
        x = self.tokens(tokens) + self.positions(torch.arange(SEQUENCE, device=tokens.device))
        logits = F.linear(self.norm(self.blocks(x)), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, VOCABULARY), targets.view(-1))


def main():
    arguments = [a for a in sys.argv[1:] if a != "--eager"]
    wait = None
    if "--wait" in arguments:
        at = arguments.index("--wait")
        wait = arguments[at + 1]
        del arguments[at : at + 2]
    layers, heads, dim, microbatch, microbatches = map(int, arguments[:5])
    steps = int(arguments[5]) if len(arguments) > 5 else 12
    model = GPT2(layers, heads, dim).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    loss_of = model if "--eager" in sys.argv else torch.compile(model)
    shape = microbatches, microbatch, SEQUENCE
    tokens = torch.randint(VOCABULARY, shape, device="cuda")
    targets = torch.randint(VOCABULARY, shape, device="cuda")
    times = []
    for number in range(steps):
        torch.cuda.synchronize()
        if wait and number == WARM_STEPS:
            print("warm", flush=True)
            while not os.path.exists(wait):
                time.sleep(0.1)
        begun = time.perf_counter()
        for m in range(microbatches):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = loss_of(tokens[m], targets[m]) / microbatches
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    step = statistics.median(times[WARM_STEPS:])
    count = microbatch * microbatches * SEQUENCE
    print(
        f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}: "
        f"{1e3 * step:.2f} ms a step, {count / step:.0f} tokens/s, "
        f"peak {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB"
    )


main()
