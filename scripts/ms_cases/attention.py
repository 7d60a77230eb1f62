#!/usr/bin/env python3
"""Cases of com.microsoft's attention and transformer operators, with what ONNX Runtime makes of random inputs.

usage: attention.py DIR

Writes DIR/node/test_*/, in the layout of ONNX's own backend tests. `SECATEUR_MODELS=DIR cargo test -p secateur-engine
--test conformance -- --ignored` runs them.
"""

import os
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

MS = "com.microsoft"
ROOT = pathlib.Path(sys.argv[1]) / "node"
RNG = np.random.default_rng(7)
FAILED = []


def f(*dims, scale=1.0, dtype=np.float32):
    return (RNG.standard_normal(dims) * scale).astype(dtype)


def i32(*values, shape=None):
    return np.array(values, np.int32).reshape(shape if shape is not None else [len(values)])


def case(name, *args, **kwargs):
    """`write` in a process of its own, for ONNX Runtime crashes on some inputs that it does not take."""
    child = os.fork()
    if child == 0:
        try:
            write(name, *args, **kwargs)
        except Exception as e:
            print(f"{name}: {str(e)[:300]}", flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        FAILED.append(name)


def write(name, op, inputs, outputs=1, domain=MS, opset=17, const=(), skip=(), typed=False, **attrs):
    """One node. `inputs` are arrays or None; `const` are those that are initializers; `skip` outputs are left out;
    `typed` outputs are declared as floats."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    while names and not names[-1]:
        names.pop()
    outs = [f"y{i}" if i not in skip else "" for i in range(outputs)]
    node = helper.make_node(op, names, outs, domain=domain, **attrs)
    given = [(n, x) for n, x in zip(names, inputs) if n]
    ty = lambda x: helper.np_dtype_to_tensor_dtype(x.dtype)
    graph_in = [helper.make_tensor_value_info(n, ty(x), x.shape) for n, x in given if n not in [f"x{c}" for c in const]]
    inits = [numpy_helper.from_array(x, n) for n, x in given if n in [f"x{c}" for c in const]]
    untyped = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, None) if typed else onnx.ValueInfoProto(name=n)
    graph_out = [untyped(n) for n in outs if n]
    graph = helper.make_graph([node], name, graph_in, graph_out, inits)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {v.name: dict(given)[v.name] for v in graph_in}
    results = session.run(None, feeds)
    for v, y in zip(model.graph.output, results):
        v.CopyFrom(helper.make_tensor_value_info(v.name, ty(y), y.shape))
    data = ROOT / f"test_{name}" / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    onnx.save(model, data.parent / "model.onnx")
    for i, v in enumerate(graph_in):
        (data / f"input_{i}.pb").write_bytes(numpy_helper.from_array(dict(given)[v.name], v.name).SerializeToString())
    for i, (v, y) in enumerate(zip(graph_out, results)):
        (data / f"output_{i}.pb").write_bytes(numpy_helper.from_array(y, v.name).SerializeToString())


def tables(length, half):
    angle = np.outer(np.arange(length), 1.0 / 10000 ** (np.arange(half) / half))
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def attention():
    b, s, h, d, inner = 2, 5, 3, 8, 12
    x, w, bias = f(b, s, inner), f(inner, 3 * h * d, scale=0.3), f(3 * h * d)
    past = f(2, b, h, 4, d)
    right = i32(3, 5)
    left = i32(5, 4, 2, 0)
    raw = i32(1, 1, 1, 0, 0, 1, 1, 1, 1, 1, shape=[2, 5])
    padded = i32(0, 0, 1, 1, 1, 1, 1, 1, 1, 1, shape=[2, 5])
    three = (RNG.random((b, s, s)) > 0.4).astype(np.int32)
    case("ms_attention", "Attention", [x, w, bias], num_heads=h)
    case("ms_attention_causal", "Attention", [x, w, bias], num_heads=h, unidirectional=1)
    case("ms_attention_lengths", "Attention", [x, w, bias, right], num_heads=h)
    case("ms_attention_begins", "Attention", [x, w, bias, left], num_heads=h)
    case("ms_attention_raw", "Attention", [x, w, bias, raw], num_heads=h)
    case("ms_attention_raw_causal", "Attention", [x, w, bias, raw], num_heads=h, unidirectional=1)
    case("ms_attention_left_causal", "Attention", [x, w, bias, padded], num_heads=h, unidirectional=1)
    case("ms_attention_filter", "Attention", [x, w, bias, raw], num_heads=h, mask_filter_value=-2.0)
    case("ms_attention_filter_causal", "Attention", [x, w, bias, raw], num_heads=h, mask_filter_value=-2.0, unidirectional=1)
    case("ms_attention_three", "Attention", [x, w, bias, three], num_heads=h)
    case("ms_attention_scale", "Attention", [x, w, bias], num_heads=h, scale=0.2)
    case("ms_attention_past", "Attention", [x, w, bias, None, past], 2, num_heads=h, unidirectional=1)
    case("ms_attention_past_mask", "Attention", [x, w, bias, np.ones((b, s + 4), np.int32), past], 2, num_heads=h)
    case("ms_attention_bias", "Attention", [x, w, bias, None, None, f(1, h, s, s)], num_heads=h)
    case("ms_attention_sizes", "Attention", [x, f(inner, 2 * h * d + h * 4), f(2 * h * d + h * 4)], num_heads=h, qkv_hidden_sizes=[h * d, h * d, h * 4])
    case("ms_attention_present", "Attention", [x, w, bias], 2, num_heads=h, const=[1, 2])


def multi():
    b, s, l, h, d, v = 2, 3, 5, 2, 8, 6
    q, k, val = f(b, s, h * d), f(b, l, h * d), f(b, l, h * v)
    op = "MultiHeadAttention"
    case("mha", op, [q, k, val], num_heads=h)
    case("mha_bias", op, [q, k, val, f(2 * h * d + h * v)], num_heads=h)
    case("mha_lengths", op, [q, k, val, None, i32(3, 5)], num_heads=h)
    case("mha_mask", op, [q, k, val, None, i32(1, 1, 1, 0, 0, 1, 0, 1, 1, 1, shape=[2, 5])], num_heads=h)
    case("mha_mask_filter", op, [q, k, val, None, i32(1, 1, 1, 0, 0, 1, 0, 1, 1, 1, shape=[2, 5])], num_heads=h, mask_filter_value=-3.0)
    case("mha_mask_three", op, [q, k, val, None, (RNG.random((b, s, l)) > 0.4).astype(np.int32)], num_heads=h)
    case("mha_attention_bias", op, [q, k, val, None, None, f(1, 1, s, l)], num_heads=h)
    case("mha_attention_bias_mask", op, [q, k, val, None, i32(3, 5), f(b, h, s, l)], num_heads=h)
    case("mha_scale", op, [q, k, val], num_heads=h, scale=0.11)
    qs = f(b, s, h * d)
    case("mha_causal", op, [qs, f(b, s, h * d), f(b, s, h * v)], num_heads=h, unidirectional=1)
    case("mha_cross", op, [q, f(b, h, l, d), f(b, h, l, d)], num_heads=h)
    case("mha_cross_bias", op, [q, f(b, h, l, d), f(b, h, l, d), f(3 * h * d)], num_heads=h)
    pk, pv = f(b, h, 4, d), f(b, h, 4, d)
    new = [f(b, s, h * d) for _ in range(3)]
    case("mha_past", op, [*new, None, None, None, pk, pv], 3, num_heads=h)
    case("mha_past_causal", op, [*new, None, None, None, pk, pv], 3, num_heads=h, unidirectional=1)
    case("mha_past_mask", op, [*new, None, i32(*([1] * 14), shape=[2, 7]), None, pk, pv], 3, num_heads=h)
    case("mha_present", op, new, 3, num_heads=h)
    case("mha_qk", op, [*new, None, i32(2, 3)], 4, num_heads=h, skip=[1, 2], typed=True)
    one = [f(b, 1, h * d) for _ in range(3)]
    step = "DecoderMaskedMultiHeadAttention"
    case("step", step, one, num_heads=h)
    case("step_cross", step, [one[0], f(b, h, l, d), f(b, h, l, d)], num_heads=h)


def group():
    h, kv, d = 4, 2, 16
    op = "GroupQueryAttention"
    cos, sin = tables(32, d // 2)
    heads = {"num_heads": h, "kv_num_heads": kv}

    def qkv(b, s):
        return [f(b, s, h * d), f(b, s, kv * d), f(b, s, kv * d)]

    def lens(*n, total):
        return [i32(*[x - 1 for x in n]), np.array(total, np.int32)]

    none = [None, None]
    empty = lambda b: [np.zeros((b, kv, 0, d), np.float32)] * 2
    past = lambda b, n: [f(b, kv, n, d), f(b, kv, n, d)]

    def room(n, *used):
        """A cache with room for `n`, of which some are used; what lies behind is 0, for nobody says what it becomes."""
        both = past(len(used), n)
        for cache in both:
            for b, u in enumerate(used):
                cache[b, :, u:] = 0
        return both

    case("gqa_prompt", op, [*qkv(2, 5), *none, *lens(5, 5, total=5)], 3, **heads)
    case("gqa_prompt_empty", op, [*qkv(1, 5), *empty(1), *lens(5, total=5)], 3, **heads)
    case("gqa_prompt_rotary", op, [*qkv(2, 5), *none, *lens(5, 5, total=5), cos, sin], 3, do_rotary=1, **heads)
    case("gqa_prompt_interleaved", op, [*qkv(2, 5), *none, *lens(5, 5, total=5), cos, sin], 3, do_rotary=1, rotary_interleaved=1, **heads)
    case("gqa_token", op, [*qkv(1, 1), *past(1, 6), *lens(7, total=7), cos, sin], 3, do_rotary=1, **heads)
    case("gqa_chunk", op, [*qkv(1, 3), *past(1, 6), *lens(9, total=9), cos, sin], 3, do_rotary=1, **heads)
    case("gqa_token_softcap", op, [*qkv(1, 1), *past(1, 6), *lens(7, total=7)], 3, softcap=2.0, **heads)
    case("gqa_prompt_softcap", op, [*qkv(1, 4), *none, *lens(4, total=4)], 3, softcap=2.0, scale=0.6, **heads)
    case("gqa_window", op, [*qkv(1, 6), *none, *lens(6, total=6)], 3, local_window_size=3, **heads)
    case("gqa_token_window", op, [*qkv(1, 1), *past(1, 6), *lens(7, total=7)], 3, local_window_size=3, **heads)
    case("gqa_shared", op, [*qkv(1, 1), *room(12, 6), *lens(7, total=7), cos, sin], 3, do_rotary=1, **heads)
    case("gqa_ragged", op, [*qkv(2, 1), *room(12, 3, 6), *lens(4, 7, total=7), cos, sin], 3, do_rotary=1, **heads)
    case("gqa_packed", op, [f(1, 5, (h + 2 * kv) * d), None, None, *none, *lens(5, total=5), cos, sin], 3, do_rotary=1, **heads)
    case("gqa_positions", op, [*qkv(1, 1), *past(1, 6), *lens(7, total=7), cos, sin, np.array([[6]], np.int64)], 3, do_rotary=1, **heads)
    case("gqa_bias", op, [*qkv(1, 4), *none, *lens(4, total=4), None, None, None, f(1, h, 4, 4)], 3, **heads)
    case("gqa_token_bias", op, [*qkv(1, 1), *past(1, 6), *lens(7, total=7), None, None, None, f(1, 1, 1, 7)], 3, **heads)
    case("gqa_sink", op, [*qkv(1, 4), *none, *lens(4, total=4), None, None, None, None, f(h)], 3, **heads)
    case("gqa_smooth", op, [*qkv(1, 4), *none, *lens(4, total=4)], 3, smooth_softmax=1, **heads)
    case("gqa_smooth_token", op, [*qkv(1, 1), *past(1, 6), *lens(7, total=7)], 3, smooth_softmax=1, softcap=3.0, **heads)
    case("gqa_right_padded", op, [*qkv(2, 5), *none, *lens(5, 5, total=5)], 3, const=[6], **heads)


def rotary():
    b, s, h, d = 2, 4, 3, 8
    cos, sin = tables(16, d // 2)
    at = np.array([[0, 1, 2, 3], [5, 6, 7, 9]], np.int64)
    op = "RotaryEmbedding"
    case("ms_rotary", op, [f(b, s, h * d), at, cos, sin])
    case("ms_rotary_offset", op, [f(b, s, h * d), np.array([3], np.int64), cos, sin])
    case("ms_rotary_interleaved", op, [f(b, s, h * d), at, cos, sin], interleaved=1)
    case("ms_rotary_4d", op, [f(b, h, s, d), at, cos, sin])
    case("ms_rotary_scale", op, [f(b, s, h * d), at, cos, sin], scale=2.0)
    half = tables(16, 2)
    case("ms_rotary_partial", op, [f(b, s, h * d), at, *half], num_heads=h, rotary_embedding_dim=4)
    case("ms_rotary_partial_4d", op, [f(b, h, s, d), at, *half], num_heads=h, rotary_embedding_dim=4, interleaved=1)


def norms():
    b, s, n = 2, 3, 20
    x, skip, gamma, beta, bias = f(b, s, n), f(b, s, n), f(n), f(n), f(n)
    op = "SkipLayerNormalization"
    case("skip", op, [x, skip, gamma, beta])
    case("skip_bias", op, [x, skip, gamma, beta, bias], 4, skip=[1, 2], epsilon=1e-5)
    case("skip_plain", op, [x, skip, gamma], const=[2])
    case("skip_broadcast", op, [x, f(1, s, n), gamma, beta])
    case("skip_two", op, [x, f(s, n), gamma, beta])
    op = "SkipSimplifiedLayerNormalization"
    case("skip_simplified", op, [x, skip, gamma], 4, skip=[1, 2], epsilon=1e-5)
    case("skip_simplified_bias", op, [x, skip, gamma, bias])
    case("simplified", "SimplifiedLayerNormalization", [x, gamma], domain="", epsilon=1e-5, axis=-1)
    case("simplified_stats", "SimplifiedLayerNormalization", [x, gamma], 2, domain="", epsilon=1e-5, axis=-1, stash_type=1)
    words, places, kinds = f(9, n), f(6, n), f(2, n)
    ids = RNG.integers(0, 9, (b, s)).astype(np.int32)
    segments = RNG.integers(0, 2, (b, s)).astype(np.int32)
    op = "EmbedLayerNormalization"
    mask = i32(1, 1, 0, 1, 1, 1, shape=[2, 3])
    case("embed", op, [ids, segments, words, places, kinds, gamma, beta, mask], 2)
    case("embed_nomask", op, [ids, segments, words, places, kinds, gamma, beta], 2)
    case("embed_distil", op, [ids, None, words, places, None, gamma, beta], 3, epsilon=1e-5)
    at = i32(2, 1, 0, 0, 1, 5, shape=[2, 3])
    case("embed_positions", op, [ids, segments, words, places, kinds, gamma, beta, None, at], 3)
    case("embed_gap", op, [ids, segments, words, places, kinds, gamma, beta, i32(1, 0, 1, 0, 1, 1, shape=[2, 3])], 2)


def elementwise():
    x, b = f(3, 4, 10, scale=0.7), f(10, scale=0.7)
    case("ms_gelu", "Gelu", [x])
    case("bias_gelu", "BiasGelu", [x, b])
    case("fast_gelu", "FastGelu", [x])
    case("fast_gelu_bias", "FastGelu", [x, b])
    case("quick_gelu", "QuickGelu", [x])
    case("quick_gelu_alpha", "QuickGelu", [x], alpha=0.8)


def products():
    op = "FusedMatMul"
    case("fused_matmul", op, [f(2, 5, 7), f(2, 7, 4)], alpha=0.3)
    case("fused_matmul_ta", op, [f(2, 7, 5), f(2, 7, 4)], transA=1)
    case("fused_matmul_tb", op, [f(2, 5, 7), f(4, 7)], transB=1, const=[1])
    case("fused_matmul_batch_a", op, [f(5, 2, 3, 7), f(2, 3, 7, 4)], transBatchA=1)
    case("fused_matmul_batch_b", op, [f(2, 3, 5, 7), f(7, 2, 3, 4)], transBatchB=1)
    case("fused_matmul_batch_all", op, [f(7, 2, 3, 5), f(4, 2, 3, 7)], transBatchB=1, transBatchA=1, transA=1, transB=1)
    case("fused_matmul_vector", op, [f(7), f(2, 7, 4)], transA=1)
    op = "FusedGemm"
    a, b, c = f(5, 7), f(7, 4), f(4)
    for act in ["Relu", "Tanh", "Sigmoid", "Softplus", "Softsign"]:
        case(f"fused_gemm_{act.lower()}", op, [a, b, c], activation=act)
    case("fused_gemm_leaky", op, [a, f(4, 7), c], activation="LeakyRelu", activation_alpha=0.3, transB=1, alpha=0.5)
    case("fused_gemm_hard", op, [a, b, c], activation="HardSigmoid", activation_alpha=0.3, activation_beta=0.4)
    case("ms_pad", "Pad", [f(2, 3), np.array([0, 2, 1, -1], np.int64), np.array([3], np.float32)])
    case("ms_pad_row", "Pad", [f(2, 3), np.array([[0, 2, 1, 1]], np.int64)], mode="edge")
    case("ms_unique", "Unique", [np.array([2, 1, 1, 3, 4, 3], np.float32)], 3)


def conv():
    b, c, l, k = 2, 4, 6, 3
    x, w, bias, state = f(b, c, l), f(c, 1, k), f(c), f(b, c, k - 1)
    op = "CausalConvWithState"
    case("causal_conv", op, [x, w, bias, state], 2)
    case("causal_conv_first", op, [x, w], 2)
    case("causal_conv_silu", op, [x, w, bias], 2, activation="silu", ndim=1)
    case("causal_conv_dilated", op, [x, w, bias, f(b, c, 4)], 2, dilation=2)
    case("causal_conv_last", op, [f(b, l, c), w, bias, f(b, k - 1, c)], 2, channels_last=1)
    case("causal_conv_last_two", op, [f(b, l, 2, 2), w, bias, f(b, k - 1, 2, 2)], 2, channels_last=1)


for make in (attention, multi, group, rotary, norms, elementwise, products, conv):
    make()
print(f"{len(list(ROOT.iterdir()))} cases; not taken:", *FAILED)
