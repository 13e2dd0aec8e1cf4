"""Small graphs in ONNX's own text, each with one thing in it that a builder takes or refuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper, parser

RNG = np.random.default_rng(0)
W = RNG.normal(size=(8, 8, 3, 3)).astype(np.float32)
Q = RNG.integers(-127, 127, W.shape).astype(np.int8)
S, Z = np.array(0.02, np.float32), np.array(0, np.int8)
CHANNELS = np.full(8, 0.01, np.float32)
PAD = "<pads=[1,1,1,1]>"
X = "float[1,8,32,32] x"
Y = "float[1,8,32,32] y"
U8 = "uint8[1,32,32,8] x"

# name: (inputs, outputs, nodes, stored)
GRAPHS: dict[str, tuple[str, str, str, dict[str, np.ndarray]]] = {
    "conv": (X, Y, f"c = Conv {PAD} (x, w) y = Relu(c)", {"w": W}),
    "conv half": (
        X, Y, f"h = Cast <to=10> (x) c = Conv {PAD} (h, w) y = Cast <to=1> (c)",
        {"w": W.astype(np.float16)},
    ),
    "depthwise dilated": (
        X, Y, "y = Conv <pads=[2,2,2,2], dilations=[2,2], group=8> (x, w)", {"w": W[:, :1]},
    ),
    "conv transpose": (
        X, "float[1,8,64,64] y",
        "y = ConvTranspose <strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]> (x, w)", {"w": W},
    ),
    "batch norm": (X, Y, "y = BatchNormalization (x, a, b, b, a)",
                   {"a": np.ones(8, np.float32), "b": np.zeros(8, np.float32)}),
    "max pool ceil": (
        X, "float[1,8,16,16] y",
        "y = MaxPool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[0,0,1,1]> (x)", {},
    ),
    "max pool dilated": (
        X, "float[1,8,28,28] y", "y = MaxPool <kernel_shape=[3,3], dilations=[2,2]> (x)", {},
    ),
    "max pool with places": (
        X, "float[1,8,16,16] y, int64[1,8,16,16] i",
        "y, i = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)", {},
    ),
    "max unpool": (
        "float[1,1,2,2] x, int64[1,1,2,2] i", "float[1,1,4,4] y",
        "y = MaxUnpool <kernel_shape=[2,2], strides=[2,2]> (x, i)", {},
    ),
    "blocks to a picture": (
        "float[1,4,4] x", "float[1,1,4,4] y",
        "y = Col2Im <strides=[2,2]> (x, p, b)", {"p": np.array([4, 4]), "b": np.array([2, 2])},
    ),
    "average pool": (
        X, "float[1,8,16,16] y", "y = AveragePool <kernel_shape=[2,2], strides=[2,2]> (x)", {},
    ),
    "global pool": (X, "float[1,8,1,1] y", "y = GlobalAveragePool (x)", {}),
    "softmax": (X, Y, "y = Softmax <axis=1> (x)", {}),
    "log softmax": (X, Y, "y = LogSoftmax <axis=1> (x)", {}),
    "argmax": (X, "int64[1,32,32] y", "y = ArgMax <axis=1, keepdims=0> (x)", {}),
    "argmax uint8": (
        X, "uint8[1,32,32] y", "i = ArgMax <axis=1, keepdims=0> (x) y = Cast <to=2> (i)", {},
    ),
    "uint8 camera": (
        U8, Y, f"f = Cast <to=1> (x) t = Transpose <perm=[0,3,1,2]> (f) y = Conv {PAD} (t, w)",
        {"w": W},
    ),
    "uint8 before cast": (
        U8, Y, f"t = Transpose <perm=[0,3,1,2]> (x) f = Cast <to=1> (t) y = Conv {PAD} (f, w)",
        {"w": W},
    ),
    "uint8 slice": (
        U8, "float[1,32,32,4] y", "t = Slice (x, a, b, c) y = Cast <to=1> (t)",
        {"a": np.array([0]), "b": np.array([4]), "c": np.array([3])},
    ),
    "uint8 palette": (
        "int64[4,4] x", "uint8[4,4,3] y", "y = Gather (p, x)", {"p": np.zeros((9, 3), np.uint8)},
    ),
    "uint8 shift": (
        "uint8[4,4] x", "uint8[4,4] y", 'y = BitShift <direction="LEFT"> (x, s)',
        {"s": np.array(1, np.uint8)},
    ),
    "layout after cast to uint8": (
        X, "uint8[1,32,32,8] y", "u = Cast <to=2> (x) y = Transpose <perm=[0,2,3,1]> (u)", {},
    ),
    "bool out": (X, "bool[1,8,32,32] y", "y = Greater (x, a)", {"a": np.array(1, np.float32)}),
    "int64 arithmetic": (
        "int64[4,4] x", "int64[4,4] y", "y = Mod (x, a)", {"a": np.array(3)},
    ),
    "int64 division": ("int64[4,4] x", "int64[4,4] y", "y = Div (x, a)", {"a": np.array(3)}),
    "top 100": (
        "float[1,5000] x", "float[1,100] y, int64[1,100] i", "y, i = TopK (x, k)",
        {"k": np.array([100])},
    ),
    "top 3840": (
        "float[1,5000] x", "float[1,3840] y, int64[1,3840] i", "y, i = TopK (x, k)",
        {"k": np.array([3840])},
    ),
    "top 4000": (
        "float[1,5000] x", "float[1,4000] y, int64[1,4000] i", "y, i = TopK (x, k)",
        {"k": np.array([4000])},
    ),
    "top computed": (
        "float[1,50] x, int64[1] k", "float[1,n] y, int64[1,n] i", "y, i = TopK (x, k)", {},
    ),
    "non zero": (X, "int64[4,n] y", "y = NonZero (x)", {}),
    "non maximum suppression": (
        "float[1,100,4] x, float[1,1,100] s", "int64[n,3] y",
        "y = NonMaxSuppression (x, s, k, t, t)",
        {"k": np.array([10]), "t": np.array([0.5], np.float32)},
    ),
    "roi align": (
        f"{X}, float[5,4] r", "float[5,8,7,7] y",
        "y = RoiAlign <output_height=7, output_width=7> (x, r, b)", {"b": np.zeros(5, np.int64)},
    ),
    "grid sample": (
        f"{X}, float[1,7,7,2] g", "float[1,8,7,7] y",
        'y = GridSample <padding_mode="border", align_corners=1> (x, g)', {},
    ),
    "pad constant": (X, "float[1,8,34,34] y", "y = Pad (x, p)",
                     {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "pad reflect": (X, "float[1,8,34,34] y", 'y = Pad <mode="reflect"> (x, p)',
                    {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "pad edge": (X, "float[1,8,34,34] y", 'y = Pad <mode="edge"> (x, p)',
                 {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "resize nearest": (
        X, "float[1,8,64,64] y",
        'y = Resize <mode="nearest", coordinate_transformation_mode="asymmetric"> (x, , , s)',
        {"s": np.array([1, 8, 64, 64])},
    ),
    "resize linear": (
        X, "float[1,8,48,48] y",
        'y = Resize <mode="linear", coordinate_transformation_mode="align_corners"> (x, , , s)',
        {"s": np.array([1, 8, 48, 48])},
    ),
    "resize half pixel": (
        X, "float[1,8,16,16] y", 'y = Resize <mode="linear"> (x, , , s)',
        {"s": np.array([1, 8, 16, 16])},
    ),
    "resize cubic": (
        X, "float[1,8,64,64] y", 'y = Resize <mode="cubic"> (x, , , s)',
        {"s": np.array([1, 8, 64, 64])},
    ),
    "resize antialiased": (
        X, "float[1,8,16,16] y", 'y = Resize <mode="linear", antialias=1> (x, , , s)',
        {"s": np.array([1, 8, 16, 16])},
    ),
    "depth to space": (X, "float[1,2,64,64] y", "y = DepthToSpace <blocksize=2> (x)", {}),
    "cumulative sum": (X, Y, "y = CumSum (x, a)", {"a": np.array(1)}),
    "lower triangle": ("float[8,8] x", "float[8,8] y", "y = Trilu <upper=0> (x)", {}),
    "einsum": ("float[2,8,16] x, float[2,16,8] z", "float[2,8,8] y",
               'y = Einsum <equation="bij,bjk->bik"> (x, z)', {}),
    "matmul": ("float[2,8,16] x", "float[2,8,4] y", "y = MatMul (x, w)",
               {"w": np.ones((16, 4), np.float32)}),
    "gemm": ("float[2,16] x", "float[2,4] y", "y = Gemm <transB=1> (x, w)",
             {"w": np.ones((4, 16), np.float32)}),
    "gather": (X, "float[1,2,32,32] y", "y = Gather <axis=1> (x, i)", {"i": np.array([1, 3])}),
    "gather elements": ("float[4,8] x, int64[4,2] i", "float[4,2] y",
                        "y = GatherElements <axis=1> (x, i)", {}),
    "gather nd": ("float[4,8] x, int64[3,2] i", "float[3] y", "y = GatherND (x, i)", {}),
    "scatter": (
        "float[4,8] x, int64[3,2] i, float[3] u", "float[4,8] y", "y = ScatterND (x, i, u)", {},
    ),
    "scatter elements": ("float[4,8] x, int64[4,2] i, float[4,2] u", "float[4,8] y",
                         "y = ScatterElements <axis=1> (x, i, u)", {}),
    "scatter add": ("float[4,8] x, int64[3,2] i, float[3] u", "float[4,8] y",
                    'y = ScatterND <reduction="add"> (x, i, u)', {}),
    "where": ("bool[4] c, float[4] x", "float[4] y", "y = Where (c, x, a)",
              {"a": np.array(1, np.float32)}),
    "layer norm": ("float[2,8] x", "float[2,8] y", "y = LayerNormalization (x, a)",
                   {"a": np.ones(8, np.float32)}),
    "instance norm": (X, Y, "y = InstanceNormalization (x, a, a)", {"a": np.ones(8, np.float32)}),
    "gelu": (X, Y, "y = Gelu (x)", {}),
    "hard swish": (X, Y, "y = HardSwish (x)", {}),
    "random": (X, Y, "r = RandomNormalLike (x) y = Add (x, r)", {}),
    "lstm": (
        "float[5,1,4] x", "float[5,1,1,3] y", "y = LSTM <hidden_size=3> (x, w, r)",
        {"w": np.ones((1, 12, 4), np.float32), "r": np.ones((1, 12, 3), np.float32)},
    ),
    "gru": (
        "float[5,1,4] x", "float[5,1,1,3] y", "y = GRU <hidden_size=3> (x, w, r)",
        {"w": np.ones((1, 9, 4), np.float32), "r": np.ones((1, 9, 3), np.float32)},
    ),
    "int8": (
        X, Y,
        "a = QuantizeLinear (x, s, z) b = DequantizeLinear (a, s, z) "
        f"v = DequantizeLinear <axis=0> (q, ws, wz) y = Conv {PAD} (b, v)",
        {"s": S, "z": Z, "q": Q, "ws": CHANNELS, "wz": np.zeros(8, np.int8)},
    ),
    "int8 of stored floats": (
        X, Y,
        "a = QuantizeLinear (x, s, z) b = DequantizeLinear (a, s, z) "
        f"u = QuantizeLinear (w, s, z) v = DequantizeLinear (u, s, z) y = Conv {PAD} (b, v)",
        {"s": S, "z": Z, "w": W},
    ),
    "two quantisers of one name": (
        X, Y,
        "a = QuantizeLinear (x, s, z) b = DequantizeLinear (a, s, z) "
        f"u = QuantizeLinear (w, s, z) v = DequantizeLinear (u, s, z) y = Conv {PAD} (b, v)",
        {"s": S, "z": Z, "w": W},
    ),
    "asymmetric zero point": (
        X, Y,
        "a = QuantizeLinear (x, s, z) b = DequantizeLinear (a, s, z) "
        f"y = Conv {PAD} (b, w)",
        {"s": S, "z": np.array(3, np.int8), "w": W},
    ),
    "uint8 zero point": (
        X, Y, f"a = QuantizeLinear (x, s, z) b = DequantizeLinear (a, s, z) y = Conv {PAD} (b, w)",
        {"s": S, "z": np.array(128, np.uint8), "w": W},
    ),
    "int32 bias": (
        X, Y,
        "a = QuantizeLinear (x, s, z) b = DequantizeLinear (a, s, z) "
        "v = DequantizeLinear <axis=0> (q, ws, wz) c = DequantizeLinear <axis=0> (i, ws) "
        f"y = Conv {PAD} (b, v, c)",
        {"s": S, "z": Z, "q": Q, "ws": CHANNELS, "wz": np.zeros(8, np.int8),
         "i": np.arange(8, dtype=np.int32)},
    ),
    "dynamic quantisation": (
        "float[4,8] x", "uint8[4,8] y, float s, uint8 z", "y, s, z = DynamicQuantizeLinear (x)", {},
    ),
    "half weights on floats": (X, Y, f"y = Conv {PAD} (x, w)", {"w": W.astype(np.float16)}),
    "doubles": ("double[4] x", "double[4] y", "y = Relu (x)", {}),
    "unique": ("float[8] x", "float[n] y", "y = Unique (x)", {}),
    "compress": ("float[8] x, bool[8] c", "float[n] y", "y = Compress <axis=0> (x, c)", {}),
    "deformable": (
        f"{X}, float[1,18,32,32] o", Y, f"y = DeformConv {PAD} (x, w, o)", {"w": W},
    ),
    "fourier": ("float[1,16,1] x", "float[1,16,2] y", "y = DFT (x)", {}),
    "pooled regions": (
        f"{X}, float[5,5] r", "float[5,8,7,7] y", "y = MaxRoiPool <pooled_shape=[7,7]> (x, r)", {},
    ),
    "foreign domain": (X, Y, "y = our.lab.Magic (x)", {}),
    "sequence": (X, Y, "q = SequenceConstruct (x) y = ConcatFromSequence <axis=0> (q)", {}),
    "if": (
        "bool c, float[4] x", "float[4] y",
        "y = If (c) <then_branch = a () => (float[4] p) { p = Relu (x) }, "
        "else_branch = b () => (float[4] n) { n = Neg (x) }>", {},
    ),
    "loop": (
        "float[4] x", "float[4] y",
        "y = Loop (k, g, x) <body = b (int64 i, bool a, float[4] v) => (bool o, float[4] w) "
        "{ o = Identity (a) w = Add (v, v) }>",
        {"k": np.array(3), "g": np.array(True)},
    ),
    "non zero in a loop": (
        "float[4] x", "float[4] y",
        "y = Loop (k, g, x) <body = b (int64 i, bool a, float[4] v) => (bool o, float[4] w) "
        "{ o = Identity (a) n = NonZero (v) f = Cast <to=1> (n) r = ReduceSum <keepdims=0> (f) "
        "w = Add (v, r) }>",
        {"k": np.array(3), "g": np.array(True)},
    ),
}  # fmt: skip


def model(name: str, *, opset: int = 20) -> onnx.ModelProto:
    """Return the graph of that name, its nodes called after their operators."""
    inputs, outputs, nodes, stored = GRAPHS[name]
    domains = f'"" : {opset}' + (', "our.lab" : 1' if "our.lab" in nodes else "")
    text = f"<ir_version: 10, opset_import: [{domains}]>\ng ({inputs}) => ({outputs}) {{ {nodes} }}"
    made = parser.parse_model(text)
    made.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), key) for key, array in stored.items()
    )
    seen: Counter[str] = Counter()
    for node in made.graph.node:
        seen[node.op_type] += 1
        again = seen[node.op_type] > 1 and name != "two quantisers of one name"
        node.name = f"the_{node.op_type}" + (f"_{seen[node.op_type]}" if again else "")
    return made
