"""Latency of a stream, stage by stage: of the whole run, and of the last minute.

Samples are kept raw and none is dropped, up to the newest hour at 30 frames a second: a camera runs
for weeks, and its memory must not grow with them. Frames beside which the run itself let something
else work are kept apart. It does not know what a record looks like.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgenet.measure.statistics import BEYOND
from edgenet.stream.frame import Clock
from edgenet.stream.result import Result
from edgenet.stream.status import Percentiles

Int64Array = npt.NDArray[np.int64]

MOST_FRAMES = 108_000
"""Kept raw: an hour at 30 frames a second. Whatever is older is counted and no longer timed."""
WINDOW_S = 60.0
STAGES = ("wait", "decode", "preprocess", "inference", "frame_to_label")
"""What is timed of each frame; `frame_to_label` begins at the frame's own clock."""
CLOCK, BESIDE = -2, -1
"""The last columns of a row."""
_UNKNOWN = -1
_CLOCKS = tuple(Clock)


NOTHING = Percentiles(n=0, p50_ms=None, p95_ms=None, p99_ms=None)


class Latencies:
    """What every stage took; add each result once, in order."""

    def __init__(self, *, most: int = MOST_FRAMES, window_s: float = WINDOW_S) -> None:
        # One row a frame: when it was labelled, its stages as above, its clock, and whether
        # something worked beside it. What is not written yet takes no memory.
        self._rows = np.zeros((most, len(STAGES) + 3), np.int64)
        self._window_ns = int(window_s * 1e9)
        self.labelled = 0
        """Frames added, those that are no longer kept included."""

    def add(self, result: Result, *, beside: bool = False) -> None:
        """Take the times of one frame; `beside` says that the shadow worked meanwhile.

        Raises `ValueError` for a frame from the future.
        """
        frame, stages = result.frame, result.stages
        if result.age_ms < 0:  # sources check their stamps: this would be a bug in one of them
            raise ValueError(f"frame {frame.sequence} is {result.age_ms} ms old ({frame.clock})")
        self._rows[self.labelled % len(self._rows)] = (
            result.labelled_ns,
            stages.wait_ns,
            _UNKNOWN if frame.decode_ns is None else frame.decode_ns,
            stages.preprocess_ns,
            stages.infer_ns,
            result.labelled_ns - frame.captured_ns,
            _CLOCKS.index(frame.clock),
            beside,
        )
        self.labelled += 1

    @property
    def kept(self) -> int:
        """Return how many of the newest frames the samples are of."""
        return len(self._alone())

    @property
    def clocks(self) -> Mapping[Clock, int]:
        """Return how many of the kept frames each clock has stamped, the commonest first."""
        return _clocks(self._alone())

    def samples_ns(self) -> Mapping[str, Int64Array]:
        """Return the samples (n,) of each stage that has any, in the order in which they came.

        Ages of unlike clocks are no one figure: `frame_to_label` is of the commonest clock alone.
        """
        rows = self._alone()
        return _samples(rows, next(iter(_clocks(rows)), None))

    def samples_beside_ns(self) -> Mapping[str, Int64Array]:
        """Return the same of the frames beside which the shadow worked."""
        rows = self._ordered()
        rows = rows[rows[:, BESIDE] == 1]
        return _samples(rows, next(iter(_clocks(rows)), None))

    def window(self) -> Mapping[str, Percentiles]:
        """Return the percentiles of each stage over the window that ends at the newest frame."""
        rows = self._newest()
        rows = rows[rows[:, BESIDE] == 0]
        clock = _CLOCKS[int(rows[-1, CLOCK])] if len(rows) else None
        found = _samples(rows, clock)
        return {stage: percentiles(found[stage]) if stage in found else NOTHING for stage in STAGES}

    def labelled_per_second(self) -> float | None:
        """Return the rate of labels over the window; None with fewer than two of them."""
        rows = self._newest()
        if len(rows) < 2 or rows[-1, 0] <= rows[0, 0]:
            return None
        return (len(rows) - 1) * 1e9 / float(rows[-1, 0] - rows[0, 0])

    def _ordered(self) -> Int64Array:
        if self.labelled <= len(self._rows):
            return self._rows[: self.labelled]
        return np.roll(self._rows, -(self.labelled % len(self._rows)), axis=0)

    def _alone(self) -> Int64Array:
        rows = self._ordered()
        return np.asarray(rows[rows[:, BESIDE] == 0], np.int64)

    def _newest(self) -> Int64Array:
        if not self.labelled:
            return self._rows[:0]
        last = (self.labelled - 1) % len(self._rows)
        since = self._rows[last, 0] - self._window_ns
        # Newest first, and back only as far as the window can reach.
        reach, there = 1024, min(self.labelled, len(self._rows))
        while True:
            reach = min(reach, there)
            rows = self._rows[np.arange(last - reach + 1, last + 1) % len(self._rows)]
            if reach == there or rows[0, 0] < since:
                return np.asarray(rows[rows[:, 0] >= since], np.int64)
            reach *= 2


def _clocks(rows: Int64Array) -> dict[Clock, int]:
    found, counts = np.unique(rows[:, CLOCK], return_counts=True)
    pairs = sorted(zip(counts, found, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return {_CLOCKS[int(clock)]: int(count) for count, clock in pairs}


def _samples(rows: Int64Array, clock: Clock | None) -> dict[str, Int64Array]:
    found = {}
    for column, stage in enumerate(STAGES, start=1):
        known = rows[:, column] != _UNKNOWN
        if stage == "frame_to_label":
            known = rows[:, CLOCK] == (_UNKNOWN if clock is None else _CLOCKS.index(clock))
        if known.any():
            found[stage] = rows[known, column]
    return found


def percentiles(samples_ns: Int64Array) -> Percentiles:
    """Return the percentiles of samples (n,) in ns that have ten samples beyond them."""
    n = len(samples_ns)
    shown = [percent for percent in (50, 95, 99) if n * (100 - percent) >= 100 * BEYOND]
    values = dict(zip(shown, np.percentile(samples_ns, shown) / 1e6, strict=True)) if shown else {}
    return Percentiles(
        n=n,
        **{
            f"p{percent}_ms": float(values[percent]) if percent in values else None
            for percent in (50, 95, 99)
        },
    )
