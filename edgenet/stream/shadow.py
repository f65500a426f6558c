"""A shadow of a live run: some of its frames also go to the float reference, on the side.

Without labels nobody knows what is right on a stream, but how often INT8 says what float says can
be counted, and whether the pictures still look like those of the calibration. The reference runs
in a process of its own that takes only what is left of the processor. It is handed a frame when it
has nothing to do, and not more often than once a second and for a tenth of the time; all other
frames pass it over. Nothing here waits for it while frames come.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import numpy as np

from edgenet.bundle import Artifact, Bundle
from edgenet.errors import BadData, RuntimeRefused
from edgenet.measure.evaluate import references
from edgenet.stream.child import Child
from edgenet.stream.drift import Measure
from edgenet.stream.result import Result
from edgenet.stream.standing import Standing

NULL = "null"
READY_S = 120.0
"""How long looking at the calibration set may take: a board is slow, and so is its card."""
LOOK_S = 0.25
AWAKE_NS = 20_000
"""Of processor time: less is a look at the socket."""
LAST_ANSWER_S = 2.0
"""For how long the last answer is waited for, when no frame comes any more."""
JITTER = 1.5
"""A pause is up to so many times as long: a playlist or a lamp with a period is not met always at
the same place."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How often a frame goes to the reference."""

    least_s: float = 1.0
    """Between the end of one and the next."""
    share: float = 0.1
    """Of the time, at most, that the reference works."""


@dataclass(frozen=True, kw_only=True)
class ShadowReport:
    """What holding some frames against the float reference has shown."""

    reference: Artifact
    device: str
    version: str
    is_artifact: bool
    """Whether it is the very artefact of the run: then it agrees by itself."""
    standing: Standing
    passed_over: int
    """Frames that were labelled and not handed to it."""
    unanswered: int
    """Frames that it was handed and never answered."""
    drift: tuple[Measure, ...]
    """Of the newest frames; empty before the first answer."""
    raised: tuple[str, ...] = ()
    """The measures that gave alarm at any time, in the order in which they first did."""
    infer_ns: int | None = None
    """What the reference took for its last frame, giving way to everything else."""
    fault: str | None = None
    """Why it ended before the run did."""


def require_reference(bundle: Bundle) -> tuple[Artifact, ...]:
    """Return the float artefacts of a bundle, the likeliest reference first.

    Raises `BadData` where it has none.
    """
    found = references(bundle)
    if not found:
        raise BadData(
            f"{bundle.root}: has no float artefact, which --shadow holds the stream against; make "
            "a bundle that has one (edgenet convert mobilenet_v1 -o mobilenet) and give it to "
            "edgenet camera, or leave out --shadow"
        )
    return found


