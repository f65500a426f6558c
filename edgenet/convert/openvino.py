"""The OpenVINO IR writer: OpenVINO's own ONNX reader does the conversion.

Reading the QDQ form keeps our scales and zero points and is as fast as a model quantised by
OpenVINO's own tool (docs/decisions). The metadata follow Model API's `model_info`, without mean and
scale values: the normalisation is inside, and a reader that found them would apply it twice.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgenet.bundle import LayerWork, Output
from edgenet.convert import onnx
from edgenet.convert.description import Description
from edgenet.convert.golden_layers import tensors_of
from edgenet.graph import Activate, Graph, Multiply, QuantizedGraph, inputs_of
from edgenet.runtimes.openvino import shared_core, without_telemetry

with without_telemetry():
    import openvino as ov

DEQUANTIZED = ".dequantized"
"""Behind the name of a tensor in 8 bits: the floats that these stand for."""


def write_float32(graph: Graph, path: Path, *, description: Description) -> None:
    """Write `graph` as IR (`path` and a .bin beside it), weights in float32."""
    _write(QuantizedGraph(graph=graph, tensors={}, layers={}), path, description, "float32")


def write_float16(graph: Graph, path: Path, *, description: Description) -> None:
    """Write `graph` as IR with weights in float16; arithmetic stays what the device offers."""
    _write(QuantizedGraph(graph=graph, tensors={}, layers={}), path, description, "float16")


def write_int8(quantized: QuantizedGraph, path: Path, *, description: Description) -> None:
    """Write the INT8 form as IR; what stays float stays float32, and so do the `passing`."""
    in_float = passing(quantized.graph)
    tensors = {name: each for name, each in quantized.tensors.items() if name not in in_float}
    _write(replace(quantized, tensors=tensors), path, description, "float32")


def passing(graph: Graph) -> frozenset[str]:
    """Return the tensors that a layer hands to its own hard-swish, swish or sigmoid.

    OpenVINO computes these in the layer's kernel, on sums that never lie in memory. Bytes in
    between would part the two: an eighth of the latency of MobileNet V3 Small at 64 x 64.
    """
    readers = {
        name: [op for op in graph.operators if name in inputs_of(op)] for name in graph.shapes
    }
    found = set[str]()
    for layer in graph.weighted():
        match readers[layer.name]:
            case [Activate(function="hard_swish" | "sigmoid")]:
                found.add(layer.name)
            case [Activate(function="sigmoid", name=gate), Multiply(inputs=factors) as product] if (
                set(factors) == {layer.name, gate} and readers[gate] == [product]
            ):
                found |= {layer.name, gate}
    return frozenset(found - graph.outputs.keys())


def layer_tensors(
    path: Path, layers: Sequence[LayerWork], outputs: Sequence[Output]
) -> dict[str, str]:
    """Return the tensor that each layer makes, behind its bytes where it has any.

    An output between an operator and its bytes would keep OpenVINO from computing in integers.
    """
    operators = shared_core().read_model(path).get_ops()
    made = [value for op in operators for value in op.outputs()]
    there = frozenset(name for value in made for name in value.get_names())
    in_float = there - {name.removesuffix(DEQUANTIZED) for name in there if DEQUANTIZED in name}
    return tensors_of(layers, outputs, in_float, lambda layer: (f"{layer}{DEQUANTIZED}", layer))


def _write(
    quantized: QuantizedGraph, path: Path, description: Description, float_weights: str
) -> None:
    # Reading the bytes directly, it computes the first layer in float32, and takes 0.2 ms more.
    model = shared_core().read_model(onnx.encode(quantized, description, bytes_in_float=True))
    _name_outputs(model, quantized.graph)
    _name_by_position(model)
    for key, value in _model_info(description).items():
        model.set_rt_info(value, ["model_info", key])
    try:
        ov.save_model(model, path, compress_to_fp16=float_weights == "float16")
    except RuntimeError as error:
        # It tells the reason to nobody; what is left in practice is the disk.
        raise OSError(
            errno.EIO, "OpenVINO could not write its file; the disk may be full"
        ) from error


def _name_outputs(model: ov.Model, graph: Graph) -> None:
    """Leave each output its own name only: an operator that changes nothing adds another's."""
    for output, name in zip(model.outputs, graph.outputs.values(), strict=True):
        output.get_tensor().set_names({name})


def _name_by_position(model: ov.Model) -> None:
    """Rename what the reader named after a process-wide counter, so that bytes repeat."""
    for position, op in enumerate(model.get_ordered_ops()):
        kind, name = op.get_type_name(), op.get_friendly_name()
        if kind == "Constant" or name.rpartition("_")[0] == kind:
            op.set_friendly_name(f"{kind.lower()}.{position}")


def _model_info(description: Description) -> dict[str, str]:
    """Return what Model API and DL Streamer read; in labels a space separates, so `_` stands in."""
    classes = {
        "model_type": "Classification",
        "labels": " ".join(label.replace(" ", "_") for label in description.labels),
    }
    return {
        **(classes if description.labels else {}),
        "layout": "image:NHWC",
        "resize_type": "crop",
        "reverse_input_channels": "True",  # they feed BGR as OpenCV reads it; the model takes RGB
    }
