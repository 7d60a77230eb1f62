#!/usr/bin/env python3
"""Compares gradients and optimisers with PyTorch's: docs/results/gradients.md.

    gradients.py [MODELS] [--batch PROGRAM] [-o FILE]     needs torch, onnx, numpy; MODELS is what fetch.sh filled

Networks are made in PyTorch and exported with their weights apart, BatchNormalization in training mode. The files of MODELS have no
source in PyTorch, so their nodes are run one by one in it (OPS). Both get the same inputs and labels; `batch` (an example of
secateur-train) takes one step of momentum, of which the state is the gradient. Each optimiser takes 20 steps on one batch.

Relative errors are those of a tensor's worst element over its largest, and of root mean squares; the worst tensor counts. Tensors whose
gradient is 0 but for rounding (a key's bias in attention) must be as near 0. PyTorch's own error is that of its floats against its
doubles. A sum of thousands that falls within rounding of 0 before a Relu may pass it here and not there, which is a jump of the gradient:
where the error is above the bound, PyTorch runs again with the gates that were open here, and the table says how many differed; no more
than one in 10⁵ may.
Exit status: 1 if an error is above 1e-4; 2 if torch is missing.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

try:
    import numpy as np
    import onnx
    import torch
    from onnx import numpy_helper
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    print(f"skipped: {error}", file=sys.stderr)
    raise SystemExit(2) from None

from workers import ROOT, commit, table

warnings.filterwarnings("ignore")
torch.backends.mha.set_fastpath_enabled(False)  # has no ONNX form
BOUND = 1e-4
# A gradient that is so much smaller than the largest one of the network, in doubles, is 0 but for rounding.
NOTHING = 1e-12


class Relu(nn.Module):
    """Relu, or what passes the given gates."""

    gates, differ = None, 0

    def forward(self, x):
        if Relu.gates is None:
            return torch.relu(x)
        gate = next(Relu.gates)
        Relu.differ += (gate != (x > 0)).sum().item()
        return x * gate.to(x.dtype)


class Block(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        conv = lambda i, o, k, s: nn.Conv2d(i, o, k, s, k // 2, bias=False)
        self.body = nn.Sequential(conv(a, b, 3, stride), nn.BatchNorm2d(b), Relu(), conv(b, b, 3, 1), nn.BatchNorm2d(b))
        self.short = nn.Identity() if a == b else nn.Sequential(conv(a, b, 1, stride), nn.BatchNorm2d(b))
        self.relu = Relu()

    def forward(self, x):
        return self.relu(self.body(x) + self.short(x))


def resnet20():
    widths = [16] * 4 + [32] * 3 + [64] * 3
    blocks = [Block(a, b, 1 if a == b else 2) for a, b in zip(widths, widths[1:])]
    first = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), Relu()
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Encoder(nn.Module):
    def __init__(self, first):
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, "gelu", batch_first=True, norm_first=first)
        self.embed, self.place = nn.Embedding(50, 64), nn.Parameter(torch.randn(1, 24, 64) * 0.1)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(64), enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, ids, padding):
        x = self.encoder(self.embed(ids) + self.place, src_key_padding_mask=padding)
        seen = (~padding)[:, :, None].to(x.dtype)
        return self.head((x * seen).sum(1) / seen.sum(1))


class Lstm(nn.Module):
    def __init__(self, both):
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.lstm = nn.LSTM(32, 48, num_layers=2, bidirectional=both, batch_first=True)
        self.head = nn.Linear(96 if both else 48, 10)

    def forward(self, ids):
        return self.head(self.lstm(self.embed(ids))[0][:, -1])


def uneven(net):
    """The network with other factors and sums than 1 and 0, which would hide mistakes."""
    with torch.no_grad():
        for w in net.parameters():
            if w.dim() == 1:
                w.add_(torch.rand_like(w) * 0.3)
    return net


def ids(*shape):
    return torch.randint(0, 50, shape)


def padding(batch, time):
    return torch.arange(time)[None] >= torch.tensor([[time - 5 * (i % 4)] for i in range(batch)])


# name: module, inputs by name
NETWORKS = {
    "ResNet-20, batch 16": (resnet20, lambda: {"input": torch.randn(16, 3, 32, 32)}),
    "transformer encoder, padding": (lambda: Encoder(False), lambda: {"ids": ids(8, 24), "padding": padding(8, 24)}),
    "transformer encoder, norm first, padding": (lambda: Encoder(True), lambda: {"ids": ids(8, 24), "padding": padding(8, 24)}),
    "LSTM, 2 layers": (lambda: Lstm(False), lambda: {"ids": ids(8, 20)}),
    "LSTM, 2 layers, both directions": (lambda: Lstm(True), lambda: {"ids": ids(8, 20)}),
}

# name: file of MODELS, its scores, inputs by name
FILES = {
    "opennsfw-resnet50thin": (
        "opennsfw-resnet50thin/open-nsfw.onnx",
        "fc_nsfw/BiasAdd:0",
        lambda: {"input:0": torch.randn(2, 224, 224, 3) * 60},
    ),
    "minilm-l3-fp32, padding": (
        "minilm-l3-fp32/paraphrase-MiniLM-L3-v2.onnx",
        "461",
        lambda: {"input_ids": torch.randint(0, 30522, (4, 32)), "attention_mask": (~padding(4, 32)).long()},
    ),
}


def bordered(x, a, fill, run):
    """`run` on `x` with the node's border, which PyTorch's windows take on both sides alike only."""
    pads = a.get("pads", [0] * 4)
    return run(F.pad(x, (pads[1], pads[3], pads[0], pads[2]), value=fill))


def sliced(x, starts, ends, axes=None, steps=None):
    at = [slice(None)] * x.dim()
    axes = range(len(starts)) if axes is None else axes.tolist()
    steps = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps):
        at[axis] = slice(start, end, step)
    return x[tuple(at)]


def constant(a, dtype):
    t = torch.from_numpy(numpy_helper.to_array(a["value"]).copy())
    return t.to(dtype) if t.is_floating_point() else t


def reshaped(x, shape):
    return x.reshape([x.shape[i] if s == 0 else s for i, s in enumerate(shape.tolist())])


# The operators of FILES: attributes, the type of floats, inputs.
OPS = {
    "Add": lambda a, t, x, y: x + y,
    "AveragePool": lambda a, t, x: bordered(x, a, 0.0, lambda x: F.avg_pool2d(x, a["kernel_shape"], a["strides"])),
    "Cast": lambda a, t, x: x.to({1: t, 6: torch.int32, 7: torch.int64, 9: torch.bool}[a["to"]]),
    "Clip": lambda a, t, x, low=None, high=None: torch.clamp(x, low, high),
    "Concat": lambda a, t, *x: torch.cat(x, a["axis"]),
    "Constant": lambda a, t: constant(a, t),
    "ConstantOfShape": lambda a, t, s: constant(a, t).reshape(()).expand(s.tolist()),
    "Conv": lambda a, t, x, w, b=None: bordered(x, a, 0.0, lambda x: F.conv2d(x, w, b, a["strides"], 0, a["dilations"])),
    "Div": lambda a, t, x, y: x / y if x.is_floating_point() else x // y,
    "Equal": lambda a, t, x, y: x == y,
    "Erf": lambda a, t, x: torch.erf(x),
    "Expand": lambda a, t, x, s: x.expand(torch.broadcast_shapes(x.shape, s.tolist())),
    "Gather": lambda a, t, x, i: x[(slice(None),) * a.get("axis", 0) + (i,)],
    "Identity": lambda a, t, x: x,
    "LayerNormalization": lambda a, t, x, g, b: F.layer_norm(x, g.shape, g, b, a["epsilon"]),
    "MatMul": lambda a, t, x, y: x @ y,
    "MaxPool": lambda a, t, x: bordered(x, a, -torch.inf, lambda x: F.max_pool2d(x, a["kernel_shape"], a["strides"])),
    "Mul": lambda a, t, x, y: x * y,
    "ReduceSum": lambda a, t, x, axes: x.sum(axes.tolist(), keepdim=bool(a.get("keepdims", 1))),
    "Relu": lambda a, t, x: Relu()(x),
    "Reshape": lambda a, t, x, s: reshaped(x, s),
    "Shape": lambda a, t, x: torch.tensor(x.shape),
    "Slice": lambda a, t, *x: sliced(*x),
    "Softmax": lambda a, t, x: torch.softmax(x, a["axis"]),
    "Sub": lambda a, t, x, y: x - y,
    "Transpose": lambda a, t, x: x.permute(a["perm"]),
    "Unsqueeze": lambda a, t, x, axes: unsqueezed(x, axes),
    "Where": lambda a, t, c, x, y: torch.where(c, x, y),
}


def unsqueezed(x, axes):
    for axis in sorted(i % (x.dim() + len(axes)) for i in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


class Interpreted:
    """An ONNX file whose nodes are run in PyTorch; initialisers that are floats are its parameters."""

    def __init__(self, path, output):
        self.graph, self.output = onnx.load(path).graph, output
        self.dtype, self.weights = torch.float32, {}
        for t in self.graph.initializer:
            self.weights[t.name] = torch.from_numpy(numpy_helper.to_array(t).copy())

    def double(self):
        self.dtype = torch.float64
        floats = {n: w.detach().double() for n, w in self.weights.items() if w.is_floating_point()}
        self.weights.update(floats)
        return self

    def named_parameters(self):
        return ((n, w.requires_grad_()) for n, w in self.weights.items() if w.is_floating_point() and w.dim())

    def __call__(self, **inputs):
        values = {"": None, **self.weights, **inputs}
        for n in self.graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}
            values[n.output[0]] = OPS[n.op_type](attributes, self.dtype, *(values[x] for x in n.input))
        return values[self.output]


def exported(net, inputs, path):
    """The network as a file, as it is trained: nothing of its weights is computed beforehand."""
    torch.onnx.export(
        net, tuple(inputs.values()), path, dynamo=False, input_names=list(inputs), output_names=["scores"], opset_version=17,
        training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
    )  # fmt: skip


def slopes(net, inputs, label):
    """PyTorch's gradients by name, and the loss."""
    named = list(net.named_parameters())
    loss = F.cross_entropy(net(**inputs), label)
    found = torch.autograd.grad(loss, [w for _, w in named], allow_unused=True)
    return {n: g.double().numpy() for (n, _), g in zip(named, found) if g is not None}, loss.item()


