"""The runtimes: one module each, its name is the runtime's name.

A module offers `load`, `operators`, `time_operators` and `trace`, as below but for the runtime's
name, and imports its package on first use. To load a new runtime, add a module here; to write
artefacts for it, add a row to `WRITERS` in `edgenet/convert/pipeline.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edgenet.errors import UsageError

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
Tensor = npt.NDArray[np.float32 | np.int8 | np.uint8]
"""What an artefact makes on the way: floats, or the bytes that stand for them."""


class Session(Protocol):
    """A model loaded on one device."""

    device: str
    """Where it really runs and in which arithmetic, as the runtime itself reports it."""
    version: str
    """The runtime's package and version."""

    def run(self, image: UInt8Array) -> Mapping[str, Float32Array]:
        """Return the outputs by name, (1, C) or (1, H, W, C), for (1, H, W, 3) uint8 RGB.

        That is `logits` (1, classes) of a classifier. Raises `ValueError` for an image of another
        shape or type. The arrays are the caller's.
        """

    def close(self) -> None:
        """Release the model; may be called twice."""


@dataclass(frozen=True, kw_only=True)
class OperatorReport:
    """One operator of a loaded model, as the runtime itself reports it."""

    name: str
    """What the runtime calls it after its own fusing; it begins with the layer's name if it can."""
    kind: str
    """The runtime's word for the operator, such as QLinearConv, Convolution or CONV_2D."""
    precision: str
    """The type that it computes on, that of its first input: `int8` for any 8-bit integers,
    `float32`, `float16`, `bfloat16`, or the runtime's own word for another."""


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """How long one operator takes within a run."""

    operator: OperatorReport
    duration_ns: float | None
    """Of a typical run; None where it does not stand out of the noise."""


@dataclass(frozen=True, kw_only=True)
class OperatorTimes:
    """Where the time of a run goes."""

    by: Literal["profiler", "prefix"]
    """Who tells: the runtime itself, or the network cut after each operator, whose time is what
    the longer piece takes more than the shorter."""
    resolution_ns: float
    """What times are counted in: a thousand for a profiler that counts whole microseconds."""
    times: tuple[OperatorTime, ...]
    """In the order in which they run."""


def answer(session: Session, image: UInt8Array, outputs: Sequence[str]) -> Float32Array:
    """Return what a session makes of one image, `outputs` one after the other, (values,).

    Raises `ValueError` for an image that it does not take and where it has other outputs.
    """
    found = session.run(image)
    if set(outputs) != set(found):
        raise ValueError(f"has the outputs {', '.join(found)} in place of {', '.join(outputs)}")
    return np.concatenate([found[name].ravel() for name in outputs])


def names() -> tuple[str, ...]:
    """Return the runtimes that this edgenet knows, installed or not."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if module.name != "torch")


def load(runtime: str, path: Path, *, threads: int = 1) -> Session:
    """Return a session of `runtime` on the artefact at `path`.

    Raises `UsageError` for an unknown runtime, `MissingExtra` when its package is not installed,
    `RuntimeRefused` when it cannot load the file.
    """
    session: Session = _module(runtime).load(path, threads=threads)
    return session


def operators(runtime: str, path: Path, *, threads: int = 1) -> tuple[OperatorReport, ...]:
    """Return the operators that run when `runtime` computes the artefact at `path`, in order.

    Raises what `load` raises.
    """
    report: tuple[OperatorReport, ...] = _module(runtime).operators(path, threads=threads)
    return report


def time_operators(
    runtime: str, path: Path, images: UInt8Array, *, threads: int = 1
) -> OperatorTimes:
    """Return how long each operator takes on (n, H, W, 3) uint8 `images`, one a run.

    Raises what `load` raises, and `RuntimeRefused` where the runtime gives no way to tell.
    """
    found: OperatorTimes = _module(runtime).time_operators(path, images, threads=threads)
    return found


def trace(
    runtime: str,
    path: Path,
    images: Sequence[UInt8Array],
    names: Sequence[str],
    *,
    threads: int = 1,
) -> Iterator[Mapping[str, Tensor]]:
    """Yield what each image makes of the tensors of these names inside the artefact at `path`.

    They are (1, H, W, C) or (1, C), as outputs are. Raises what `load` raises; `RuntimeRefused` for
    a tensor that is not there.
    """
    found: Iterator[Mapping[str, Tensor]] = _module(runtime).trace(
        path, images, names, threads=threads
    )
    return found


def channels_last(values: Tensor) -> Tensor:
    """Return (1, C, H, W) as (1, H, W, C), and what has no height and width as it is."""
    return np.moveaxis(values, 1, -1) if values.ndim == 4 else values


def _module(runtime: str) -> Any:
    if runtime not in names():
        raise UsageError(f"unknown runtime {runtime!r}: choose from {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{runtime}")


def check_image(image: UInt8Array, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless `image` has the artefact's shape and is uint8."""
    if image.shape != shape or image.dtype != np.uint8:
        raise ValueError(f"expected uint8 {shape}, got {image.dtype} {image.shape}")
