"""torch_step.py - tokens per second of whole training steps in PyTorch, for the models that malc is measured with.

The same work as `malc bench step`: forward, backward, gradient clipping and AdamW on random tokens, at PyTorch's usual best:
fused AdamW, scaled_dot_product_attention, autocast for bf16 (with --dtype bf16-weights the weights and the moments are bf16
themselves), and torch.compile where asked. On a CPU, preload tcmalloc. On a GPU the fastest implementation of attention is found
first, and GPT-2's vocabulary has the rows that make it a multiple of 64, as its fast trainers do.

    python bench/peers/torch_step.py gpt2-small:4:64 tiny:32:256 --dtype bf16 --mode compile --threads 2
    python bench/peers/torch_step.py gpt2-small:64:1024 --dtype bf16 --mode compile --device cuda

Prints one JSON object a configuration. A configuration is MODEL:BATCH:TIME. With --turns it warms up, prints facts about itself
as JSON and `ready`, and then, for each line that it reads, runs one step and prints its seconds: for bench/peers/turns.ts, which
lets programs step by turns. For the line `profile` it prints, as JSON, the seconds and launches of each kernel of a step.
"""

import argparse
import json
import operator
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

MODELS = {
    "gpt2-small": dict(kind="gpt2", vocabulary=50257, positions=1024, width=768, layers=12, heads=12),
    "tiny": dict(kind="llama", vocabulary=4096, width=128, layers=4, heads=4, groups=4, hidden=512, tied=False),
    "lil-39m": dict(kind="llama", vocabulary=8192, width=512, layers=12, heads=16, groups=8, hidden=1408, tied=True),
    "llama-1b": dict(kind="llama", vocabulary=128256, width=2048, layers=16, heads=32, groups=8, hidden=8192, tied=True),
}


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-5)


def rotate(x, cosine, sine):
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class LlamaBlock(nn.Module):
    def __init__(self, width, heads, groups, hidden):
        super().__init__()
        self.heads, self.groups, self.each = heads, groups, width // heads
        self.attention_norm, self.feed_forward_norm = RMSNorm(width), RMSNorm(width)
        self.query_key_value = nn.Linear(width, (heads + 2 * groups) * self.each, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x, cosine, sine):
        batch, time, width = x.shape
        joined = self.query_key_value(self.attention_norm(x)).view(batch, time, -1, self.each).transpose(1, 2)
        query, key, value = joined.split((self.heads, self.groups, self.groups), dim=1)
        cosine, sine = cosine.to(query.dtype), sine.to(query.dtype)
        attended = F.scaled_dot_product_attention(
            rotate(query, cosine, sine), rotate(key, cosine, sine), value, is_causal=True,
            enable_gqa=self.heads != self.groups,
        )
        x = x + self.output(attended.transpose(1, 2).reshape(batch, time, width))
        gate, up = self.gate_up(self.feed_forward_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self, vocabulary, width, layers, heads, groups, hidden, tied):
        super().__init__()
        self.each = width // heads
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(LlamaBlock(width, heads, groups, hidden) for _ in range(layers))
        self.norm = RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens, labels):
        position = torch.arange(tokens.shape[1], device=tokens.device)
        rate = 10000.0 ** (-torch.arange(0, self.each, 2, device=tokens.device) / self.each)
        angle = torch.outer(position, rate).repeat(1, 2)
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, angle.cos(), angle.sin())
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), labels.flatten())


