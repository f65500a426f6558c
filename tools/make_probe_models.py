"""Write the models with which `edgenet doctor` finds out whether a runtime really works.

    python tools/make_probe_models.py

A classifier of four layers in the form that a board runs, int8, once for each runtime, and what it
answers: a runtime that imports but crashes in its first 8-bit kernel is seen only by running one.
Result: edgenet/measure/probe_models/ (some kB). Needs the `convert` extra.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.manifest import load_bundle
from edgenet.measure.probe import FOLDER, RESOLUTION, picture

CLASSES = 4
CHANNELS = (8, 16)
RUNTIMES = ("onnxruntime", "openvino", "litert")
TOLERANCE_STEPS = 2
"""Of the 8-bit output, by which right answers differ (docs/processors.md)."""


def network() -> onnx.ModelProto:
    """Return a convolution, a depthwise one, a pointwise one and a classifier, weights drawn."""
    draw = np.random.default_rng(0)
    narrow, wide = CHANNELS

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:])) or 1
        values = draw.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node(
            "Conv", ["image", "w0", "b0"], ["c0"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        ),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node(
            "Conv", ["r0", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1] * 4, group=narrow
        ),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], transB=1),
    ]
    initializers = [
        weights("w0", narrow, 3, 3, 3),
        weights("b0", narrow),
        weights("w1", narrow, 1, 3, 3),
        weights("b1", narrow),
        weights("w2", wide, narrow, 1, 1),
        weights("b2", wide),
        weights("w3", CLASSES, wide),
        weights("b3", CLASSES),
    ]
    image = helper.make_tensor_value_info(
        "image", TensorProto.FLOAT, [1, 3, RESOLUTION, RESOLUTION]
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])
    graph = helper.make_graph(nodes, "probe", [image], [logits], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    """Convert the network and keep the int8 artefact of each runtime."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(network(), folder / "probe.onnx")
        (folder / "labels.txt").write_text("".join(f"class {k}\n" for k in range(CLASSES)))
        subprocess.run(
            [
                *(sys.executable, "-m", "edgenet", "convert", folder / "probe.onnx"),
                *("--mean", "127.5,127.5,127.5", "--std", "127.5,127.5,127.5"),
                *("--labels", folder / "labels.txt", "--precision", "int8", "--full-integer"),
                *("--runtime", ",".join(RUNTIMES), "-o", folder / "bundle"),
            ],
            check=True,
        )
        bundle = load_bundle(folder / "bundle")
        answers = {}
        for artifact in bundle.select(RUNTIMES, (Precision.INT8,)):
            for file in artifact.files:
                target = FOLDER / f"{artifact.runtime}{Path(file).suffix}"
                target.write_bytes((bundle.root / file).read_bytes())
            session = runtimes.load(artifact.runtime, bundle.path(artifact))
            answers[artifact.runtime] = session.run(picture())["logits"][0].tolist()
            session.close()
    print(json.dumps(answers, indent=2))
    for path in sorted(FOLDER.iterdir()):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
