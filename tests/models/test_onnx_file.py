"""Files of other people: what they hold is what the graph computes, or one line says why not."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgenet.errors import BadWeights, EdgenetError, UnsupportedOperator
from edgenet.graph import Activate, Add, Convolution, FullyConnected, Normalise, Pool
from edgenet.models.onnx_file import ImportedModel, import_onnx, run_file
from edgenet.quantize.execute import execute


def load_bench_networks():
    """Import tools/bench/networks.py, which is no part of the package."""
    path = Path(__file__).parents[2] / "tools" / "bench" / "networks.py"
    spec = spec_from_file_location("bench_networks", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


networks = load_bench_networks()
TOLERANCE = 1e-4
HEAD = """
  pooled = GlobalAveragePool(t)
  flat = Flatten(pooled)
  y = Gemm<transB=1>(flat, head, head_bias)
"""
SHAPES = {
    "w": (4, 3, 3, 3),
    "b": (4,),
    "dw": (4, 1, 3, 3),
    "pw": (4, 4, 1, 1),
    "gain": (4,),
    "shift": (4,),
    "mean": (4,),
    "variance": (4,),
    "per_channel": (4, 1, 1),
    "narrow": (4, 8, 1, 1),
    "head": (5, 4),
    "head_bias": (5,),
    "wide": (5, 4 * 6 * 6),
    "wide_t": (4 * 6 * 6, 5),
    "classifier": (5, 4, 1, 1),
    "squeeze": (2, 4),
    "expand": (4, 2),
    "dense": (4, 5),
    "dense_bias": (5,),
    "flat_gain": (4,),
}
NUMBERS = {"zero": 0.0, "one": 1.0, "three": 3.0, "six": 6.0, "sixth": 1 / 6}


def write(
    path: Path,
    body: str,
    *,
    image: str = "float[1,3,6,6] x",
    outputs: str = "float[1,5] y",
    opset: int = 17,
) -> Path:
    """Write the network of an ONNX text and, as weights, what it reads of `SHAPES` and `NUMBERS`.

    Weights are seeded; a name like i_1_n1 is the integers [1, -1], number_1
    the scalar 1.
    """
    text = f'<ir_version: 8, opset_import: ["": {opset}]> net ({image}) => ({outputs}) {{{body}}}'
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    read = {name for node in model.graph.node for name in node.input}
    for name, shape in SHAPES.items():
        spread = 2 / np.sqrt(max(1, np.prod(shape[1:])))
        values = rng.normal(0, spread, shape)
        values = np.abs(values) + 0.2 if name in ("variance", "flat_gain") else values
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(np.float32(values), name))
    for name in sorted(read):
        if name in NUMBERS:
            number = numpy_helper.from_array(np.float32(NUMBERS[name]), name)
            model.graph.initializer.append(number)
        elif name.startswith("number_"):
            number = numpy_helper.from_array(np.array(int(name[-1])), name)
            model.graph.initializer.append(number)
        elif name.startswith("i_"):
            axes = [int(part.replace("n", "-")) for part in name.split("_")[1:]]
            model.graph.initializer.append(numpy_helper.from_array(np.array(axes), name))
    path.write_bytes(model.SerializeToString())
    return path


def largest_difference(imported: ImportedModel, path: Path, images) -> float:
    """Return how far the graph's answers are from the file's, as a part of the largest value."""
    ours = execute(imported.graph, torch.from_numpy(images), lambda *_: None).numpy()
    theirs = run_file(imported, path, images)
    largest = max(float(np.abs(theirs).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(ours - theirs).max()) / largest


def take(path: Path, **options) -> ImportedModel:
    """Import a file and see that its graph computes what ONNX Runtime computes."""
    imported = import_onnx(path, **{"mean": (120.0, 115.0, 100.0), "std": (60.0,), **options})
    size = imported.resolution
    images = np.random.default_rng(1).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    assert largest_difference(imported, path, images) < TOLERANCE
    return imported


def described(imported: ImportedModel) -> str:
    """Return the operators after Normalise: kind, and activation or function."""
    kinds = []
    for op in imported.graph.operators[1:]:
        function = getattr(op, "activation", None) or getattr(op, "function", None)
        kinds.append(type(op).__name__ + (f":{function}" if function else ""))
    return " ".join(kinds)


END = "GlobalAveragePool FullyConnected"
TAKEN = {
    "conv and relu": ("t = Relu(c)", f"Convolution:relu {END}"),
    "batch norm": (
        "n = BatchNormalization(c, gain, shift, mean, variance) t = Relu(n)",
        f"Convolution:relu {END}",
    ),
    "batch norm behind a shared conv": (
        "n = BatchNormalization(c, gain, shift, mean, variance) m = Relu(n) t = Add(m, c)",
        f"Convolution Convolution:relu Add {END}",
    ),
    "relu6": ("t = Clip(c, zero, six)", f"Convolution:relu6 {END}"),
    "relu6 as relu and min": ("r = Relu(c) t = Min(r, six)", f"Convolution:relu6 {END}"),
    "relu as max": ("t = Max(zero, c)", f"Convolution:relu {END}"),
    "clip without a bound": ("t = Clip(c, zero)", f"Convolution:relu {END}"),
    "unit": ("t = Clip(c, zero, one)", f"Convolution:unit {END}"),
    "clip of a shared conv": ("r = Relu(c) t = Add(r, c)", f"Convolution Activate:relu Add {END}"),
    "hard sigmoid": (
        "t = HardSigmoid<alpha = 0.16666667, beta = 0.5>(c)",
        f"Convolution:unit {END}",
    ),
    "hard sigmoid of a shared conv": (
        "h = HardSigmoid(c) t = Add(h, c)",
        f"Convolution Convolution:unit Add {END}",
    ),
    "hard sigmoid in pieces": (
        "a = Add(c, three) l = Clip(a, zero, six) t = Div(l, six)",
        f"Convolution:unit {END}",
    ),
    "hard swish": ("t = HardSwish(c)", f"Convolution Activate:hard_swish {END}"),
    "hard swish as x times hard sigmoid": (
        "h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(c) t = Mul(c, h)",
        f"Convolution Activate:hard_swish {END}",
    ),
    "hard swish, divided last": (
        "a = Add(c, three) l = Clip(a, zero, six) m = Mul(c, l) t = Div(m, six)",
        f"Convolution Activate:hard_swish {END}",
    ),
    "hard swish, a sixth first": (
        "a = Add(c, three) l = Clip(a, zero, six) g = Mul(l, sixth) t = Mul(g, c)",
        f"Convolution Activate:hard_swish {END}",
    ),
    "swish": ("s = Sigmoid(c) t = Mul(c, s)", f"Convolution Activate:sigmoid Multiply {END}"),
    "residual": (
        "d = Conv(c, pw) a = Add(d, c) t = Relu(a)",
        f"Convolution Convolution Add:relu {END}",
    ),
    "sum of three": (
        "d = Conv(c, pw) e = Relu(c) t = Sum(c, d, e)",
        f"Convolution Convolution Activate:relu Add Add {END}",
    ),
    "constants a channel": (
        "m = Mul(per_channel, c) a = Sub(m, per_channel) n = Neg(a) t = Sub(three, n)",
        f"Convolution {END}",
    ),
    "constants that nothing can take": (
        "p = MaxPool<kernel_shape = [2, 2]>(c) m = Mul(p, per_channel) t = Relu(m)",
        f"Convolution Pool Convolution:relu {END}",
    ),
    "squeeze and excite": (
        """p = GlobalAveragePool(c) d = Conv(p, pw) r = Relu(d) e = Conv(r, pw)
        g = HardSigmoid<alpha = 0.16666667, beta = 0.5>(e) t = Mul(g, c)""",
        f"Convolution GlobalAveragePool Convolution:relu Convolution:unit Multiply {END}",
    ),
    "squeeze and excite with dense layers": (
        """p = GlobalAveragePool(c) v = Squeeze(p, i_2_3) d = Gemm<transB=1>(v, squeeze)
        r = Relu(d) e = Gemm<transB=1>(r, expand) g = Sigmoid(e)
        k = Unsqueeze(g, i_2) l = Unsqueeze(k, i_3) t = Mul(c, l)""",
        "Convolution GlobalAveragePool Convolution:relu Convolution Activate:sigmoid Multiply "
        + END,
    ),
    "max pool": (
        "t = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(c)",
        f"Convolution Pool {END}",
    ),
    "max pool beyond the edge": (
        "t = MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(c)",
        f"Convolution Pool {END}",
    ),
    "max pool of zeros around": (
        """r = Relu(c) p = Pad(r, i_0_0_1_0_0_0_1_2)
        t = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(p)""",
        f"Convolution:relu Pool {END}",
    ),
    "global max pool": ("t = GlobalMaxPool(c)", f"Convolution Pool {END}"),
    "maximum of all": (
        "m = ReduceMax<axes = [-1, -2], keepdims = 0>(c) t = Unsqueeze(m, i_2_3)",
        f"Convolution Pool {END}",
    ),
    "average pool": (
        "t = AveragePool<kernel_shape = [3, 2], strides = [2, 2]>(c)",
        f"Convolution Pool {END}",
    ),
    "average pool that counts zeros": (
        "t = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(c)",
        f"Convolution Convolution {END}",
    ),
    "average pool that does not count zeros": (
        "t = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(c)",
        f"Convolution Pool {END}",
    ),
    "average pool, same": (
        't = AveragePool<kernel_shape = [3, 2], auto_pad = "SAME_UPPER", strides = [2, 2]>(c)',
        f"Convolution Pool {END}",
    ),
    "average pool beyond the edge": (
        "t = AveragePool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(c)",
        f"Convolution Pool {END}",
    ),
    "average pool of all": (
        "t = AveragePool<kernel_shape = [6, 6]>(c)",
        f"Convolution GlobalAveragePool {END}",
    ),
    "depthwise, dilated, uneven padding": (
        "t = Conv<group = 4, dilations = [2, 2], pads = [0, 1, 2, 3], strides = [1, 2]>(c, dw, b)",
        f"Convolution Convolution {END}",
    ),
    "same upper": (
        't = Conv<group = 4, auto_pad = "SAME_UPPER", strides = [2, 2]>(c, dw)',
        f"Convolution Convolution {END}",
    ),
    "same lower": (
        't = Conv<group = 4, auto_pad = "SAME_LOWER", strides = [2, 2]>(c, dw)',
        f"Convolution Convolution {END}",
    ),
    "valid": (
        't = Conv<group = 4, auto_pad = "VALID", strides = [2, 2]>(c, dw)',
        f"Convolution Convolution {END}",
    ),
    "pad before conv": (
        "p = Pad(c, i_0_0_1_2_0_0_3_0) t = Conv<group = 4>(p, dw)",
        f"Convolution Convolution {END}",
    ),
    "pad of channels last before conv": (
        """l = Transpose<perm = [0, 2, 3, 1]>(c) p = Pad(l, i_0_1_0_0_0_2_3_0)
        u = Transpose<perm = [0, 3, 1, 2]>(p) t = Conv<group = 4>(u, dw)""",
        f"Convolution Convolution {END}",
    ),
    "nothing at all": ("i = Identity(c) d = Dropout(i) t = Cast<to = 1>(d)", f"Convolution {END}"),
    "a constant that has to be computed": (
        """s = Shape(c) n = Gather<axis = 0>(s, i_1) f = Cast<to = 1>(n)
        r = Reciprocal(f) t = Mul(c, r)""",
        f"Convolution {END}",
    ),
}


@pytest.mark.parametrize(("body", "operators"), TAKEN.values(), ids=TAKEN.keys())
def test_what_is_taken(tmp_path, body, operators):
    conv = "c = Conv<pads = [1, 1, 1, 1]>(x, w, b)"
    imported = take(write(tmp_path / "net.onnx", f"{conv} {body} {HEAD}"))
    assert described(imported) == operators
    assert imported.graph.is_classifier
    assert (imported.resolution, imported.layout) == (6, "NCHW")


SHUFFLE = """r = Reshape(c, i_1_2_2_6_6) u = Transpose<perm = [0, 2, 1, 3, 4]>(r)
  s = Reshape(u, i_1_4_6_6)"""
CHANNELS = {
    "shuffle": (f"{SHUFFLE} t = Relu(s)", "Convolution Select Activate:relu"),
    "shuffle that is not its own inverse": (
        """d = Concat<axis = 1>(c, c) r = Reshape(d, i_1_2_4_6_6)
        u = Transpose<perm = [0, 2, 1, 3, 4]>(r) s = Reshape(u, i_1_8_6_6) t = Conv(s, narrow)""",
        "Convolution Concatenate Convolution",
    ),
    "shuffle that is not its own inverse, for several": (
        """d = Concat<axis = 1>(c, c) r = Reshape(d, i_1_2_4_6_6)
        u = Transpose<perm = [0, 2, 1, 3, 4]>(r) s = Reshape(u, i_1_8_6_6)
        m = Conv(s, narrow) n = Relu(s) o = Conv(n, narrow) t = Add(m, o)""",
        "Convolution Concatenate Select Select Concatenate Convolution Activate:relu Convolution "
        "Add",
    ),
    "shuffle in front of a pointwise layer": (
        f"{SHUFFLE} t = Conv(s, pw)",
        "Convolution Convolution",
    ),
    "shuffle and split": (
        f"{SHUFFLE} k, l = Split<axis = 1>(s) m = Relu(l) t = Concat<axis = 1>(k, m)",
        "Convolution Select Select Activate:relu Concatenate",
    ),
    "shuffle of channels last": (
        """a = Transpose<perm = [0, 2, 3, 1]>(c) r = Reshape(a, i_1_6_6_2_2)
        u = Transpose<perm = [0, 1, 2, 4, 3]>(r) s = Reshape(u, i_1_6_6_4)
        t = Transpose<perm = [0, 3, 1, 2]>(s)""",
        "Convolution Select",
    ),
    "slices": (
        """k = Slice(c, i_0, i_n2, i_1) l = Slice(c, i_n2, i_9, i_1) m = Relu(l)
        t = Concat<axis = 1>(m, k)""",
        "Convolution Select Select Activate:relu Concatenate",
    ),
    "backwards": (
        "s = Slice(c, i_n1, i_n9, i_1, i_n1) t = Relu(s)",
        "Convolution Select Activate:relu",
    ),
    "gather": (
        "s = Gather<axis = 1>(c, i_3_n1_0_0) t = Relu(s)",
        "Convolution Select Activate:relu",
    ),
    "all of them": ("s = Slice(c, i_0, i_9, i_1) t = Relu(s)", "Convolution:relu"),
    "a part that nobody reads": (
        "k, l = Split<axis = 1>(c) m = Relu(k) t = Concat<axis = 1>(m, m)",
        "Convolution Select Activate:relu Concatenate",
    ),
}


@pytest.mark.parametrize(("body", "operators"), CHANNELS.values(), ids=CHANNELS.keys())
def test_channels_that_are_chosen(tmp_path, body, operators):
    conv = "c = Conv<pads = [1, 1, 1, 1]>(x, w, b)"
    imported = take(write(tmp_path / "net.onnx", f"{conv} {body} {HEAD}"))
    assert described(imported) == f"{operators} {END}"


def test_channels_come_one_by_one_and_again(tmp_path):
    """The parts of a Split have readers of their own: nothing goes into what they share."""
    body = """c = Conv<pads = [1, 1, 1, 1]>(x, w, b) k, l = Split<axis = 1>(c) a = Mul(k, three)
        s = Concat<axis = 1>(a, l) r = Relu(c) t = Add(s, r)"""
    imported = take(write(tmp_path / "net.onnx", f"{body} {HEAD}"))
    assert described(imported) == f"Convolution Convolution Activate:relu Add {END}"


BY_COLOUR = {
    "turned": "g = Gather<axis = 1>(x, i_2_1_0)",
    "backwards": "g = Slice(x, i_n1, i_n9, i_1, i_n1)",
    "one by one": """r = Gather<axis = 1>(x, number_0) s = Unsqueeze(r, i_1) m = Mul(s, six)
        h = Gather<axis = 1>(x, number_1) i = Unsqueeze(h, i_1) j = Add(i, three) o = Mul(j, sixth)
        k = Slice(x, i_2, i_3, i_1) g = Concat<axis = 1>(m, o, k)""",
}


@pytest.mark.parametrize("colours", BY_COLOUR)
def test_the_image_by_colour(tmp_path, colours):
    """As networks do that were trained on BGR, or with another mean and deviation."""
    body = f"{BY_COLOUR[colours]} c = Conv<pads = [1, 1, 1, 1]>(g, w, b) t = Relu(c)"
    imported = take(write(tmp_path / "net.onnx", f"{body} {HEAD}"))
    assert described(imported) == f"Convolution:relu {END}"


CONV = "c = Conv<pads = [1, 1, 1, 1]>(x, w, b) t = Relu(c)"
HEADS = {
    "flatten and gemm": ("f = Flatten(t) y = Gemm<transB = 1>(f, wide, head_bias)", "Flatten"),
    "gemm with factors": (
        "f = Flatten(t) y = Gemm<alpha = 0.5, beta = 2.0>(f, wide_t, head_bias)",
        "Flatten",
    ),
    "reshape": ("f = Reshape(t, i_1_n1) y = Gemm<transB = 1>(f, wide, head_bias)", "Flatten"),
    "reshape to a computed shape": (
        """s = Shape(t) n = Gather<axis = 0>(s, i_0) k = Concat<axis = 0>(n, i_n1)
        f = Reshape(t, k) m = MatMul(f, wide_t) y = Add(m, head_bias)""",
        "Flatten",
    ),
    "channels last, flattened": (
        "u = Transpose<perm = [0, 2, 3, 1]>(t) f = Flatten(u) y = Gemm<transB = 1>(f, wide)",
        "Flatten",
    ),
    "mean without sides": (
        "m = ReduceMean<axes = [2, 3], keepdims = 0>(t) y = MatMul(m, dense)",
        "GlobalAveragePool",
    ),
    "mean over the last axes": (
        "m = ReduceMean<axes = [-1, -2]>(t) f = Squeeze(m, i_2_3) y = MatMul(f, dense)",
        "GlobalAveragePool",
    ),
    "norm between pool and dense": (
        """p = GlobalAveragePool(t) f = Flatten(p)
        n = BatchNormalization(f, gain, shift, mean, variance) y = Gemm(n, dense, dense_bias)""",
        "GlobalAveragePool",
    ),
    "convolution as classifier": (
        "p = GlobalAveragePool(t) k = Conv(p, classifier, head_bias) y = Reshape(k, i_1_5)",
        "GlobalAveragePool",
    ),
}


@pytest.mark.parametrize(("body", "pool"), HEADS.values(), ids=HEADS.keys())
def test_ways_to_the_logits(tmp_path, body, pool):
    imported = take(write(tmp_path / "net.onnx", f"{CONV} {body}"))
    assert described(imported) == f"Convolution:relu {pool} FullyConnected"


def test_a_clip_between_norm_and_dense_stays(tmp_path):
    norm = "n = BatchNormalization(f, gain, shift, mean, variance)"
    body = f"{CONV} p = GlobalAveragePool(t) f = Flatten(p) {norm} r = Relu(n) y = MatMul(r, dense)"
    imported = take(write(tmp_path / "net.onnx", body))
    layers = "FullyConnected:relu FullyConnected"
    assert described(imported) == f"Convolution:relu GlobalAveragePool {layers}"


def test_concat_is_along_channels(tmp_path):
    body = """c = Conv(x, w) r = Relu(c) k = Concat<axis = 1>(c, r)
        p = GlobalAveragePool(k) f = Flatten(p) y = Relu(f)"""
    imported = take(write(tmp_path / "net.onnx", body, outputs="float[1,8] y"))
    assert (
        described(imported)
        == "Convolution Activate:relu Concatenate GlobalAveragePool Activate:relu"
    )


def test_softmax_at_the_end_is_left_out_and_said(tmp_path):
    body = f"{CONV} {HEAD.replace('y =', 'z =')} y = Softmax(z)"
    imported = take(write(tmp_path / "net.onnx", body))
    assert imported.notes == ("Softmax at the end is left out: the output is logits",)
    (output,) = imported.outputs
    assert (output.name, output.file_name, output.values) == ("logits", "y", "z")


def test_channels_last_input(tmp_path):
    """As TensorFlow's converter writes it; elementwise operators may stand before the turn."""
    body = f"""s = Mul(x, sixth) k = Relu(s) u = Transpose<perm = [0, 3, 1, 2]>(k)
        c = Conv(u, w) l = Transpose<perm = [0, 2, 3, 1]>(c) n = Mul(l, flat_gain)
        t = Transpose<perm = [0, 3, 1, 2]>(n) {HEAD}"""
    imported = take(write(tmp_path / "net.onnx", body, image="float[n,6,6,3] x"))
    assert imported.layout == "NHWC"
    assert described(imported) == f"Activate:relu Convolution {END}"


