#!/usr/bin/env python3
"""Prunes trained networks by every method and writes what is left of their accuracy into docs/results/pruning.md.

    pruning.py DATA [--bin PATH] [--only NAME...] [--methods NAME...] [--seeds N] [--samples N] [--threads N] [--work DIR] [--out FILE]

DATA is where `scripts/fetch.sh DATA mnist emoji` has put them. Each network is trained once for each seed, pruned by each method to each
share of zeros, and measured on the test examples without further training. What was done is kept in DIR and not done again. The rows of
the section "Without fine-tuning" are replaced, those of other networks and methods stay, as does what follows the last table.
"""

import argparse
import re
import statistics
import subprocess
import sys
from pathlib import Path

import page
from kept import said, trained
from structured import ROOT, SHARED, TRAIN

SECTION = "## Without fine-tuning"
SHARES = ["80%", "90%", "95%"]
LOWER = ["50%", "70%", "80%"]
SCOPES = ["global", "layer"]
METHODS = ["magnitude", "random", "wanda", "taylor", "fisher", "obd", "sparsegpt"]

# name: (the data, the architecture and its flags, shares of zeros)
NETS = {
    "lenet-300-100, MNIST": ("{data}/mnist", "lenet-300-100 --epochs 6 --batch 64 --schedule cosine:6", SHARES),
    "lenet5, MNIST": ("{data}/mnist", "lenet5 --epochs 3 --batch 64 --schedule cosine:3", SHARES),
    "conv4, digits": ("digits", "conv4 --epochs 20 --batch 32 --schedule cosine:20", SHARES),
    "resnet20, emoji": ("{data}/emoji-images", f"{TRAIN} {SHARED}", LOWER),
}


def accuracy(args, model, data, seed):
    """The test accuracy in percent."""
    command = [args.bin, "finetune", model, args.work / "same.onnx", "--data", data, "--epochs", 0, "--seed", seed, "-t", args.threads]
    return 100 * said(command, model.with_suffix(".test.json"))["test"]["accuracy"]


def pruned(args, dense, data, seed, ways):
    """The accuracy of `dense` pruned in the way (method, scope, share)."""
    method, scope, share = ways
    out = dense.with_suffix("." + "-".join(ways).replace("%", "") + ".onnx")
    if not out.with_suffix(".test.json").exists():
        seen = [] if method in ("magnitude", "random") else ["--data", data, "--samples", args.samples]
        flags = ["--method", method, "--sparsity", share, "--scope", scope, "--seed", seed, "-t", args.threads]
        said([args.bin, "prune", dense, out, *flags, *seen], out.with_suffix(".json"))
    found = accuracy(args, out, data, seed)
    out.unlink(missing_ok=True)
    return found


def network(args, name):
    """Accuracies in percent by method, scope and share, one for each seed; (None, None, None) is the dense network."""
    data, recipe, shares = NETS[name]
    data, found = data.format(data=args.data), {}
    for seed in range(args.seeds):
        dense = args.work / f"{name.split(',')[0]}.{seed}.onnx"
        trained(args.bin, dense, recipe, ["--data", data, "--seed", seed, "-t", args.threads])
        found.setdefault((None, None, None), []).append(accuracy(args, dense, data, seed))
        for ways in ((m, scope, share) for m in args.methods for scope in SCOPES for share in shares):
            found.setdefault(ways, []).append(pruned(args, dense, data, seed, ways))
            print(name, seed, *ways, f"{found[ways][-1]:.1f}", flush=True)
    return found


def cell(values):
    spread = statistics.stdev(values) if len(values) > 1 else 0
    return f"{statistics.mean(values):.1f} ± {spread:.1f}"


def table(name, found, old):
    """The table of a network; rows of methods that were not tried are those of `old`."""
    data, recipe, shares = NETS[name]
    dense = found[None, None, None]
    shown = f"`secateur train {recipe.replace(' ', ' DENSE.onnx ', 1)} --data {data.format(data='DATA')}`"
    rows = {tuple(row.strip("| ").split(" | ")[:2]): row for row in old.split("\n") if row.startswith("| ")}
    for method, scope in dict.fromkeys((m, s) for m, s, _ in found if m):
        cells = " | ".join(cell(found[method, scope, share]) for share in shares)
        rows[method, scope] = f"| {method} | {scope} | {cells} |"
    lines = [
        f"**{name}**: dense {cell(dense)} %; {shown}",
        "",
        "| method | scope | " + " | ".join(f"{s[:-1]} % zeros" for s in shares) + " |",
        "|---|---|" + "---|" * len(shares),
        *(rows[m, s] for m in METHODS for s in SCOPES if (m, s) in rows),
    ]
    return "\n".join(lines)


def written(args):
    """The paragraphs of the section that are there: tables by name, and the text behind the last one."""
    paragraphs = page.section(args.out, SECTION).strip().split("\n\n")
    heads = [i for i, p in enumerate(paragraphs) if re.match(r"\*\*.*\*\*: dense", p)]
    tables = {paragraphs[i].split("**")[1]: "\n\n".join(paragraphs[i : i + 2]) for i in heads}
    return tables, paragraphs[heads[-1] + 2 :] if heads else []


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("data", type=Path)
    args.add_argument("--bin", default=str(ROOT / "target" / "release" / "secateur"))
    args.add_argument("--only", nargs="*", default=[])
    args.add_argument("--methods", nargs="*", default=METHODS)
    args.add_argument("--seeds", type=int, default=3)
    args.add_argument("--samples", type=int, default=1000)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--work", type=Path, default=ROOT / "target" / "structured")
    args.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "pruning.md")
    args = args.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    emoji = args.data / "emoji-images"
    if (args.data / "emoji").exists() and not emoji.exists():
        subprocess.run([sys.executable, ROOT / "scripts" / "emoji.py", args.data / "emoji", emoji], check=True)
    intro = f"""{SECTION}

`scripts/pruning.py DATA --seeds {args.seeds} --samples {args.samples}`: accuracy on test examples in percent, mean ± standard deviation over
{args.seeds} networks of different seeds. Methods that see the network at work see {args.samples} training examples:
`secateur prune DENSE.onnx OUT.onnx --method METHOD --scope SCOPE --sparsity X --data DATA --samples {args.samples} --seed SEED`."""
    for name in NETS:
        if args.only and not any(o in name for o in args.only):
            continue
        found = network(args, name)
        tables, behind = written(args)
        tables[name] = table(name, found, tables.get(name, ""))
        print(tables[name], flush=True)
        text = "\n\n".join([intro, *(tables[n] for n in NETS if n in tables), *behind])
        page.replace(args.out, SECTION, text + "\n", "# Pruned networks")


if __name__ == "__main__":
    main()