class Shadow:
    """The reference beside one run. Use it in a `with`: the block begins when it is ready."""

    def __init__(
        self,
        bundle: Bundle,
        artifact: Artifact,
        sampling: Sampling | None = None,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start it for a run with `artifact`; nobody waits for it any more once `stopped`.

        Raises `BadData` for a bundle without a float artefact, or an artefact that computes
        nothing.
        """
        self._references = require_reference(bundle)
        if artifact.runtime == NULL:
            raise BadData("--shadow: the null runtime computes nothing that could agree with float")
        self._artifact = artifact
        self._sampling, self._stopped = sampling or Sampling(), stopped
        self._random = random.Random(0)
        self._standing = Standing()
        self._drift: tuple[Measure, ...] = ()
        self._raised: list[str] = []
        self._told = 0
        self._sent_ns: int | None = None
        self._ended_ns = self._next_ns = self._worked_ns = self._cpu_ns = 0
        self._sent = self._passed_over = 0
        self._infer_ns: int | None = None
        self._hello: Mapping[str, Any] = {}
        calibration = bundle.calibration
        self._child = Child(
            "edgenet.stream.shadowing",
            {
                "artifact": [artifact.runtime, str(bundle.path(artifact))],
                "references": [[each.runtime, str(bundle.path(each))] for each in self._references],
                "resolution": bundle.model.resolution,
                "classes": len(bundle.labels),
                "trained": bundle.model.trained,
                "preprocessing": bundle.preprocessing.spec(),
                # The hash of all of them is enough, and fits into one message.
                "calibration": calibration and {**asdict(calibration), "images": ()},
            },
        )

    def __enter__(self) -> Shadow:
        try:
            self._wait_until_ready()
        except BaseException:
            self._child.close(patience_s=0)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # It holds nothing that would have to be written: it need not come to the end of anything.
        self._child.close(patience_s=0)

    @property
    def pid(self) -> int:
        """Return the number of its process."""
        return self._child.pid

    def worked_since(self, since_ns: int) -> bool:
        """Tell whether it has had any of the processors since; costs a few microseconds.

        Having something to do is not enough: on a busy board it waits for long.
        """
        self._hear()
        if self._sent_ns is None and self._ended_ns < since_ns:
            return False
        cpu_ns = self._child.cpu_ns
        if cpu_ns is None or cpu_ns - self._cpu_ns > AWAKE_NS:
            self._cpu_ns, self._worked_ns = cpu_ns or 0, time.monotonic_ns()
        return self._worked_ns >= since_ns

    def offer(self, result: Result, accepted: Collection[int] | None = None) -> None:
        """Hand a labelled frame over if it is time and nothing is in work; never waits.

        `accepted` are the classes that are right, where that is known.
        """
        self._hear()
        busy = self._sent_ns is not None or time.monotonic_ns() < self._next_ns
        if busy or self._child.gone or not self._hello:
            self._passed_over += 1
            return
        seen = np.concatenate([result.image.ravel(), result.logits.view(np.uint8)])
        right = None if accepted is None else sorted(accepted)
        try:
            shape = self._child.share(seen)
            self._child.send({"result": {"accepted": right}, "shape": shape})
        except OSError as error:
            self._child.lose(f"could not be handed a frame ({error.strerror})")
            self._passed_over += 1
            return
        self._sent_ns = time.monotonic_ns()
        self._cpu_ns = self._child.cpu_ns or 0
        self._sent += 1

    @property
    def standing(self) -> Standing:
        """Return how it stands."""
        return self._standing

    @property
    def drift(self) -> tuple[Measure, ...]:
        """Return how the newest frames compare with the calibration set."""
        return self._drift

    def new_alarms(self) -> tuple[Measure, ...]:
        """Return the measures that gave alarm for the first time since this was asked."""
        names = self._raised[self._told :]
        self._told = len(self._raised)
        return tuple(measure for measure in self._drift if measure.name in names)

    def report(self) -> ShadowReport:
        """Return what it has shown; waits a moment for the last answer, so ask after the frames."""
        until_s = time.monotonic() + LAST_ANSWER_S
        while self._sent_ns is not None and (left_s := until_s - time.monotonic()) > 0:
            message = self._child.wait(left_s)
            if message is None:
                break
            self._take(message)
        reference = self._references[self._hello.get("reference", 0)]
        return ShadowReport(
            reference=reference,
            device=self._hello.get("device", ""),
            version=self._hello.get("version", ""),
            is_artifact=reference == self._artifact,
            standing=self._standing,
            passed_over=self._passed_over,
            unanswered=self._sent - self._standing.frames,
            drift=self._drift,
            raised=tuple(self._raised),
            infer_ns=self._infer_ns,
            fault=self._child.fault,
        )

    def _wait_until_ready(self) -> None:
        until_s = time.monotonic() + READY_S
        while not self._hello and not self._stopped():
            message = self._child.wait(LOOK_S)
            if message is not None and "refused" in message:
                raise RuntimeRefused(f"--shadow: {message['refused']}")
            if message is not None:
                self._hello = message
            elif self._child.gone:
                raise RuntimeRefused(f"--shadow: {self._child.fault}")
            elif time.monotonic() > until_s:
                raise RuntimeRefused(f"--shadow: its process was not ready after {READY_S:.0f} s")

    def _hear(self) -> None:
        for message in self._child.heard():
            self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        if "standing" not in message:
            self._hello = message  # ready, after nobody waited for it any more
            return
        assert self._sent_ns is not None
        self._standing = Standing(**message["standing"])
        self._drift = tuple(
            Measure(**{**each, "usual": each["usual"] and tuple(each["usual"])})
            for each in message["drift"]
        )
        self._raised += [
            measure.name
            for measure in self._drift
            if measure.alarm and measure.name not in self._raised
        ]
        self._infer_ns, self._ended_ns = message["infer_ns"], message["ended_ns"]
        worked_ns = self._ended_ns - self._sent_ns
        pause_ns = max(self._sampling.least_s * 1e9, worked_ns * (1 / self._sampling.share - 1))
        self._next_ns = self._ended_ns + int(pause_ns * self._random.uniform(1, JITTER))
        self._sent_ns = None
