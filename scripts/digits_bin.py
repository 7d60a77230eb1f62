#!/usr/bin/env python3
"""Packs scikit-learn's digits.csv.gz into train/assets/digits.bin (layout: train/assets/README.md).

    digits_bin.py digits.csv.gz [OUT]        standard library only

The input is in the package scikit-learn 1.9.1; `scripts/fetch.sh DIR digits` puts it at DIR/digits/digits.csv.gz.
"""
import argparse
import gzip
from pathlib import Path

COUNT, PIXELS = 1797, 64


def pack(csv: str) -> bytes:
    """Pixel bytes of all images in file order, then one label byte an image."""
    rows = [[int(float(cell)) for cell in line.split(",")] for line in csv.split()]
    if len(rows) != COUNT or any(len(row) != PIXELS + 1 for row in rows):
        raise SystemExit(f"expected {COUNT} rows of {PIXELS} pixels and a label")
    if max(max(row[:PIXELS]) for row in rows) > 16 or {row[PIXELS] for row in rows} != set(range(10)):
        raise SystemExit("expected pixels 0..16 and labels 0..9")
    return b"".join(bytes(row[:PIXELS]) for row in rows) + bytes(row[PIXELS] for row in rows)


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("csv", type=Path)
    args.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent.parent / "train" / "assets" / "digits.bin")
    args = args.parse_args()
    args.out.write_bytes(pack(gzip.decompress(args.csv.read_bytes()).decode()))
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
