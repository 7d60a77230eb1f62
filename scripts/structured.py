#!/usr/bin/env python3
"""Cuts models to half of their multiply-adds and writes a section of docs/results/pruning.md.

    structured.py DATA MODELS [--bin PATH] [--seeds N] [--threads N...] [--out FILE]

DATA and MODELS are where `scripts/fetch.sh` has put emoji and the models; what is missing is left out. ResNet-20 is trained on the emoji,
cut and fine-tuned; the real models are cut only, and timed. Other sections of the file stay as they are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import page
from pruning_rounds import ROOT, cell

TITLE = "## Cut to half of the multiply-adds"
SHARED = "--validation 0 --batch 64 --lr 0.002 --augment flip,crop:4"
TRAIN = "--set channels=3 --set height=32 --set width=32 --epochs 15 --schedule cosine:15"
TUNE = "--finetune 15 --lr-schedule cosine:15"
CUT = "--pattern structured --of macs --sparsity 50%"
BATCHES = [1, 32]
REAL = {
    "opennsfw-resnet50thin/open-nsfw.onnx": [],
    "vit-s/vit_s_focus.onnx": [],
    "nudenet-yolov8n/320n.onnx": ["-s", "height=320", "-s", "width=320"],
}


def said(command):
    made = subprocess.run([*command, "--force", "--json", "--quiet"], capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"{' '.join(command)}: {made.stderr or made.stdout}")
    return json.loads(made.stdout)


def ratio(found, key):
    return found["before"][key] / found["after"][key]


def resnet(args, emoji, folder):
    """Accuracies before and after, in percent, and how many times fewer multiply-adds and faster."""
    rows = {"dense": [], "tuned": []}
    for seed in range(args.seeds):
        base, out = folder / "base.onnx", folder / "out.onnx"
        common = ["--data", str(emoji), *SHARED.split(), "--seed", str(seed)]
        said([args.bin, "train", "resnet20", str(base), *TRAIN.split(), *common])
        found = said([args.bin, "prune", str(base), str(out), *CUT.split(), *TUNE.split(), *common])
        rows["dense"].append(100 * found["test"]["before"]["accuracy"])
        rows["tuned"].append(100 * found["test"]["after"]["accuracy"])
        print(rows, flush=True)
    fewer, faster = ratio(found, "macs"), {}
    for threads in args.threads:
        for batch in BATCHES:
            timed = [args.bin, "prune", str(base), str(folder / "timed.onnx"), *CUT.split(), "-t", str(threads), "-s", f"batch={batch}"]
            faster[threads, batch] = ratio(said(timed), "ms")
    return rows, fewer, faster


def section(args):
    emoji = args.data / "emoji-images"
    if (args.data / "emoji").exists() and not emoji.exists():
        subprocess.run([sys.executable, ROOT / "scripts" / "emoji.py", args.data / "emoji", emoji], check=True)
    text = [TITLE, "", f"`scripts/structured.py DATA MODELS --seeds {args.seeds}`; times are medians of runs in turn.", ""]
    with tempfile.TemporaryDirectory() as folder:
        if emoji.exists():
            rows, fewer, faster = resnet(args, emoji, Path(folder))
            text += [
                f"resnet20 on emoji: `secateur train resnet20 A.onnx {TRAIN} --data DATA/emoji-images {SHARED}`, then",
                f"`secateur prune A.onnx B.onnx {CUT} {TUNE} --data DATA/emoji-images {SHARED}`. Test accuracy in percent over {args.seeds} seeds: "
                f"{cell(rows['dense'])} before, {cell(rows['tuned'])} after. {fewer:.2f} times fewer multiply-adds; times as fast:",
                "",
                "| | " + " | ".join(f"batch {b}" for b in BATCHES) + " |",
                "|---|" + "---|" * len(BATCHES),
            ]
            for threads in args.threads:
                cells = (f"{faster[threads, b]:.2f}" for b in BATCHES)
                text.append(f"| {threads} thread{'s' * (threads > 1)} | {' | '.join(cells)} |")
        heads = " | ".join(f"ms, {t} thread{'s' * (t > 1)}" for t in args.threads)
        text += ["", f"Real models, `secateur prune A.onnx B.onnx {CUT}`, not trained on:", ""]
        text += [f"| model | parameters, M | MACs, M | {heads} | times as fast |", "|---|---|---|" + "---|" * (len(args.threads) + 1)]
        for name, sizes in REAL.items():
            if not (args.models / name).exists():
                continue
            found = [
                said([args.bin, "prune", str(args.models / name), str(Path(folder) / "out.onnx"), *CUT.split(), *sizes, "-t", str(t)])
                for t in args.threads
            ]
            change = lambda f, key, by: f"{f['before'][key] / by:.1f} → {f['after'][key] / by:.1f}"
            times = " | ".join(f"{f['before']['ms']:.2f} → {f['after']['ms']:.2f}" for f in found)
            fast = ", ".join(f"{ratio(f, 'ms'):.2f}" for f in found)
            model = name.split("/")[0]
            text.append(f"| {model} | {change(found[0], 'parameters', 1e6)} | {change(found[0], 'macs', 1e6)} | {times} | {fast} |")
            print(text[-1], flush=True)
    return "\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--bin", default=str(ROOT / "target/release/secateur"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/pruning.md")
    args = parser.parse_args()
    page.replace(args.out, TITLE, section(args), "# Pruned networks")


if __name__ == "__main__":
    main()
