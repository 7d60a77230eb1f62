"""Cases of neural-network and vision operators with ONNX Runtime's results, in the layout of ONNX's backend tests.

Usage: python vision.py DIR, then SECATEUR_MODELS=PARENT cargo test -p secateur-engine --test conformance -- --ignored,
where DIR is PARENT/node. Needs numpy, onnx and onnxruntime.
"""

import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

rng = np.random.RandomState(1)


def floats(*dims):
    return rng.uniform(-1, 1, dims).astype(np.float32)


def case(root, name, op, inputs, outputs=1, domain="", opset=17, **attrs):
    """Writes one case; an input that is None is left out."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    given = {n: x for n, x in zip(names, inputs) if n}
    ys = [f"y{i}" for i in range(outputs)]
    attrs = {k: v for k, v in attrs.items() if v != []}
    node = helper.make_node(op, names, ys, domain=domain, **attrs)
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in given.items()]
    kinds = [helper.make_tensor_value_info(y, TensorProto.UNDEFINED, None) for y in ys]
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])

    def model(kinds):
        graph = helper.make_graph([node], name, infos, kinds)
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    for kind in kinds:
        kind.ClearField("type")
    got = ort.InferenceSession(model(kinds).SerializeToString()).run(None, given)
    kinds = [helper.make_tensor_value_info(y, helper.np_dtype_to_tensor_dtype(g.dtype), g.shape) for y, g in zip(ys, got)]
    folder = root / f"test_{name}"
    data = folder / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    onnx.save(model(kinds), folder / "model.onnx")
    for i, (n, x) in enumerate(given.items()):
        (data / f"input_{i}.pb").write_bytes(numpy_helper.from_array(x, n).SerializeToString())
    for i, (n, y) in enumerate(zip(ys, got)):
        (data / f"output_{i}.pb").write_bytes(numpy_helper.from_array(y, n).SerializeToString())


def recurrent(root):
    t, b, i, h = 6, 3, 5, 7
    lens = np.array([6, 2, 4], np.int32)
    for op, g, extra in [("LSTM", 4, 2), ("GRU", 3, 0), ("RNN", 1, 0)]:
        for d, direction in [(1, "forward"), (1, "reverse"), (2, "bidirectional")]:
            x = [floats(t, b, i), floats(d, g * h, i), floats(d, g * h, h), floats(d, 2 * g * h), lens, floats(d, b, h)]
            x += [floats(d, b, h), floats(d, 3 * h)][:extra]
            base = f"ms_{op.lower()}_{direction}"
            n = 3 if op == "LSTM" else 2
            common = dict(outputs=n, hidden_size=h, direction=direction, opset=14)
            case(root, base, op, x, **common)
            case(root, f"{base}_clip", op, x[:4], clip=0.4, **common)
            if op == "GRU":
                case(root, f"{base}_late", op, x, linear_before_reset=1, **common)
                case(root, f"{base}_late_clip", op, x, linear_before_reset=1, clip=0.3, **common)
            if op == "LSTM":
                case(root, f"{base}_coupled", op, x[:7], input_forget=1, **common)
            names = {"LSTM": ["HardSigmoid", "Softsign", "ScaledTanh"], "GRU": ["HardSigmoid", "ScaledTanh"], "RNN": ["Affine"]}[op]
            alpha, beta = {"LSTM": ([0.3, 0.8], [0.4, 1.2]), "GRU": ([0.3, 0.6], [0.4, 0.9]), "RNN": ([0.3], [0.1])}[op]
            case(root, f"{base}_functions", op, x, activations=names * d, activation_alpha=alpha * d, activation_beta=beta * d, **common)


def images(root):
    ms = "com.microsoft"
    x, w, b = floats(1, 4, 6, 7), floats(6, 4, 3, 3), floats(6)
    z = floats(1, 6, 6, 7)
    for act, params in [("Relu", []), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.5]), ("HardSigmoid", [0.3, 0.4]), ("Sigmoid", []), ("Tanh", [])]:
        more = dict(activation_params=params) if params else {}
        case(root, f"ms_fusedconv_{act.lower()}", "FusedConv", [x, w, b], domain=ms, activation=act, pads=[1] * 4, **more)
    case(root, "ms_fusedconv_sum", "FusedConv", [x, w, b, z], domain=ms, activation="Relu", pads=[1] * 4)
    case(root, "ms_fusedconv_sum_no_bias", "FusedConv", [x, w, None, z], domain=ms, activation="Relu", pads=[1] * 4)
    pads = np.array([1, 0, 1, 1], np.int64)
    wt = floats(4, 5, 3, 3)
    case(root, "ms_convtranspose_pads", "ConvTransposeWithDynamicPads", [x, wt, pads, floats(5)], domain=ms, strides=[2, 2])
    case(root, "ms_convtranspose_no_bias", "ConvTransposeWithDynamicPads", [x, wt, pads], domain=ms, dilations=[1, 2])
    for name, attrs in {
        "plain": {},
        "strides": dict(strides=[2, 3], output_padding=[1, 2], pads=[1, 0, 0, 1]),
        "upper": dict(auto_pad="SAME_UPPER", strides=[2, 2]),
        "lower": dict(auto_pad="SAME_LOWER", strides=[2, 2]),
        "shape": dict(output_shape=[12, 14], strides=[2, 2]),
        "shape_upper": dict(output_shape=[12, 14], strides=[2, 2], auto_pad="SAME_UPPER"),
    }.items():
        case(root, f"ms_convtranspose_{name}", "ConvTranspose", [x, wt, floats(5)], **attrs)
    case(root, "ms_convtranspose_groups", "ConvTranspose", [x, floats(4, 3, 2, 2), floats(6)], group=2, strides=[2, 2])
    case(root, "ms_convtranspose_line", "ConvTranspose", [floats(2, 3, 9), floats(3, 4, 5)], strides=[3], pads=[2, 2])
    case(root, "ms_convtranspose_volume", "ConvTranspose", [floats(1, 2, 3, 4, 5), floats(2, 3, 2, 3, 2)], strides=[1, 2, 3])
    bytes_ = rng.randint(0, 256, (2, 7, 8, 5))
    case(root, "ms_nhwcmaxpool", "NhwcMaxPool", [bytes_.astype(np.uint8)], domain=ms, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    case(root, "ms_nhwcmaxpool_signed", "NhwcMaxPool", [(bytes_ - 128).astype(np.int8)], domain=ms, kernel_shape=[2, 2], strides=[2, 2])
    case(root, "ms_inverse", "Inverse", [floats(2, 3, 4, 4) + 2 * np.eye(4, dtype=np.float32)], domain=ms)
    case(root, "ms_lrn", "LRN", [floats(2, 6, 4, 5)], size=3, alpha=0.5, beta=0.6, bias=1.5)
    for p in [1, 2, 3]:
        case(root, f"ms_lppool_{p}", "LpPool", [x], p=p, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
        case(root, f"ms_globallppool_{p}", "GlobalLpPool", [x], p=p)
    rois = np.array([[0, 0, 0, 4, 5], [0, 2, 1, 6.4, 3.6], [0, 9, 9, 12, 12]], np.float32)
    case(root, "ms_maxroipool", "MaxRoiPool", [x, rois], pooled_shape=[2, 3], spatial_scale=0.7)
    places = np.zeros(3, np.int64)
    for mode in ["avg", "max"]:
        for shift in ["half_pixel", "output_half_pixel"]:
            case(root, f"ms_roialign_{mode}_{shift}", "RoiAlign", [x, rois[:, 1:], places], mode=mode, output_height=2, output_width=3, coordinate_transformation_mode=shift, spatial_scale=0.8)
    for mode in ["bilinear", "nearest", "bicubic"]:
        for padding in ["zeros", "border", "reflection"]:
            for corners in [0, 1]:
                grid = 1.6 * floats(1, 5, 6, 2)
                case(root, f"ms_gridsample_{mode}_{padding}_{corners}", "GridSample", [x, grid], opset=16, mode=mode, padding_mode=padding, align_corners=corners)
    case(root, "ms_gridsample_volume", "GridSample", [floats(1, 2, 3, 4, 5), 1.2 * floats(1, 3, 3, 3, 3)], opset=20, mode="linear")
    case(root, "ms_mvn", "MeanVarianceNormalization", [x])
    case(root, "ms_lpnorm", "LpNormalization", [x], axis=2, p=1)
    boxes = np.sort(rng.uniform(0, 10, (2, 40, 2, 2)), axis=2).reshape(2, 40, 4).astype(np.float32)
    limits = [np.array([7], np.int64), np.array([0.3], np.float32), np.array([0.2], np.float32)]
    case(root, "ms_nms", "NonMaxSuppression", [boxes, rng.uniform(0, 1, (2, 3, 40)).astype(np.float32), *limits], opset=11)
    case(root, "ms_nms_centres", "NonMaxSuppression", [boxes, rng.uniform(0, 1, (2, 3, 40)).astype(np.float32), *limits], opset=11, center_point_box=1)


def signals(root):
    x = floats(2, 12, 1)
    length = np.array(10, np.int64)
    case(root, "ms_dft", "DFT", [x], axis=1)
    case(root, "ms_dft_onesided", "DFT", [floats(2, 15, 1), length], axis=1, onesided=1)
    case(root, "ms_dft_inverse", "DFT", [floats(2, 9, 2)], axis=1, inverse=1)
    case(root, "ms_stft", "STFT", [floats(2, 40, 1), np.array(5, np.int64), floats(16)])
    case(root, "ms_stft_length", "STFT", [floats(1, 40, 1), np.array(7, np.int64), None, np.array(12, np.int64)])
    numbers = [np.array(v, np.int64) for v in (8, 32, 8000)]
    case(root, "ms_mel", "MelWeightMatrix", [*numbers, np.array(50, np.float32), np.array(3500, np.float32)])
    for name in ["Hann", "Hamming", "Blackman"]:
        for periodic in [0, 1]:
            case(root, f"ms_{name.lower()}_{periodic}", f"{name}Window", [np.array(9, np.int64)], periodic=periodic)


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1])
    for family in (recurrent, images, signals):
        family(root)
