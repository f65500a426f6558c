"""OpenVINO on the CPU, in the arithmetic that the artefact's name promises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import MissingExtra, RuntimeRefused
from edgenet.runtimes import Float32Array, UInt8Array, check_image


def load(path: Path, *, threads: int) -> OpenVinoSession:
    """Return a session on the IR at `path` (.xml, its .bin beside it)."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("openvino", "openvino") from error
    options = {
        # Left alone, OpenVINO computes "float32" in bfloat16 where the processor has it: 20.8 dB.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        compiled = openvino.Core().compile_model(str(path), "CPU", options)
    except RuntimeError as error:
        raise RuntimeRefused(f"{path}: OpenVINO cannot load it ({error})") from error
    return OpenVinoSession(compiled, openvino.__version__)


class OpenVinoSession:
    """A model in OpenVINO."""

    def __init__(self, compiled: Any, version: str) -> None:
        self._request = compiled.create_infer_request()
        self._shape = tuple(compiled.input(0).shape)
        self._outputs = tuple(output.get_any_name() for output in compiled.outputs)
        self.version = f"openvino {version.partition('-')[0]}"
        devices = ", ".join(compiled.get_property("EXECUTION_DEVICES"))
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.device = f"{devices} (floats in {precision})"

    def run(self, image: UInt8Array) -> Mapping[str, Float32Array]:
        """Return `logits` (1, classes) for (1, H, W, 3) uint8 RGB."""
        check_image(image, self._shape)
        results = self._request.infer([image], share_inputs=True)
        return {name: np.array(results[name], np.float32) for name in self._outputs}

    def close(self) -> None:
        """Release the model."""
        self._request = None
