#!/usr/bin/env python3
"""Runs ONNX Runtime over ONNX's backend tests, and writes the table of docs/conformance.md.

    conformance.py ort CASES OUT.tsv           the folder onnx-tests; one line a case: suite, case, verdict
    conformance.py table OURS.tsv ORT.tsv      the table, from what engine/tests/conformance.rs wrote

Needs onnx, onnxruntime and numpy. The tolerances are the suite's own.
"""

import collections
import glob
import multiprocessing
import os
import sys

REASONS = {
    "Bernoulli": "random: the expected numbers are one draw of NumPy's generator",
    "DFT": "the expected value is rounding noise about 0 (1.9e-7), beyond the suite's 1e-7; ours is nearer to 0",
    "ImageDecoder": "JPEG decoders may round pixels differently, here by 1, for which the suite has no tolerance; JPEG 2000 has no decoder",
    "(simple)": "gradients come with training",
}

SUITES = ["node", "simple", "pytorch-converted", "pytorch-operator", "light"]


def cases(root):
    for suite in SUITES:
        for path in sorted(glob.glob(f"{root}/{suite}/*")):
            if os.path.isdir(path):
                yield suite, os.path.basename(path), f"{path}/model.onnx", sorted(glob.glob(f"{path}/test_data_set_*"))
            elif path.endswith(".onnx"):
                yield suite, os.path.basename(path)[:-5], path, [path]


def value(path, ty):
    import onnx
    from onnx import numpy_helper as nh

    kind = ty.WhichOneof("value")
    data = open(path, "rb").read()
    if kind == "sequence_type":
        return nh.to_list(onnx.SequenceProto.FromString(data))
    if kind == "optional_type":
        return nh.to_optional(onnx.OptionalProto.FromString(data))
    return nh.to_array(onnx.TensorProto.FromString(data))


def sets(model, path, folders):
    import numpy as np
    from onnx import TensorProto, numpy_helper as nh

    initial = {i.name for i in model.graph.initializer}
    if folders == [path]:
        port = next(i for i in model.graph.input if i.name not in initial)
        shape = tuple(d.dim_value or 1 for d in port.type.tensor_type.shape.dim)
        n = int(np.prod(shape))
        x = (np.arange(n).reshape(shape) / n).astype(np.float32)
        want = TensorProto.FromString(open(path[:-5] + "_output_0.pb", "rb").read())
        yield {port.name: x}, [nh.to_array(want)]
        return
    for folder in folders:
        feeds = {}
        for i, port in enumerate(model.graph.input):
            if os.path.exists(f"{folder}/input_{i}.pb"):
                feeds[port.name] = value(f"{folder}/input_{i}.pb", port.type)
        yield feeds, [value(f"{folder}/output_{i}.pb", p.type) for i, p in enumerate(model.graph.output)]


def check(got, want, rtol):
    import numpy as np

    if want is None or got is None:
        assert got is None and want is None
    elif isinstance(want, list):
        assert len(got) == len(want)
        for g, w in zip(got, want):
            check(g, w, rtol)
    else:
        got = np.asarray(got)
        assert got.shape == want.shape, f"{got.shape}, expected {want.shape}"
        if want.dtype == object or want.dtype.kind in "SU":
            np.testing.assert_array_equal(got.astype(str), want.astype(str))
        elif got.dtype != want.dtype:
            raise AssertionError(f"{got.dtype}, expected {want.dtype}")
        elif want.dtype.kind in "iub":
            np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-7)
        else:
            np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=1e-7)


def verdict(case):
    import onnx
    import onnxruntime as ort

    suite, name, path, folders = case
    try:
        ort.set_default_logger_severity(4)
        model = onnx.load(path)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        known = {i.name for i in session.get_inputs()}
        for feeds, want in sets(model, path, folders):
            got = session.run(None, {k: v for k, v in feeds.items() if k in known})
            for g, w in zip(got, want):
                check(g, w, 2e-3 if "densenet121" in path else 1e-3)
        return "ok"
    except BaseException as e:  # noqa: BLE001
        return " ".join(str(e).split())[:200] or type(e).__name__


def work(chunk, queue):
    for case in chunk:
        queue.put((case[0], case[1], verdict(case)))


def run_ort(root, out):
    todo, done = list(cases(root)), {}
    while todo:
        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=work, args=(todo, queue))
        process.start()
        while process.is_alive() or not queue.empty():
            try:
                suite, name, said = queue.get(timeout=1)
                done[suite, name] = said
            except Exception:  # noqa: BLE001, S110
                pass
        process.join()
        left = [c for c in todo if (c[0], c[1]) not in done]
        if left:
            done[left[0][0], left[0][1]] = f"the process ended with {process.exitcode}"
            left = left[1:]
        todo = left
    with open(out, "w") as f:
        for (suite, name), said in done.items():
            f.write(f"{suite}\t{name}\t{said}\n")


def table(ours, theirs):
    ort = {tuple(line.split("\t")[:2]): line.rstrip("\n").split("\t")[2] for line in open(theirs)}
    rows, failures = collections.defaultdict(lambda: [0, 0, 0, 0, 0]), []
    for line in open(ours):
        suite, name, op, *ways = line.rstrip("\n").split("\t")
        row = rows[op]
        row[0] += 1
        for i, way in enumerate(ways):
            row[1 + i] += way == "ok"
        row[4] += ort.get((suite, name)) == "ok"
        if any(w != "ok" for w in ways):
            failures.append((name, op, next(w for w in ways if w != "ok")))
    total = [sum(r[i] for r in rows.values()) for i in range(5)]
    import onnx
    import onnxruntime

    print("# Conformance\n")
    print(f"ONNX's own backend tests (onnx {onnx.__version__}), with the suite's tolerances (1e-7 + 1e-3·|expected|).")
    print("Written by `scripts/conformance.sh`. *Reference* is the interpreter that runs definitions only, *engine* the optimised")
    print("engine on two threads, *rewritten* the engine on the file after write and read. ONNX Runtime")
    print(f"{onnxruntime.__version__} ran the same cases with the same tolerances; it has no kernels for some versions and types.\n")
    head = "| operator | cases | reference | engine | rewritten | ONNX Runtime |"
    print(head)
    print("|---|--:|--:|--:|--:|--:|")
    print("| **all** | " + " | ".join(f"**{n}**" for n in total) + " |")
    for op in sorted(rows, key=lambda o: (o.startswith("("), o.count("."), o)):
        print(f"| {op} | " + " | ".join(map(str, rows[op])) + " |")
    print("\nNames in parentheses are whole models of that suite.\n")
    print("## Failures\n")
    for name, op, why in failures:
        print(f"- `{name}` ({op}): {REASONS.get(op, 'not understood yet')}. {why[:160]}")
    if not failures:
        print("None.")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "ort":
        run_ort(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 4 and sys.argv[1] == "table":
        table(sys.argv[2], sys.argv[3])
    else:
        sys.exit(__doc__)
