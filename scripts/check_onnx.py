#!/usr/bin/env python3
"""Checks ONNX files: onnx.checker, loading in ONNX Runtime, and one run on random inputs.

    check_onnx.py FILE... [--shape NAME=1,3,224,224]...      needs onnx 1.22, onnxruntime, numpy

Free dimensions are 1 unless a --shape names the input. Floats are drawn from 0..1, integers are 1, booleans true.
Prints `ok FILE` or `failed FILE: STEP: error`. Exit status: 0 all are ok; 1 some are not; 2 usage.
"""
import argparse
import sys

import numpy as np
import onnx
import onnxruntime as ort

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
    **{f"tensor({kind}{bits})": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def named_shape(text: str) -> tuple[str, list[int]]:
    name, equals, dims = text.rpartition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=1,2,3")
    return name, [int(dim) for dim in dims.split(",") if dim]


def random_input(info: ort.NodeArg, shapes: dict[str, list[int]], rng: np.random.Generator) -> np.ndarray:
    if info.type not in DTYPES:
        raise ValueError(f"input {info.name} has type {info.type}, for which this script makes no values")
    dtype = np.dtype(DTYPES[info.type])
    free = [dim if isinstance(dim, int) and dim > 0 else 1 for dim in info.shape]
    shape = shapes.get(info.name, free)
    if dtype.kind == "f":
        return rng.random(shape, np.float32).astype(dtype)
    return np.ones(shape, dtype)


def check(path: str, shapes: dict[str, list[int]], seen: set[str]) -> str | None:
    """The step that failed and its error, or None; adds the names of the inputs to `seen`."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors come back as exceptions
    step = "checker"
    try:
        onnx.checker.check_model(path, full_check=False)
        step = "load"
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        seen.update(info.name for info in session.get_inputs())
        step = "run"
        rng = np.random.default_rng(0)
        session.run(None, {info.name: random_input(info, shapes, rng) for info in session.get_inputs()})
    except Exception as error:
        return f"{step}: {' '.join(str(error).split())}"
    return None


def main() -> int:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("files", nargs="+", metavar="FILE")
    args.add_argument("--shape", type=named_shape, action="append", default=[], metavar="NAME=1,2,3")
    args = args.parse_args()
    shapes, seen, failed = dict(args.shape), set(), 0
    for path in args.files:
        error = check(path, shapes, seen)
        failed += error is not None
        print(f"failed {path}: {error}" if error else f"ok {path}", flush=True)
    unknown = shapes.keys() - seen
    if unknown:
        print(f"no file has an input {', '.join(sorted(unknown))}; inputs: {', '.join(sorted(seen))}", file=sys.stderr)
    return 2 if unknown else int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
