"""OpenVINO on the CPU, in the arithmetic that the artefact's name promises.

Its 8-bit kernels add two products in 16 bits where the processor has no VNNI, and saturate: the
same file then answers wrongly, and no capability list says so. A layer whose answer is known shows
it, on any processor and under any emulator (docs/processors.md).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np

from edgenet.errors import MissingExtra, RuntimeRefused
from edgenet.runtimes import (
    Float32Array,
    OperatorReport,
    OperatorTime,
    OperatorTimes,
    Tensor,
    UInt8Array,
    channels_last,
    check_image,
)

TELEMETRY = "openvino_telemetry"
Options = Mapping[str, str | int]

LATENCY: Options = {
    # Left alone, OpenVINO computes "float32" in bfloat16 where the processor has it: 20.8 dB.
    "INFERENCE_PRECISION_HINT": "f32",
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
}
IN_FLOAT: Options = {
    # Quantised values, computed in float32: as right as int8, at the speed of float32. The first
    # is known to the CPU plugin but in no documentation; hence it is tried before it is trusted.
    "LP_TRANSFORMS_MODE": "NO",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
}
WARM_UP_RUNS = 5
"""Of each compilation for a profile, which are not counted."""
COMPILATIONS = 3
MICROSECOND = 1000
"""In ns; what a profile counts in."""
CHANNELS = 64
"""Of the layers whose answer is known; enough for the kernels that real layers get."""
SKIPPED = ("Input", "Output", "Const")
"""Layers of the compiled model that compute nothing."""
VALUE_BY_VALUE = ("Eltwise", "Subgraph")
"""Layers that compute each value alone, several operations at once."""
PRECISIONS = {"u8": "int8", "i8": "int8", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def load(path: Path, *, threads: int) -> OpenVinoSession:
    """Return a session on the IR at `path` (.xml, its .bin beside it).

    Where the processor's 8-bit kernels saturate, or there are none for some layer, a quantised
    model is computed in float32, and the session's `device` says so; `RuntimeRefused` if this
    OpenVINO cannot.
    """
    compiled, in_float = _compile(path, threads)
    return OpenVinoSession(compiled, _package().__version__, in_float)


def operators(path: Path, *, threads: int = 1) -> tuple[OperatorReport, ...]:
    """Return what runs, in order, as the compiled model reports it.

    The precision is that of an operator's first input: `runtimePrecision` gives that of the weights
    for a layer which expands 8-bit weights and computes in float. What is computed value by value
    is in float as soon as its output is: it reads bytes only to save a conversion.
    """
    compiled, _ = _compile(path, threads)
    return tuple(_reports(compiled).values())


def time_operators(path: Path, images: UInt8Array, *, threads: int) -> OperatorTimes:
    """Return the times that OpenVINO counts for each node, in whole microseconds.

    It counts from the compilation on and tells the mean of all runs so far, the cold ones included:
    what the warm-up took is subtracted again. A disturbance stays in a mean for ever, so the model
    is compiled several times and the median of the means is the time.
    """
    share = max(1, len(images) // COMPILATIONS)
    counted: dict[str, list[float]] = {}
    for _ in range(COMPILATIONS):
        compiled, _ = _compile(path, threads, {"PERF_COUNT": True})
        for node, mean_ns in _counted_ns(compiled, images[:share]).items():
            counted.setdefault(node, []).append(mean_ns)
    return OperatorTimes(
        by="profiler",
        resolution_ns=MICROSECOND,
        times=tuple(
            OperatorTime(operator=report, duration_ns=median(counted[node]) or None)
            for node, report in _reports(compiled).items()
            if node in counted
        ),
    )


def trace(
    path: Path, images: Sequence[UInt8Array], names: Sequence[str], *, threads: int
) -> Iterator[Mapping[str, Tensor]]:
    """Yield what each image makes of the tensors of these names, which are made outputs.

    A tensor in 8 bits must be that behind its dequantisation, in float: an output before it would
    keep OpenVINO from computing in integers.
    """
    compiled, _ = _compile(path, threads, outputs=names)
    request = compiled.create_infer_request()
    for image in images:
        request.infer([image], share_inputs=True)
        yield {
            name: channels_last(np.array(request.get_tensor(name).data, np.float32))
            for name in names
        }


def _counted_ns(compiled: Any, images: UInt8Array) -> dict[str, float]:
    """Return the mean time of each node over one run an image, after a warm-up."""
    request = compiled.create_infer_request()

    def run(times: int) -> dict[str, float]:
        for index in range(times):
            at = index % len(images)
            request.infer([images[at : at + 1]], share_inputs=True)
        return {node.node_name: _mean_ns(node) for node in request.profiling_info}

    warm, runs = run(WARM_UP_RUNS), len(images)
    return {
        node: max(0.0, (mean * (WARM_UP_RUNS + runs) - warm[node] * WARM_UP_RUNS) / runs)
        for node, mean in run(runs).items()
    }


def _mean_ns(node: Any) -> float:
    """Return the mean of all runs so far; it is cut to whole microseconds, half of one on average.

    A node that was fused into another tells 0, and is left so.
    """
    told = node.real_time.total_seconds() * 1e9
    return float(told + MICROSECOND / 2 if told else 0.0)


def _reports(compiled: Any) -> dict[str, OperatorReport]:
    """Return what runs, in order, by the names that the compiled model gives its nodes."""
    nodes = [(node, node.get_rt_info()) for node in compiled.get_runtime_model().get_ordered_ops()]
    return {
        node.get_friendly_name(): OperatorReport(
            name=_text(info, "originalLayersNames").rpartition(",")[2] or node.get_friendly_name(),
            kind=_text(info, "layerType"),
            precision=_precision(node, _text(info, "layerType")),
        )
        for node, info in nodes
        if _text(info, "layerType") not in SKIPPED
    }


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import openvino in this block, and it reports to nobody.

    Left alone, `import openvino` makes files in ~/intel and sends an event to Google Analytics.
    Where it cannot import `openvino_telemetry` it takes a stub of its own (docs/privacy.md).
    """
    modules: dict[str, Any] = sys.modules  # where None marks what cannot be imported
    before = {name: modules[name] for name in (TELEMETRY,) if name in modules}
    modules[TELEMETRY] = None
    try:
        yield
    finally:
        del modules[TELEMETRY]
        modules.update(before)


