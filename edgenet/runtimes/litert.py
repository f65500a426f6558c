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
from edgenet.runtimes import Float32Array, OperatorReport, UInt8Array, check_image

PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
"""Distributions by the package that they install, the preferred first."""


DELEGATE = "DELEGATE"
"""The operator that stands for those which XNNPACK took over."""


def load(path: Path, *, threads: int) -> LiteRtSession:
    """Return a session on the .tflite file at `path`."""
    return LiteRtSession(*_interpreter(path, threads))


def operators(path: Path, *, threads: int = 1) -> tuple[OperatorReport, ...]:
    """Return what runs, in order, as the interpreter reports it.

    XNNPACK tells nobody how it fuses what it takes over. Its operators are listed as the file has
    them, marked as its own, with the types of the tensors between them.
    """
    interpreter, _ = _interpreter(path, threads)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    nodes = interpreter._get_ops_details()
    delegated = _delegated(nodes)
    return tuple(
        OperatorReport(
            name=tensors[int(node["outputs"][0])]["name"],
            kind=f"{node['op_name']} (XNNPACK)" if node["index"] in delegated else node["op_name"],
            precision=_precision(tensors[int(node["inputs"][0])]["dtype"]),
        )
        for node in nodes
        if node["op_name"] != DELEGATE
    )


def _interpreter(path: Path, threads: int) -> tuple[Any, str]:
    """Return an interpreter with its tensors allocated, and its package with the version."""
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
        return interpreter, f"{distribution} {version(distribution)}"
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
        """Return the outputs by name, (1, C) or (1, H, W, C), for (1, H, W, 3) uint8 RGB."""
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
    """Return output tensor indices by name."""
    return {_bare(detail["name"]): detail["index"] for detail in interpreter.get_output_details()}


def _bare(name: str) -> str:
    """Return a tensor's name without the scope and suffix that other converters add."""
    return name.rpartition("/")[2].partition(":")[0]


def _kernels(interpreter: Any) -> str:
    """Return which kernels run: delegates show up among the operators of the loaded graph."""
    operators = {op["op_name"] for op in interpreter._get_ops_details()}
    return "XNNPACK" if DELEGATE in operators else "built-in kernels"


def _delegated(nodes: list[Any]) -> set[int]:
    """Return the indices of what delegates compute: all between their inputs and their outputs."""
    delegates = [node for node in nodes if node["op_name"] == DELEGATE]
    others = [node for node in nodes if node["op_name"] != DELEGATE]
    given = {int(tensor) for node in delegates for tensor in node["inputs"]}
    wanted = {int(tensor) for node in delegates for tensor in node["outputs"]}
    found: set[int] = set()
    for node in reversed(others):  # in order of execution, so makers come before users
        if any(int(tensor) in wanted for tensor in node["outputs"]):
            found.add(node["index"])
            wanted.update({int(tensor) for tensor in node["inputs"]} - given)
    return found


def _precision(dtype: Any) -> str:
    name = np.dtype(dtype).name
    return "int8" if name == "uint8" else name
