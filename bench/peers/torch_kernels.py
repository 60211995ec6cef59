"""torch_kernels.py - the single operations that kernels of malc are held against, in PyTorch on a GPU.

Products of matrices by cuBLAS at the shapes of the models that are measured, attention forward and backward by each of
PyTorch's own implementations, and a copy of memory. bf16, random numbers, medians of event times.

    python bench/peers/torch_kernels.py [--seconds 40] [--device cuda]

Prints one JSON object for each; the most useful first, as the time may end before the list.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# Rows, columns, inner: a product [rows, inner] x [columns, inner]. Those of gradients are told by their shape alone.
PRODUCTS = {
    "square 8192": (8192, 8192, 8192),
    "gpt2-small query, key, value": (65536, 2304, 768),
    "gpt2-small up": (65536, 3072, 768),
    "gpt2-small down": (65536, 768, 3072),
    "gpt2-small logits, a tenth": (6554, 50304, 768),
    "gpt2-small up, of weights": (3072, 768, 65536),
    "llama-1b query, key, value": (32768, 3072, 2048),
    "llama-1b gate and up": (32768, 16384, 2048),
    "llama-1b down": (32768, 2048, 8192),
    "llama-1b down, of weights": (2048, 8192, 32768),
}

# Batch, heads, key heads, time, width of a head.
ATTENTION = {"gpt2-small": (64, 12, 12, 1024, 64), "llama-1b": (16, 32, 8, 2048, 64), "heads of 128": (16, 16, 16, 2048, 128)}

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def seconds_of(work, device, repeats=12):
    """The median of single runs, after two that warm up."""
    for _ in range(2):
        work()
    samples = []
    for _ in range(repeats):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            samples.append(begin.elapsed_time(end) / 1e3)
        else:
            started = time.perf_counter()
            work()
            samples.append(time.perf_counter() - started)
    return statistics.median(samples)


def tell(kind, name, seconds, **rates):
    print(json.dumps({"kind": kind, "name": name, "seconds": seconds, **rates}), flush=True)


def measure_product(name, rows, columns, inner, device):
    left = torch.rand(rows, inner, device=device, dtype=torch.bfloat16) * 2 - 1
    right = torch.rand(columns, inner, device=device, dtype=torch.bfloat16) * 2 - 1
    seconds = seconds_of(lambda: left @ right.T, device)
    tell("product", name, seconds, operations=2 * rows * columns * inner)


def measure_attention(name, shape, backend, device):
    batch, heads, groups, length, width = shape
    query, key, value = (
        torch.randn(batch, count, length, width, device=device, dtype=torch.bfloat16, requires_grad=True)
        for count in (heads, groups, groups)
    )
    operations = 4 * batch * heads * width * (length * (length + 1) // 2)
    with sdpa_kernel(BACKENDS[backend]):
        def forward():
            return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=heads != groups)

        try:
            output = forward()
        except RuntimeError:
            return  # this implementation does not take the shape
        gradient = torch.randn_like(output)
        tell("attention", f"{name}, {backend}", seconds_of(forward, device), operations=operations)
        backward = seconds_of(lambda: torch.autograd.grad(output, (query, key, value), gradient, retain_graph=True), device)
        tell("attention", f"{name}, {backend}, backward", backward, operations=5 * operations // 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--divide", type=int, default=1, help="sizes are divided by it, to try the program")
    options = parser.parse_args()
    device, end = torch.device(options.device), time.perf_counter() + options.seconds
    torch.manual_seed(0)

    def smaller(sizes):
        return tuple(max(16, size // options.divide) if size > 128 else size for size in sizes)

    def copying():
        values = torch.rand(2**28 // options.divide, device=device)
        target = torch.empty_like(values)
        seconds = seconds_of(lambda: target.copy_(values), device)
        tell("copy", "a tensor", seconds, bytes=2 * values.nbytes)

    work = [copying]
    work += [lambda n=name, s=smaller(shape): measure_product(n, *s, device) for name, shape in PRODUCTS.items()]
    work += [
        lambda n=name, s=smaller(shape), b=backend: measure_attention(n, s, b, device)
        for name, shape in ATTENTION.items()
        for backend in BACKENDS
    ]
    for each in work:
        if time.perf_counter() > end:
            break
        each()
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