def _package() -> Any:
    try:
        with without_telemetry():
            import openvino
    except ImportError as error:
        raise MissingExtra("openvino", "openvino") from error
    return openvino


@cache
def shared_core() -> Any:
    """Return the one `openvino.Core` of this process; raise `MissingExtra` without the package.

    OpenVINO 2026.4 gives the thread that first compiles a stack for signals, and puts the stack
    before it back when the core goes. Of two cores, the one that goes last puts back what the first
    has unmapped, and the next signal, which may be Ctrl-C, is a segmentation fault.
    """
    return _package().Core()


class OpenVinoSession:
    """A model in OpenVINO."""

    def __init__(self, compiled: Any, version: str, in_float: str | None) -> None:
        self._request = compiled.create_infer_request()
        # Its own tensor: wrapping the caller's array takes 40 microseconds each time.
        self._pixels = self._request.get_input_tensor().data
        self._shape = tuple(compiled.input(0).shape)
        self._outputs = tuple(output.get_any_name() for output in compiled.outputs)
        self.version = f"openvino {version.partition('-')[0]}"
        devices = ", ".join(compiled.get_property("EXECUTION_DEVICES"))
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        int8 = f"; int8 in f32, as {in_float}" if in_float else ""
        self.device = f"{devices} (floats in {precision}{int8})"

    def run(self, image: UInt8Array) -> Mapping[str, Float32Array]:
        """Return the outputs by name, (1, C) or (1, H, W, C), for (1, H, W, 3) uint8 RGB."""
        check_image(image, self._shape)
        np.copyto(self._pixels, image)
        self._request.infer()
        return {
            name: np.array(self._request.get_output_tensor(index).data, np.float32)
            for index, name in enumerate(self._outputs)
        }

    def close(self) -> None:
        """Release the model."""
        self._request = self._pixels = None


