"""LiteRT (TensorFlow Lite) on the CPU, through whichever of its two packages is installed.

`ai_edge_litert` is the maintained one and is preferred; `tflite_runtime` is its predecessor, the
only one on 32-bit boards, and needs numpy 1.x.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import MissingExtra, RuntimeRefused
from edgenet.runtimes import Float32Array, UInt8Array, check_image

PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
"""Distributions by the package that they install, the preferred first."""


def load(path: Path, *, threads: int) -> LiteRtSession:
    """Return a session on the .tflite file at `path`."""
    for package, distribution in PACKAGES.items():
        try:
            module = importlib.import_module(f"{package}.interpreter")
        except ImportError:
            continue
        try:
            interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise RuntimeRefused(f"{path}: {distribution} cannot load it ({error})") from error
        return LiteRtSession(interpreter, f"{distribution} {version(distribution)}")
    raise MissingExtra(" or ".join(PACKAGES.values()), "litert")


class LiteRtSession:
    """A model in LiteRT."""

    def __init__(self, interpreter: Any, version: str) -> None:
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]
        self._shape = tuple(int(side) for side in self._input["shape"])
        self._outputs = _output_names(interpreter)
        self.version = version
        self.device = f"CPU ({_kernels(interpreter)})"

    def run(self, image: UInt8Array) -> Mapping[str, Float32Array]:
        """Return `logits` (1, classes) for (1, H, W, 3) uint8 RGB."""
        check_image(image, self._shape)
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        return {
            name: np.asarray(self._interpreter.get_tensor(index), np.float32)
            for name, index in self._outputs.items()
        }

    def close(self) -> None:
        """Release the model."""
        self._interpreter = None


def _output_names(interpreter: Any) -> dict[str, int]:
    """Return output tensor indices by name; a tensor's own name may carry a scope or suffix."""
    return {
        detail["name"].rpartition("/")[2].partition(":")[0]: detail["index"]
        for detail in interpreter.get_output_details()
    }


def _kernels(interpreter: Any) -> str:
    """Return which kernels run: delegates show up among the operators of the loaded graph."""
    operators = {op["op_name"] for op in interpreter._get_ops_details()}
    delegated = "DELEGATE" in operators
    return "XNNPACK" if delegated else "built-in kernels"
