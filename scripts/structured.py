#!/usr/bin/env python3
"""Cuts models to half of their predicted time, lets them learn from what they were, and writes a section of docs/results/pruning.md.

    structured.py DATA MODELS [--bin PATH] [--only NAME...] [--seeds N] [--threads N...] [--work DIR] [--out FILE]

DATA and MODELS are where `scripts/fetch.sh` has put emoji, photos and the models; what is missing is left out. ResNet-20 is trained on the
emoji, cut and fine-tuned with their labels; the real models learn from what they were, without labels, by pieces of photos and emoji, and
are compared with what they were on pieces of others, in ONNX Runtime (needs numpy, pillow and onnxruntime). What was done is kept in
DIR and not done again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import page
from kept import said, trained
from pruning_rounds import ROOT, cell

TITLE = "## Cut to half of the time"
SHARED = "--validation 0 --batch 64 --lr 0.002 --augment flip,crop:4"
TRAIN = "resnet20 --set channels=3 --set height=32 --set width=32 --epochs 15 --schedule cosine:15"
TUNE = "--finetune 15 --lr-schedule cosine:15"
CUT = "--pattern structured --of ms --sparsity 50%"
BATCHES = [1, 32]
FIT = "--recover weights --recover-samples 128"
SURGEON = "--pattern structured --method surgeon --samples 64"
LAMB = "--optimizer lamb --lr 1e-3"
# name: (the file, sizes, side of the pieces, the cut, fine-tuning)
REAL = {
    "opennsfw-resnet50thin": (
        "open-nsfw.onnx",
        "",
        224,
        f"{SURGEON} --of ms --sparsity 50%",
        f"--epochs 4 --batch 16 {LAMB} --schedule warmup:0.5,0.01+cosine:3.5",
    ),
    "vit-s": (
        "vit_s_focus.onnx",
        "",
        224,
        f"{SURGEON} --of macs --sparsity 50%",
        f"--epochs 6 --batch 8 {LAMB} --schedule warmup:0.5,0.01+cosine:5.5",
    ),
    "nudenet-yolov8n": (
        "320n.onnx",
        "-s height=320 -s width=320",
        320,
        f"{SURGEON} --of ms --sparsity 45%",
        f"--epochs 20 --batch 8 {LAMB} --schedule warmup:0.5,0.01+cosine:19.5",
    ),
}


def ratio(found, key):
    return found["before"][key] / found["after"][key]


def timed(args, name, base, sizes, cut=CUT):
    """How the cut model does against the first, not trained, by threads and batch."""
    found = {}
    for threads in args.threads:
        for batch in BATCHES if name == "resnet20" else [1]:
            flags = [*cut.split(), *sizes, "-t", threads] + (["-s", f"batch={batch}"] if batch > 1 else [])
            kept = args.work / f"{name}.{threads}.{batch}.json"
            kept.unlink(missing_ok=True)
            found[threads, batch] = said([args.bin, "prune", base, args.work / "timed.onnx", *flags], kept)
    return found


def in_turn(args, base, out, sizes):
    """The median milliseconds of a run of both by threads: of three rounds, in each of which one comes after the other."""
    found = {}
    for threads in args.threads:
        rounds = []
        for _ in range(3):
            command = [args.bin, "bench", *sizes, "-t", threads, "--time", 2, "--json", "--quiet"]
            one = lambda model: json.loads(subprocess.run([*map(str, [*command[:2], model, *command[2:]])], capture_output=True, check=True).stdout)
            rounds.append([one(model)["results"][0]["median_ms"] for model in (base, out)])
        before, after = (statistics.median(r[i] for r in rounds) for i in (0, 1))
        found[threads] = {"before": {"ms": before}, "after": {"ms": after}}
    return found


def resnet(args, emoji):
    """Lines of the report."""
    rows = {"dense": [], "tuned": []}
    for seed in range(args.seeds):
        base, out = args.work / f"resnet20.{seed}.onnx", args.work / f"resnet20.{seed}.cut.onnx"
        common = ["--data", emoji, *SHARED.split(), "--seed", seed]
        trained(args.bin, base, TRAIN, common)
        found = said([args.bin, "prune", base, out, *CUT.split(), *TUNE.split(), *common, "-t", 1], out.with_suffix(".json"))
        rows["dense"].append(100 * found["test"]["before"]["accuracy"])
        rows["tuned"].append(100 * found["test"]["after"]["accuracy"])
        print(rows, flush=True)
    times = timed(args, "resnet20", args.work / "resnet20.0.onnx", [])
    fewer = ratio(times[args.threads[0], 1], "macs")
    lines = [
        f"**resnet20**, emoji of 32 × 32: `secateur train {TRAIN.replace(' ', ' A.onnx ', 1)} --data DATA/emoji-images {SHARED}`, then",
        f"`secateur prune A.onnx B.onnx {CUT} {TUNE} --data DATA/emoji-images {SHARED} -t 1`. Test accuracy in percent over {args.seeds} seeds: "
        f"{cell(rows['dense'])} before, {cell(rows['tuned'])} after (which has seen as many examples again). {fewer:.2f} times fewer multiply-adds. Milliseconds:",
        "",
        "| | " + " | ".join(f"batch {b}" for b in BATCHES) + " |",
        "|---|" + "---|" * len(BATCHES),
    ]
    for threads in args.threads:
        cells = (f"{change(times[threads, b], 'ms', 1, 3)} ({ratio(times[threads, b], 'ms'):.2f} times as fast)" for b in BATCHES)
        lines.append(f"| {threads} thread{'s' * (threads > 1)} | {' | '.join(cells)} |")
    return lines


def change(found, key, by, digits=1):
    return f"{found['before'][key] / by:.{digits}f} → {found['after'][key] / by:.{digits}f}"


def pieces(args, emoji, side):
    """A folder of pieces of that size."""
    folder = args.work / f"pieces-{side}"
    if not folder.exists():
        script = ROOT / "scripts" / "photos.py"
        subprocess.run([sys.executable, script, args.data / "photos", emoji, folder, "--size", str(side)], check=True)
    return folder


def arrays(folder, part, name):
    """Pieces as the model wants them."""
    import numpy
    from PIL import Image

    x = numpy.stack([numpy.asarray(Image.open(p)) for p in sorted((folder / part).glob("*.png"))])
    if name.startswith("opennsfw"):
        # Blue first, without the means of the images that it learned from.
        return x[..., ::-1].astype(numpy.float32) - numpy.array([104, 117, 123], numpy.float32)
    return numpy.ascontiguousarray(x.transpose(0, 3, 1, 2)).astype(numpy.float32) / 255


def outputs(model, x):
    import numpy
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return numpy.concatenate([session.run(None, {name: x[i : i + 8]})[0] for i in range(0, len(x), 8)])


def agreement(old, new, x):
    """In percent, of the classes, of the objects that are found, or of the sides of a half; and the mean difference."""
    import numpy

    a, b = outputs(old, x), outputs(new, x)
    apart = float(numpy.abs(a - b).mean())
    if a.ndim == 2:
        return 100 * float((a.argmax(1) == b.argmax(1)).mean()), apart
    if a.shape[1] == 22:
        return 100 * same_objects(objects(a), objects(b)), apart
    return 100 * float(((a > 0.5) == (b > 0.5)).mean()), apart


def objects(scores, least=0.25):
    """Of each image classes and corners of what a YOLO finds, the surest first, without what mostly covers another of its class."""
    import numpy

    found = []
    for one in scores:
        kind, sure = one[4:].argmax(0), one[4:].max(0)
        order = [i for i in numpy.argsort(-sure) if sure[i] >= least]
        x, y, w, h = one[:4]
        corners = numpy.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
        kept = []
        for i in order:
            if all(kind[i] != k or shared(corners[i], c) < 0.45 for k, c in kept):
                kept.append((kind[i], corners[i]))
        found.append(kept)
    return found


def shared(a, b):
    """The intersection of two boxes over their union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def same_objects(old, new):
    """The F1 of `new`: objects of the same class and at least half in the same place are the same."""
    same = 0
    for mine, theirs in zip(old, new):
        left = list(theirs)
        for kind, box in mine:
            at = next((i for i, (k, b) in enumerate(left) if k == kind and shared(box, b) >= 0.5), None)
            if at is not None:
                same += 1
                left.pop(at)
    return 2 * same / max(sum(map(len, old)) + sum(map(len, new)), 1)


