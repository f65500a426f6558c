"""LiteRT (TensorFlow Lite) on the CPU, through whichever of its two packages is installed.

`ai_edge_litert` is the maintained one and is preferred; `tflite_runtime` is its predecessor, the
only one on 32-bit boards, and needs numpy 1.x.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import MissingExtra, RuntimeRefused
from edgenet.runtimes import Float32Array, OperatorReport, UInt8Array, check_image

PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
"""Distributions by the package that they install, the preferred first."""


STDERR = 2
INFORMATION = ("INFO:", "WARNING: All log messages before absl")
"""How lines begin that say nothing of the model."""
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
        said: list[str] = []
        try:
            with _listening(said):
                interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = "; ".join([str(error), *said])
            raise RuntimeRefused(f"{path}: {distribution} cannot load it ({reason})") from error
        return interpreter, f"{distribution} {version(distribution)}"
    raise MissingExtra(" or ".join(PACKAGES.values()), "litert")


@contextmanager
def _listening(said: list[str]) -> Iterator[None]:
    """Keep what C++ writes to stderr in this block off it, and put its lines into `said`.

    It tells with every model that it made a delegate. What is no such information is a reason if
    loading fails; where it goes well, it is passed on.
    """
    sys.stderr.flush()
    try:
        heard, stderr = tempfile.TemporaryFile(), os.dup(STDERR)  # noqa: SIM115 - closed below
    except OSError:  # no room for a file, or no stderr: not worth failing for
        yield
        return
    loaded = False
    with heard:
        os.dup2(heard.fileno(), STDERR)
        try:
            yield
            loaded = True
        finally:
            os.dup2(stderr, STDERR)
            os.close(stderr)
            heard.seek(0)
            lines = heard.read().decode(errors="replace").splitlines()
            said += [line for line in lines if line.strip() and not line.startswith(INFORMATION)]
            if loaded and said:
                sys.stderr.write("\n".join(said) + "\n")


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
