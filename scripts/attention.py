#!/usr/bin/env python3
"""Times attention alone at every length: docs/results/attention.md, and a chart beside it.

    attention.py [--secateur BIN] [--lengths 128,256,…] [--threads 1,2] [--time SECONDS] [--only NAME...] [-o FILE]

Batch 1, 8 heads of 64 numbers. Needs numpy and onnx; BIN is built with `cargo build --release --features ort`. Measured as
compare.py does it: a process for each engine and graph, in turn.

Graphs, all of inputs q, k, v [1, 8, n, 64] but the one for MultiHeadAttention:
- dense: MatMul, Mul, Softmax, MatMul, which becomes one kernel here and three or four in ONNX Runtime
- unfused: the same, with one row of the shares as a further output, so that they have to be made
- mha: com.microsoft MultiHeadAttention of [1, n, 512], ONNX Runtime's own fused kernel
- local, dilated, longformer, blocks: dense with a constant mask of |i - j| <= 128; of every fourth of these keys; of these and
  token 0; of blocks of 256
- causal: dense with a lower triangle
- linear: (elu(q) + 1) ((elu(k) + 1)^T v), divided by its sum of weights
"""
import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workers import ROOT, Worker, commit, machine, run_in_turn, table

HEADS, SIZE, RADIUS, BASE = 8, 64, 128, 16

MASKS = {
    "local": lambda i, j: abs(i - j) <= RADIUS,
    "dilated": lambda i, j: (abs(i - j) <= RADIUS) & ((i - j) % 4 == 0),
    "longformer": lambda i, j: (abs(i - j) <= RADIUS) | (i == 0) | (j == 0),
    "blocks": lambda i, j: i // 256 == j // 256,
    "causal": lambda i, j: j <= i,
}
# What a curve is called, its engine and its graph.
CURVES = [
    ("fused", "self", "dense"), ("unfused", "self", "unfused"), ("ort, unfused", "ort", "dense"), ("ort, fused", "ort", "mha"),
    ("causal", "self", "causal"), ("local", "self", "local"), ("dilated", "self", "dilated"), ("longformer", "self", "longformer"),
    ("blocks", "self", "blocks"), ("linear", "self", "linear"),
]  # fmt: skip


def node(op, inputs, output, **attrs):
    return helper.make_node(op, inputs.split(), output.split(), **attrs)


def graph(kind, n):
    """The model of a kind and length."""
    apart, beside = [1, HEADS, n, SIZE], [1, n, HEADS * SIZE]
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    constants, outputs = {"scale": np.float32(SIZE**-0.5), "low": np.float32(-np.inf), "one": np.float32(1)}, []
    if kind == "mha":
        nodes = [node("MultiHeadAttention", "q k v", "y", domain="com.microsoft", num_heads=HEADS)]
    elif kind == "linear":
        nodes = [node("Elu", "q", "eq"), node("Add", "eq one", "fq"), node("Elu", "k", "ek"), node("Add", "ek one", "fk"),
                 node("Transpose", "fk", "kt", perm=[0, 1, 3, 2]), node("MatMul", "kt v", "kv"), node("MatMul", "fq kv", "sum"),
                 node("ReduceSum", "fk axis", "all"), node("Mul", "fq all", "each"), node("ReduceSum", "each last", "weight"),
                 node("Div", "sum weight", "y")]  # fmt: skip
        constants |= {"axis": np.array([2]), "last": np.array([-1])}
    else:
        nodes = [node("Transpose", "k", "kt", perm=[0, 1, 3, 2]), node("MatMul", "q kt", "qk"), node("Mul", "qk scale", "scores")]
        if kind in MASKS:
            constants["mask"] = MASKS[kind](np.arange(n)[:, None], np.arange(n)[None])
            nodes.append(node("Where", "mask scores low", "seen"))
        nodes += [node("Softmax", nodes[-1].output[0], "shares", axis=-1), node("MatMul", "shares v", "y")]
        if kind == "unfused":
            constants["row"] = np.array([0])
            nodes.append(node("Gather", "shares row", "first", axis=2))
            outputs = [value("first", [1, HEADS, 1, n])]
    dims = beside if kind == "mha" else apart
    read = {name for made in nodes for name in made.input}
    made = helper.make_graph(nodes, kind, [value(x, dims) for x in "qkv"], [value("y", dims), *outputs],
                             [numpy_helper.from_array(np.asarray(x), name) for name, x in constants.items() if name in read])  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def slope(points):
    """The exponent a of y ~ x^a, by least squares of logarithms."""
    points = [(x, y) for x, y in points if y > 0]
    return float(np.polyfit(*np.log(np.array(points)).T, 1)[0]) if len(points) > 2 else float("nan")


def measure(args, threads, curves, lengths, folder):
    """Figures by curve and length. Curves of one length run in turn."""
    results = {name: {} for name, _, _ in curves}
    for n in lengths:
        workers = []
        try:
            for name, engine, kind in curves:
                path = Path(folder) / f"{kind}{n}.onnx"
                if not path.exists():
                    onnx.save(graph(kind, n), path)
                worker = Worker(engine, args, str(path), threads, {})
                worker.name = name
                workers.append(worker)
            run_in_turn(workers, args.time)
            for worker in workers:
                results[worker.name][n] = worker.figures()
        finally:
            for worker in workers:
                worker.process.kill()
        for path in Path(folder).glob("*.onnx"):
            path.unlink()
        shown = "; ".join(f"{name} {f[n]['min']:.3f}/{f[n]['median']:.3f}" for name, f in results.items())
        print(f"{threads} threads, {n}: {shown}", file=sys.stderr, flush=True)
    return results