def real(args, emoji, name):
    """A row of the report."""
    import numpy

    file, sizes, side, cut, tune = REAL[name]
    base = args.models / name / file
    folder, sizes = pieces(args, emoji, side), sizes.split()
    data = folder
    if name.startswith("opennsfw"):
        data = args.work / f"{name}.npz"
        if not data.exists():
            numpy.savez(data, x_train=arrays(folder, "train", name), x_test=arrays(folder, "test", name))
    fitted, out = args.work / f"{name}.fitted.onnx", args.work / f"{name}.cut.onnx"
    seen = ["--data", data, "--task", "none"]
    found = said([args.bin, "prune", base, fitted, *cut.split(), *sizes, *seen, *FIT.split()], fitted.with_suffix(".json"))
    said([args.bin, "finetune", fitted, out, "--teacher", base, *sizes, *seen, *tune.split()], out.with_suffix(".json"))
    each = {part: [agreement(base, model, arrays(folder, part, name)) for model in (fitted, out)] for part in ("train", "test")}
    times = in_turn(args, base, out, sizes)
    row = [
        name,
        change(found, "parameters", 1e6),
        f"{change(found, 'macs', 1e6, 0)} ({ratio(found, 'macs'):.2f})",
        *(f"{change(times[t], 'ms', 1, 2)} ({ratio(times[t], 'ms'):.2f})" for t in args.threads),
        *(" → ".join(f"{a[0]:.1f}" for a in each[part]) for part in each),
        " → ".join(f"{a[1]:.4f}" for a in each["test"]),
    ]
    return "| " + " | ".join(row) + " |"