def _compile(
    path: Path,
    threads: int,
    further: Options = MappingProxyType({}),
    *,
    outputs: Sequence[str] = (),
) -> tuple[Any, str | None]:
    """Return the compiled model, and why its int8 part computes in float32 if it does.

    It gives out the further tensors that are named.
    """
    core = shared_core()
    options = {**LATENCY, "INFERENCE_NUM_THREADS": threads, **further}
    try:
        model = core.read_model(str(path))
        already = {name for output in model.outputs for name in output.get_names()}
        model.add_outputs([name for name in outputs if name not in already])
        quantized = _is_quantized(model)
        why = "this processor's 8-bit kernels saturate" if quantized and not _adds_up() else None
        if why and not _adds_up(in_float=True):
            raise RuntimeRefused(
                f"{path}: OpenVINO's 8-bit kernels saturate on this processor (no VNNI) and it "
                "cannot compute int8 in float; use the int8 artefact of onnxruntime or litert, or "
                "--precision float32"
            )
        try:
            compiled = core.compile_model(model, "CPU", {**options, **(IN_FLOAT if why else {})})
        except RuntimeError:
            # OpenVINO 2026.4 on Arm without dot products: "object is not initialized".
            if why or not quantized:
                raise
            why = "OpenVINO has no 8-bit kernels for all of it on this processor"
            compiled = core.compile_model(model, "CPU", {**options, **IN_FLOAT})
    except RuntimeError as error:
        raise RuntimeRefused(f"{path}: OpenVINO cannot load it ({error})") from error
    return compiled, why


def _is_quantized(model: Any) -> bool:
    """Tell whether OpenVINO would compute in int8: it goes by this operator itself."""
    return any(op.get_type_name() == "FakeQuantize" for op in model.get_ops())


@cache
def _adds_up(*, in_float: bool = False) -> bool:
    """Tell whether an int8 convolution and an int8 product of the largest bytes come out right.

    In 16 bits, 255 * 127 + 255 * 127 is cut at 32,767. False as well if the options are unknown.
    """
    options = {**LATENCY, **(IN_FLOAT if in_float else {})}
    try:
        compiled = shared_core().compile_model(_extreme_model(), "CPU", options)
    except RuntimeError:
        if in_float:
            return False
        raise
    answers = compiled(np.full((1, CHANNELS, 1, 1), 255, np.float32)).values()
    return all(bool(np.all(answer == 255 * 127)) for answer in answers)


def _extreme_model() -> Any:
    """Return a network of two int8 layers, a 1x1 convolution and a product with a matrix."""
    import openvino
    from openvino import opset13 as opset

    low, high = np.float32(0), np.float32(255)
    image = opset.parameter([1, CHANNELS, 1, 1], np.float32)
    levels = opset.fake_quantize(image, low, high, low, high, 256)
    vector = opset.reshape(levels, np.array([1, CHANNELS]), False)
    convolved = opset.convolution(levels, _weight(1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    product = opset.matmul(vector, _weight(), False, True)
    return openvino.Model([opset.result(convolved), opset.result(product)], [image])


def _weight(*kernel: int) -> Any:
    """Return int8 weights of 127 and a scale for each channel, without which it would be float."""
    from openvino import opset13 as opset

    values = opset.constant(np.full((CHANNELS, CHANNELS, *kernel), 127, np.int8))
    scale = np.full((CHANNELS, 1, *kernel), 1 / CHANNELS, np.float32)
    return opset.multiply(opset.convert(values, "f32"), scale)


def _text(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if key in info else ""


def _precision(node: Any, kind: str) -> str:
    value = node.output(0) if kind in VALUE_BY_VALUE else node.input(0)
    element_type: str = value.get_element_type().get_type_name()
    return PRECISIONS.get(element_type, element_type)