class GPT2Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, time, width = x.shape
        joined = self.query_key_value(self.attention_norm(x)).view(batch, time, 3, self.heads, -1)
        query, key, value = (joined[:, :, n].transpose(1, 2) for n in range(3))
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(F.gelu(self.up(self.feed_forward_norm(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, vocabulary, positions, width, layers, heads):
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(GPT2Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens, labels):
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), labels.flatten())


def build(name, device):
    shape = dict(MODELS[name])
    if device.type == "cuda":
        shape["vocabulary"] = -(-shape["vocabulary"] // 64) * 64
    model = {"gpt2": GPT2, "llama": Llama}[shape.pop("kind")](**shape)
    for module in model.modules():  # PyTorch's own start saturates a tied head, and denormal numbers are slow
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
    return model


def choose_attention(name, batch, time_steps):
    """Leaves only the fastest implementation of attention switched on, forward and backward, for the model's own shape."""
    shape, switches = MODELS[name], torch.backends.cuda
    enable = {
        "flash": switches.enable_flash_sdp, "cudnn": switches.enable_cudnn_sdp, "efficient": switches.enable_mem_efficient_sdp,
    }
    heads, groups = shape["heads"], shape.get("groups", shape["heads"])
    query, key, value = (
        torch.randn(
            batch, time_steps, count, shape["width"] // heads, device="cuda", dtype=torch.bfloat16, requires_grad=True,
        ).transpose(1, 2)
        for count in (heads, groups, groups)
    )
    seconds = {}
    switches.enable_math_sdp(False)
    for chosen in enable:
        for each, switch in enable.items():
            switch(each == chosen)
        try:
            for repeat in range(6):
                if repeat == 2:
                    torch.cuda.synchronize()
                    begin = time.perf_counter()
                output = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=heads != groups)
                torch.autograd.grad(output, (query, key, value), output)
            torch.cuda.synchronize()
            seconds[chosen] = time.perf_counter() - begin
        except RuntimeError:  # this implementation does not take the shape
            pass
    fastest = min(seconds, key=seconds.get, default=None)
    for each, switch in enable.items():
        switch(fastest in (each, None))
    switches.enable_math_sdp(fastest is None)
    return fastest


def measure(name, batch, time_steps, options):
    torch.manual_seed(0)
    device = torch.device(options.device)
    attention = choose_attention(name, batch, time_steps) if device.type == "cuda" else None
    model = build(name, device).to(device)
    if options.dtype == "bf16-weights":
        model.to(torch.bfloat16)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    loss_of = torch.compile(model, dynamic=False) if options.mode == "compile" else model
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.randint(0, MODELS[name]["vocabulary"], (batch, time_steps + 1), device=device)
    inputs, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step():
        with torch.autocast(device.type, torch.bfloat16, enabled=options.dtype == "bf16"):
            loss = loss_of(inputs, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def timed():
        begin = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    def profiled(steps=3):
        on_device = device.type == "cuda"
        activity = torch.profiler.ProfilerActivity.CUDA if on_device else torch.profiler.ProfilerActivity.CPU
        with torch.profiler.profile(activities=[activity]) as profile:
            for _ in range(steps):
                timed()
        seconds_of = operator.attrgetter("self_device_time_total" if on_device else "self_cpu_time_total")
        kind = torch.autograd.DeviceType.CUDA if on_device else torch.autograd.DeviceType.CPU
        return [
            {"name": event.key, "calls": event.count / steps, "seconds": seconds_of(event) / 1e6 / steps}
            for event in profile.key_averages()
            if event.device_type == kind and seconds_of(event) > 0
        ]

    first = timed()
    for _ in range(2):
        timed()
    memory = (
        torch.cuda.max_memory_allocated() if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    facts = {
        "model": name, "batch": batch, "time": time_steps, "dtype": options.dtype, "mode": options.mode,
        "torch": torch.__version__, "device": device.type, "attention": attention, "parameters": parameters,
        "first_step_seconds": round(first, 2), "memory_bytes": memory,
    }
    if options.turns:
        print(json.dumps(facts), "ready", sep="\n", flush=True)
        for line in sys.stdin:
            print(json.dumps(profiled()) if line.strip() == "profile" else timed(), flush=True)
        return
    seconds = [timed() for _ in range(options.repeats)]
    speeds = [batch * time_steps / second for second in seconds]
    print(json.dumps({
        **facts, "tokens_per_second": round(statistics.median(speeds), 1), "least": round(min(speeds), 1),
        "most": round(max(speeds), 1),
    }), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configurations", nargs="+", metavar="MODEL:BATCH:TIME")
    parser.add_argument("--dtype", choices=["f32", "bf16", "bf16-weights"], default="f32")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--turns", action="store_true", help="one configuration; a step for each line of the standard input")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for configuration in options.configurations:
        name, batch, time_steps = configuration.split(":")
        measure(name, int(batch), int(time_steps), options)


if __name__ == "__main__":
    main()
