"""torch_matmul.py - matrix products of malc and of PyTorch by turns, in one process, on the same operands.

    python bench/peers/torch_matmul.py [--dtype f32|bf16] [--threads 2] [--seconds 1] [nn:2048x2048x2048 ..]

A product is LAYOUT:ROWSxINNERxCOLUMNS; n and t say how each operand lies: row by row, or transposed. Packing counts; of bf16
products a second figure is without the packing of the right operand, which malc does once a step for weights. Prints GFLOP/s
of each program's lower quartile, and the ratio of malc's speed to PyTorch's, after checking that both found the same.
"""

import argparse
import ctypes
import pathlib
import subprocess
import tempfile
import time

import torch

SHAPES = [
    "nn:2048x2048x2048", "nt:1024x768x3072", "nt:8192x128x128",
    "nt:256x768x2304", "nt:256x768x3072", "nt:256x3072x768", "nn:256x3072x768", "tn:3072x256x768",
    "nt:8192x128x512", "nn:8192x512x128", "tn:512x8192x128", "nt:512x128x4096",
]
FLAGS = "-O3 -march=native -std=gnu11 -fopenmp -shared -fPIC -fno-math-errno -fno-trapping-math -fno-signed-zeros " \
        "-ffp-contract=fast -mprefer-vector-width=512"


def library():
    here = pathlib.Path(__file__).parent
    path = pathlib.Path(tempfile.mkdtemp()) / "product.so"
    headers = here.parent.parent / "templates" / "cpu"
    subprocess.run(["cc", *FLAGS.split(), "-iquote", headers, here / "product.c", "-o", path, "-lm"], check=True)
    return ctypes.CDLL(str(path))


def operand(layout, rows, columns, dtype):
    # Values of which bfloat16 loses nothing, so that both types of product can be checked alike.
    data = torch.randint(-8, 9, (rows, columns) if layout == "n" else (columns, rows)).to(dtype)
    return data if layout == "n" else data.t()


def measure(products, text, options):
    layout, sizes = text.split(":")
    rows, inner, columns = map(int, sizes.split("x"))
    dtype = torch.bfloat16 if options.dtype == "bf16" else torch.float32
    left, right = operand(layout[0], rows, inner, dtype), operand(layout[1], inner, columns, dtype)
    found, wanted = torch.zeros(rows, columns), torch.empty(rows, columns, dtype=dtype)
    numbers = [ctypes.c_int64(n) for n in (*left.stride(), *right.stride(), rows, inner, columns)]
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (found, left, right)]
    place = [pointers[0], pointers[1], *numbers[:2], pointers[2], *numbers[2:]]
    runs = {"torch": lambda: torch.mm(left, right, out=wanted)}
    if options.dtype == "bf16":
        runs["malc"] = lambda: products.product_bf16(*place, ctypes.c_int32(0))
        runs["malc, prepared"] = lambda: products.product_bf16(*place, ctypes.c_int32(1))
    else:
        runs["malc"] = lambda: products.product_f32(*place)
    for run in runs.values():
        run()
    exact = left.double() @ right.double()
    error = ((found - exact).norm() / exact.norm()).item()
    assert error < 1e-6, f"{text}: the product is off by {error}"
    seconds = {name: [] for name in runs}
    end = time.perf_counter() + options.seconds * len(runs)
    while time.perf_counter() < end or len(seconds["torch"]) < 5:
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    quartile = {name: sorted(each)[len(each) // 4] for name, each in seconds.items()}
    rates = [f"{2e-9 * rows * inner * columns / second:6.0f}" for second in quartile.values()]
    ratios = [f"{quartile['torch'] / second:5.2f}" for name, second in quartile.items() if name != "torch"]
    print(f"| {layout} {rows} x {inner} x {columns} | {' | '.join([*rates, *ratios])} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("products", nargs="*", default=SHAPES, metavar="LAYOUT:ROWSxINNERxCOLUMNS")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    products = library()
    assert products.product_reserve(options.threads, ctypes.c_int64(1 << 27)), "no memory"
    print("| product | torch | malc |" + (" prepared | ratio | prepared |" if options.dtype == "bf16" else " ratio |"))
    for text in options.products:
        measure(products, text, options)


if __name__ == "__main__":
    main()