def section(args):
    emoji = args.data / "emoji-images"
    if (args.data / "emoji").exists() and not emoji.exists():
        subprocess.run([sys.executable, ROOT / "scripts" / "emoji.py", args.data / "emoji", emoji], check=True)
    text = [TITLE, "", f"`scripts/structured.py DATA MODELS --seeds {args.seeds}`; times are medians of runs in turn.", ""]
    if emoji.exists() and "resnet20" in args.only:
        text += resnet(args, emoji)
    heads = " | ".join(f"ms, {t} thread{'s' * (t > 1)}" for t in args.threads)
    text += [
        "",
        f"Real models, `secateur prune A.onnx B.onnx CUT --data PIECES --task none {FIT}`, then `secateur finetune B.onnx C.onnx --teacher A.onnx --data PIECES --task none TUNE`, where PIECES are 800 pieces of photos and emoji; CUT and "
        "TUNE of each are in the script. Agreement with A, in ONNX Runtime, on these pieces, which the model has learned from without labels, and on 400 pieces of "
        "other photos and emoji: of opennsfw the share with the same class, of nudenet the F1 of the objects that A finds (score at least 0.25, same class, half in "
        "the same place), of vit-s, whose output is a map of probabilities, the share of pixels on the same side of a half; beside it the mean difference of an output "
        "on the other pieces. Both with fitted weights → trained. Milliseconds are those of the last.",
        "",
    ]
    text += [f"| model | parameters, M | MACs, M | {heads} | agreement on its pieces, % | on others, % | apart |", "|---" * (len(args.threads) + 6) + "|"]
    for name in REAL:
        if name in args.only and (args.models / name).exists() and emoji.exists() and (args.data / "photos").exists():
            text.append(real(args, emoji, name))
            print(text[-1], flush=True)
    return "\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--bin", default=str(ROOT / "target/release/secateur"))
    parser.add_argument("--only", nargs="+", default=["resnet20", *REAL])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--work", type=Path, default=ROOT / "target/structured")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/pruning.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    page.replace(args.out, TITLE, section(args), "# Pruned networks")


if __name__ == "__main__":
    main()