def test_bytes_as_input(tmp_path):
    body = f"""u = Transpose<perm = [0, 3, 1, 2]>(x) f = Cast<to = 1>(u) s = Sub(f, six)
        c = Conv(s, w) t = Relu(c) {HEAD}"""
    path = write(tmp_path / "net.onnx", body, image="uint8[1,6,6,3] x")
    imported = take(path, mean=(0.0,), std=(1.0,))
    normalise = imported.graph.operators[0]
    assert isinstance(normalise, Normalise)
    assert normalise.mean.tolist() == [6, 6, 6]
    with pytest.raises(BadWeights, match=r"takes bytes.*give mean 0 and std 1"):
        import_onnx(path, mean=(127.5,), std=(127.5,))


def test_old_opset_has_attributes(tmp_path):
    body = """c = Conv(x, w) r = Clip<min = 0.0, max = 6.0>(c)
        p = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1]>(r) t = Conv(p, pw) m = GlobalAveragePool(t)
        f = Squeeze<axes = [2, 3]>(m) y = MatMul(f, dense)"""
    imported = take(write(tmp_path / "net.onnx", body, opset=9))
    assert described(imported) == f"Convolution:relu6 Convolution {END}"


def test_batch_and_sides_that_are_open_or_not_one(tmp_path):
    open_sides = write(tmp_path / "open.onnx", f"{CONV} {HEAD}", image="float[n,3,h,w] x")
    assert take(open_sides, resolution=10).resolution == 10
    body = f"{CONV} f = Reshape(t, i_4_n1) y = Gemm<transB = 1>(f, wide)"
    four = write(tmp_path / "four.onnx", body, image="float[4,3,6,6] x", outputs="float[4,5] y")
    assert take(four).graph.output_shapes == {"logits": (1, 5)}


