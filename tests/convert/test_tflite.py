"""The TFLite files, loaded by the runtime: same logits, same numbers, same bytes, readable."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as tfl  # type: ignore[import-untyped]
from ai_edge_litert.interpreter import (  # type: ignore[import-untyped]
    Interpreter,
    OpResolverType,
)

from edgenet.convert.description import Description
from edgenet.convert.tflite import write_float16, write_float32, write_int8
from edgenet.errors import ConversionFailed
from edgenet.graph import (
    IMAGE,
    Affine,
    Convolution,
    Float32Array,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Normalise,
    QuantizedGraph,
    infer_shapes,
)
from edgenet.models.fold import fold
from edgenet.models.mobilenet_v1 import MobileNetV1, initialise
from edgenet.preprocess import Preprocessing, UInt8Array
from edgenet.quantize.encode import encode
from edgenet.quantize.ranges import find_ranges
from edgenet.quantize.recipe import Recipe
from edgenet.quantize.statistics import collect

MEAN = STD = (127.5, 127.5, 127.5)
CLASSES = 10
LABELS = ("Blåbær", "ice cream", *(f"class {n}" for n in range(2, CLASSES)))

XNNPACK = OpResolverType.AUTO
BUILTIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def network(resolution: int, **options: Any) -> MobileNetV1:
    model = MobileNetV1(0.25, resolution, CLASSES, **options)
    initialise(model, seed=1)
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Shifts and spreads as trained networks have them, so that biases and clips matter.
            torch.nn.init.uniform_(module.weight, 0.8, 1.6, generator=generator)
            torch.nn.init.uniform_(module.bias, -0.3, 0.8, generator=generator)
    return model.eval()


def describe(resolution: int) -> Description:
    return Description(
        name="small",
        version="0.1.0",
        licence="Apache-2.0",
        labels=LABELS,
        preprocessing=Preprocessing(resolution=resolution),
    )


def pictures(resolution: int, count: int) -> UInt8Array:
    """Return (count, resolution, resolution, 3): noise on gradients, different in each picture."""
    random = np.random.default_rng(3)
    ramp = np.linspace(0, 1, resolution)[:, None, None] * random.uniform(0, 200, (count, 1, 1, 3))
    noise = random.uniform(0, 255 - 200, (count, resolution, resolution, 3))
    return (ramp + noise).astype(np.uint8)


def torch_logits(
    model: MobileNetV1,
    images: UInt8Array,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> Float32Array:
    x = (images - np.array(mean, np.float32)) / np.array(std, np.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2))
    return np.asarray(logits.numpy(), np.float32)


def litert_logits(path: Path, images: UInt8Array, resolver: OpResolverType) -> Float32Array:
    """Run every picture through the file's `serving_default` signature."""
    interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=resolver)
    run = interpreter.get_signature_runner("serving_default")
    outputs = [run(image=image[None])["logits"] for image in images]
    return np.concatenate(outputs)


def quantised(graph: Graph, images: UInt8Array) -> QuantizedGraph:
    inputs = [image[None] for image in images]
    return encode(
        graph, find_ranges(Recipe(ranges="minmax"), graph, collect(graph, inputs), {}, inputs)
    )


def without(quantized: QuantizedGraph, *, tensors: set[str], layers: set[str]) -> QuantizedGraph:
    """Return `quantized` with some tensors and layers back in float."""
    return QuantizedGraph(
        graph=quantized.graph,
        tensors={k: v for k, v in quantized.tensors.items() if k not in tensors},
        layers={k: v for k, v in quantized.layers.items() if k not in layers},
    )


def sqnr_db(reference: Float32Array, found: Float32Array) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - found) ** 2).sum()))


@pytest.fixture(scope="module")
def small() -> tuple[MobileNetV1, Graph, QuantizedGraph, UInt8Array]:
    """A network at 64 pixels, its graph, its INT8 form and the pictures that calibrated it."""
    model = network(64)
    graph = fold(model, name="small", mean=MEAN, std=STD)
    images = pictures(64, 8)
    return model, graph, quantised(graph, images), images


def read_back(path: Path) -> tuple[Any, Mapping[str, Any]]:
    """Return the model as objects of the schema, and its tensors by name."""
    model = tfl.ModelT.InitFromPackedBuf(path.read_bytes())
    return model, {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}


def operators(path: Path) -> list[tuple[str, int]]:
    """Return (name, version) of the operators of a file, in order."""
    names = {code: name for name, code in vars(tfl.BuiltinOperator).items() if name.isupper()}
    model, _ = read_back(path)
    codes = [(names[code.builtinCode], code.version) for code in model.operatorCodes]
    return [codes[op.opcodeIndex] for op in model.subgraphs[0].operators]


