"""Converted models: do they pass ONNX's checker, and does ONNX Runtime still give what it gave?

usage: opset_check.py CONVERTED ONNX_TESTS

CONVERTED is a folder that `converted_cases` of engine/tests/conformance.rs wrote (variable CONVERTED), ONNX_TESTS the
folder with ONNX's backend tests. What ONNX Runtime cannot run before, or has no kernel for after, is only counted.
"""

import collections
import os
import pathlib
import sys

os.environ["ALLOW_RELEASED_ONNX_OPSET_ONLY"] = "0"
import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

ort.set_default_logger_severity(4)
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL


def run(path, feeds):
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return session.run(None, {k: v for k, v in feeds.items() if k in names})


def load(path):
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def equal(a, b):
    if not isinstance(a, np.ndarray) or a.dtype == object:
        return str(a) == str(b)
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    return a.dtype == b.dtype and a.shape == b.shape and np.allclose(
        a.astype(wide), b.astype(wide), rtol=1e-3, atol=1e-6, equal_nan=True)


def main():
    converted, tests = map(pathlib.Path, sys.argv[1:])
    models = {p.parent.name: p for p in tests.glob("*/*/model.onnx")}
    counts, before = collections.Counter(), {}
    for path in sorted(converted.glob("*.onnx")):
        name = path.name.rsplit(".", 3)[0].removesuffix(".known")
        if name not in models:
            continue
        try:
            onnx.checker.check_model(str(path))
        except Exception as e:
            counts["not valid"] += 1
            print(f"{path.name}: {str(e).splitlines()[0][:300]}")
            continue
        if name not in before:
            before[name] = None
            try:
                graph = onnx.load(models[name]).graph
                data = models[name].parent / "test_data_set_0"
                feeds = {v.name: load(data / f"input_{i}.pb") for i, v in enumerate(graph.input)}
                before[name] = feeds, run(models[name], feeds)
            except Exception:
                pass
        if before[name] is None:
            counts["not run before"] += 1
            continue
        feeds, want = before[name]
        try:
            got = run(path, feeds)
        except Exception as e:
            text = str(e)
            if "NOT_IMPLEMENTED" in text or "opset" in text.lower() and "support" in text.lower():
                counts["no kernel"] += 1
            else:
                counts["not run after"] += 1
                print(f"{path.name}: {text.splitlines()[0][:300]}")
            continue
        same = len(got) == len(want) and all(map(equal, got, want))
        counts["same" if same else "other"] += 1
        if not same:
            print(f"{path.name}: other results")
    print(dict(counts))
    sys.exit(bool(counts["not valid"] or counts["other"]))


main()