def test_names_are_the_modules_names(tmp_path):
    path = write(tmp_path / "net.onnx", f"{CONV} {HEAD}")
    model = onnx.load(path)
    names = [
        "/features/features.0/0/Conv",
        "/features/features.0/2/Relu",
        "StatefulPartitionedCall/pool/Mean__7",
    ]
    for node, name in zip(model.graph.node, names, strict=False):
        node.name = name
    for node in model.graph.node:
        node.input[:] = ["classifier.1.weight" if name == "head" else name for name in node.input]
    next(t for t in model.graph.initializer if t.name == "head").name = "classifier.1.weight"
    onnx.save(model, path)
    names = [op.name for op in import_onnx(path, mean=(0.0,), std=(1.0,)).graph.operators]
    assert names == ["normalised", "features.0.0", "pool.Mean", "classifier.1"]


def test_weights_in_a_second_file(tmp_path):
    path = write(tmp_path / "net.onnx", f"{CONV} {HEAD}")
    whole = take(path)
    model = onnx.load(path)
    data = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    onnx.save(model, path, **data)
    split = take(path)
    layers = zip(whole.graph.weighted(), split.graph.weighted(), strict=True)
    assert all(np.array_equal(a.weight, b.weight) for a, b in layers)
    (tmp_path / "net.data").write_bytes(bytes((tmp_path / "net.data").stat().st_size))
    assert import_onnx(path, mean=(0.0,), std=(1.0,)).sha256 != split.sha256
    (tmp_path / "net.data").unlink()
    with pytest.raises(BadWeights, match=r"weights are in net\.data, which is missing"):
        import_onnx(path, mean=(0.0,), std=(1.0,))


