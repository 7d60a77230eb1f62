"""Engines in processes of their own, run in turn: what the scripts that measure have in common."""
import json
import os
import shutil
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


def openvino(model, threads, feed):
    """A function that runs the model once, and the version."""
    import openvino as ov

    core = ov.Core()
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    read = core.read_model(model)
    read.reshape({name: list(x.shape) for name, x in feed.items()})
    request = core.compile_model(read, "CPU", config).create_infer_request()
    for name, x in feed.items():
        request.set_tensor(name, ov.Tensor(x))
    return request.infer, ov.__version__.split("-")[0]


def deepsparse(model, threads, feed):
    """The same of DeepSparse, whose inputs have one batch."""
    import deepsparse as ds
    import onnx

    names = [i.name for i in onnx.load(model, load_external_data=False).graph.input]
    values = [np.ascontiguousarray(feed[name]) for name in names if name in feed]
    batch, shapes = values[0].shape[0], [list(x.shape) for x in values]
    with tempfile.TemporaryDirectory() as folder:
        # It writes the shapes into the file that it is given.
        own = shutil.copy(model, folder)
        engine = ds.Engine(own, batch_size=batch, num_cores=int(threads), input_shapes=shapes)
    return lambda: engine.run(values), ds.__version__


# Engines that are Python packages.
PACKAGES = {"openvino": openvino, "deepsparse": deepsparse}


def serve(engine, model, threads, inputs):
    """The other end of `Worker`, as `secateur bench --worker` is: a line of JSON at first, and one for each line read."""
    feed = {name: np.load(path) for name, path in (i.split("=", 1) for i in inputs)}
    # Packages print what is no JSON.
    out, sys.stdout = sys.stdout, sys.stderr
    say = lambda answer: print(json.dumps(answer), file=out, flush=True)
    start = time.perf_counter()
    run, version = PACKAGES[engine](model, threads, feed)
    say({"version": version, "load_ms": (time.perf_counter() - start) * 1e3})
    for question in sys.stdin:
        start = time.perf_counter()
        if question.strip() == "run":
            run()
            say({"ms": (time.perf_counter() - start) * 1e3})
        else:
            peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
            say({"peak_rss_mb": int(peak.split()[1]) * 1024 / 1e6})


class Worker:
    """An engine in a process of its own, its model loaded and warm; RuntimeError if it cannot be."""

    def __init__(self, engine, args, model, threads, inputs):
        given = [part for name, path in inputs.items() for part in ("-i", f"{name}={path}")]
        own = [args.secateur, "bench", model, "-t", str(threads), "--worker", engine]
        other = [getattr(args, engine, sys.executable), __file__, engine, model, str(threads)]
        self.engine, self.times = engine, []
        self.process = subprocess.Popen((other + list(given[1::2]) if engine in PACKAGES else own + given), text=True,
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


def run_in_turn(workers, seconds):
    """Adds to the times of all workers, a turn of each after the other, for so many seconds a worker."""
    start, turns = time.perf_counter(), 0
    while workers and (turns < TURNS or time.perf_counter() - start < seconds * len(workers)):
        for worker in workers:
            worker.times += worker.turn(TURN)
            time.sleep(REST)
        turns += 1


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


def commit():
    return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def geomean(ratios):
    return f"{np.exp(np.mean(np.log(ratios))):.2f} ({len(ratios)})" if ratios else "–"


def ready(args, file):
    """The path of a model, written if it is one of ours, or None."""
    path = Path(args.models) / file
    if file.startswith("new/") and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([args.secateur, "new", path.stem, str(path), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return str(path) if path.exists() else None


if __name__ == "__main__":
    serve(*sys.argv[1:4], sys.argv[4:])
