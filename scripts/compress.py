#!/usr/bin/env python3
"""Compresses networks under a budget and writes a section of docs/results/pruning.md.

    compress.py DATA MODELS [--bin PATH] [--only NAME...] [--threads N] [--work DIR] [--out FILE]

DATA and MODELS are where `scripts/fetch.sh` has put mnist, emoji, text-topics, photos and the models; what is missing is left out.
"""

import argparse
from pathlib import Path

import page
from kept import said, trained
from structured import ROOT

TITLE = "## Under a budget"
BUDGET = "--max-drop 1.0 --target 2x"
BOTH = "--pattern structured+unstructured"
EMOJI = "--set channels=3 --set height=32 --set width=32"
# name: (training, data, flags); without a training the name is that of a file
RUNS = {
    "lenet-300-100, MNIST": ("lenet-300-100 --epochs 10 --batch 64 --schedule cosine:10", "{data}/mnist", BOTH),
    "lenet5, MNIST": ("lenet5 --epochs 6 --batch 64 --schedule cosine:6", "{data}/mnist", BOTH),
    "conv4, digits": ("conv4 --epochs 60 --batch 32 --lr 2e-3 --schedule cosine:60 --augment crop:1,rotate:15", "digits", f"--augment crop:1,rotate:15 {BOTH}"),
    "resnet20, emoji": (
        f"resnet20 {EMOJI} --epochs 15 --batch 64 --lr 0.002 --schedule cosine:15 --augment flip,crop:4",
        "{data}/emoji-images",
        "--augment flip,crop:4 --pattern structured",
    ),
    "transformer-encoder, R8": (
        "transformer-encoder --set layers=2 --set hidden=64 --set heads=4 --set ffn=128 --set dropout=0.2 --epochs 4 --batch 32 "
        "--schedule warmup:1+cosine:3",
        "{data}/text-topics/reuters-r8-train.tab",
        BOTH,
    ),
    "opennsfw-resnet50thin/open-nsfw.onnx": (None, "{work}/opennsfw-resnet50thin.npz", f"--task none {BOTH}"),
}


def row(args, name):
    training, data, flags = RUNS[name]
    data = data.format(data=args.data, work=args.work)
    stem = name.split("/")[0].replace(", ", "-")
    base, out = args.work / f"{stem}.onnx", args.work / f"{stem}.small.onnx"
    threads = ["-t", args.threads]
    if training:
        trained(args.bin, base, training, ["--data", data, *threads])
    else:
        base = args.models / name
    report = out.with_suffix(".html")
    command = [args.bin, "compress", base, out, "--data", data, *BUDGET.split(), *flags.split(), "--report", report, *threads]
    # 1: the target is not reached, or the budget cannot be kept; the row says so.
    return said(command, out.with_suffix(".json"), (0, 1))


def told(name, found):
    """A row of the report."""
    worth, target, steps = found.get("metric") or {}, found.get("target") or {}, found["steps"]
    tried = f"{sum(s['kept'] for s in steps)} of {len(steps)}"
    if not found["output"]:
        return f"| {name} | – | – | – | – | {tried} | {found['reason']} |"
    points = f"{worth['before']:.2f} → {worth['after']:.2f}"
    times = f"{target['before']:.3f} → {target['after']:.3f} ({target['before'] / target['after']:.2f})"
    left = f"{found['before']['parameters'] / 1e3:.0f} → {found['after']['parameters'] / 1e3:.0f} ({found['after']['zeros_percent']:.1f})"
    return f"| {name} | {worth['name']}, {worth['examples']}: {points} | {worth['drop_points']:.2f} | {times} | {left} | {tried} | {'yes' if found['reached'] else found['reason']} |"


def section(args):
    kept = page.section(args.out, TITLE).split("\n")
    rows = {row.split(" | ")[0][2:]: row for row in kept if row.startswith("| ") and not row.startswith("| model")}
    for name in RUNS:
        if name in args.only:
            rows[name] = told(name, row(args, name))
            print(rows[name], flush=True)
    lines = [
        TITLE,
        "",
        f"`scripts/compress.py DATA MODELS`: `secateur compress A.onnx B.onnx {BUDGET} --data DATA`, with nothing else said but a pattern and the",
        "augmentation that the model was trained with, after `secateur calibrate`; trainings and flags are in the script. The metric is that of test examples (their number) which no step has seen, in percent; milliseconds",
        "are of a run on one thread, each model in turn with A.",
        "",
        "| model | on test examples | points lost | ms (times as fast) | thousand parameters (zeros %) | steps kept | target reached |",
        "|---" * 7 + "|",
        *(rows[n] for n in RUNS if n in rows),
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--bin", default=str(ROOT / "target/release/secateur"))
    parser.add_argument("--only", nargs="+", default=list(RUNS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "target/structured")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/pruning.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    page.replace(args.out, TITLE, section(args), "# Pruned networks")


if __name__ == "__main__":
    main()
