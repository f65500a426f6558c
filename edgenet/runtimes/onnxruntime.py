"""ONNX Runtime on the CPU, with exact 8-bit kernels wherever the plain ones saturate.

Its plain kernels for uint8 x int8 add two products in 16 bits where the processor has no VNNI, and
saturate. The exact ones are less than half as fast where it has: they are asked for only after a
small model whose answer is known came out wrong (docs/processors.md).
"""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
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

WARM_UP_RUNS = 10
"""Of a profile, which are not counted."""
MICROSECOND = 1000
"""In ns; what a profile counts in."""
PROVIDER = "CPUExecutionProvider"
KERNEL = re.compile(r"(?P<name>.*?)(_token_\d+)?(_nchwc)?_kernel_time")
"""What a profile calls a node that ran: its name, marks of the fusing that made it, the event."""
PRECISIONS = {"uint8": "int8", "int8": "int8", "float": "float32"}
"""Types by the profile's word for them where it is not ours."""

SATURATION_MODEL = (
    "eNrtm81u00AUhf2XYG4SaiyEumtVhJBmwaarZINlJJAsNkVIVGzASQew5NiR7SZVN+QVUFWJJY/AI/AYvAMvwXg8ae3U"
    "XTUrcr5oPPbcyZkfz+rKx7ZHv+Z0TJ1ZHCaczFRcrHOepWQtohNOVF4/5pMwXt2XwZy6YZIveFb1dXsyUjUd9I7eRAkP"
    "s5dpMqdPQjk643FduZuEWZYuqF/VSn311KY/ULG2Ec5b5n7/hM+Kr4so57RzdavGqTW0DeVch1tGY33qfMnS09mu91M3"
    "aFetzu3O+aRIs4N7r+KwKHhCMammxsKnYZFFZ9Sv6tXC1VM1G2196SqqJtM5es2n09Fgkk6fT6OJ+Ef6uXApD4vTLCyi"
    "NGEDR/fLMQNL05YvWM8xfKkU6BpzREzJB9bh4ROPXezbnvjptu6YvnzlwXL/GwAAAAAAAAAAAP572GU9K6DSNcgLAAAA"
    "AAAAAAAA25EX+GPJrIBpm47pX39kEfy2sDngTkfru0w5lemm6oMXpJsAAAAAAAAAAIDtyAm8lQmBmu0o8LQ7wt5JzYbZ"
    "aAOq76XqurVoc9OtW4Q2oHphCFndr5m7gqVhGfpwmwu7rHalYUvDvgzZj2pf1p10Ymv+HvPRNperI1M39OHIDD/sKVOm"
    "+5ge2YbrkGHroniiWGWRHaRz8maHstbHT6luKr1NZ/yMmt7QW/UY3XB2tvQ1yjLeo6br0n1AfdHRXnX0LdKcgf+QmjZM"
    "R/8HZNe02g=="
)
"""Four int8 layers of 255 x 127, each answer of which is `ANSWER`: ONNX, zlib, base64.

Made by tools/make_saturation_model.py; a literal, as there is no onnx package on a board.
"""
ANSWER = 100
QUANTIZED = (b"QuantizeLinear", b"QLinear")
"""In the name of an operator of every quantised model."""
GRAPH_OF_MODEL, OUTPUT_OF_GRAPH, NAME_OF_VALUE = 7, 12, 1
"""Numbers of fields in ONNX's messages (onnx.proto)."""


def load(path: Path, *, threads: int) -> OnnxRuntimeSession:
    """Return a session on the .onnx file at `path`.

    Where the processor's plain 8-bit kernels saturate, a quantised model gets the exact ones, and
    the session's `device` says so; `RuntimeRefused` if those are wrong as well.
    """
    return OnnxRuntimeSession(*_start(path, threads))


def operators(path: Path, *, threads: int = 1) -> tuple[OperatorReport, ...]:
    """Return what runs, in order, as the profile of one run reports it."""
    return tuple(report for report, _ in _profile(path, threads, None)[0])


def time_operators(path: Path, images: UInt8Array, *, threads: int) -> OperatorTimes:
    """Return the kernels' times from the profile of a run on each image.

    The profile counts whole microseconds, and writing it slows every kernel a little.
    """
    runs = _profile(path, threads, images)[WARM_UP_RUNS:]
    return OperatorTimes(
        by="profiler",
        resolution_ns=MICROSECOND,
        times=tuple(
            OperatorTime(operator=kernel[0][0], duration_ns=_typical([ns for _, ns in kernel]))
            for kernel in zip(*runs, strict=True)
        ),
    )


def trace(
    path: Path, images: Sequence[UInt8Array], names: Sequence[str], *, threads: int
) -> Iterator[Mapping[str, Tensor]]:
    """Yield what each image makes of the tensors of these names.

    They are made outputs. A tensor in 8 bits must be that which QuantizeLinear makes: what lies
    before it, or behind its DequantizeLinear, is not there once the layer computes in integers.
    """
    session, *_ = _start(path, threads, outputs=names)
    image = session.get_inputs()[0].name
    for shown in images:
        values = session.run(list(names), {image: shown})
        yield {name: channels_last(found) for name, found in zip(names, values, strict=True)}


