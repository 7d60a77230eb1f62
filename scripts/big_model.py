#!/usr/bin/env python3
"""Makes a runnable ONNX model of more than 2 GB, with all weights in one external file.

    big_model.py OUT_DIR [--gb 2.5]      needs onnx 1.22, numpy; under 200 MB of memory whatever the size

Writes OUT_DIR/big.onnx and OUT_DIR/big.onnx.data: layers of MatMul, Add and Relu with seeded random f32 weights
[4096, 4096] (64 MiB each), the last layer up to [4096, 32768] (512 MiB). Input `x` and output `y` are [batch, n] with
a free batch. Every tensor starts at a multiple of 4096 bytes.
"""
import argparse
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH, ALIGN, CHUNK = 4096, 4096, 1 << 22  # CHUNK in elements
LAYER_BYTES = WIDTH * WIDTH * 4


def external(name: str, dims: list[int], std: float, data: BinaryIO, rng: np.random.Generator) -> TensorProto:
    """Writes normal random numbers to `data` and says where they lie."""
    offset = -(-data.tell() // ALIGN) * ALIGN
    data.seek(offset)
    count = math.prod(dims)
    for start in range(0, count, CHUNK):
        data.write(rng.standard_normal(min(CHUNK, count - start), np.float32) * np.float32(std))
    tensor = TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in ("location", Path(data.name).name), ("offset", offset), ("length", 4 * count):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def build(path: Path, target_bytes: float) -> None:
    last = min(8, max(1, int(target_bytes / 4 / LAYER_BYTES)))  # the last layer's width in units of WIDTH
    layers = max(1, math.ceil(target_bytes / LAYER_BYTES) - last) + 1
    rng = np.random.default_rng(0)
    nodes, tensors, value = [], [], "x"
    with open(f"{path}.data", "wb") as data:
        for i in range(layers):
            columns = WIDTH * last if i == layers - 1 else WIDTH
            # He's deviation keeps the activations of the same size from layer to layer.
            tensors.append(external(f"w{i}", [WIDTH, columns], math.sqrt(2 / WIDTH), data, rng))
            tensors.append(external(f"b{i}", [columns], 0.01, data, rng))
            result = "y" if i == layers - 1 else f"relu{i}_out"
            nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"matmul{i}_out"], f"matmul{i}"))
            nodes.append(helper.make_node("Add", [f"matmul{i}_out", f"b{i}"], [f"add{i}_out"], f"add{i}"))
            nodes.append(helper.make_node("Relu", [f"add{i}_out"], [result], f"relu{i}"))
            value = result
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", columns])
        for name, columns in (("x", WIDTH), ("y", WIDTH * last))
    )
    graph = helper.make_graph(nodes, "big", [x], [y], tensors)
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    onnx.checker.check_model(str(path))
    size = Path(f"{path}.data").stat().st_size
    print(f"{path}: {layers} layers, {len(tensors)} tensors, {size / 1e9:.2f} GB of external data")


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("out_dir", type=Path)
    args.add_argument("--gb", type=float, default=2.5, help="at least so many times 10^9 bytes of weights")
    args = args.parse_args()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    build(args.out_dir / "big.onnx", args.gb * 1e9)


if __name__ == "__main__":
    main()