def metadata(path: Path) -> dict[str, bytes]:
    model, _ = read_back(path)
    return {
        entry.name.decode(): bytes(model.buffers[entry.buffer].data) for entry in model.metadata
    }


@pytest.mark.parametrize("resolver", [XNNPACK, BUILTIN])
@pytest.mark.parametrize("activation", ["relu6", "relu"])
@pytest.mark.parametrize("padding", ["tf_same", "keras", "symmetric"])
@pytest.mark.parametrize("resolution", [32, 33, 96, 100])
def test_float32_gives_the_logits_of_torch(
    tmp_path: Path, resolution: int, padding: str, activation: str, resolver: OpResolverType
) -> None:
    model = network(resolution, padding=padding, activation=activation)
    graph = fold(model, name="small", mean=MEAN, std=STD)
    images = pictures(resolution, 2)
    write_float32(graph, tmp_path / "f.tflite", description=describe(resolution))
    expected = torch_logits(model, images)
    found = litert_logits(tmp_path / "f.tflite", images, resolver)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_mean_and_deviation_may_differ_by_channel(tmp_path: Path) -> None:
    model = network(32)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    graph = fold(model, name="small", mean=mean, std=std)
    images = pictures(32, 2)
    write_float32(graph, tmp_path / "f.tflite", description=describe(32))
    expected = torch_logits(model, images, mean, std)
    found = litert_logits(tmp_path / "f.tflite", images, XNNPACK)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize(
    ("padding", "resolution", "pads"),
    [
        ("tf_same", 32, 0),
        ("tf_same", 33, 0),
        # Bottom and right is what SAME does at even sizes: the only odd one here is 17.
        ("keras", 64, 0),
        ("keras", 33, 1),
        # One pixel on every side is what SAME does at odd sizes.
        ("symmetric", 64, 5),
        ("symmetric", 33, 0),
    ],
)
def test_pad_operators_only_where_same_pads_otherwise(
    tmp_path: Path, padding: str, resolution: int, pads: int
) -> None:
    graph = fold(network(resolution, padding=padding), name="small", mean=MEAN, std=STD)
    write_float32(graph, tmp_path / "f.tflite", description=describe(resolution))
    assert [name for name, _ in operators(tmp_path / "f.tflite")].count("PAD") == pads


@pytest.mark.parametrize("resolver", [XNNPACK, BUILTIN])
def test_float16_stores_half_and_computes_in_float32(
    tmp_path: Path,
    small: tuple[MobileNetV1, Graph, QuantizedGraph, UInt8Array],
    resolver: OpResolverType,
) -> None:
    _, graph, _, images = small
    rounded = dataclasses.replace(
        graph,
        operators=tuple(
            dataclasses.replace(op, weight=op.weight.astype(np.float16).astype(np.float32))
            if isinstance(op, (Convolution, FullyConnected))
            else op
            for op in graph.operators
        ),
    )
    write_float16(graph, tmp_path / "half.tflite", description=describe(64))
    write_float32(graph, tmp_path / "full.tflite", description=describe(64))
    write_float32(rounded, tmp_path / "rounded.tflite", description=describe(64))
    found = litert_logits(tmp_path / "half.tflite", images, resolver)
    expected = litert_logits(tmp_path / "rounded.tflite", images, resolver)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
    half, full = ((tmp_path / f"{name}.tflite").stat().st_size for name in ("half", "full"))
    assert half < 0.6 * full
    assert operators(tmp_path / "half.tflite").count(("DEQUANTIZE", 3)) == 28


def test_float16_refuses_a_weight_that_it_cannot_hold(
    tmp_path: Path, small: tuple[MobileNetV1, Graph, QuantizedGraph, UInt8Array]
) -> None:
    _, graph, _, _ = small
    huge = tuple(
        dataclasses.replace(op, weight=np.full_like(op.weight, -1e5))
        if isinstance(op, FullyConnected)
        else op
        for op in graph.operators
    )
    with pytest.raises(ConversionFailed, match="fc has a weight of 100000"):
        write_float16(
            dataclasses.replace(graph, operators=huge),
            tmp_path / "half.tflite",
            description=describe(64),
        )
    assert not (tmp_path / "half.tflite").exists()


