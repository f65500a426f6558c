"""INT8 as each runtime's own tools make it, of the same float network on the same images.

The tools get the network behind its normalisation, cut out of the float32 files of an edgenet
bundle, as most people who use them have it: float input, already normalised. Their files are timed
without that normalisation, ours with it, so a comparison of latency leans to the rivals. It does
not know how good a rival is. Files are kept in the cache: calibrating takes a while.

Needs the packages of `requirements.txt` beside edgenet.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pictures import CACHE

from edgenet.graph import IMAGE, LOGITS
from edgenet.preprocess import UInt8Array
from edgenet.runtimes import Float32Array

NORMALISING = ("Cast", "Sub", "Add", "Mul", "Div", "Transpose")
"""ONNX operators that may stand before a network's first own one; TFLite's are their capitals."""

Run = Callable[[Float32Array], Float32Array]
"""One inference: normalised NCHW (1, C, H, W) float32 to (1, classes) float32 logits."""


@dataclass(frozen=True, kw_only=True)
class FloatFiles:
    """The float32 artefacts that a network is cut out of; both take `image` and give `logits`."""

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
    inputs: Sequence[Float32Array] = ()
    rivals = []
    for package, name, runtime, ending, make in TOOLS:
        file = f"{package}-{version(package)}-{name.replace(' ', '-')}{ending}"
        path = folder / file
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            inputs = inputs or normalised(files, images)
            make(files, inputs, path)
        rivals.append(Rival(name=f"{package} {name}", runtime=runtime, path=path))
    return rivals


def normalised(files: FloatFiles, images: UInt8Array) -> Sequence[Float32Array]:
    """Return what each of (n, H, W, 3) uint8 RGB `images` becomes: (1, C, H, W) float32."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        front = str(Path(folder) / "front.onnx")
        cut = _onnx_cut(files.onnx)
        onnx.utils.extract_model(str(files.onnx), front, [IMAGE], [cut])
        session = onnxruntime.InferenceSession(front, providers=["CPUExecutionProvider"])
    return [session.run([cut], {IMAGE: image[None]})[0] for image in images]


def load(runtime: str, path: Path, *, threads: int = 1) -> Run:
    """Return one inference of a rival, with the options that edgenet gives the same runtime.

    ONNX Runtime has its own defaults but for the threads.
    """
    return LOADERS[runtime](path, threads)


def _load_onnxruntime(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name
    return lambda x: np.asarray(session.run([LOGITS], {source: x})[0], np.float32)


def _load_openvino(path: Path, threads: int) -> Run:
    import openvino

    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(str(path), "CPU", options).create_infer_request()
    return lambda x: np.array(request.infer([x], share_inputs=True)[0], np.float32)


def _load_litert(path: Path, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    logits = interpreter.get_output_details()[0]["index"]

    def run(x: Float32Array) -> Float32Array:
        # A view: XNNPACK wants NHWC, and the caller's array may already be laid out so.
        interpreter.set_tensor(source, x.transpose(0, 2, 3, 1))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(logits), np.float32)

    return run


def _onnx_cut(path: Path) -> str:
    """Return the tensor between a float32 ONNX artefact's normalisation and its network."""
    import onnx

    cut = IMAGE
    for node in onnx.load(str(path)).graph.node:
        if node.op_type not in NORMALISING or cut not in node.input:
            return cut
        cut = node.output[0]
    raise ValueError(f"{path}: nothing but normalisation in it")


def _onnx_network(files: FloatFiles, folder: str) -> Path:
    import onnx

    path = Path(folder) / "network.onnx"
    onnx.utils.extract_model(str(files.onnx), str(path), [_onnx_cut(files.onnx)], [LOGITS])
    return path


def _quantize_static(
    files: FloatFiles, inputs: Sequence[Float32Array], path: Path, *, per_channel: bool
) -> None:
    """Write ONNX Runtime's static QDQ: minimum and maximum, int8 weights, uint8 activations."""
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped package
        def __init__(self, name: str) -> None:
            self._feeds = iter([{name: x} for x in inputs])

        def get_next(self) -> dict[str, Float32Array] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = f"{folder}/prepared.onnx"
        quantization.quant_pre_process(str(_onnx_network(files, folder)), prepared)
        quantization.quantize_static(
            prepared,
            str(path),
            Reader(onnx.load(prepared).graph.input[0].name),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=per_channel,
        )


def _nncf(files: FloatFiles, inputs: Sequence[Float32Array], path: Path, *, fast: bool) -> None:
    """Write NNCF's quantisation of the OpenVINO model; its bias correction is fast or full."""
    import nncf  # type: ignore[import-not-found,unused-ignore]
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        # Only `convert_model` folds the biases into the constants that NNCF looks for.
        model = openvino.convert_model(str(_onnx_network(files, folder)))
        quantized = nncf.quantize(
            model, nncf.Dataset(list(inputs)), subset_size=len(inputs), fast_bias_correction=fast
        )
        openvino.save_model(quantized, str(path), compress_to_fp16=False)


def _litert(files: FloatFiles, inputs: Sequence[Float32Array], path: Path) -> None:
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

    network = _tflite_network(files)
    rules = recipe_manager.RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        rules.add_quantization_config(".*", end, algorithm_key="no_quantize")
    seen = calibrator.Calibrator(network, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    runner = seen._tfl_interpreter.get_signature_runner()
    name = next(iter(runner.get_input_details()))
    feeds = [{name: np.ascontiguousarray(x.transpose(0, 2, 3, 1))} for x in inputs]
    seen.calibrate({"serving_default": feeds}, rules)
    work = quantizer.Quantizer(network, rules.get_quantization_recipe())
    path.write_bytes(work.quantize(seen.get_model_qsvs()).quantized_model)


def _tflite_network(files: FloatFiles) -> bytes:
    """Return the TFLite float32 artefact without the normalisation before its network."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    codes = {getattr(schema.BuiltinOperator, name.upper(), None) for name in NORMALISING}
    packed = schema.Model.GetRootAsModel(files.tflite.read_bytes(), 0)
    model: Any = schema.ModelT.InitFromObj(packed)
    graph = model.subgraphs[0]
    cut = graph.inputs[0]
    while model.operatorCodes[graph.operators[0].opcodeIndex].builtinCode in codes:
        cut = graph.operators.pop(0).outputs[0]
    graph.inputs = [cut]
    model.signatureDefs[0].inputs[0].tensorIndex = cut
    _drop_unused_tensors(graph, model.signatureDefs[0])
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _drop_unused_tensors(graph: Any, signature: Any) -> None:
    """Renumber the tensors that operators still use; the quantiser stumbles over any other."""
    used = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    place = {-1: -1} | {old: new for new, old in enumerate(sorted(used))}
    graph.tensors = [graph.tensors[old] for old in sorted(used)]
    for holder in (graph, *graph.operators):
        holder.inputs = [place[int(i)] for i in holder.inputs]
        holder.outputs = [place[int(i)] for i in holder.outputs]
    for end in (*signature.inputs, *signature.outputs):
        end.tensorIndex = place[end.tensorIndex]


LOADERS: dict[str, Callable[[Path, int], Run]] = {
    "onnxruntime": _load_onnxruntime,
    "openvino": _load_openvino,
    "litert": _load_litert,
}

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