def _with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    """Return a model that gives out further tensors.

    There is no onnx package on a board, and none is needed: messages of Protocol Buffers that stand
    one behind the other are one message, in which lists follow each other.
    """
    values = [_field(OUTPUT_OF_GRAPH, _field(NAME_OF_VALUE, name.encode())) for name in names]
    return model + _field(GRAPH_OF_MODEL, b"".join(values))


def _field(number: int, payload: bytes) -> bytes:
    """Return a field of bytes: its number and kind, its length, and itself."""
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    """Return a number in groups of 7 bits, the lowest first, all but the last marked."""
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _typical(durations_ns: Sequence[int]) -> float | None:
    """Return the mean of the middle half: a median of whole microseconds would be one itself."""
    beside = len(durations_ns) // 4
    return fmean(sorted(durations_ns)[beside : len(durations_ns) - beside]) or None


def _profile(
    path: Path, threads: int, images: UInt8Array | None
) -> list[list[tuple[OperatorReport, int]]]:
    """Return the kernels of each run with their times in ns; one run on black without images."""
    with tempfile.TemporaryDirectory() as folder:
        session, *_ = _start(path, threads, profile=Path(folder) / "profile")
        image = session.get_inputs()[0]
        shown = np.zeros(image.shape, np.uint8) if images is None else images
        for index in range(len(shown)):
            session.run(None, {image.name: shown[index : index + 1]})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [
        (
            OperatorReport(
                name=kernel["name"],
                kind=event["args"]["op_name"],
                precision=_first_type(event["args"]),
            ),
            MICROSECOND * int(event["dur"]),
        )
        for event in events
        if (kernel := KERNEL.fullmatch(event["name"]))
    ]
    each = len(kernels) // len(shown)
    return [kernels[start : start + each] for start in range(0, len(kernels), each)]


def _start(
    path: Path, threads: int, *, profile: Path | None = None, outputs: Sequence[str] = ()
) -> tuple[Any, str, bool]:
    """Return the package's own session, its version, and whether it has the exact 8-bit kernels.

    It writes a profile if that has a path, and gives out the further tensors that are named.
    """
    onnxruntime = package()
    exact = not _adds_up() and _is_quantized(path)
    if exact and not _adds_up(exact=True):
        raise RuntimeRefused(
            f"{path}: ONNX Runtime's 8-bit kernels saturate on this processor, the exact ones as "
            "well; use the int8 artefact of litert, or --precision float32"
        )
    options = _options(threads, exact=exact)
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        model = _with_outputs(path.read_bytes(), outputs) if outputs else str(path)
        session = onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
    except Exception as error:  # its error classes have no common base but Exception
        raise RuntimeRefused(f"{path}: ONNX Runtime cannot load it ({error})") from error
    return session, onnxruntime.__version__, exact


def package() -> Any:
    """Return the package, told to report nothing (docs/privacy.md).

    Its wheels for Linux report to Microsoft since 2026. Raises `MissingExtra` where it is missing.
    """
    # Read once, on loading; of this process alone, and whoever set it otherwise is not overruled.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnxruntime") from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _options(threads: int, *, exact: bool) -> Any:
    """Return the options of a session; `exact` ones turn int8 weights into uint8 on loading."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _is_quantized(path: Path) -> bool:
    """Tell whether the file names an operator that quantises; a missing file is ORT's to refuse."""
    return path.is_file() and any(name in path.read_bytes() for name in QUANTIZED)


@cache
def _adds_up(*, exact: bool = False) -> bool:
    """Tell whether int8 convolutions and an int8 product of the largest bytes come out right.

    In 16 bits, 255 * 127 + 255 * 127 is cut at 32,767. Takes a millisecond, once in a process.
    """
    import onnxruntime

    model = zlib.decompress(base64.b64decode(SATURATION_MODEL))
    session = onnxruntime.InferenceSession(model, _options(1, exact=exact), providers=[PROVIDER])
    images = {image.name: np.full(image.shape, 255, np.uint8) for image in session.get_inputs()}
    return all(bool(np.all(answer == ANSWER)) for answer in session.run(None, images))


def _first_type(args: Mapping[str, Any]) -> str:
    """Return the precision of the first input of a node that ran, of its output if it has none."""
    described = [*args["input_type_shape"], *args["output_type_shape"]]
    name: str = next(iter(described[0]))
    return PRECISIONS.get(name, name)


class OnnxRuntimeSession:
    """A model in ONNX Runtime."""

    def __init__(self, session: Any, version: str, exact: bool) -> None:
        self._session = session
        self._shape = tuple(session.get_inputs()[0].shape)
        self._outputs = [output.name for output in session.get_outputs()]
        self.version = f"onnxruntime {version}"
        providers = ", ".join(session.get_providers())
        int8 = "; int8 in exact kernels, as this processor's plain ones saturate" if exact else ""
        self.device = f"CPU ({providers}{int8})"

    def run(self, image: UInt8Array) -> Mapping[str, Float32Array]:
        """Return the outputs by name, (1, C) or (1, H, W, C), for (1, H, W, 3) uint8 RGB."""
        check_image(image, self._shape)
        values = self._session.run(self._outputs, {"image": image})
        return {
            name: np.asarray(value, np.float32)
            for name, value in zip(self._outputs, values, strict=True)
        }

    def close(self) -> None:
        """Release the model."""
        self._session = None