UNSUPPORTED = {
    "unknown": (
        "t = Abs(c)",
        r"Abs \(\w+\): is not an operator that edgenet takes; it takes Add, ",
    ),
    "unknown activation": ("t = Elu(c)", r"edgenet takes; use Relu, Clip, HardSwish or"),
    "transformer": (
        """r = Reshape(c, i_1_4_n1) u = Transpose<perm = [0, 2, 1]>(r)
        n = LayerNormalization(u, gain) t = Reshape(n, i_1_4_6_6)""",
        r"LayerNormalization \(n\): is not .* take a network of convolutions with",
    ),
    "local response": ("t = LRN<size = 3>(c)", "use BatchNormalization and train again"),
    "clip": ("t = Clip(c, one, six)", "clips to 1 ... 6; edgenet takes 0 and up"),
    "softmax inside": ("t = Softmax<axis = 1>(c)", "as the last operator only"),
    "sub of tensors": ("r = Relu(c) t = Sub(r, c)", "Add of two, or Sub with a constant"),
    "div by a tensor": ("r = Sigmoid(c) t = Div(c, r)", "division by a constant only"),
    "broadcast add": ("p = GlobalAveragePool(c) t = Add(c, p)", "adds 1x4x6x6 and 1x4x1x1"),
    "mean of channels": (
        "m = ReduceMean<axes = [2]>(c) t = Conv(m, pw)",
        "over height and width together only",
    ),
    "space to channels": (
        """r = Reshape(c, i_1_4_3_2_3_2) u = Transpose<perm = [0, 1, 3, 5, 2, 4]>(r)
        v = Reshape(u, i_1_16_3_3) t = Reshape(v, i_1_4_6_6)""",
        r"Transpose \(u\): reads 1x4x3x2x3x2, which is a map of 4x6x6 .* choose such a one",
    ),
    "slice of the sides": (
        "s = Slice(c, i_1_1, i_6_6, i_2_3) t = Conv(s, pw)",
        "edgenet takes slices of channels",
    ),
    "split of the sides": (
        "s, r = Split<axis = 2>(c) t = Add(s, r)",
        "is along axis 2; edgenet takes the channels' axis",
    ),
    "an operator behind one of another reason": (
        "s = Softmax<axis = 1>(c) t = Elu(s)",
        r"Elu \(t\): is not an operator",
    ),
    "average of padding": (
        "t = AveragePool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(c)",
        r"does not count its padding of \[1, 1, 1, 1\].*use auto_pad=SAME_UPPER",
    ),
    "average of padding beyond the edge": (
        """t = AveragePool<kernel_shape = [2, 2], strides = [2, 2], pads = [1, 0, 0, 0],
        count_include_pad = 1, ceil_mode = 1>(c)""",
        "export with ceil_mode=0",
    ),
    "half inside": ("h = Cast<to = 10>(c) t = Cast<to = 1>(h)", "has to be exported in float32"),
    "max of negative padding": (
        "p = Pad(c, i_0_0_1_1_0_0_1_1) t = MaxPool<kernel_shape = [3, 3]>(p)",
        "put the padding into MaxPool",
    ),
    "pad for others": ("p = Pad(c, i_0_0_1_1_0_0_1_1) t = Relu(p)", "follows a Pad"),
    "uneven dilation": ("t = Conv<group = 4, dilations = [1, 2]>(c, dw)", "dilated 1x2"),
    "weights from the image": (
        "k = Reshape(c, i_4_4_3_3) t = Conv(c, k)",
        "its input 1 is computed from the image",
    ),
    "training": (
        "t, m, v = BatchNormalization<training_mode = 1>(c, gain, shift, mean, variance)",
        "training mode; export the network in eval mode",
    ),
    "quantised": (
        """z = Constant<value = uint8 {0}>() q = QuantizeLinear(c, one, z)
        t = DequantizeLinear(q, one, z)""",
        "quantised already",
    ),
}


