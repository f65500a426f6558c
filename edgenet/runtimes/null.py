"""Nothing: a session that answers zeros at once, so that what is timed is the harness itself.

It loads any artefact of a bundle and takes input and output from the manifest beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgenet import __version__
from edgenet.bundle import Output
from edgenet.errors import RuntimeRefused
from edgenet.manifest import load_bundle
from edgenet.runtimes import (
    Float32Array,
    OperatorReport,
    OperatorTimes,
    Tensor,
    UInt8Array,
    check_image,
)


def load(path: Path, *, threads: int) -> NullSession:  # noqa: ARG001 - nothing runs in them
    """Return a session in place of the artefact at `path`, which lies in a bundle."""
    bundle = load_bundle(path.parent)
    return NullSession(resolution=bundle.model.resolution, outputs=bundle.outputs)


def operators(path: Path, *, threads: int = 1) -> tuple[OperatorReport, ...]:  # noqa: ARG001
    """Return no operators: none run."""
    return ()


def time_operators(path: Path, images: UInt8Array, *, threads: int) -> OperatorTimes:  # noqa: ARG001
    """Return no operators: none run."""
    return OperatorTimes(by="profiler", resolution_ns=1.0, times=())


def trace(
    path: Path,
    images: Sequence[UInt8Array],  # noqa: ARG001
    names: Sequence[str],
    *,
    threads: int,  # noqa: ARG001
) -> Iterator[Mapping[str, Tensor]]:
    """Refuse: there is nothing inside."""
    raise RuntimeRefused(f"{path}: the null runtime computes nothing, so no {', '.join(names)}")


class NullSession:
    """No model at all."""

    def __init__(self, *, resolution: int, outputs: Sequence[Output]) -> None:
        self._shape = (1, resolution, resolution, 3)
        self._outputs = {output.name: output.shape for output in outputs}
        self.version = f"edgenet {__version__}"
        self.device = "none (nothing is computed)"

    def run(self, image: UInt8Array) -> Mapping[str, Float32Array]:
        """Return every output in its shape, all 0, for (1, H, W, 3) uint8 RGB."""
        check_image(image, self._shape)
        return {name: np.zeros(shape, np.float32) for name, shape in self._outputs.items()}

    def close(self) -> None:
        """Do nothing."""
