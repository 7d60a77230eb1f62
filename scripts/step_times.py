#!/usr/bin/env python3
"""Times a training step (forward, cross-entropy, backward, Adam; batch 64) here and in PyTorch, in turn; writes docs/results/steps.md.

    step_times.py [--threads N] [--rounds N] [--bin PATH] [--out FILE]        needs torch; without it only this engine is timed

The binary is `cargo build --release -p secateur-benches --example step_times`. Each round runs every network in both, 20 steps each after
5 that do not count; a round's figure is the least time and the median of all rounds' medians. Memory is that of a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
NETS = ["lenet-300-100", "conv4", "transformer-encoder", "resnet20"]

TORCH = """
import json, resource, sys, time
import torch
from torch import nn

name, threads = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(threads)
conv = lambda i, o: nn.Conv2d(i, o, 3, padding=1)

class Basic(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
                               nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o))
        short = nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))
        self.short = short if i != o or s != 1 else nn.Identity()

    def forward(self, x):
        return torch.relu(self.short(x) + self.f(x))

def lenet():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)), (1, 28, 28)

def conv4():
    layers = [conv(3, 32), nn.ReLU(), conv(32, 32), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [conv(32, 64), nn.ReLU(), conv(64, 64), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4096, 10)), (3, 32, 32)

def transformer():
    layer = nn.TransformerEncoderLayer(128, 4, 512, 0.0, "gelu", batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(64 * 128, 10)), (64, 128)

def resnet():
    sizes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *[Basic(*s) for s in sizes], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)), (3, 32, 32)

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
net, shape = {"lenet-300-100": lenet, "conv4": conv4, "transformer-encoder": transformer, "resnet20": resnet}[name]()
x, y, times = torch.randn(64, *shape), torch.arange(64) % 10, []
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
for _ in range(25):
    start = time.perf_counter()
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
    times.append(1e3 * (time.perf_counter() - start))
times = sorted(times[5:])
mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"min_ms": times[0], "median_ms": times[10], "mb": mb, "version": torch.__version__}))
"""


def run(command):
    made = subprocess.run(command, capture_output=True, text=True)
    return json.loads(made.stdout) if made.returncode == 0 else None


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--bin", default=str(ROOT / "target" / "release" / "examples" / "step_times"))
    args.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "steps.md")
    args = args.parse_args()
    rows, version = [], None
    for net in NETS:
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours.append(run([args.bin, "--net", net, "--threads", str(args.threads)]))
            theirs.append(run([sys.executable, "-c", TORCH, net, str(args.threads)]))
        theirs = [t for t in theirs if t]
        least = lambda all, key: min(a[key] for a in all)
        middle = lambda all: statistics.median(a["median_ms"] for a in all)
        masked = [run([args.bin, "--net", net, "--threads", str(args.threads), "--zeros", "0.9"]) for _ in range(args.rounds)]
        cells = [net, f"{least(ours, 'min_ms'):.2f} / {middle(ours):.2f}"]
        if theirs:
            version = theirs[0]["version"]
            cells.append(f"{least(theirs, 'min_ms'):.2f} / {middle(theirs):.2f}")
            cells.append(f"{least(ours, 'min_ms') / least(theirs, 'min_ms'):.2f} / {middle(ours) / middle(theirs):.2f}")
            cells.append(f"{least(ours, 'plan_mb'):.0f}")
            cells.append(f"{least(theirs, 'mb'):.0f}")
        else:
            cells += ["–", "–", f"{least(ours, 'plan_mb'):.0f}", "–"]
        cells.append(f"{least(masked, 'min_ms'):.2f} / {middle(masked):.2f}")
        rows.append("| " + " | ".join(cells) + " |")
        print(rows[-1], flush=True)
    torch = f"PyTorch {version}" if version else "PyTorch"
    head = [
        "# Training steps",
        "",
        "`scripts/step_times.py`: forward, cross-entropy, backward and Adam at batch 64, f32; least and median milliseconds, in turn with",
        "PyTorch, on cores that others use too. MB: what a step works in here, and by how much PyTorch's process grows from before the network",
        "is made. A section for each processor; the script replaces that of the one it runs on.",
        "",
    ]
    sections = {}
    for line in args.out.read_text().splitlines() if args.out.exists() else []:
        if line.startswith("## "):
            sections[line] = []
        elif sections:
            sections[list(sections)[-1]].append(line)
    sections[f"## {processor()}, {args.threads} threads"] = [
        "",
        f"{args.rounds} rounds.",
        "",
        f"| network | ms | ms, {torch} | ratio | MB | MB, {torch} | ms, 90 % of the weights held at 0 |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    lines = [line for title, body in sections.items() for line in [title, *body, ""]]
    args.out.write_text("\n".join(head + lines).rstrip() + "\n")


def processor():
    """The processor's name, with the family that tells generations apart."""
    told = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    told = {key.strip(): value.strip() for key, value in told.items()}
    return f"{told.get('model name', 'unknown')} (family {told.get('cpu family', '?')}, model {told.get('model', '?')})"


if __name__ == "__main__":
    main()