def section(threads, results, lengths):
    """Tables for one number of threads."""
    times = [[name, *(f"{f[n]['min']:.2f} / {f[n]['median']:.2f}" for n in lengths)] for name, f in results.items()]
    peaks = [[name, *(f"{f[n]['peak_rss_mb']:.0f}" for n in lengths)] for name, f in results.items()]
    long = [n for n in lengths if n >= 512]
    memory = lambda f: slope([(n, f[n]["peak_rss_mb"] - f[BASE]["peak_rss_mb"]) for n in long])
    fits = [[name, f"{slope([(n, f[n]['min']) for n in long]):.2f}", f"{memory(f):.2f}"] for name, f in results.items()]
    text = [f"\n## {threads} thread{'s' if threads > 1 else ''}\n", table(["ms, min / median", *map(str, lengths)], times)]
    if {"fused", "unfused", "ort, unfused", "ort, fused"} <= results.keys():
        best = lambda n, key: min(results["ort, unfused"][n][key], results["ort, fused"][n][key])
        ratios = [[f"{what}, {key}", *(f"{other(n, key) / results['fused'][n][key]:.2f}" for n in lengths)]
                  for what, other in (("unfused", lambda n, key: results["unfused"][n][key]), ("the better of ort's", best))
                  for key in ("min", "median")]  # fmt: skip
        text.append(table(["÷ fused", *map(str, lengths)], ratios))
    text.append(table(["peak MB", *map(str, lengths)], peaks))
    text.append(table(["exponent from 512 on", "of the time", f"of the peak memory above that at {BASE}"], fits))
    return "\n".join(text)


COLOURS = ["#1b6ca8", "#d1495b", "#8d6a9f", "#edae49", "#00798c", "#3a7d44", "#9c6644", "#5f6f94", "#b56576", "#222222"]


def chart(results, lengths, threads):
    """Milliseconds over length, both logarithmic, as SVG."""
    width, height, left, top = 760, 460, 60, 30
    low = np.floor(np.log10(min(f[n]["min"] for f in results.values() for n in lengths)))
    high = np.ceil(np.log10(max(f[n]["min"] for f in results.values() for n in lengths)))
    x = lambda n: left + (width - left - 150) * (np.log2(n) - np.log2(lengths[0])) / max(np.log2(lengths[-1] / lengths[0]), 1)
    y = lambda ms: top + (height - top - 50) * (high - np.log10(ms)) / (high - low)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="white"/>',
             f'<text x="{left}" y="18">Attention, 8 heads of 64, {threads} thread{"s" if threads > 1 else ""}: ms, best, over length</text>']  # fmt: skip
    for n in lengths:
        parts.append(f'<line x1="{x(n):.1f}" y1="{top}" x2="{x(n):.1f}" y2="{height - 50}" stroke="#ddd"/>'
                     f'<text x="{x(n):.1f}" y="{height - 32}" text-anchor="middle">{n}</text>')  # fmt: skip
    for power in range(int(low), int(high) + 1):
        parts.append(f'<line x1="{left}" y1="{y(10.0**power):.1f}" x2="{width - 150}" y2="{y(10.0**power):.1f}" stroke="#ddd"/>'
                     f'<text x="{left - 6}" y="{y(10.0**power) + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')  # fmt: skip
    for i, (name, f) in enumerate(results.items()):
        colour, dash = COLOURS[i % len(COLOURS)], ' stroke-dasharray="6 3"' if name.startswith("ort") else ""
        points = " ".join(f"{x(n):.1f},{y(f[n]['min']):.1f}" for n in lengths)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
                     f'<line x1="{width - 140}" y1="{top + 10 + 18 * i}" x2="{width - 115}" y2="{top + 10 + 18 * i}" stroke="{colour}" '
                     f'stroke-width="2"{dash}/><text x="{width - 108}" y="{top + 14 + 18 * i}">{name}</text>')  # fmt: skip
    return "\n".join([*parts, "</svg>", ""])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--secateur", default=os.environ.get("CARGO_TARGET_DIR", f"{ROOT}/target") + "/release/secateur")
    p.add_argument("--lengths", default="128,256,512,1024,2048,4096,8192")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--time", type=float, default=2)
    p.add_argument("--only", nargs="+", metavar="NAME", default=[])
    p.add_argument("-o", "--output", default=str(ROOT / "docs" / "results" / "attention.md"))
    args = p.parse_args()
    args.openvino = sys.executable
    lengths, load, output = [int(n) for n in args.lengths.split(",")], os.getloadavg()[0], Path(args.output)
    curves = [c for c in CURVES if not args.only or c[0] in args.only]
    sections, charts = [], []
    for threads in map(int, args.threads.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            results = measure(args, threads, curves, [BASE, *lengths], folder)
        picture = output.with_name(f"{output.stem}-{threads}.svg")
        charts.append((picture, chart(results, lengths, threads)))
        sections.append(section(threads, results, lengths) + f"\n![Time over length]({picture.name})\n")
    versions = {e: next(iter(results[name].values()))["version"] for name, e, _ in curves}
    kinds = __doc__.split("Graphs, ")[1].strip()
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        f"# Attention at every length\n\nWritten by `scripts/attention.py --lengths={args.lengths} --threads={args.threads} "
        f"--time={args.time:g}` on {time.strftime('%Y-%m-%d')}.\n\n- Machine: {machine()}\n- Versions: "
        f"{'; '.join(map(' '.join, versions.items()))}; checkout {commit()}. Load average before: {load:.2f}.\n"
        "- Method: a process for each curve, in turn, as `scripts/compare.py` does it. Exponents are of the least times.\n\n"
        f"Graphs, {kinds}\n" + "".join(sections))  # fmt: skip
    for path, text in charts:
        path.write_text(text)


if __name__ == "__main__":
    main()
