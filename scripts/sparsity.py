#!/usr/bin/env python3
"""Times models with zeros here and in other engines: docs/results/sparsity.md.

    sparsity.py MODELS [--secateur BIN] [--openvino PYTHON] [--deepsparse PYTHON] [--engines self,ort,…] [--threads 2,1]
                [--batches 1,8] [--time SECONDS] [--only GLOB...] [--opset N] [-o FILE]

MODELS is the folder that fetch.sh fills; models that `secateur new` writes are put there too. Needs numpy and onnx; BIN is built with
`cargo build --release --features ort`; the PYTHONs are interpreters with numpy and openvino, or numpy<2 and deepsparse==1.8.0 (Python
3.11 at most). --opset N writes all files, for all engines, in an older opset, should one need it.

Each sparse file is measured together with its dense one, in every engine, each in a process of its own and all in turn, as
compare.py does it. So a speed-up is of one engine within the same minute. Files are pruned by `secateur prune --method magnitude
--scope layer`: every layer has the stated share of zeros.

AlexNet's convolutions by themselves are measured dense, with single weights set to zero, and "structured": with the same share of
their output channels not there at all.
"""
import argparse
import fnmatch
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workers import ROOT, Worker, below, commit, geomean, machine, rand, ready, run_in_turn, table

KEEP_1X1 = ["--keep", "features.0.*", "features.1.*", "features.*.conv.1.0.weight", "classifier*"]


def tokens(length):
    def inputs(batch):
        mask = lambda rng: np.ones((batch, length), np.int64)
        return {"input_ids": below(30522, batch, length), "attention_mask": mask, "token_type_ids": below(2, batch, length)}

    return inputs


def image(name):
    return lambda batch: {name: rand(batch, 3, 224, 224)}


# Name, file under MODELS, inputs of a batch, and how it is pruned: pattern, percent, more flags.
SINGLE = [("unstructured", n, []) for n in (80, 90, 95)]
MODELS = [
    ("resnet50", "new/resnet50.onnx", image("image"), SINGLE),
    ("bert-base, 128 tokens", "new/bert-base.onnx", tokens(128), SINGLE + [("block4x1", n, []) for n in (80, 90)]),
    ("bert-base, one token", "new/bert-base.onnx", tokens(1), [("unstructured", n, []) for n in (50, 90)]),
    ("mobilenetv2, 1x1 only", "new/mobilenetv2.onnx", image("image"), [("unstructured", 90, KEEP_1X1)]),
    ("vit-s", "vit-s/vit_s_focus.onnx", image("input_image"), [("unstructured", 90, [])]),
]
# AlexNet's layers (Krizhevsky et al. 2012, no groups): outputs, inputs, window, stride, pad, image.
LAYERS = [("conv1", 96, 3, 11, 4, 2, 224), ("conv2", 256, 96, 5, 1, 2, 27), ("conv3", 384, 256, 3, 1, 1, 13),
          ("conv4", 384, 384, 3, 1, 1, 13), ("conv5", 256, 384, 3, 1, 1, 13)]  # fmt: skip
SHARES = [50, 80, 90, 95]


def secateur(args, *words):
    subprocess.run([args.secateur, *map(str, words), "--quiet", "--force"], check=True, stdout=subprocess.DEVNULL)


def pruned(args, dense, folder, pattern, percent, more=()):
    """A file with zeros."""
    path = f"{folder}/{pattern.replace(':', 'of')}-{percent}.onnx"
    secateur(args, "prune", dense, path, "--pattern", pattern, "--sparsity", f"{percent}%", "--scope", "layer", *more)
    return path


def measure(args, files, inputs, threads):
    """Figures by engine and kind of file, and the errors of engines; all run in turn."""
    workers, errors = [], {}
    try:
        for engine in args.engines:
            try:
                for kind, path in files.items():
                    workers.append((engine, kind, Worker(engine, args, path, threads, inputs)))
            except RuntimeError as error:
                errors[engine] = str(error)
                for _, _, worker in (w for w in workers if w[0] == engine):
                    worker.process.kill()
                workers = [w for w in workers if w[0] != engine]
        run_in_turn([worker for *_, worker in workers], args.time)
        figures = {}
        for engine, kind, worker in workers:
            figures.setdefault(engine, {})[kind] = worker.figures()
        return figures, errors
    finally:
        for *_, worker in workers:
            worker.process.kill()


