#!/usr/bin/env python3
"""Cuts pieces out of the photos of `fetch.sh DIR photos` and of the emoji sorted by `emoji.py`, for models that learn from what they were.

    photos.py DIR/photos EMOJI OUT [--size N] [--train N] [--test N] [--seed N]        needs pillow

OUT/train/*.png and OUT/test/*.png, without labels; half of them are pieces of photos, half emoji. No photo and no emoji is on both sides.
"""

import argparse
import random
from pathlib import Path

from PIL import Image

# The motorcycle is there twice, seen from two sides.
TEST = ["chelsea", "rocket", "coins", "gravel", "retina"]
TRAIN = ["astronaut", "brick", "camera", "cell", "coffee", "grass", "hubble_deep_field", "ihc", "moon", "motorcycle_left", "motorcycle_right"]


def flat(path):
    """An image without its opacity."""
    image = Image.open(path)
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def piece(image, size, draw):
    """A square of 0.4 to 1 times the shorter side, half of them mirrored."""
    side = int(min(image.size) * draw.uniform(0.4, 1.0))
    x, y = draw.randint(0, image.width - side), draw.randint(0, image.height - side)
    cut = image.crop((x, y, x + side, y + side)).resize((size, size), Image.BILINEAR)
    return cut.transpose(Image.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else cut


def write(folder, count, photos, emoji, size, draw):
    folder.mkdir(parents=True, exist_ok=True)
    photos = [flat(p) for p in photos]
    for i in range(count):
        image = photos[i // 2 % len(photos)] if i % 2 else flat(draw.choice(emoji))
        piece(image, size, draw).save(folder / f"{i:05}.png")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("photos", type=Path)
    args.add_argument("emoji", type=Path)
    args.add_argument("out", type=Path)
    args.add_argument("--size", type=int, default=224)
    args.add_argument("--train", type=int, default=800)
    args.add_argument("--test", type=int, default=400)
    args.add_argument("--seed", type=int, default=0)
    args = args.parse_args()
    for part, names in [("train", TRAIN), ("test", TEST)]:
        photos = sorted(p for p in args.photos.iterdir() if p.stem in names)
        emoji = sorted((args.emoji / part).glob("*/*.png"))
        draw = random.Random(f"{args.seed} {part}")
        write(args.out / part, getattr(args, part), photos, emoji, args.size, draw)


if __name__ == "__main__":
    main()
