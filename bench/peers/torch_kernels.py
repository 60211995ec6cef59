"""torch_kernels.py - the single operations that kernels of malc are held against, in PyTorch on a GPU.

Products of matrices by cuBLAS and cuBLASLt, attention forward and backward by each of PyTorch's own implementations, and copies
of memory, at the shapes that it is given. bf16, random numbers, medians of event times.

    python bench/peers/torch_kernels.py [--seconds 40] [--device cuda] '[
      {"kind": "product", "rows": 65536, "columns": 768, "inner": 3072, "layout": "nt"},
      {"kind": "attention", "pass": "forward", "batch": 64, "time": 1024, "heads": 12, "keyHeads": 12, "width": 64,
       "valueWidth": 64, "causal": true, "window": 0},
      {"kind": "copy", "bytes": 1073741824}]'

A product is [rows, inner] x [inner, columns]; in its layout `n` is an operand that lies row by row, `t` one that lies column by
column. Prints a JSON object for each way to do each: which of the list it is, the library and its seconds, or why there are none.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "FlashAttention": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
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


def operand(letter, rows, columns, device):
    sizes = (rows, columns) if letter == "n" else (columns, rows)
    # Numbers from -1 to 1 that no compression helps with: a product of zeros takes less power and runs faster.
    values = torch.empty(sizes, device=device, dtype=torch.bfloat16).uniform_(-1, 1)
    return values if letter == "n" else values.T


def products(shape, device):
    left = operand(shape["layout"][0], shape["rows"], shape["inner"], device)
    right = operand(shape["layout"][1], shape["inner"], shape["columns"], device)
    result = torch.empty(shape["rows"], shape["columns"], device=device, dtype=torch.bfloat16)
    for library in ("cublaslt", "cublas") if device.type == "cuda" else ("torch",):
        if device.type == "cuda":
            torch.backends.cuda.preferred_blas_library(library)
        yield library, lambda: seconds_of(lambda: torch.mm(left, right, out=result), device)


def attention(shape, device):
    batch, length, width = shape["batch"], shape["time"], shape["width"]
    if shape["window"] > 0 or shape["valueWidth"] != width:
        raise ValueError("PyTorch's own attention has no windows, and values as wide as keys")
    query, key, value = (
        torch.randn(batch, length, heads, width, device=device, dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        for heads in (shape["heads"], shape["keyHeads"], shape["keyHeads"])
    )
    grouped = shape["heads"] != shape["keyHeads"]

    def forward():
        return F.scaled_dot_product_attention(query, key, value, is_causal=shape["causal"], enable_gqa=grouped)

    def backward():
        output = forward()
        gradient = torch.randn_like(output)
        return seconds_of(
            lambda: torch.autograd.grad(output, (query, key, value), gradient, retain_graph=True), device
        )

    def measure(backend):
        with sdpa_kernel(backend):
            return seconds_of(forward, device) if shape["pass"] == "forward" else backward()

    for library, backend in BACKENDS.items():
        yield library, lambda backend=backend: measure(backend)


def copies(shape, device):
    values = torch.empty(shape["bytes"], device=device, dtype=torch.uint8)
    target = torch.empty_like(values)
    yield "torch", lambda: seconds_of(lambda: target.copy_(values), device)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", help="a list of shapes as JSON")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=40, help="no shape is begun after so many")
    options = parser.parse_args()
    device, end = torch.device(options.device), time.perf_counter() + options.seconds
    torch.manual_seed(0)
    kinds = {"product": products, "attention": attention, "copy": copies}
    for number, shape in enumerate(json.loads(options.shapes)):
        if time.perf_counter() > end:
            break
        try:
            for library, measure in kinds[shape["kind"]](shape, device):
                try:
                    found = {"seconds": measure()}
                except RuntimeError as error:  # this library does not take the shape
                    found = {"problem": str(error).splitlines()[0]}
                print(json.dumps({"shape": number, "library": library, **found}), flush=True)
        except (RuntimeError, ValueError) as error:
            print(json.dumps({"shape": number, "library": "torch", "problem": str(error).splitlines()[0]}), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