def saved(makers, folder):
    """Inputs as files."""
    rng, inputs = np.random.default_rng(0), {}
    for i, (name, make) in enumerate(makers.items()):
        inputs[name] = f"{folder}/{i}.npy"
        np.save(inputs[name], make(rng))
    return inputs


def older(args, path, folder):
    if not args.opset:
        return path
    secateur(args, "optimize", path, f"{folder}/dense.onnx", "--level", "none", "--opset", args.opset)
    return f"{folder}/dense.onnx"


def convolution(outputs, inputs, size, stride, pad, side, path):
    """A file with one convolution for any batch, its weights drawn as He et al. 2015 do."""
    weight = np.random.default_rng(1).standard_normal((outputs, inputs, size, size), np.float32) * np.sqrt(2 / (inputs * size**2))
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[size] * 2, strides=[stride] * 2, pads=[pad] * 4)
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    after = (side + 2 * pad - size) // stride + 1
    graph = helper.make_graph([node], "layer", [value("x", ["batch", inputs, side, side])],
                              [value("y", ["batch", outputs, after, after])], [numpy_helper.from_array(weight.astype(np.float32), "w")])  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def models(args, threads, batch):
    """Rows of whole models: name, pattern and percent, figures, errors."""
    for name, file, makers, prunings in MODELS:
        if not chosen(args, name):
            continue
        path = ready(args, file)
        if not path:
            print(f"skipped: {name}: {file} has not been fetched", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            inputs, dense = saved(makers(batch), folder), older(args, path, folder)
            for pattern, percent, more in prunings:
                sparse = pruned(args, dense, folder, pattern, percent, more)
                yield shown(name, f"{pattern} {percent} %", *measure(args, {"dense": dense, "sparse": sparse}, inputs, threads))
                os.remove(sparse)


def layers(args, threads, batch):
    """Rows of AlexNet's convolutions."""
    for name, outputs, inputs, size, stride, pad, side in LAYERS:
        if not chosen(args, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            given = saved({"x": rand(batch, inputs, side, side)}, folder)
            shape = (inputs, size, stride, pad, side)
            dense = convolution(outputs, *shape, f"{folder}/dense.onnx")
            for percent in SHARES:
                left = round(outputs * (1 - percent / 100))
                files = {"dense": dense, "sparse": pruned(args, dense, folder, "unstructured", percent),
                         "structured": convolution(left, *shape, f"{folder}/structured.onnx")}  # fmt: skip
                yield shown(name, f"{percent} %", *measure(args, files, given, threads))


def chosen(args, name):
    return not args.only or any(fnmatch.fnmatch(name, glob) for glob in args.only)


def shown(name, what, figures, errors):
    said = [f"{e} {kind} {f['min']:.2f}/{f['median']:.2f}" for e, kinds in figures.items() for kind, f in kinds.items()]
    print(f"{name}, {what}: {'; '.join(said + [f'{e}: {w}' for e, w in errors.items()])}", file=sys.stderr, flush=True)
    return name, what, figures, errors


KEYS = ("min", "median")


def pair(numbers):
    return " / ".join("–" if n is None else f"{n:.2f}" for n in numbers)


def speedup(figures, engine, kind):
    """Dense time ÷ time, of the least and the middle."""
    f = figures.get(engine)
    return [f["dense"][key] / f[kind][key] if f else None for key in KEYS]


def peer(figures, engine, kind):
    """The engine's time ÷ ours on the same file."""
    both = {"self", engine} <= figures.keys()
    return [figures[engine][kind][key] / figures["self"][kind][key] if both else None for key in KEYS]


def of_models(args, rows):
    others = [e for e in args.engines if e != "self"]
    head = ["min / median", "self, ms"] + [f"{e}: dense ÷ sparse" for e in args.engines] + [f"{e} ÷ self, sparse" for e in others]
    head += [f"{e} ÷ self, dense" for e in others]
    cells = []
    for name, what, f, _ in rows:
        own = [f["self"]["sparse"][key] for key in KEYS] if "self" in f else [None, None]
        cells.append([f"{name}, {what}", pair(own)] + [pair(speedup(f, e, "sparse")) for e in args.engines]
                     + [pair(peer(f, e, kind)) for kind in ("sparse", "dense") for e in others])  # fmt: skip
    means = []
    for e in others:
        both = [r[0] for _, _, f, _ in rows if (r := peer(f, e, "sparse"))[0]]
        means.append(f"- {e} ÷ self on sparse files, geometric mean of the least times (files): {geomean(both)}\n")
    return table(head, cells) + "\n" + "".join(means)


def of_layers(args, rows):
    head = ["dense ÷, min / median"] + [f"{e}, {kind}" for e in args.engines for kind in ("sparse", "structured")]
    cells = [[f"{name}, {what}"] + [pair(speedup(f, e, kind)) for e in args.engines for kind in ("sparse", "structured")]
             for name, what, f, _ in rows]  # fmt: skip
    said = []
    for e in args.engines:
        high = [f for _, what, f, _ in rows if e in f and int(what.split()[0]) >= 90]
        if not high:
            continue
        gains = [speedup(f, e, "sparse")[0] for f in high]
        over, under = sum(g > 1.5 for g in gains), sum(g < 1 for g in gains)
        every = [f for _, _, f, _ in rows if e in f]
        faster = sum(speedup(f, e, "structured")[0] > speedup(f, e, "sparse")[0] for f in every)
        said.append(f"- {e}: at 90 % and more {min(gains):.2f} to {max(gains):.2f}; above 1.5 in {over} and below 1 in {under} of "
                    f"{len(gains)}; structured is the faster in {faster} of {len(every)} cases.\n")  # fmt: skip
    return table(head, cells) + "\n" + "".join(said)


def section(args, threads, batch, whole, single):
    text = f"\n## {threads} thread{'s' if threads > 1 else ''}, batch {batch}\n\n"
    text += of_models(args, whole) if whole else ""
    text += f"\n### AlexNet's convolutions\n\n{of_layers(args, single)}" if single else ""
    failed = dict.fromkeys(f"- {name}, {engine}: {error}\n" for name, _, _, e in whole + single for engine, error in e.items())
    return text + ("\nNot run:\n\n" + "".join(failed) if failed else "")


def report(args, sections):
    figures = [f for _, _, whole, single in sections for _, _, f, _ in whole + single]
    versions = {e: kinds["dense"]["version"] for f in figures for e, kinds in f.items()}
    words = ["scripts/sparsity.py", "MODELS", f"--engines={','.join(args.engines)}", f"--threads={args.threads}",
             f"--batches={args.batches}", f"--time={args.time:g}"]  # fmt: skip
    words += (["--only", *args.only] if args.only else []) + ([f"--opset={args.opset}"] if args.opset else [])
    return (f"# What zeros save\n\nWritten by `{shlex.join(words)}` on {time.strftime('%Y-%m-%d')}.\n\n- Machine: {machine()}\n"
            f"- Versions: {'; '.join(map(' '.join, versions.items()))}; checkout {commit()}. Load average before: {args.load:.2f}.\n"
            "- Method: each sparse file in turn with its dense one, every engine and file in a process of its own; "
            "`scripts/sparsity.py` has the details. All engines run the same files.\n"
            "- dense ÷ sparse: how much faster an engine is with the zeros than without. X ÷ self: above 1, secateur is faster.\n"
            "- The statement under test: single zeros at 90 % and more stay at or below 1.5× and can be below 1; removing the "
            "same share of channels is faster.\n"
            + "".join(section(args, *s) for s in sections))  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models")
    p.add_argument("--secateur", default=os.environ.get("CARGO_TARGET_DIR", f"{ROOT}/target") + "/release/secateur")
    p.add_argument("--openvino", metavar="PYTHON")
    p.add_argument("--deepsparse", metavar="PYTHON")
    p.add_argument("--engines", default="self,ort")
    p.add_argument("--threads", default="2,1")
    p.add_argument("--batches", default="1,8")
    p.add_argument("--time", type=float, default=5)
    p.add_argument("--only", nargs="+", metavar="GLOB", default=[])
    p.add_argument("--opset", type=int)
    p.add_argument("-o", "--output", default=str(ROOT / "docs" / "results" / "sparsity.md"))
    args = p.parse_args()
    optional = [e for e in ("openvino", "deepsparse") if getattr(args, e)]
    args.engines = list(dict.fromkeys(args.engines.split(",") + optional))
    args.load, sections = os.getloadavg()[0], []
    for threads in map(int, args.threads.split(",")):
        for batch in map(int, args.batches.split(",")):
            sections.append((threads, batch, list(models(args, threads, batch)), list(layers(args, threads, batch))))
    if not any(whole or single for *_, whole, single in sections):
        p.error("nothing was run")
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(args.output).write_text(report(args, sections))


if __name__ == "__main__":
    main()
