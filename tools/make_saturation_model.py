"""Print the model by which edgenet/runtimes/onnxruntime.py sees whether 8-bit kernels saturate.

Every activation is to be 255 and every weight is 127, so that two products added in 16 bits are
cut; the scales make every right answer 100. One layer for each kernel that real layers get: a
pointwise convolution on many pixels and on one (squeeze-and-excite), a depthwise one, a product
with a matrix.
"""

from __future__ import annotations

import base64
import textwrap
import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 64
OPSETS = {"": 13, "com.microsoft": 1}
FORMAT = 8
"""The IR version that the oldest ONNX Runtime of pyproject.toml reads."""


def main() -> None:
    """Print the model as base64 of zlib, in lines for a string literal."""
    encoded = base64.b64encode(zlib.compress(model().SerializeToString(), 9)).decode()
    print("\n".join(f'    "{line}"' for line in textwrap.wrap(encoded, 92)))


def model() -> onnx.ModelProto:
    """Return a network from `plane` (1, 64, 4, 4) and `pixel` (1, 64, 1, 1), uint8."""
    # Each layer has its own: ONNX Runtime's exact kernels refuse a model whose layers share them.
    weights = {
        "wide": np.full((CHANNELS, CHANNELS, 1, 1), 127, np.int8),
        "narrow": np.full((CHANNELS, CHANNELS, 1, 1), 127, np.int8),
        "depthwise": np.full((CHANNELS, 1, 3, 3), 127, np.int8),
        "matrix": np.full((CHANNELS, CHANNELS), 127, np.int8),
    }
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "answer": np.float32(255 / 100),
        **weights,
        **{f"{name}_zeros": np.zeros(CHANNELS, np.int8) for name in weights},
        **{
            f"{name}_scale": np.full(CHANNELS, 1 / weight[0].sum(dtype=int), np.float32)
            for name, weight in weights.items()
        },
    }
    nodes = [
        _layer("QLinearConv", "plane", "wide"),
        _layer("QLinearConv", "pixel", "narrow"),
        _layer("QLinearConv", "plane", "depthwise", group=CHANNELS),
        helper.make_node("Flatten", ["pixel"], ["vector"]),
        _layer("QGemm", "vector", "matrix", domain="com.microsoft"),
    ]
    graph = helper.make_graph(
        nodes,
        "saturation",
        [_bytes("plane", 1, CHANNELS, 4, 4), _bytes("pixel", 1, CHANNELS, 1, 1)],
        [
            _bytes("wide_answer", 1, CHANNELS, 4, 4),
            _bytes("narrow_answer", 1, CHANNELS, 1, 1),
            _bytes("depthwise_answer", 1, CHANNELS, 2, 2),
            _bytes("matrix_answer", 1, CHANNELS),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=FORMAT)
    onnx.checker.check_model(made)
    return made


def _layer(kind: str, image: str, weight: str, **attributes: object) -> onnx.NodeProto:
    inputs = [image, "one", "zero", weight, f"{weight}_scale", f"{weight}_zeros"]
    inputs += [""] if kind == "QGemm" else []  # the place of its bias
    outputs = [f"{weight}_answer"]
    return helper.make_node(kind, [*inputs, "answer", "zero"], outputs, **attributes)


def _bytes(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.UINT8, shape)


if __name__ == "__main__":
    main()
