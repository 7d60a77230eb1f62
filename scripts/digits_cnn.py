#!/usr/bin/env python3
"""Trains the digits CNN of the tests and exports it to tests/data/digits-cnn.onnx.

    digits_cnn.py [OUT]        needs torch 2.15, onnx; about 10 s on one core

One fixed seed, one thread, deterministic kernels: the same versions on the same kind of processor give the same bytes.
"""
import argparse
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).parent.parent
COUNT, TRAIN = 1797, 1437  # the images from TRAIN on are the test set
SEED, EPOCHS, BATCH = 0, 40, 64
PEAK_LR, WEIGHT_DECAY, SMOOTHING = 6e-3, 1e-2, 0.05
# Draws weights that do no work towards zero, where pruning by magnitude finds them. The smallest of 1e-4, 2e-4, 4e-4
# and 8e-4 with which the network, 90 % of its weights cut, still recognises every training image.
L1 = 4e-4


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images [1797, 1, 8, 8] scaled to 0..1, and labels [1797]."""
    data = np.fromfile(ROOT / "train" / "assets" / "digits.bin", np.uint8)
    images = data[: COUNT * 64].reshape(COUNT, 1, 8, 8).astype(np.float32) / 16
    return torch.from_numpy(images), torch.from_numpy(data[COUNT * 64 :].astype(np.int64))


def network() -> nn.Sequential:
    """36,050 trained parameters: 35,800 weights, 240 of BatchNorm, 10 biases."""

    def block(n: int, channels_in: int, channels_out: int) -> list[tuple[str, nn.Module]]:
        conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        return [(f"conv{n}", conv), (f"bn{n}", nn.BatchNorm2d(channels_out)), (f"relu{n}", nn.ReLU())]

    layers = [*block(1, 1, 24), *block(2, 24, 32), ("pool", nn.MaxPool2d(2)), *block(3, 32, 64)]
    return nn.Sequential(OrderedDict([*layers, ("flatten", nn.Flatten()), ("fc", nn.Linear(64 * 4 * 4, 10))]))


def distort(images: torch.Tensor) -> torch.Tensor:
    """A random small rotation, scale, shear and shift of each image."""

    def uniform(span: float) -> torch.Tensor:
        return (torch.rand(len(images)) * 2 - 1) * span

    angle, scale, shear = uniform(0.15), 1 + uniform(0.1), uniform(0.15)
    rows = [
        [scale * angle.cos(), scale * (shear - angle.sin()), uniform(0.15)],
        [scale * angle.sin(), scale * angle.cos(), uniform(0.15)],
    ]
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def train(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor) -> None:
    batches = len(images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=EPOCHS * batches)
    weights = [p for p in model.parameters() if p.dim() > 1]
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images))[: batches * BATCH].view(batches, BATCH):
            loss = F.cross_entropy(model(distort(images[batch])), labels[batch], label_smoothing=SMOOTHING)
            loss = loss + L1 * sum(w.abs().sum() for w in weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def export(model: nn.Sequential, path: Path) -> None:
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the TorchScript exporter, chosen on purpose
    # PRESERVE on a model in eval mode: with EVAL the exporter folds each BatchNorm into its convolution,
    # and the file is there to show that folding.
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 8, 8),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        dynamo=False,
    )
    onnx.checker.check_model(str(path))


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("out", type=Path, nargs="?", default=ROOT / "tests" / "data" / "digits-cnn.onnx")
    args = args.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)

    images, labels = digits()
    model = network()
    train(model, images[:TRAIN], labels[:TRAIN])
    model.eval()
    with torch.no_grad():
        right = (model(images[TRAIN:]).argmax(1) == labels[TRAIN:]).sum().item()
    export(model, args.out)
    tests = COUNT - TRAIN
    print(f"test accuracy {100 * right / tests:.2f} % ({right} of {tests}); {args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
