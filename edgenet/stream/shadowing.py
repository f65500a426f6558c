"""The process beside a live run that asks the float reference about some of its frames.

    python -m edgenet.stream.shadowing CONTROL MEMORY

It first looks at the calibration set, through the artefact that the run uses. Once the run goes on
it takes only what nobody else wants of the processor. `edgenet.stream.shadow` is the other end.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgenet import runtimes
from edgenet.bundle import CalibrationIdentity
from edgenet.data.calibrated import calibration_pictures
from edgenet.errors import EdgenetError, MissingData, MissingExtra, RuntimeRefused
from edgenet.preprocess import UInt8Array, prepare, preprocessing_from_spec
from edgenet.runtimes import Float32Array, Session
from edgenet.stream.drift import Look, drift, look_at
from edgenet.stream.looking import AUTOGROUP, Looking
from edgenet.stream.standing import Standing

NEWEST = 300
"""Frames that drift is judged on: five minutes at one a second."""
PATIENCE_S = 2.0
"""Between two looks whether the run is still there."""
LEAST = 19
"""The niceness of what gives way to everything."""


def main(arguments: Sequence[str]) -> None:
    """Answer for one frame after the other until the run ends."""
    looking = Looking(int(arguments[0]), int(arguments[1]))
    settings = looking.settings
    try:
        calibration, missing = _calibration(settings)
        index, session = _open_reference(settings["references"])
    except EdgenetError as error:
        looking.say(refused=str(error))
        return
    with closing(session):
        side = settings["resolution"]
        session.run(np.zeros((1, side, side, 3), np.uint8))
        _step_back_for_good()
        looking.say(ready=True, reference=index, device=session.device, version=session.version)
        _Shadowing(looking, session, calibration, missing).go_on()


class _Shadowing:
    """One run's frames, held against the reference."""

    def __init__(
        self,
        looking: Looking,
        session: Session,
        calibration: Sequence[Look],
        missing: str | None,
    ) -> None:
        self._looking, self._session = looking, session
        self._calibration, self._missing = calibration, missing
        self._standing = Standing()
        self._newest: deque[Look] = deque(maxlen=NEWEST)

    def go_on(self) -> None:
        """Answer until the run has ended."""
        control = self._looking.control
        while not self._looking.is_orphan:
            if not select.select([control], [], [], PATIENCE_S)[0]:
                continue
            message = self._looking.receive()
            if message is None:
                return
            if message.array is not None and message.result is not None:
                self._answer(message.array, message.result["accepted"])

    def _answer(self, shared: UInt8Array, accepted: Sequence[int] | None) -> None:
        began_ns = time.monotonic_ns()
        settings = self._looking.settings
        side = settings["resolution"]
        size = side * side * 3
        image = shared[:size].reshape(1, side, side, 3)
        logits: Float32Array = shared[size:].copy().view(np.float32)  # aligned again
        reference = self._session.run(image)["logits"][0]
        inferred_ns = time.monotonic_ns() - began_ns
        self._standing = self._standing.with_frame(logits, reference, accepted)
        self._newest.append(look_at(image, logits))
        measures = drift(
            self._newest,
            self._calibration,
            classes=settings["classes"],
            missing=self._missing,
            trained=settings["trained"],
        )
        self._looking.say(
            standing=asdict(self._standing),
            drift=[asdict(measure) for measure in measures],
            infer_ns=inferred_ns,
            ended_ns=time.monotonic_ns(),
        )


def _calibration(settings: Mapping[str, Any]) -> tuple[list[Look], str | None]:
    """Return how the run's artefact sees the calibration set, or why that is not known."""
    if settings["calibration"] is None:
        return [], "the bundle was not calibrated: it has no artefact in 8 bits"
    try:
        pictures = calibration_pictures(CalibrationIdentity(**settings["calibration"]))
    except MissingData as error:
        return [], str(error)
    preprocessing = preprocessing_from_spec(settings["preprocessing"])
    runtime, path = settings["artifact"]
    looks = []
    with closing(runtimes.load(runtime, Path(path))) as session:
        for picture in pictures:
            image = prepare(picture, preprocessing)
            looks.append(look_at(image, session.run(image)["logits"][0]))
    return looks, None


def _open_reference(references: Sequence[Sequence[str]]) -> tuple[int, Session]:
    """Return the first that runs here and its place; raises what the first failed with."""
    failures: list[EdgenetError] = []
    for index, (runtime, path) in enumerate(references):
        try:
            return index, runtimes.load(runtime, Path(path))
        except (MissingExtra, RuntimeRefused) as error:
            failures.append(error)
    raise failures[0]


def _step_back_for_good() -> None:
    """Run only when nobody else would, on whatever scheduler there is."""
    os.nice(LEAST)
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        AUTOGROUP.write_text(str(LEAST), encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