@pytest.mark.parametrize("resolver", [XNNPACK, BUILTIN])
@pytest.mark.parametrize("padding", ["tf_same", "keras", "symmetric"])
@pytest.mark.parametrize("resolution", [64, 33])
def test_int8_logits_track_those_of_torch(
    tmp_path: Path, resolution: int, padding: str, resolver: OpResolverType
) -> None:
    model = network(resolution, padding=padding)
    graph = fold(model, name="small", mean=MEAN, std=STD)
    images = pictures(resolution, 8)
    write_int8(quantised(graph, images), tmp_path / "q.tflite", description=describe(resolution))
    found = litert_logits(tmp_path / "q.tflite", images, resolver)
    assert sqnr_db(torch_logits(model, images), found) > 20


def test_int8_file_holds_exactly_the_numbers_of_the_graph(
    tmp_path: Path, small: tuple[MobileNetV1, Graph, QuantizedGraph, UInt8Array]
) -> None:
    _, graph, quantized, _ = small
    write_int8(quantized, tmp_path / "q.tflite", description=describe(64))
    model, tensors = read_back(tmp_path / "q.tflite")
    for name, affine in quantized.tensors.items():
        found = tensors[f"{name}/int8"]
        assert found.type == tfl.TensorType.INT8
        assert found.quantization.scale.tolist() == [affine.scale]
        assert found.quantization.zeroPoint.tolist() == [affine.zero_point - 128]
    image = tensors[IMAGE]
    assert image.type == tfl.TensorType.UINT8
    assert image.quantization.scale.tolist() == [quantized.tensors["normalised"].scale]
    assert image.quantization.zeroPoint.tolist() == [128]
    for op in graph.weighted():
        layer = quantized.layers[op.name]
        weight, bias = tensors[f"{op.name}/weight"], tensors[f"{op.name}/bias"]
        values = np.frombuffer(bytes(model.buffers[weight.buffer].data), np.int8)
        depthwise = isinstance(op, Convolution) and op.groups > 1
        if isinstance(op, FullyConnected):
            expected = layer.values
        elif depthwise:
            expected = np.moveaxis(layer.values, 0, -1)  # 1, height, width, channels
        else:
            expected = np.moveaxis(layer.values, 1, -1)  # out, height, width, in
        np.testing.assert_array_equal(values.reshape(weight.shape), expected)
        np.testing.assert_array_equal(weight.quantization.scale, layer.scale)
        assert weight.quantization.quantizedDimension == (3 if depthwise else 0)
        assert not weight.quantization.zeroPoint.any()
        stored = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.int32)
        np.testing.assert_array_equal(stored, layer.bias)
        np.testing.assert_array_equal(
            bias.quantization.scale, np.float32(quantized.tensors[op.input].scale) * layer.scale
        )
        assert not bias.quantization.zeroPoint.any()


def test_int8_operators_are_integer_from_the_image_to_the_classifier(
    tmp_path: Path, small: tuple[MobileNetV1, Graph, QuantizedGraph, UInt8Array]
) -> None:
    write_int8(small[2], tmp_path / "q.tflite", description=describe(64))
    body = [("DEPTHWISE_CONV_2D", 3), ("CONV_2D", 3)] * 13
    assert operators(tmp_path / "q.tflite") == [
        ("QUANTIZE", 1),
        ("CONV_2D", 3),
        *body,
        ("MEAN", 2),
        ("FULLY_CONNECTED", 4),
        ("DEQUANTIZE", 2),
    ]


@pytest.mark.parametrize("resolver", [XNNPACK, BUILTIN])
@pytest.mark.parametrize(
    ("tensors", "layers", "conversions"),
    [
        # The image's bytes are the normalised tensor, read as float32 by the stem.
        ({"stem"}, {"stem", "conv_dw_1"}, ["DEQUANTIZE", "QUANTIZE", "DEQUANTIZE"]),
        # Everything in float up to the second depthwise layer.
        ({"normalised", "stem"}, {"stem", "conv_dw_1"}, ["CAST", "QUANTIZE", "DEQUANTIZE"]),
        # A float layer between 8-bit tensors, which its neighbours see as 8 bits.
        (set(), {"conv_pw_3"}, ["QUANTIZE", "DEQUANTIZE", "QUANTIZE", "DEQUANTIZE"]),
        # The classifier in float: its logits have no steps.
        ({"fc"}, {"fc"}, ["QUANTIZE", "DEQUANTIZE"]),
        ({"pool", "fc"}, {"fc"}, ["QUANTIZE", "DEQUANTIZE"]),
        # 8-bit logits from a float classifier.
        (set(), {"fc"}, ["QUANTIZE", "DEQUANTIZE", "QUANTIZE", "DEQUANTIZE"]),
    ],
)
def test_mixed_graphs_convert_where_the_precision_changes(
    tmp_path: Path,
    small: tuple[MobileNetV1, Graph, QuantizedGraph, UInt8Array],
    tensors: set[str],
    layers: set[str],
    conversions: list[str],
    resolver: OpResolverType,
) -> None:
    model, _, quantized, images = small
    mixed = without(quantized, tensors=tensors, layers=layers)
    path = tmp_path / "m.tflite"
    write_int8(mixed, path, description=describe(64))
    changes = ("CAST", "QUANTIZE", "DEQUANTIZE")
    assert [name for name, _ in operators(path) if name in changes] == conversions
    assert sqnr_db(torch_logits(model, images), litert_logits(path, images, resolver)) > 20


