#!/usr/bin/env python3
"""Exports five kinds of graphs by both of PyTorch's exporters, each with inputs and what ONNX Runtime makes of them.

    export_graphs.py DIR [NAME...]      needs torch, onnx, onnxruntime; for the dynamo exporter onnxscript

Writes DIR/NAME-EXPORTER/model.onnx with test_data_set_0 and test_data_set_1 (other sizes of the free dimensions), each with
input_*.pb and output_*.pb, EXPORTER being `dynamo` or `script`. Weights are seeded; nothing is fetched. An exporter that cannot do a
graph is said and skipped. Exit status: 0; 2 if torch is missing.

    encoder   nn.TransformerEncoder with a padding mask and erf gelu
    bert      attention written out: scores / sqrt(d) + (1 - mask) * min, gelu, pooler
    gpt       scaled_dot_product_attention(is_causal), tanh gelu, tied logits
    decoder   a step with key-value cache: rms norm, rotary embedding, grouped heads, swiglu
    tagger    bidirectional LSTM with embedding and log-softmax
    unet      group norm, silu, attention in the middle, transposed convolution and resize
    swin      shifted windows: roll, window partition, relative position bias, mask; free height and width
"""
import math
import sys
import warnings
from pathlib import Path

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    print(f"skipped: {error}", file=sys.stderr)
    raise SystemExit(2) from None

warnings.filterwarnings("ignore")
torch.backends.mha.set_fastpath_enabled(False)  # has no ONNX form
D = 32
# In opset 13 norms and activations are still written out.
OLD = {"bert": 13, "swin": 16, "encoder": 14}


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(D, 4, 64, activation="gelu", batch_first=True, norm_first=True)
        self.embed = nn.Embedding(50, D)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(D), enable_nested_tensor=False)

    def forward(self, ids, padding):
        return self.encoder(self.embed(ids), src_key_padding_mask=padding)


class BertLayer(nn.Module):
    def __init__(self, heads=4):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(D, D) for _ in range(4))
        self.up, self.down = nn.Linear(D, 64), nn.Linear(64, D)
        self.norm1, self.norm2 = nn.LayerNorm(D, eps=1e-12), nn.LayerNorm(D, eps=1e-12)

    def apart(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).permute(0, 2, 1, 3)

    def forward(self, x, mask):
        q, k, v = self.apart(self.q(x)), self.apart(self.k(x)), self.apart(self.v(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(q.shape[-1]) + mask
        y = torch.matmul(scores.softmax(-1), v).permute(0, 2, 1, 3).reshape(x.shape)
        x = self.norm1(self.o(y) + x)
        return self.norm2(self.down(F.gelu(self.up(x))) + x)


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(50, D), nn.Embedding(40, D)
        self.norm = nn.LayerNorm(D, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer() for _ in range(2))
        self.pool = nn.Linear(D, D)

    def forward(self, ids, mask):
        at = torch.arange(ids.shape[1])[None]
        x = self.norm(self.words(ids) + self.places(at))
        mask = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pool(x[:, 0]))


class GptLayer(nn.Module):
    def __init__(self, heads=4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D, bias=False)
        self.qkv, self.o = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(D, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, D))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(50, D), nn.Embedding(40, D)
        self.layers = nn.ModuleList(GptLayer() for _ in range(2))
        self.norm = nn.LayerNorm(D)

    def forward(self, ids):
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.words.weight.T


class RmsNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(D) + 0.5)

    def forward(self, x):
        kind = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x.to(kind)


def rotate_half(x):
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-b, a), dim=-1)


def repeat_kv(x, n):
    b, h, t, d = x.shape
    return x[:, :, None].expand(b, h, n, t, d).reshape(b, h * n, t, d)


