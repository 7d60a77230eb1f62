#!/usr/bin/env python3
"""Sorts the emoji of `fetch.sh DIR emoji` into an image folder: OUT/train/CATEGORY/*.png and OUT/test/CATEGORY/*.png.

    emoji.py DIR/emoji OUT [--test SHARE] [--seed N]        standard library only

1,906 emoji in nine categories, 64×64 pixels; with their shades of skin 3,781 images. The seed and an emoji's code point decide
where it goes, so that all shades of one are on the same side.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("emoji", type=Path)
    args.add_argument("out", type=Path)
    args.add_argument("--test", type=float, default=0.2, metavar="SHARE")
    args.add_argument("--seed", type=int, default=0)
    args = args.parse_args()
    copied = {"train": 0, "test": 0}
    for emoji in json.loads((args.emoji / "emoji.json").read_text()):
        # Its five entries are shades of skin on their own.
        if emoji["category"] == "Component":
            continue
        drawn = hashlib.sha256(f"{args.seed} {emoji['unified']}".encode()).digest()
        part = "test" if int.from_bytes(drawn[:8], "big") < args.test * 2**64 else "train"
        folder = args.out / part / emoji["category"].lower().replace(" & ", "-").replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for shade in [emoji, *emoji.get("skin_variations", {}).values()]:
            image = args.emoji / "img" / "google" / "64" / shade["image"]
            shutil.copy(image, folder)
            copied[part] += 1
    print(f"{copied['train']} images for training, {copied['test']} for testing in {args.out}")


if __name__ == "__main__":
    main()