def test_a_tensor_that_two_layers_read_is_converted_once(tmp_path: Path) -> None:
    random = np.random.default_rng(4)

    def pointwise(name: str, source: str) -> Convolution:
        return Convolution(
            name=name,
            input=source,
            weight=random.normal(size=(3, 3, 1, 1)).astype(np.float32),
            bias=np.zeros(3, np.float32),
            stride=(1, 1),
            pad=(0, 0, 0, 0),
            groups=1,
            activation=None,
        )

    ops = (
        Normalise(
            name="normalised",
            input=IMAGE,
            mean=np.full(3, 128, np.float32),
            std=np.full(3, 64, np.float32),
        ),
        pointwise("unused", "normalised"),
        pointwise("used", "normalised"),
        GlobalAveragePool(name="pool", input="used"),
    )
    shapes = infer_shapes(ops, (3, 32, 32))
    graph = Graph(name="fork", operators=ops, shapes=shapes, outputs={"pool": "logits"})
    quantized = QuantizedGraph(
        graph=graph, tensors={"normalised": Affine(scale=1 / 64, zero_point=128)}, layers={}
    )
    write_int8(quantized, tmp_path / "fork.tflite", description=describe(32))
    names = [name for name, _ in operators(tmp_path / "fork.tflite")]
    assert names == ["DEQUANTIZE", "CONV_2D", "CONV_2D", "MEAN"]


def test_int8_refuses_a_layer_whose_output_is_not_in_8_bits(
    tmp_path: Path, small: tuple[MobileNetV1, Graph, QuantizedGraph, UInt8Array]
) -> None:
    half_float = without(small[2], tensors={"fc"}, layers=set())
    with pytest.raises(ConversionFailed, match="fc computes in int8 but fc is not an 8-bit tensor"):
        write_int8(half_float, tmp_path / "q.tflite", description=describe(64))


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory,
    small: tuple[MobileNetV1, Graph, QuantizedGraph, UInt8Array],
) -> Mapping[str, Path]:
    """The three artefacts of the small network."""
    _, graph, quantized, _ = small
    folder = tmp_path_factory.mktemp("artefacts")
    write_float32(graph, folder / "float32.tflite", description=describe(64))
    write_float16(graph, folder / "float16.tflite", description=describe(64))
    write_int8(quantized, folder / "int8.tflite", description=describe(64))
    return {name: folder / f"{name}.tflite" for name in ("float32", "float16", "int8")}


PRECISIONS = ["float32", "float16", "int8"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_file_has_one_input_and_one_output_as_agreed(
    files: Mapping[str, Path], precision: str
) -> None:
    interpreter = Interpreter(str(files[precision]))
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (image["name"], image["dtype"], image["shape"].tolist()) == (
        "image",
        np.uint8,
        [1, 64, 64, 3],
    )
    assert (logits["name"], logits["dtype"], logits["shape"].tolist()) == (
        "logits",
        np.float32,
        [1, CLASSES],
    )
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["logits"]}
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensor_names_are_unique(files: Mapping[str, Path], precision: str) -> None:
    model, by_name = read_back(files[precision])
    assert len(by_name) == len(model.subgraphs[0].tensors)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_constants_lie_at_multiples_of_16_bytes(files: Mapping[str, Path], precision: str) -> None:
    model = tfl.Model.GetRootAs(files[precision].read_bytes())
    data_slot = 4
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        if buffer.DataLength():
            table = buffer._tab
            assert table.Vector(table.Offset(data_slot)) % 16 == 0


