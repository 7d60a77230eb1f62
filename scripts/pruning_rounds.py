#!/usr/bin/env python3
"""Prunes trained networks in rounds and at once, with as much fine-tuning, and writes a section of docs/results/pruning.md.

    pruning_rounds.py DATA [--bin PATH] [--seeds N] [--epochs N] [--threads N] [--out FILE]
        [--only NAME...] [--shares X...] [--ways NAME...]

DATA is where `scripts/fetch.sh DATA mnist` has put MNIST; `digits` needs nothing. Other sections of the file stay as they are.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import page

ROOT = Path(__file__).parent.parent
TITLE = "## Iterative against one-shot"
ROUNDS = 5
SHARES = (90, 95, 98)
WAYS = {
    "one-shot": [],
    "linear": ["--rounds", str(ROUNDS), "--schedule", "linear"],
    "cubic": ["--rounds", str(ROUNDS), "--schedule", "cubic"],
    "exponential": ["--rounds", str(ROUNDS), "--schedule", "exponential"],
}
# name: (training, what both trainings share, epochs of fine-tuning)
NETS = {
    "lenet-300-100, MNIST": ("--epochs 10 --schedule cosine:10", "--data {data}/mnist --validation 2000 --batch 128", 5),
    "lenet-300-100, digits": ("--epochs 40 --schedule cosine:40", "--data digits --validation 100 --batch 32", 20),
}


def said(command, threads, seed):
    """The JSON that a command prints."""
    flags = ["-t", str(threads), "--seed", str(seed), "--json", "--quiet", "--force"]
    made = subprocess.run([*command, *flags], capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(made.stdout or made.stderr)
    return json.loads(made.stdout)


def table(args, name, folder):
    """The accuracy before pruning, and those of each share and way, one for each seed."""
    training, shared, usual = NETS[name]
    binary, epochs, threads = args.bin, args.epochs or usual, args.threads
    shared = shared.format(data=args.data).split()
    dense, found = [], {}
    for seed in range(args.seeds):
        base, out = folder / "base.onnx", folder / "out.onnx"
        train = [binary, "train", "lenet-300-100", str(base), *training.split(), *shared]
        dense.append(100 * said(train, threads, seed)["test"]["accuracy"])
        for share in args.shares:
            for way in args.ways:
                flags = WAYS[way]
                prune = [binary, "prune", str(base), str(out), "--sparsity", f"{share}%", "--finetune", str(epochs), *shared, *flags]
                found.setdefault((share, way), []).append(100 * said(prune, threads, seed)["test"]["after"]["accuracy"])
                print(name, seed, share, way, f"{found[share, way][-1]:.2f}", flush=True)
    return dense, found


def cell(values):
    """Mean and standard deviation."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def section(args):
    """The section of the results."""
    text = [
        TITLE,
        "",
        f"`scripts/pruning_rounds.py DATA --seeds {args.seeds}`: accuracy on test examples in percent, mean and standard deviation over "
        f"{args.seeds} seeds. All columns have seen as many examples: one-shot prunes once and is fine-tuned for all epochs, the others prune in "
        f"{ROUNDS} rounds and are fine-tuned for a {ROUNDS}th of them in each. Magnitude, all layers together; the rate is Adam's 0.001 throughout.",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only or NETS:
            dense, found = table(args, name, Path(folder))
            training, shared, usual = NETS[name]
            text += [
                "",
                f"{name}, before pruning {cell(dense)}. `secateur train lenet-300-100 A.onnx {training} {shared.format(data='DATA')}`, then "
                f"`secateur prune A.onnx B.onnx --sparsity X --finetune {args.epochs or usual} {shared.format(data='DATA')} "
                f"--rounds {ROUNDS} --schedule NAME`:",
                "",
                f"| zeros | {' | '.join(args.ways)} | cubic − one-shot |",
                "|---|" + "---|" * (len(args.ways) + 1),
            ]
            for share in args.shares:
                rows = {way: found[share, way] for way in args.ways}
                gains = [a - b for a, b in zip(rows["cubic"], rows["one-shot"])]
                text.append(f"| {share} % | {' | '.join(cell(v) for v in rows.values())} | {cell(gains)} |")
    return "\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--bin", default=str(ROOT / "target/release/secateur"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(NETS))
    parser.add_argument("--shares", nargs="*", type=int, default=SHARES)
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS), help="one-shot and cubic must be among them")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/pruning.md")
    args = parser.parse_args()
    page.replace(args.out, TITLE, section(args), "# Pruned networks")


if __name__ == "__main__":
    main()
