#!/usr/bin/env python3
"""How well layers with zeros are predicted, and whether the right kernel is chosen: docs/results/choices.md.

    choices.py MODELS [--secateur BIN] [--threads 1] [--sparsity 10,20,30,40,50,60,80,90] [--only GLOB...] [-o FILE]

Prunes every layer of each model to each share (`secateur prune --scope layer`) and reads what `secateur explain` says of it: what each
layer was predicted to take and took, by the best kernel that leaves nothing out and by the one that leaves zeros out. Without rates from
`secateur calibrate` the built-in ones are judged.
"""
import argparse
import fnmatch
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from workers import ROOT, commit, machine, ready, table

MODELS = [
    ("resnet50", "new/resnet50.onnx", []),
    ("mobilenetv2", "new/mobilenetv2.onnx", []),
    ("bert-base, 128 tokens", "new/bert-base.onnx", ["-s", "seq=128"]),
    ("vit-s", "vit-s/vit_s_focus.onnx", []),
]

# A shared machine runs at half its speed at times: of so many runs the least time counts.
RUNS = 3


def secateur(args, *words):
    done = subprocess.run([args.secateur, *words, "--json", "--quiet"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout.strip() or done.stderr.strip())
    return json.loads(done.stdout)


def explained(args, model, share, sizes):
    """The layers that have zeros and a kernel for them, with the least times of several runs, and which rates were used."""
    with tempfile.TemporaryDirectory() as folder:
        pruned = f"{folder}/pruned.onnx"
        secateur(args, "prune", model, pruned, "--sparsity", f"{share}%", "--scope", "layer")
        runs = [secateur(args, "explain", pruned, "-t", str(args.threads), *sizes) for _ in range(RUNS)]
    nodes = runs[0]["nodes"]
    for again in runs[1:]:
        for n, other in zip(nodes, again["nodes"]):
            for kind in ("dense", "sparse"):
                if n[kind] and n[kind]["measured_ms"]:
                    n[kind]["measured_ms"] = min(n[kind]["measured_ms"], other[kind]["measured_ms"])
    layers = [n for n in nodes if n["sparse"] and n["sparse"]["measured_ms"] and n["dense"]["measured_ms"]]
    return layers, runs[0]["rates"]


def row(name, share, layers):
    """Of one model at one share: how many layers leave zeros out, how good predictions are, and what the choice cost."""
    pairs = [(n[k]["predicted_ms"], n[k]["measured_ms"]) for n in layers for k in ("dense", "sparse")]
    near = [abs(p / m - 1) <= 0.2 for p, m in pairs]
    taken = ["sparse" in n["kernel"] for n in layers]
    chosen = [n["sparse" if t else "dense"]["measured_ms"] for n, t in zip(layers, taken)]
    dense = [n["dense"]["measured_ms"] for n in layers]
    best = [min(n["dense"]["measured_ms"], n["sparse"]["measured_ms"]) for n in layers]
    ratios = [d / c for d, c in zip(dense, chosen)]
    even = [n["break_even"] for n in layers if n["break_even"] is not None]
    return [name, f"{share} %", f"{sum(taken)} of {len(layers)}", f"{100 * np.mean(near):.0f} %", f"{sum(dense) / sum(chosen):.2f}",
            f"{sum(best) / sum(chosen):.2f}", f"{min(ratios):.2f}", f"{100 * np.median(even):.0f} %" if even else "–"]  # fmt: skip


HEAD = ["model", "zeros", "layers that leave them out", "predictions within 20 %", "dense ÷ chosen", "best ÷ chosen", "worst layer: dense ÷ chosen",
        "median break-even"]  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models")
    p.add_argument("--secateur", default=os.environ.get("CARGO_TARGET_DIR", f"{ROOT}/target") + "/release/secateur")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--sparsity", default="10,20,30,40,50,60,80,90")
    p.add_argument("--only", nargs="+", metavar="GLOB", default=[])
    p.add_argument("-o", "--output", default=str(ROOT / "docs" / "results" / "choices.md"))
    args = p.parse_args()
    rows, rates, load = [], set(), os.getloadavg()[0]
    for name, file, sizes in MODELS:
        if args.only and not any(fnmatch.fnmatch(name, glob) for glob in args.only):
            continue
        model = ready(args, file)
        if not model:
            print(f"skipped: {name}: {file} has not been fetched", file=sys.stderr)
            continue
        for share in map(int, args.sparsity.split(",")):
            layers, used = explained(args, model, share, sizes)
            if layers:
                rows.append(row(name, share, layers))
                rates.add(used)
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    if not rows:
        p.error("no model was run")
    shown = ["scripts/choices.py", "MODELS", f"--threads={args.threads}", f"--sparsity={args.sparsity}"]
    Path(args.output).write_text(
        f"# Choices between dense and sparse kernels\n\nWritten by `{shlex.join(shown)}` on {time.strftime('%Y-%m-%d')}.\n\n"
        f"- Machine: {machine()}\n- Rates: {', '.join(sorted(rates))}; checkout {commit()}. Load average before: {load:.2f}.\n"
        f"- Method: `secateur explain` of each file, {RUNS} times, each layer with its best dense and with its sparse kernel in turn; the least times.\n"
        "  Predictions are those of both kernels; a layer whose worst ratio is below 1 runs slower than it would dense.\n\n"
        + table(HEAD, rows))  # fmt: skip


if __name__ == "__main__":
    main()