def test_writing_twice_gives_the_same_bytes(
    tmp_path: Path,
    files: Mapping[str, Path],
    small: tuple[MobileNetV1, Graph, QuantizedGraph, UInt8Array],
) -> None:
    _, graph, quantized, _ = small
    write_float32(graph, tmp_path / "float32", description=describe(64))
    write_float16(graph, tmp_path / "float16", description=describe(64))
    write_int8(quantized, tmp_path / "int8", description=describe(64))
    for name, path in files.items():
        assert (tmp_path / name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_labels_lie_behind_the_model_as_a_plain_zip(
    files: Mapping[str, Path], precision: str
) -> None:
    with zipfile.ZipFile(io.BytesIO(files[precision].read_bytes())) as archive:
        assert archive.testzip() is None
        (entry,) = archive.infolist()
        assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read("labels.txt").decode() == "".join(f"{label}\n" for label in LABELS)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_our_own_metadata_are_the_properties_as_json(
    files: Mapping[str, Path], precision: str
) -> None:
    assert json.loads(metadata(files[precision])["EDGENET"]) == describe(64).properties()


class Record:
    """A FlatBuffer table read by slot number, independently of the code that wrote it."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def _at(self, slot: int) -> int | None:
        (back,) = struct.unpack_from("<i", self.data, self.position)
        vtable = self.position - back
        (size,) = struct.unpack_from("<H", self.data, vtable)
        if 4 + 2 * slot >= size:
            return None
        (offset,) = struct.unpack_from("<H", self.data, vtable + 4 + 2 * slot)
        return self.position + offset if offset else None

    def number(self, slot: int, kind: str) -> int:
        at = self._at(slot)
        assert at is not None
        return int(struct.unpack_from(f"<{kind}", self.data, at)[0])

    def table(self, slot: int) -> Record:
        return Record(self.data, self._follow(slot))

    def tables(self, slot: int) -> list[Record]:
        start = self._follow(slot)
        (count,) = struct.unpack_from("<I", self.data, start)
        entries = range(start + 4, start + 4 + 4 * count, 4)
        return [
            Record(self.data, at + struct.unpack_from("<I", self.data, at)[0]) for at in entries
        ]

    def floats(self, slot: int) -> list[float]:
        start = self._follow(slot)
        (count,) = struct.unpack_from("<I", self.data, start)
        return list(struct.unpack_from(f"<{count}f", self.data, start + 4))

    def text(self, slot: int) -> str:
        start = self._follow(slot)
        (length,) = struct.unpack_from("<I", self.data, start)
        return self.data[start + 4 : start + 4 + length].decode()

    def has(self, slot: int) -> bool:
        return self._at(slot) is not None

    def _follow(self, slot: int) -> int:
        at = self._at(slot)
        assert at is not None
        return at + int(struct.unpack_from("<I", self.data, at)[0])


@pytest.mark.parametrize(
    ("precision", "mean", "std"),
    [
        ("float32", 0, 1),
        ("float16", 0, 1),
        # Readers normalise, then quantise with the input's affine: together they change nothing.
        ("int8", 128, 127.5),
    ],
)
def test_model_metadata_tell_other_tools_what_they_need(
    files: Mapping[str, Path], precision: str, mean: float, std: float
) -> None:
    data = metadata(files[precision])["TFLITE_METADATA"]
    assert data[4:8] == b"M001"
    model = Record(data, struct.unpack_from("<I", data)[0])
    assert (model.text(0), model.text(2), model.text(5)) == ("small", "0.1.0", "Apache-2.0")
    assert not model.has(4)  # author
    assert model.text(7) == "1.0.0"
    (subgraph,) = model.tables(3)
    (image,), (logits,) = subgraph.tables(2), subgraph.tables(3)

    assert image.text(0) == "image"
    assert image.table(3).number(0, "B") == 2  # ImageProperties
    properties = image.table(3).table(1)
    assert properties.number(0, "b") == 1  # RGB
    size = properties.table(1)
    assert (size.number(0, "I"), size.number(1, "I")) == (64, 64)
    (unit,) = image.tables(4)
    assert unit.number(0, "B") == 1  # NormalizationOptions
    assert unit.table(1).floats(0) == [mean]
    assert unit.table(1).floats(1) == pytest.approx([std])
    assert (image.table(5).floats(0), image.table(5).floats(1)) == ([255], [0])

    assert logits.text(0) == "logits"
    assert logits.table(3).number(0, "B") == 1  # FeatureProperties
    (labels,) = logits.tables(6)
    assert labels.text(0) == "labels.txt"
    assert labels.number(2, "b") == 2  # TENSOR_AXIS_LABELS
