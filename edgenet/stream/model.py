"""A bundle for Python programs: `for result in edgenet.load("mobilenet").stream(0): ...`.

Needs numpy, OpenCV and one runtime; no torch.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from edgenet.board.detect import detect
from edgenet.board.machine import Machine
from edgenet.bundle import Bundle, Precision, shipped_bundle
from edgenet.errors import UsageError
from edgenet.manifest import load_bundle
from edgenet.measure.profile import runnable
from edgenet.stream.loading import in_order
from edgenet.stream.result import Result
from edgenet.stream.watch import Plan, stream


class Model:
    """A bundle that was found whole."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the name of each class."""
        return self.bundle.labels

    def stream(
        self,
        source: int | str = 0,
        *,
        runtime: str | None = None,
        precision: str | None = None,
        threads: int = 1,
        crop: tuple[int, int, int, int] | None = None,
        realtime: bool = False,
    ) -> Generator[Result, None, None]:
        """Yield a result for the newest frame, again and again; of files, one for each frame.

        `source` is what `edgenet camera --source` takes. The first artefact that runs here is
        taken, in the board's order, INT8 before float; `runtime` and `precision` narrow that.
        `crop` is x, y, width and height in pixels of the frame. The camera is closed when the
        generator is: at the end of a `for`, or by `close()`.

        Raises `UsageError` for what does not exist, `DeviceUnavailable` for a source that does
        not open, `MissingExtra` where no runtime is installed.
        """
        precisions = () if precision is None else (Precision(precision),)
        artifacts = runnable(self.bundle, () if runtime is None else (runtime,), precisions)
        preprocessing = self.bundle.preprocessing
        plan = Plan(
            source=str(source),
            preprocessing=preprocessing if crop is None else replace(preprocessing, crop=crop),
            realtime=realtime,
            threads=threads,
        )
        return stream(self.bundle, in_order(artifacts, detect(Machine()).target), plan)


def load(bundle: str | Path | None = None) -> Model:
    """Return the bundle at a path, or the one that comes with edgenet.

    Raises `UsageError` when there is no such folder, `BrokenBundle` when it is not whole.
    """
    if bundle == "":
        raise UsageError("'' is no bundle; leave it out for the one that comes with edgenet")
    return Model(load_bundle(shipped_bundle() if bundle is None else Path(bundle)))
