"""Cases of ONNX Runtime's operators on quantised tensors, in the layout of ONNX's own test cases.

Usage: python3 scripts/ms_cases/quant.py DIR      (needs onnx, onnxruntime, numpy)
"""

import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper

MS = "com.microsoft"
rng = np.random.default_rng(1)


def u8(*dims):
    return rng.integers(0, 256, dims).astype(np.uint8)


def i8(*dims):
    return rng.integers(-128, 128, dims).astype(np.int8)


def f32(*dims):
    return rng.normal(size=dims).astype(np.float32)


def scale(*dims):
    return (0.01 + 0.02 * rng.random(dims)).astype(np.float32)


def s(x):
    return np.array(x, np.float32)


def z(x, like=np.uint8):
    return np.array(x, like)


def case(folder, name, op, inputs, outputs=1, const=(), opset=17, domain=MS, **attrs):
    """Writes one case; `inputs` may hold None, `const` are the inputs that become initialisers."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    # `opset` is also what one operator calls an attribute.
    attrs = {k.rstrip("_"): v for k, v in attrs.items()}
    node = helper.make_node(op, names, results, domain=domain)
    node.attribute.extend(helper.make_attribute(k, v) for k, v in attrs.items())
    fed = [(n, x) for i, (n, x) in enumerate(zip(names, inputs)) if x is not None and i not in const]
    kept = [numpy_helper.from_array(inputs[i], names[i]) for i in const]
    of = lambda n, x: helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    graph = helper.make_graph(
        [node], name, [of(n, x) for n, x in fed], [helper.make_empty_tensor_value_info(r) for r in results], kept
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    # Threads of DynamicQuantizeLSTM have ranges of their own.
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    got = session.run(None, dict(fed))
    del graph.output[:]
    graph.output.extend(of(r, y) for r, y in zip(results, got))
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    to = pathlib.Path(folder) / "node" / f"test_{name}"
    data = to / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    (to / "model.onnx").write_bytes(model.SerializeToString())
    for kind, all in (("input", fed), ("output", list(zip(results, got)))):
        for i, (n, x) in enumerate(all):
            (data / f"{kind}_{i}.pb").write_bytes(numpy_helper.from_array(x, n).SerializeToString())


def every(d):
    for op in ("QLinearAdd", "QLinearMul"):
        case(d, op.lower(), op, [u8(2, 3, 5), s(0.02), z(120), u8(3, 1), s(0.03), z(7), s(0.05), z(90)])
        i = np.int8
        case(d, op.lower() + "_i8", op, [i8(4, 7), s(0.02), z(3, i), i8(4, 7), s(0.03), z(-7, i), s(0.05), z(9, i)])
    case(d, "qlinearsigmoid", "QLinearSigmoid", [u8(3, 40), s(0.05), z(120), s(1 / 256), z(0)])
    case(d, "qlinearleakyrelu", "QLinearLeakyRelu", [i8(3, 40), s(0.05), z(3, np.int8), s(0.04), z(-5, np.int8)], alpha=0.2)
    for axis, version in ((-1, 13), (1, 13), (1, 11)):
        case(d, f"qlinearsoftmax_{axis}_{version}", "QLinearSoftmax", [u8(2, 5, 7), s(0.03), z(120), s(1 / 256), z(0)], const=(1, 2, 3, 4), axis=axis, opset_=version)
    case(d, "qlinearconcat", "QLinearConcat", [s(0.04), z(100), u8(2, 3), s(0.04), z(100), u8(2, 4), s(0.05), z(3)], const=(0, 1, 3, 4, 6, 7), axis=1)
    pool = [u8(1, 3, 9, 8), s(0.04), z(100), s(0.03), z(90)]
    last = [u8(2, 9, 8, 3), s(0.04), z(100), s(0.03), z(90)]
    more = dict(kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    case(d, "qlinearaveragepool", "QLinearAveragePool", pool, **more)
    case(d, "qlinearaveragepool_pad", "QLinearAveragePool", pool, count_include_pad=1, **more)
    case(d, "qlinearaveragepool_nhwc", "QLinearAveragePool", last, channels_last=1, **more)
    case(d, "qlinearglobalaveragepool", "QLinearGlobalAveragePool", pool)
    case(d, "qlinearglobalaveragepool_nhwc", "QLinearGlobalAveragePool", last, channels_last=1)
    case(d, "nhwcmaxpool", "NhwcMaxPool", [u8(1, 9, 8, 3)], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0])

    for name, w, zw in (("u8", u8(20, 9), u8(9)), ("i8", i8(20, 9), i8(9))):
        case(d, f"dynamicquantizematmul_{name}", "DynamicQuantizeMatMul", [f32(2, 3, 20), w, scale(9), zw, f32(9)], const=(1,))
        case(d, f"matmulintegertofloat_{name}", "MatMulIntegerToFloat", [u8(2, 3, 20), w, s(0.02), scale(9), z(100), zw, f32(9)])
        case(d, f"matmulinteger_{name}", "MatMulInteger", [u8(2, 3, 20), w, z(100), zw], domain="")
    case(d, "dynamicquantizematmul_plain", "DynamicQuantizeMatMul", [f32(5, 20), i8(20, 9), s(0.01)])
    i = np.int8
    case(d, "qgemm", "QGemm", [u8(4, 20), s(0.02), z(100), i8(9, 20), scale(9), i8(9), rng.integers(-900, 900, 9).astype(np.int32), s(0.4), z(128)], transB=1)
    case(d, "qgemm_float", "QGemm", [u8(4, 20), s(0.02), z(100), i8(20, 9), s(0.01), z(3, i)], alpha=0.5)

    for bits in (4, 8):
        for block, k in ((16, 64), (32, 80)):
            b = -(-k // block)
            w, sc = u8(24, b, block * bits // 8), scale(24, b)
            zp = u8(24, -(-b * bits // 8))
            base = dict(K=k, N=24, bits=bits, block_size=block)
            case(d, f"matmulnbits_{bits}_{block}", "MatMulNBits", [f32(2, 3, k), w, sc], const=(1, 2), **base)
            case(d, f"matmulnbits_{bits}_{block}_zero", "MatMulNBits", [f32(7, k), w, sc, zp], const=(1, 2, 3), **base)
            case(d, f"matmulnbits_{bits}_{block}_bias", "MatMulNBits", [f32(1, k), w, sc, None, None, f32(24)], const=(1, 2, 5), **base)
    groups = rng.permutation(np.arange(64) // 16).astype(np.int32)
    case(d, "matmulnbits_groups", "MatMulNBits", [f32(3, 64), u8(24, 4, 8), scale(24, 4), None, groups], const=(1, 2, 4), K=64, N=24, bits=4, block_size=16)

    rows = np.array([[0, 4], [2, -1]], np.int64)
    for bits in (4, 8):
        case(d, f"gatherblockquantized_u8_{bits}", "GatherBlockQuantized", [u8(5, 48 * bits // 8), rows, scale(5, 3), u8(5, -(-3 * bits // 8))], const=(0, 2, 3), bits=bits, block_size=16, quantize_axis=1)
        case(d, f"gatherblockquantized_u8_{bits}_middle", "GatherBlockQuantized", [u8(5, 32 * bits // 8), rows, scale(5, 2)], const=(0, 2), bits=bits, block_size=16)

    x = f32(3, 5, 7)
    case(d, "quantizelinear", "QuantizeLinear", [x, s(0.03), z(100)])
    case(d, "quantizelinear_axis", "QuantizeLinear", [x, scale(5), rng.integers(-300, 300, 5).astype(np.int16)], axis=1)
    case(d, "dequantizelinear", "DequantizeLinear", [i8(3, 5, 7), s(0.03), z(-4, i)])
    case(d, "dequantizelinear_axis", "DequantizeLinear", [u8(3, 5, 7), scale(7), u8(7)], axis=-1)

    def attention(name, batch=2, length=5, hidden=16, mask=None, past=None, outputs=1, **attrs):
        inputs = [u8(batch, length, hidden), i8(hidden, 3 * hidden), f32(3 * hidden), s(0.01), s(0.01), mask, z(120), z(2, i), past]
        case(d, name, "QAttention", inputs, outputs, num_heads=2, **attrs)

    attention("qattention")
    attention("qattention_causal", unidirectional=1)
    attention("qattention_lengths", mask=np.array([5, 3], np.int32))
    attention("qattention_mask", mask=np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32))
    attention("qattention_past", length=2, past=f32(2, 2, 2, 3, 8), outputs=2, unidirectional=1)

    def lstm(name, directions, weights=i8, each=False, lengths=None, batch=3, **attrs):
        inputs, hidden, steps = 7, 6, 5
        of = (directions, 4 * hidden) if each else (directions,)
        zeros = np.zeros(of, np.int8) if weights is i8 else rng.integers(100, 156, of).astype(np.uint8)
        states = [f32(directions, batch, hidden), f32(directions, batch, hidden), None]
        matrices = [weights(directions, inputs, 4 * hidden), weights(directions, hidden, 4 * hidden), f32(directions, 8 * hidden) / 9]
        lengths = None if lengths is None else np.array(lengths, np.int32)
        scales = [scale(*of) / 4, zeros, scale(*of) / 4, zeros]
        more = [f32(steps, batch, inputs), *matrices, lengths, *states, *scales]
        case(d, name, "DynamicQuantizeLSTM", more, 3, const=(1, 2, 3, 8, 9, 10, 11), hidden_size=hidden, **attrs)

    lstm("dynamicquantizelstm", 1)
    lstm("dynamicquantizelstm_u8", 1, u8, batch=1)
    lstm("dynamicquantizelstm_columns", 1, each=True)
    lstm("dynamicquantizelstm_both", 2, direction="bidirectional")
    lstm("dynamicquantizelstm_reverse", 1, direction="reverse")
    for name, lengths in (("shorter", [5, 2, 4]), ("short", [3, 1, 4])):
        lstm(f"dynamicquantizelstm_{name}", 1, lengths=lengths)
        lstm(f"dynamicquantizelstm_{name}_reverse", 1, lengths=lengths, direction="reverse")
        lstm(f"dynamicquantizelstm_{name}_both", 2, lengths=lengths, direction="bidirectional")

    pads = dict(pads=[1, 1, 1, 1], strides=[2, 1])
    conv = lambda x, w, zw, b: [x, s(0.02), z(100), w, scale(w.shape[0]), zw, s(0.9), z(77), b]
    bias = lambda n: rng.integers(-9000, 9000, n).astype(np.int32)
    case(d, "qlinearconv", "QLinearConv", conv(u8(2, 4, 9, 8), i8(40, 4, 3, 3), np.zeros(40, i), bias(40)), const=(3,), domain="", **pads)
    case(d, "qlinearconv_groups", "QLinearConv", conv(u8(1, 6, 9, 8), i8(4, 3, 3, 3), np.zeros(4, i), bias(4)), const=(3,), domain="", group=2, **pads)
    case(d, "qlinearconv_depthwise", "QLinearConv", conv(u8(1, 6, 9, 8), i8(6, 1, 3, 3), np.zeros(6, i), bias(6)), const=(3,), domain="", group=6, **pads)
    linear = [u8(2, 7, 30), s(0.02), z(100), i8(30, 40), scale(40), i8(40), s(0.3), z(77)]
    case(d, "qlinearmatmul", "QLinearMatMul", linear, const=(3, 4, 5), domain="")
    case(d, "dynamicquantizelinear", "DynamicQuantizeLinear", [f32(5, 300)], 3, domain="")


if __name__ == "__main__":
    every(sys.argv[1])
