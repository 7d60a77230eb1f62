#!/usr/bin/env python3
"""Trains networks on real data, three seeds each, and writes docs/results/training.md.

    training.py DATA [--bin PATH] [--only NAME...] [--seeds N] [--threads N] [--out FILE] [--torch]

DATA is where `scripts/fetch.sh DATA mnist emoji text-topics` has put them. With --torch the same network is trained on the emoji by
PyTorch too, with the same recipe (needs torch and pillow; skipped with a reason where they are missing). Rows that are not run keep
what the file has of them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
EMOJI = {"epochs": 15, "batch": 64, "lr": 2e-3, "crop": 4}

# name: (what must be reached in percent, the architecture and its flags)
RECIPES = {
    "lenet-300-100, MNIST": (98.2, "lenet-300-100 --data {data}/mnist --validation 0 --epochs 20 --batch 64 --schedule cosine:20"),
    "lenet5, MNIST": (99.1, "lenet5 --data {data}/mnist --validation 0 --epochs 12 --batch 64 --schedule cosine:12 --augment crop:2"),
    "conv4, digits": (
        98.0,
        "conv4 --data digits --validation 0 --epochs 60 --batch 32 --lr 2e-3 --schedule cosine:60 --augment crop:1,rotate:15 "
        "--loss cross-entropy:smoothing=0.1",
    ),
    "transformer-encoder, R8": (
        93.0,
        "transformer-encoder --set layers=2 --set hidden=64 --set heads=4 --set ffn=128 --set dropout=0.2 "
        "--data {data}/text-topics/reuters-r8-train.tab --validation 0 --epochs 4 --batch 32 --schedule warmup:1+cosine:3",
    ),
    "resnet20, emoji": (
        None,
        "resnet20 --set channels=3 --set height=32 --set width=32 --data {emoji} --validation 0 "
        f"--epochs {EMOJI['epochs']} --batch {EMOJI['batch']} --lr {EMOJI['lr']} --schedule cosine:{EMOJI['epochs']} "
        f"--augment flip,crop:{EMOJI['crop']}",
    ),
}


def ours(binary, recipe, seed, threads, folder):
    """The test accuracy in percent, seconds of training, and milliseconds of a step."""
    out = Path(folder) / "model.onnx"
    command = [binary, "train", *recipe.split(), "-t", str(threads), "--seed", str(seed), "--json", "--quiet", "--force"]
    command.insert(3, str(out))
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(made.stdout or made.stderr)
    said = json.loads(made.stdout)
    seconds = sum(e["seconds"] for e in said["epochs"])
    return 100 * said["test"]["accuracy"], seconds, said["step_ms"]


def images(folder):
    """Pixels and labels of an image folder, resized to 32 x 32."""
    import numpy
    import torch
    from PIL import Image

    names = sorted(p.name for p in folder.iterdir())
    pixels, labels = [], []
    for label, name in enumerate(names):
        for path in sorted((folder / name).iterdir()):
            image = Image.open(path).convert("RGBA")
            # Opacity is dropped, as it is there.
            image = Image.fromarray(numpy.asarray(image)[:, :, :3])
            pixels.append(numpy.asarray(image.resize((32, 32), Image.BILINEAR)))
            labels.append(label)
    return torch.tensor(numpy.stack(pixels)).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels)


def theirs(emoji, seed, threads):
    """The same recipe in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Basic(nn.Module):
        def __init__(self, i, o, s):
            super().__init__()
            self.f = nn.Sequential(
                nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
                nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o),
            )
            short = nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))
            self.short = short if i != o or s != 1 else nn.Identity()

        def forward(self, x):
            return torch.relu(self.short(x) + self.f(x))

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    sizes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    (x, y), (tx, ty) = images(emoji / "train"), images(emoji / "test")
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *[Basic(*s) for s in sizes],
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, int(y.max()) + 1),
    )
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
    optimizer = torch.optim.Adam(net.parameters(), EMOJI["lr"])
    batch, crop = EMOJI["batch"], EMOJI["crop"]
    batches = -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EMOJI["epochs"] * batches, 1e-3 * EMOJI["lr"])
    begun, took = time.perf_counter(), []
    for _ in range(EMOJI["epochs"]):
        for which in torch.randperm(len(x)).split(batch):
            start = time.perf_counter()
            some = F.pad(x[which], [crop] * 4)
            moved = []
            for one in some:
                down, right = torch.randint(0, 2 * crop + 1, (2,)).tolist()
                one = one[:, down : down + 32, right : right + 32]
                moved.append(one.flip(2) if torch.rand(()) < 0.5 else one)
            optimizer.zero_grad()
            F.cross_entropy(net(torch.stack(moved)), y[which]).backward()
            optimizer.step()
            schedule.step()
            took.append(1e3 * (time.perf_counter() - start))
    seconds = time.perf_counter() - begun
    net.eval()
    with torch.no_grad():
        right = sum((net(a).argmax(1) == b).sum().item() for a, b in zip(tx.split(256), ty.split(256)))
    return 100 * right / len(tx), seconds, statistics.median(took)


