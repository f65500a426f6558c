"""Timing: warm up until it settles, then time every run, back to back and at a camera's rate.

Samples are nanoseconds of the monotonic clock and none is ever dropped. The clock and the sleep are
arguments, so that a test can drive them by hand. It does not know what it times.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

Clock = Callable[[], int]
"""Returns monotonic nanoseconds."""

WINDOW_S = 0.5
LEAST_RUNS_A_WINDOW = 5
SETTLED = 0.02
"""Two windows whose medians differ by less, as a share of the later one, have settled."""
MOST_RUNS = 200_000
"""A record keeps every sample; what takes microseconds would fill it without end."""
LATE = 0.05
"""Saturated: more than this share of the frames came while another was in work."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How long is long enough."""

    runs: int = 200
    """Least number of timed runs."""
    seconds: float = 10.0
    """Least time of timed runs."""
    warm_up_runs: int = 10
    warm_up_seconds: float = 1.0
    give_up_seconds: float = 30.0
    """When to stop waiting for two like windows."""


PUBLISHED = Rules()
QUICK = Rules(runs=50, seconds=2.0, give_up_seconds=5.0)


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """What went before the timed runs."""

    runs: int
    seconds: float
    stable: bool
    """Whether the last two windows were alike."""


@dataclass(frozen=True, kw_only=True)
class Paced:
    """Runs at a fixed rate, each begun when its frame came."""

    samples_ns: Sequence[int]
    """Duration of each run; the wait for the frame is in none."""
    frames_per_second: float
    """The rate that was asked for."""
    missed: int
    """Frames that came and went while the one before was in work."""
    reachable_per_second: float | None
    """The highest rate that would not have saturated; None without runs."""

    @property
    def saturated(self) -> bool:
        """Tell whether the model cannot keep up with the rate."""
        return _saturated(self.missed, len(self.samples_ns))


def _saturated(missed: float, met: int) -> bool:
    return missed > LATE * (missed + met)


def warm_up(
    run: Callable[[], object],
    rules: Rules,
    *,
    now: Clock = time.perf_counter_ns,
) -> WarmUp:
    """Run until two windows in a row have like medians, and at least as long as `rules` say."""
    started, runs = now(), 0
    before: float | None = None
    stable = False
    while True:
        window = list(_window(run, now))
        runs += len(window)
        seconds = (now() - started) / 1e9
        current = median(window)
        stable = before is not None and abs(current - before) < SETTLED * current
        before = current
        enough = runs >= rules.warm_up_runs and seconds >= rules.warm_up_seconds
        if (enough and stable) or seconds >= rules.give_up_seconds:
            return WarmUp(runs=runs, seconds=seconds, stable=stable)


def _window(run: Callable[[], object], now: Clock) -> Iterator[int]:
    started, runs, ended = now(), 0, 0
    while runs < LEAST_RUNS_A_WINDOW or ended - started < WINDOW_S * 1e9:
        began = now()
        run()
        ended = now()
        runs += 1
        yield ended - began


def back_to_back(
    run: Callable[[], object],
    *,
    runs: int,
    seconds: float,
    stopped: Callable[[], bool] = lambda: False,
    now: Clock = time.perf_counter_ns,
) -> Sequence[int]:
    """Return the duration of each run in ns, one begun as soon as the last has ended.

    It ends after `runs` and `seconds`, whichever is later, or after `MOST_RUNS`; where it is
    `stopped`, after one run at the earliest.
    """
    samples = array("q")  # 8 bytes a run: a list of numbers would show in the peak of memory
    until = now() + int(seconds * 1e9)
    while len(samples) < MOST_RUNS:
        began = now()
        run()
        ended = now()
        samples.append(ended - began)
        if stopped() or (ended >= until and len(samples) >= runs):
            break
    return samples


def paced(
    run: Callable[[], object],
    *,
    frames_per_second: float,
    runs: int,
    seconds: float,
    stopped: Callable[[], bool] = lambda: False,
    now: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Paced:
    """Return runs begun at the ticks of a camera, until there are `runs` and `seconds` are over.

    As with a camera whose newest frame wins, a run that takes longer than a frame misses those
    that come meanwhile and goes on with the next: nothing queues, so no latency grows.
    """
    interval = round(1e9 / frames_per_second)
    samples, spans = array("q"), array("q")
    missed = 0
    due = now()
    until = due + int(seconds * 1e9)
    while not stopped():
        # Sleeping wakes up late by tens of microseconds; that is part of no sample.
        while (left := due - now()) > 0:
            sleep(left / 1e9)
        began = now()
        run()
        ended = now()
        samples.append(ended - began)
        spans.append(ended - due)
        late = spans[-1] // interval
        missed += late
        due += (late + 1) * interval
        if due >= until and len(samples) >= runs:
            break
    return Paced(
        samples_ns=samples,
        frames_per_second=frames_per_second,
        missed=missed,
        reachable_per_second=_reachable_per_second(spans) if spans else None,
    )


def _reachable_per_second(spans_ns: Sequence[int]) -> float:
    """Return the highest rate at which spans from a tick to the end of its run miss few enough."""
    spans_s = np.asarray(spans_ns) / 1e9
    low, high = 0.0, 1.0 / float(spans_s.min())
    for _ in range(50):
        rate = (low + high) / 2
        missed = np.floor(spans_s * rate).sum()
        low, high = (low, rate) if _saturated(missed, len(spans_s)) else (rate, high)
    return low
