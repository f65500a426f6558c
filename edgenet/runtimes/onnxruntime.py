"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import MissingExtra, RuntimeRefused
from edgenet.runtimes import Float32Array, OperatorReport, UInt8Array, check_image

PROVIDER = "CPUExecutionProvider"
KERNEL = re.compile(r"(?P<name>.*?)(_token_\d+)?(_nchwc)?_kernel_time")
"""What a profile calls a node that ran: its name, marks of the fusing that made it, the event."""
PRECISIONS = {"uint8": "int8", "int8": "int8", "float": "float32"}
"""Types by the profile's word for them where it is not ours."""


def load(path: Path, *, threads: int) -> OnnxRuntimeSession:
    """Return a session on the .onnx file at `path`."""
    return OnnxRuntimeSession(*_start(path, threads))


def operators(path: Path, *, threads: int = 1) -> tuple[OperatorReport, ...]:
    """Return what runs, in order, as the profile of one run on a black image reports it."""
    with tempfile.TemporaryDirectory() as folder:
        session, _ = _start(path, threads, profile=Path(folder) / "profile")
        image = session.get_inputs()[0]
        session.run(None, {image.name: np.zeros(image.shape, np.uint8)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [(KERNEL.fullmatch(event["name"]), event["args"]) for event in events]
    return tuple(
        OperatorReport(name=kernel["name"], kind=args["op_name"], precision=_first_type(args))
        for kernel, args in kernels
        if kernel
    )


def _start(path: Path, threads: int, *, profile: Path | None = None) -> tuple[Any, str]:
    """Return the package's own session and version; it writes a profile if that has a path."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Without VNNI the plain kernels for uint8 x int8 saturate in 16 bits and answer wrongly; this
    # asks for the exact ones there and changes nothing where VNNI exists (docs/processors.md).
    options.add_session_config_entry("session.x64quantprecision", "1")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
    except Exception as error:  # its error classes have no common base but Exception
        raise RuntimeRefused(f"{path}: ONNX Runtime cannot load it ({error})") from error
    return session, onnxruntime.__version__


def _first_type(args: Mapping[str, Any]) -> str:
    """Return the precision of the first input of a node that ran, of its output if it has none."""
    described = [*args["input_type_shape"], *args["output_type_shape"]]
    name: str = next(iter(described[0]))
    return PRECISIONS.get(name, name)


class OnnxRuntimeSession:
    """A model in ONNX Runtime."""

    def __init__(self, session: Any, version: str) -> None:
        self._session = session
        self._shape = tuple(session.get_inputs()[0].shape)
        self._outputs = [output.name for output in session.get_outputs()]
        self.version = f"onnxruntime {version}"
        self.device = f"CPU ({', '.join(session.get_providers())})"

    def run(self, image: UInt8Array) -> Mapping[str, Float32Array]:
        """Return `logits` (1, classes) for (1, H, W, 3) uint8 RGB."""
        check_image(image, self._shape)
        values = self._session.run(self._outputs, {"image": image})
        return {
            name: np.asarray(value, np.float32)
            for name, value in zip(self._outputs, values, strict=True)
        }

    def close(self) -> None:
        """Release the model."""
        self._session = None