class DecoderLayer(nn.Module):
    """Four heads of queries, two of keys and values."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = RmsNorm(), RmsNorm()
        self.q, self.k, self.v, self.o = (nn.Linear(D, n, bias=False) for n in (D, D // 2, D // 2, D))
        self.gate, self.up, self.down = (nn.Linear(a, b, bias=False) for a, b in ((D, 48), (D, 48), (48, D)))

    def forward(self, x, cos, sin, mask, past_k, past_v):
        b, t, _ = x.shape
        y = self.norm1(x)
        q, k, v = (m(y).view(b, t, -1, 8).transpose(1, 2) for m in (self.q, self.k, self.v))
        q, k = (z * cos + rotate_half(z) * sin for z in (q, k))
        k, v = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)
        scores = torch.matmul(q, repeat_kv(k, 2).transpose(2, 3)) * 8**-0.5 + mask
        share = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        y = torch.matmul(share, repeat_kv(v, 2)).transpose(1, 2).reshape(b, t, D)
        x = x + self.o(y)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), k, v


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, D)
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(2))
        self.norm, self.head = RmsNorm(), nn.Linear(D, 50, bias=False)
        self.register_buffer("rate", 10000.0 ** (-torch.arange(0, 8, 2).float() / 8))

    def forward(self, ids, past_k0, past_v0, past_k1, past_v1):
        t, past = ids.shape[1], past_k0.shape[2]
        at = torch.arange(past, past + t)
        angle = (at[:, None].float() * self.rate[None]).repeat(1, 2)
        cos, sin = angle.cos()[None, None], angle.sin()[None, None]
        seen = torch.arange(past + t)[None, :] <= at[:, None]
        mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
        x, k0, v0 = self.layers[0](self.words(ids), cos, sin, mask, past_k0, past_v0)
        x, k1, v1 = self.layers[1](x, cos, sin, mask, past_k1, past_v1)
        return self.head(self.norm(x)), k0, v0, k1, v1


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, D)
        self.lstm = nn.LSTM(D, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(48, 7)

    def forward(self, ids):
        return F.log_softmax(self.out(self.lstm(self.embed(ids))[0]), dim=-1)


class Res(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, a), nn.GroupNorm(4, b)
        self.conv1, self.conv2 = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)
        self.skip = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x):
        y = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class Look(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm, self.qkv, self.o = nn.GroupNorm(4, c), nn.Conv2d(c, 3 * c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, c, h * w).unbind(1)
        share = torch.softmax(torch.bmm(q.transpose(1, 2) * c**-0.5, k), dim=-1)
        return x + self.o(torch.bmm(v, share.transpose(1, 2)).reshape(b, c, h, w))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.b, self.c = Res(8, 8), Res(8, 16), Res(16, 16)
        self.down1, self.down2 = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)
        self.look = Look(16)
        self.up1, self.up2 = nn.ConvTranspose2d(16, 16, 2, 2), nn.Conv2d(16, 8, 3, padding=1)
        self.d, self.e = Res(32, 16), Res(16, 8)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.a(self.first(x))
        b = self.b(self.down1(a))
        m = self.look(self.c(self.down2(b)))
        b = self.d(torch.cat((self.up1(m), b), 1))
        up = self.up2(F.interpolate(b, scale_factor=2.0, mode="nearest"))
        return self.last(self.e(torch.cat((up, a), 1)))


class SwinBlock(nn.Module):
    def __init__(self, shift, window=4, heads=2, c=16):
        super().__init__()
        self.shift, self.window, self.heads = shift, window, heads
        self.norm1, self.norm2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.qkv, self.o = nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.up, self.down = nn.Linear(c, 2 * c), nn.Linear(2 * c, c)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = at[:, :, None] - at[:, None, :] + window - 1
        self.register_buffer("index", apart[0] * (2 * window - 1) + apart[1])

    def partition(self, x):
        b, h, w, c = x.shape
        n = self.window
        return x.view(b, h // n, n, w // n, n, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, n * n, c)

    def forward(self, x, regions):
        b, h, w, c = x.shape
        n = self.window
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = self.partition(y)
        qkv = self.qkv(y).reshape(-1, n * n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(n * n, n * n, -1).permute(2, 0, 1)
        scores = scores + bias[None]
        if self.shift:
            r = self.partition(regions)[..., 0]
            mask = torch.where(r[:, None, :] == r[:, :, None], 0.0, -100.0)
            count = mask.shape[0]
            scores = (scores.view(-1, count, self.heads, n * n, n * n) + mask[None, :, None]).view(-1, self.heads, n * n, n * n)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, n * n, c)
        y = self.o(y).view(b, h // n, w // n, n, n, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Swin(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 2, 2)
        self.blocks = nn.ModuleList((SwinBlock(0), SwinBlock(2)))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def regions(self, h, w):
        def strip(size):
            i = torch.arange(size)
            return (i >= size - 4).int() + (i >= size - 2).int()

        return (strip(h)[:, None] * 3 + strip(w)[None, :])[None, :, :, None]

    def forward(self, x):
        x = self.patch(x).permute(0, 2, 3, 1)
        regions = self.regions(x.shape[1], x.shape[2])
        for block in self.blocks:
            x = block(x, regions)
        return self.head(self.norm(x).mean((1, 2)))


def ids(*shape):
    return torch.randint(0, 50, shape)


def cache(b, past, t):
    return (ids(b, t), *(torch.randn(b, 2, past, 8) for _ in range(4)))


def padding(b, t):
    return torch.arange(t)[None] >= torch.tensor([[t - i % 3] for i in range(b)])


BATCH, TIME, PAST = "batch", "time", "past"
PAST_AXES = {0: BATCH, 2: PAST}
# name: module, inputs of two runs, free axes of each input
GRAPHS = {
    "encoder": (Encoder, [(ids(2, 9), padding(2, 9)), (ids(3, 12), padding(3, 12))], [("ids", {0: BATCH, 1: TIME}), ("padding", {0: BATCH, 1: TIME})]),
    "bert": (Bert, [(ids(2, 9), (~padding(2, 9)).long()), (ids(3, 12), (~padding(3, 12)).long())], [("ids", {0: BATCH, 1: TIME}), ("mask", {0: BATCH, 1: TIME})]),
    "gpt": (Gpt, [(ids(2, 9),), (ids(3, 12),)], [("ids", {0: BATCH, 1: TIME})]),
    "decoder": (Decoder, [cache(2, 5, 3), cache(3, 7, 2)], [("ids", {0: BATCH, 1: TIME}), *((name, PAST_AXES) for name in ("past_k0", "past_v0", "past_k1", "past_v1"))]),
    "tagger": (Tagger, [(ids(2, 9),), (ids(3, 12),)], [("ids", {0: BATCH, 1: TIME})]),
    "unet": (UNet, [(torch.randn(2, 3, 16, 24),), (torch.randn(3, 3, 16, 24),)], [("x", {0: BATCH})]),
    "swin": (Swin, [(torch.randn(2, 3, 16, 32),), (torch.randn(3, 3, 32, 24),)], [("x", {0: BATCH, 2: "height", 3: "width"})]),
}


def export(name, exporter, path):
    make, runs, axes = GRAPHS[name]
    torch.manual_seed(1)
    model = make().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:  # norms with factors of 1 would hide mistakes
                p.add_(torch.rand_like(p) * 0.3)
    names = [name for name, _ in axes]
    with torch.no_grad():
        if exporter == "dynamo":
            batch = {}
            dims = [{i: batch.setdefault(n, torch.export.Dim.DYNAMIC) for i, n in free.items()} for _, free in axes]
            torch.onnx.export(
                model,
                runs[0],
                path,
                dynamo=True,
                input_names=names,
                dynamic_shapes=tuple(dims),
                opset_version=20,
                external_data=False,
                verbose=False,
            )
        else:
            torch.onnx.export(model, runs[0], path, dynamo=False, input_names=names, dynamic_axes=dict(axes), opset_version=OLD.get(name, 17))
    return names, runs


def record(folder, names, runs):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    for i, run in enumerate(runs):
        data = folder / f"test_data_set_{i}"
        x = {info.name: value.numpy() for info, value in zip(session.get_inputs(), run)}
        try:
            y = session.run(None, x)
        except Exception as error:
            if i == 0:
                raise
            # The exporter took a size for a constant.
            print(f"note: {folder.name}: other sizes do not run in ONNX Runtime either: {str(error).splitlines()[0][:120]}")
            return
        data.mkdir(exist_ok=True)
        for kind, values, infos in (("input", x.values(), session.get_inputs()), ("output", y, session.get_outputs())):
            for j, (value, info) in enumerate(zip(values, infos)):
                tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value), info.name)
                (data / f"{kind}_{j}.pb").write_bytes(tensor.SerializeToString())


def main():
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    for name in sys.argv[2:] or GRAPHS:
        for exporter in ("dynamo", "script"):
            folder = Path(sys.argv[1]) / f"{name}-{exporter}"
            folder.mkdir(parents=True, exist_ok=True)
            try:
                names, runs = export(name, exporter, str(folder / "model.onnx"))
                record(folder, names, runs)
                print(f"wrote {folder}")
            except Exception as error:  # an exporter's own bounds
                print(f"skipped: {folder.name}: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