def row(name, bar, runs, recipe):
    accuracies = ", ".join(f"{a:.2f}" for a, _, _ in runs)
    mean = statistics.mean(a for a, _, _ in runs)
    seconds = statistics.median(s for _, s, _ in runs)
    step = statistics.median(m for _, _, m in runs)
    wanted = "" if bar is None else f"{bar:.1f}"
    return f"| {name} | {wanted} | {accuracies} | {mean:.2f} | {seconds:.0f} | {step:.2f} | {recipe} |"


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("data", type=Path)
    args.add_argument("--bin", default=str(ROOT / "target" / "release" / "secateur"))
    args.add_argument("--only", nargs="*", default=[])
    args.add_argument("--seeds", type=int, default=3)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "training.md")
    args.add_argument("--torch", action="store_true")
    args = args.parse_args()
    old = args.out.read_text().splitlines() if args.out.exists() else []
    rows = {line.split("|")[1].strip(): line for line in old if line.startswith("| ") and not line.startswith("| network")}
    emoji = args.data / "emoji-images"
    if (args.data / "emoji").exists() and not emoji.exists():
        subprocess.run([sys.executable, ROOT / "scripts" / "emoji.py", args.data / "emoji", emoji], check=True)
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        for name, (bar, recipe) in RECIPES.items():
            if args.only and not any(o in name for o in args.only):
                continue
            flags = recipe.format(data=args.data, emoji=emoji)
            runs = [ours(args.bin, flags, seed, args.threads, folder) for seed in range(args.seeds)]
            seeds = ", ".join(map(str, range(args.seeds)))
            shown = recipe.format(data="DATA", emoji="DATA/emoji-images")
            rows[name] = row(name, bar, runs, f"`secateur train {shown.replace(' ', ' OUT.onnx ', 1)} --seed {seeds}`")
            missed |= bar is not None and min(a for a, _, _ in runs) < bar
            print(rows[name], flush=True)
        if args.torch:
            try:
                runs = [theirs(emoji, seed, args.threads) for seed in range(args.seeds)]
                name = "the same in PyTorch"
                rows[name] = row(name, None, runs, "`scripts/training.py DATA --torch`")
                print(rows[name], flush=True)
            except ImportError as e:
                print(f"PyTorch is not compared: {e}", file=sys.stderr)
    head = [
        "# Trained networks",
        "",
        "`scripts/training.py DATA --torch`: accuracy on test examples in percent, one for each seed, with the published splits (the emoji are",
        "split by `scripts/emoji.py`). Seconds of training and milliseconds of a step are medians, on a machine that others use too.",
        "",
        "| network | wanted | accuracy | mean | s | ms a step | command |",
        "|---|---|---|---|---|---|---|",
    ]
    kept = old[old.index("<!-- more -->"):] if "<!-- more -->" in old else []
    args.out.write_text("\n".join(head + list(rows.values()) + ([""] + kept if kept else [])) + "\n")
    sys.exit(missed)


if __name__ == "__main__":
    main()
