#!/usr/bin/env python3
"""Prunes trained networks by every method and writes what is left of their accuracy into docs/results/pruning.md.

    pruning.py DATA [--bin PATH] [--only NAME...] [--methods NAME...] [--seeds N] [--samples N] [--threads N] [--out FILE]

DATA is where `scripts/fetch.sh DATA mnist` has put it. Each network is trained once for each seed, pruned by each method to each
share of zeros, and measured on the test examples without further training. The section "Without fine-tuning" is replaced, others stay.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import page

ROOT = Path(__file__).parent.parent
SECTION = "## Without fine-tuning"
SHARES = ["80%", "90%", "95%"]
LOWER = ["50%", "70%", "80%"]
METHODS = ["magnitude", "random", "wanda", "taylor", "fisher", "obd", "sparsegpt"]

# name: (the data, the architecture and its flags, shares of zeros)
NETS = {
    "lenet-300-100, MNIST": ("{data}/mnist", "lenet-300-100 --epochs 6 --batch 64 --schedule cosine:6", SHARES),
    "lenet5, MNIST": ("{data}/mnist", "lenet5 --epochs 3 --batch 64 --schedule cosine:3", SHARES),
    "conv4, digits": ("digits", "conv4 --epochs 20 --batch 32 --schedule cosine:20", SHARES),
    "resnet20, digits": ("digits", "resnet20 --epochs 12 --batch 32 --schedule cosine:12 --augment crop:1", LOWER),
}


def call(binary, *args):
    made = subprocess.run([binary, *map(str, args), "--json", "--quiet", "--force"], capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"{args}: {made.stdout or made.stderr}")
    return json.loads(made.stdout)


def accuracy(args, model, data, seed, folder):
    """The test accuracy in percent."""
    said = call(args.bin, "finetune", model, folder / "same.onnx", "--data", data, "--epochs", 0, "--seed", seed, "-t", args.threads)
    return 100 * said["test"]["accuracy"]


def network(args, data, recipe, shares, folder):
    """Accuracies in percent by method and share, one for each seed; (None, None) is the dense network."""
    found = {}
    for seed in range(args.seeds):
        dense = folder / "dense.onnx"
        arch, *flags = recipe.split()
        call(args.bin, "train", arch, dense, "--data", data, "--seed", seed, "-t", args.threads, *flags)
        found.setdefault((None, None, None), []).append(accuracy(args, dense, data, seed, folder))
        for method in args.methods:
            for scope in ("global", "layer"):
                for share in shares:
                    pruned = folder / "pruned.onnx"
                    seen = [] if method in ("magnitude", "random") else ["--data", data, "--samples", args.samples]
                    flags = ["--method", method, "--sparsity", share, "--scope", scope, "--seed", seed, "-t", args.threads]
                    call(args.bin, "prune", dense, pruned, *flags, *seen)
                    found.setdefault((method, scope, share), []).append(accuracy(args, pruned, data, seed, folder))
    return found


def cell(values):
    spread = statistics.stdev(values) if len(values) > 1 else 0
    return f"{statistics.mean(values):.1f} ± {spread:.1f}"


def table(name, recipe, shares, data, found):
    dense = found[None, None, None]
    shown = f"`secateur train {recipe.replace(' ', ' DENSE.onnx ', 1)} --data {data.format(data='DATA')}`"
    lines = [
        f"**{name}**: dense {cell(dense)} %; {shown}",
        "",
        "| method | scope | " + " | ".join(f"{s[:-1]} % zeros" for s in shares) + " |",
        "|---|---|" + "---|" * len(shares),
    ]
    for method, scope in dict.fromkeys((m, s) for m, s, _ in found if m):
        cells = " | ".join(cell(found[method, scope, share]) for share in shares)
        lines.append(f"| {method} | {scope} | {cells} |")
    return lines + [""]


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("data", type=Path)
    args.add_argument("--bin", default=str(ROOT / "target" / "release" / "secateur"))
    args.add_argument("--only", nargs="*", default=[])
    args.add_argument("--methods", nargs="*", default=METHODS)
    args.add_argument("--seeds", type=int, default=3)
    args.add_argument("--samples", type=int, default=1000)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "pruning.md")
    args = args.parse_args()
    lines = [
        SECTION,
        "",
        f"`scripts/pruning.py DATA --seeds {args.seeds} --samples {args.samples}`: accuracy on test examples in percent, mean ± standard deviation over",
        f"{args.seeds} networks of different seeds. Methods that see the network at work see {args.samples} training examples:",
        "`secateur prune DENSE.onnx OUT.onnx --method METHOD --scope SCOPE --sparsity X --data DATA --samples "
        f"{args.samples} --seed SEED`.",
        "",
    ]
    for name, (data, recipe, shares) in NETS.items():
        if args.only and not any(o in name for o in args.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = network(args, data.format(data=args.data), recipe, shares, Path(folder))
        lines += table(name, recipe, shares, data, found)
        page.replace(args.out, SECTION, "\n".join(lines), "# Pruned networks")
        print("\n".join(table(name, recipe, shares, data, found)), flush=True)


if __name__ == "__main__":
    main()