@pytest.mark.parametrize(("body", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_what_is_not_taken_is_named(tmp_path, body, message):
    body = f"c = Conv<pads = [1, 1, 1, 1]>(x, w, b) {body} {HEAD}"
    path = write(tmp_path / "net.onnx", body)
    with pytest.raises(UnsupportedOperator, match=message) as raised:
        import_onnx(path, mean=(0.0,), std=(1.0,))
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


MISFITS = {
    "two inputs": ({"image": "float[1,3,6,6] x, float[1,3,6,6] z"}, r"has 2 inputs \(x, z\)"),
    "grey": ({"image": "float[1,1,6,6] x"}, "input 'x' is 1x1x6x6; edgenet takes batch x 3"),
    "half": ({"image": "float16[1,3,6,6] x"}, "input 'x' is FLOAT16; export it with float32"),
    "open sides": ({"image": "float[1,3,h,w] x"}, "is 1x3x\\?x\\?.*such as --resolution 224"),
    "not square": ({"image": "float[1,3,6,8] x"}, "1x3x6x8; edgenet takes square images"),
    "old": ({"opset": 8}, "is in ONNX opset 8, too old; export it again with opset 9"),
}


@pytest.mark.parametrize(("options", "message"), MISFITS.values(), ids=MISFITS.keys())
def test_files_that_do_not_fit(tmp_path, options, message):
    path = write(tmp_path / "net.onnx", f"{CONV} {HEAD}", **options)
    with pytest.raises(EdgenetError, match=message) as raised:
        import_onnx(path, mean=(0.0,), std=(1.0,))
    assert str(raised.value).startswith(f"{path}: ")


OUTPUTS = {
    "a map": ("float[1,4,6,6] t", {"t": (1, 6, 6, 4)}),
    "a map with its channels last": ("float[1,6,6,4] last", {"last": (1, 6, 6, 4)}),
    "a map that ends in a softmax": ("float[1,4,6,6] share", {"share": (1, 6, 6, 4)}),
    "a map read on": ("float[1,4,6,6] t, float[1,5] y", {"t": (1, 6, 6, 4), "y": (1, 5)}),
    "a map called logits": ("float[1,4,6,6] logits", {"logits": (1, 6, 6, 4)}),
    "the mean of it": ("float[1,4,1,1] pooled, float[1,5] y", {"pooled": (1, 4), "y": (1, 5)}),
    "a vector read on": ("float[1,5] y, float[1,5] z", {"y": (1, 5), "z": (1, 5)}),
    "an embedding": ("float[1,5] embedding", {"embedding": (1, 5)}),
    "before its activation": (
        "float[1,4,6,6] t, float[1,4,6,6] c",
        {"t": (1, 6, 6, 4), "c": (1, 6, 6, 4)},
    ),
    "classes under any name": ("float[1,5] y", {"logits": (1, 5)}),
}


@pytest.mark.parametrize(("outputs", "shapes"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_what_leaves(tmp_path, outputs, shapes):
    body = f"""{CONV} {HEAD} z = Relu(y) last = Transpose<perm = [0, 2, 3, 1]>(t)
        share = Softmax<axis = 1>(t) logits = Sigmoid(c) embedding = Neg(y)"""
    imported = take(write(tmp_path / "net.onnx", body, outputs=outputs))
    assert imported.graph.output_shapes == shapes
    assert imported.graph.is_classifier == (shapes == {"logits": (1, 5)})
    assert [output.name for output in imported.outputs] == list(shapes)


NO_OUTPUTS = {
    "one output twice": (
        "float[1,5] y, float[1,5] z",
        r"outputs y and z have the same values .*choose one of them with --take",
    ),
    "a sequence": (
        "float[1,4,36] r",
        r"Reshape \(r\): makes the output 'r', 1x4x36; edgenet takes vectors, batch x channels",
    ),
    "a padded map": ("float[1,4,8,8] p", "follows a Pad"),
    "the image": ("float[1,6,6,3] i, float[1,5] y", "output 'i' is the image itself"),
}


@pytest.mark.parametrize(("outputs", "message"), NO_OUTPUTS.values(), ids=NO_OUTPUTS.keys())
def test_what_cannot_leave(tmp_path, outputs, message):
    body = f"""{CONV} {HEAD} z = Softmax(y) r = Reshape(t, i_1_4_n1) p = Pad(t, i_0_0_1_1_0_0_1_1)
        i = Transpose<perm = [0, 2, 3, 1]>(x)"""
    path = write(tmp_path / "net.onnx", body, outputs=outputs)
    with pytest.raises(UnsupportedOperator, match=message):
        import_onnx(path, mean=(0.0,), std=(1.0,))


def test_some_of_the_outputs(tmp_path):
    outputs = "float[1,4,6,6] t, float[1,5] y"
    path = write(tmp_path / "net.onnx", f"{CONV} {HEAD}", outputs=outputs)
    imported = import_onnx(path, mean=(0.0,), std=(1.0,), outputs=("y",))
    assert imported.graph.is_classifier
    assert imported.notes == ()
    with pytest.raises(BadWeights, match="has no output 'w'; it has t, y"):
        import_onnx(path, mean=(0.0,), std=(1.0,), outputs=("w",))


def test_damaged_files(tmp_path):
    path = write(tmp_path / "net.onnx", f"{CONV} {HEAD}")
    content = path.read_bytes()
    for part in (b"", content[: len(content) // 2], b"not a model at all"):
        path.write_bytes(part)
        with pytest.raises(BadWeights, match="is not an ONNX file, or"):
            import_onnx(path, mean=(0.0,), std=(1.0,))
    with pytest.raises(BadWeights, match="No such file"):
        import_onnx(tmp_path / "none.onnx", mean=(0.0,), std=(1.0,))
    write(path, f"{CONV} {HEAD}")
    with pytest.raises(BadWeights, match="7 was asked for"):
        import_onnx(path, mean=(0.0,), std=(1.0,), resolution=7)
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((4, 3, 3, 3), np.nan, np.float32), "w")
    )
    onnx.save(model, path)
    with pytest.raises(BadWeights, match="layer conv has weights that are not finite"):
        import_onnx(path, mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("resnet_18", {Convolution: 20, Add: 8, Pool: 1, FullyConnected: 1, Activate: 0}),
        ("mobilenet_v2", {Convolution: 52, Add: 10, Pool: 0, FullyConnected: 1, Activate: 0}),
        ("mobilenet_v3_small", {Convolution: 52, Add: 6, FullyConnected: 2, Activate: 19}),
    ],
)
def test_networks_of_the_papers(tmp_path, name, counts):
    path = tmp_path / f"{name}.onnx"
    networks.export(name, path, resolution=64)
    imported = take(path, mean=networks.MEAN, std=networks.STD)
    operators = imported.graph.operators
    assert {kind: sum(isinstance(op, kind) for op in operators) for kind in counts} == counts