def steps(args, folder, model, inputs, **settings):
    """What `batch` makes of a model, and the loss that it says."""
    np.savez(f"{folder}/batch.npz", **{n: t.detach().numpy() for n, t in inputs.items()})
    words = [f"{k}={v}" for k, v in settings.items() if k != "show"] + [f"show={v}" for v in settings.get("show", [])]
    done = subprocess.run([args.batch, model, f"{folder}/batch.npz", f"{folder}/out.npz", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or done.stdout.strip())
    with np.load(f"{folder}/out.npz") as out:
        return {n: out[n].astype(np.float64) for n in out.files}, float(done.stdout.split()[1])


def gated(net, inputs, label):
    """`slopes` with the gates of Relu, if any are given."""
    given = Relu.gates
    Relu.gates = given and iter(given)
    found = slopes(net, inputs, label)
    Relu.gates = given
    return found


def taken(args, folder, model, batch, **settings):
    """Gradients by name, values that are shown, and the loss."""
    state, loss = steps(args, folder, model, batch, optimizer="momentum", **settings)
    found = {n.removesuffix(".sum"): x for n, x in state.items() if n.endswith(".sum")}
    return found | {n: state[n] for n in settings.get("show", [])}, loss


def errors(ours, theirs, exact):
    """The worst of all tensors by the largest element and by root mean squares, with its name, and how many are not 0."""
    top = max(np.abs(g).max() for g in exact.values())
    worst, square, name, count = 0.0, 0.0, "", 0
    for n, g in theirs.items():
        away = ours[n] - g
        size = np.abs(exact[n]).max()
        nothing = size <= NOTHING * top
        count += not nothing
        scale, mean = (top, top) if nothing else (np.abs(g).max(), np.sqrt((g * g).mean()))
        error = np.abs(away).max() / scale
        if not error <= worst:
            worst, name = error, n
        square = max(square, np.sqrt((away * away).mean()) / mean)
    return worst, square, name, count


def gradients(args, name, net, inputs, model, output, folder):
    """A row of the table for one network: the errors of its gradients."""
    label = torch.randint(0, 2 if "nsfw" in name else 10, (len(next(iter(inputs.values()))),))
    theirs, loss = slopes(net, inputs, label)
    batch = {**inputs, "label": label}
    found, ours = taken(args, folder, model, batch, output=output)
    relus = [n.output[0] for n in onnx.load(model).graph.node if n.op_type == "Relu"]
    gates, few = "", True
    if relus and errors(found, theirs, theirs)[0] > BOUND:
        found, ours = taken(args, folder, model, batch, output=output, show=relus)
        Relu.gates, Relu.differ = [torch.from_numpy(found[n] > 0) for n in relus], 0
        theirs, loss = gated(net, inputs, label)
        count = sum(g.numel() for g in Relu.gates)
        gates, few = f"{Relu.differ} of {count}", Relu.differ <= 1e-5 * count
    wide = {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}
    exact, _ = gated(net.double(), wide, label)
    Relu.gates = None
    worst, square, at, count = errors(found, theirs, exact)
    own, _, _, _ = errors(theirs, exact, exact)
    against, _, _, _ = errors(found, exact, exact)
    print(f"{name}: loss {ours:.7f}, PyTorch {loss:.7f}; worst {worst:.2e} at {at}; rms {square:.2e}; against doubles {against:.2e}, "
          f"PyTorch {own:.2e}; gates {gates or 'as they are'}", flush=True)  # fmt: skip
    row = [name, f"{count} of {len(theirs)}", f"{abs(ours - loss) / abs(loss):.1e}", *(f"{x:.1e}" for x in (worst, square, against, own)), gates or "as they are"]
    return row, worst <= BOUND and few


# name: rate, and the same in PyTorch
OPTIMIZERS = {
    "sgd": (0.1, lambda p, r: torch.optim.SGD(p, r)),
    "momentum": (0.05, lambda p, r: torch.optim.SGD(p, r, momentum=0.9)),
    "nesterov": (0.05, lambda p, r: torch.optim.SGD(p, r, momentum=0.9, nesterov=True)),
    "adam": (0.01, lambda p, r: torch.optim.Adam(p, r)),
    "adamw": (0.01, lambda p, r: torch.optim.AdamW(p, r)),
    "rmsprop": (0.002, lambda p, r: torch.optim.RMSprop(p, r)),
    "rmsprop-centred": (0.002, lambda p, r: torch.optim.RMSprop(p, r, centered=True)),
    "adagrad": (0.05, lambda p, r: torch.optim.Adagrad(p, r)),
    "lbfgs": (0.5, lambda p, r: torch.optim.LBFGS(p, r, max_iter=1, history_size=10)),
}
STEPS = 20


def optimizer(args, name, folder):
    """A row of the table for one optimiser: the errors of the weights after its steps, and of what it added to them."""
    torch.manual_seed(2)
    rate, make = OPTIMIZERS[name]
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
    inputs, label = {"input": torch.randn(64, 16)}, torch.randint(0, 10, (64,))
    model = f"{folder}/mlp.onnx"
    exported(net, inputs, model)
    ours, _ = steps(args, folder, model, {**inputs, "label": label}, output="scores", optimizer=name, rate=rate, steps=STEPS)
    start = {n: w.detach().double().numpy().copy() for n, w in net.named_parameters()}
    by = make(net.parameters(), rate)

    def closure():
        by.zero_grad()
        loss = F.cross_entropy(net(**inputs), label)
        loss.backward()
        return loss

    for _ in range(STEPS):
        by.step(closure)
    theirs = {n: w.detach().double().numpy() for n, w in net.named_parameters()}
    worst, square, at, _ = errors(ours, theirs, theirs)
    moved = {n: w - start[n] for n, w in theirs.items()}
    way, _, _, _ = errors({n: ours[n] - start[n] for n in theirs}, moved, moved)
    print(f"{name}: worst {worst:.2e} at {at}; rms {square:.2e}; of the way {way:.2e}", flush=True)
    return [f"`{name}`", str(rate), f"{worst:.1e}", f"{square:.1e}", f"{way:.1e}"], worst <= BOUND


HEAD = ["network", "tensors not 0", "loss", "worst element", "rms", "worst against doubles", "PyTorch's own", "gates that differed"]
HEAD_STEPS = ["optimiser", "rate", "worst weight", "rms", "of the way gone"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="?")
    p.add_argument("--batch", default=os.environ.get("CARGO_TARGET_DIR", f"{ROOT}/target") + "/release/examples/batch")
    p.add_argument("-o", "--output", help="write the tables there")
    args = p.parse_args()
    torch.use_deterministic_algorithms(True)
    rows, optimizers, good = [], [], True
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, inputs) in NETWORKS.items():
            torch.manual_seed(1)
            net, inputs, model = uneven(make()).train(), inputs(), f"{folder}/net.onnx"
            exported(net, inputs, model)
            row, fine = gradients(args, name, net, inputs, model, "scores", folder)
            rows, good = [*rows, row], good and fine
        for name, (file, output, inputs) in FILES.items() if args.models else ():
            model = Path(args.models) / file
            if not model.exists():
                print(f"skipped: {name}: {file} has not been fetched", file=sys.stderr)
                continue
            torch.manual_seed(1)
            net = Interpreted(model, output)
            row, fine = gradients(args, name, net, inputs(), str(model), output, folder)
            rows, good = [*rows, row], good and fine
        for name in OPTIMIZERS:
            row, fine = optimizer(args, name, folder)
            optimizers, good = [*optimizers, row], good and fine
    if args.output:
        Path(args.output).write_text(
            f"# Gradients and optimisers beside PyTorch's\n\nWritten by `scripts/gradients.py MODELS -o {args.output}` on {time.strftime('%Y-%m-%d')}.\n\n"
            f"- PyTorch {torch.__version__.split('+')[0]}, on the CPU; checkout {commit()}.\n"
            "- Relative errors of floats: a tensor's worst element over its largest, and root mean squares; of all tensors the worst counts.\n"
            f"  None may be above {BOUND:.0e}. Losses are cross-entropy of random labels.\n"
            "- A Relu whose input is 0 but for rounding may be open here and shut there. Where that lifts an error above the bound, PyTorch runs again\n"
            "  with the gates that were open here.\n\n"
            f"## Gradients\n\n{table(HEAD, rows)}\n"
            f"## {STEPS} steps of each optimiser\n\n{table(HEAD_STEPS, optimizers)}")  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
