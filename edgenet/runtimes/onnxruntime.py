"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import MissingExtra, RuntimeRefused
from edgenet.runtimes import Float32Array, UInt8Array, check_image

PROVIDER = "CPUExecutionProvider"


def load(path: Path, *, threads: int) -> OnnxRuntimeSession:
    """Return a session on the .onnx file at `path`."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Without VNNI the plain kernels for uint8 x int8 saturate in 16 bits and answer wrongly; this
    # asks for the exact ones there and changes nothing where VNNI exists.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
    except Exception as error:  # its error classes have no common base but Exception
        raise RuntimeRefused(f"{path}: ONNX Runtime cannot load it ({error})") from error
    return OnnxRuntimeSession(session, onnxruntime.__version__)


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
