"""INT8 as each runtime's own tools make it, of the same float network on the same images.

The tools get the float32 files of an edgenet bundle whole: bytes in NHWC go in, and the turn, the
cast and the normalisation in front stay in float, as whoever uses these tools writes them to deploy
what they made. So rivals and edgenet can be loaded, fed and timed alike. It does not know how good
a rival is. Files are kept in the cache: calibrating takes a while.

Needs the packages of `requirements.txt` beside edgenet.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pictures import CACHE

from edgenet.graph import IMAGE
from edgenet.preprocess import UInt8Array

NORMALISING = ("Cast", "Sub", "Add", "Mul", "Div", "Transpose")
"""ONNX operators that may stand before a network's first own one; TFLite's are their capitals."""


@dataclass(frozen=True, kw_only=True)
class FloatFiles:
    """The float32 artefacts that rivals start from; both take `image` and give `logits`."""

    onnx: Path
    tflite: Path


@dataclass(frozen=True, kw_only=True)
class Rival:
    """An INT8 file made by somebody else's tool."""

    name: str
    runtime: str
    path: Path

    @property
    def size_bytes(self) -> int:
        """Return the size of what is shipped, OpenVINO's weights included."""
        parts = (self.path, self.path.with_suffix(".bin"))
        return sum(part.stat().st_size for part in parts if part.is_file())


def make_all(files: FloatFiles, images: UInt8Array) -> Sequence[Rival]:
    """Return every rival, calibrated on (n, H, W, 3) uint8 RGB `images`."""
    seen = hashlib.sha256(images.tobytes())
    for part in (files.onnx, files.tflite, Path(__file__)):
        seen.update(part.read_bytes())
    folder = CACHE / "rivals" / seen.hexdigest()[:12]
    rivals = []
    for package, name, runtime, ending, make in TOOLS:
        file = f"{package}-{version(package)}-{name.replace(' ', '-')}{ending}"
        path = folder / file
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            make(files, images, path)
        rivals.append(Rival(name=f"{package} {name}", runtime=runtime, path=path))
    return rivals


def _onnx_front(path: Path) -> Sequence[str]:
    """Return the names of the nodes that normalise the image of a float32 ONNX artefact."""
    import onnx

    names: list[str] = []
    cut = IMAGE
    for node in onnx.load(str(path)).graph.node:
        if node.op_type not in NORMALISING or cut not in node.input:
            break
        names.append(node.name)
        cut = node.output[0]
    return names


def _quantize_static(
    files: FloatFiles, images: UInt8Array, path: Path, *, per_channel: bool
) -> None:
    """Write ONNX Runtime's static QDQ: minimum and maximum, int8 weights, uint8 activations."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped package
        def __init__(self) -> None:
            self._feeds = iter([{IMAGE: image[None]} for image in images])

        def get_next(self) -> dict[str, UInt8Array] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = f"{folder}/prepared.onnx"
        quantization.quant_pre_process(str(files.onnx), prepared)
        quantization.quantize_static(
            prepared,
            str(path),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=per_channel,
            nodes_to_exclude=list(_onnx_front(Path(prepared))),
        )


def _nncf(files: FloatFiles, images: UInt8Array, path: Path, *, fast: bool) -> None:
    """Write NNCF's quantisation of the OpenVINO model; its bias correction is fast or full."""
    import nncf  # type: ignore[import-not-found,unused-ignore]
    import openvino

    # Only `convert_model` folds the biases into the constants that NNCF looks for.
    model = openvino.convert_model(str(files.onnx))
    quantized = nncf.quantize(
        model,
        nncf.Dataset([image[None] for image in images]),
        subset_size=len(images),
        fast_bias_correction=fast,
        ignored_scope=nncf.IgnoredScope(names=list(_onnx_front(files.onnx)), validate=False),
    )
    openvino.save_model(quantized, str(path), compress_to_fp16=False)


def _litert(files: FloatFiles, images: UInt8Array, path: Path) -> None:
    """Write litert-quantizer's static int8 with the extremes of all images, between floats.

    Its own `calibrate` takes a moving average of them instead, which clips.
    """
    from litert_quantizer import (  # type: ignore[import-not-found,unused-ignore]
        calibrator,
        qtyping,
        quantizer,
        recipe,
        recipe_manager,
    )
    from litert_quantizer.utils import (  # type: ignore[import-not-found,unused-ignore]
        qsv_utils,
    )

    network = files.tflite.read_bytes()
    rules = recipe_manager.RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        rules.add_quantization_config(".*", end, algorithm_key="no_quantize")
    for tensor in _tflite_front(network):
        everything = qtyping.TFLOperationName.ALL_SUPPORTED
        rules.add_quantization_config(re.escape(tensor), everything, algorithm_key="no_quantize")
    seen = calibrator.Calibrator(network, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    runner = seen._tfl_interpreter.get_signature_runner()
    name = next(iter(runner.get_input_details()))
    feeds = [{name: image[None]} for image in images]
    seen.calibrate({"serving_default": feeds}, rules)
    work = quantizer.Quantizer(network, rules.get_quantization_recipe())
    path.write_bytes(work.quantize(seen.get_model_qsvs()).quantized_model)


def _tflite_front(network: bytes) -> Sequence[str]:
    """Return the tensors between the image of a float32 TFLite artefact and its first own layer."""
    from ai_edge_litert import schema_py_generated as schema

    codes = {getattr(schema.BuiltinOperator, name.upper(), None) for name in NORMALISING}
    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(network, 0))
    graph = model.subgraphs[0]
    names: list[str] = []
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode not in codes:
            break
        names.append(graph.tensors[operator.outputs[0]].name.decode())
    return names


TOOLS: tuple[tuple[str, str, str, str, Callable[..., None]], ...] = (
    (
        "onnxruntime",
        "per-tensor",
        "onnxruntime",
        ".onnx",
        partial(_quantize_static, per_channel=False),
    ),
    (
        "onnxruntime",
        "per-channel",
        "onnxruntime",
        ".onnx",
        partial(_quantize_static, per_channel=True),
    ),
    ("nncf", "default", "openvino", ".xml", partial(_nncf, fast=True)),
    ("nncf", "full bias correction", "openvino", ".xml", partial(_nncf, fast=False)),
    ("litert-quantizer", "merged extremes", "litert", ".tflite", _litert),
)
"""Package, way, runtime, ending of the file, and what writes it."""
