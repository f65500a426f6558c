"""Statistics of latencies and of right and wrong answers; numpy only, for boards have no scipy.

Every interval is 95 % unless it says otherwise, and says what it is an interval of. That of a
`Summary` speaks of one launch: it says how well the percentile of that run is known, not how far
another launch will land from it. Two launches of the same file differ by more than their samples
scatter, so only a `Ratio`, which counts each launch once, may call a difference. A
`PairedDifference` speaks of images like those that both sides have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgenet.measure.accuracy import Z_95

Float64Array = npt.NDArray[np.float64]

BEYOND = 10
"""Samples that must lie beyond a percentile: fewer, and one outlier moves it."""
BLOCKS = 10
"""A block is a tenth of the run, long enough for a neighbour that comes and goes within it."""
SEGMENTS = 200
"""Of a run, whose ends are the places where a block may begin."""
BINS = 2048
"""Ranks that the bootstrap tells apart: all of them in a run of so many samples."""
REPLICATES = 1000
LEAST_LAUNCHES = 5
"""A side, before a difference between two of them may be called one."""
MOST_LAUNCHES = 1000
MOST_IMAGES = 10_000_000
"""Beyond these no figure is given for what would decide: nobody will run it."""


class Verdict(str, Enum):
    """What may be said of NEW against BASE."""

    FASTER = "faster"
    SLOWER = "slower"
    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference"
    """The interval includes none; it says how large a difference may have gone unseen."""
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Latency samples of one launch in ms; nothing is left out of them.

    A percentile is None with fewer than ten samples beyond it, its interval with it: p50 needs 20
    samples, p95 200, p99 1000.
    """

    n: int
    min: float
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float
    interval: tuple[float, float] | None
    """Of p50, within this launch."""
    p95_interval: tuple[float, float] | None
    """Of p95, within this launch."""


def summarise(samples_ns: npt.ArrayLike) -> Summary:
    """Return the summary of samples (n,) in ns, in the order in which they were taken.

    The order matters: neighbours in time resemble each other, and the intervals allow for it.
    Percentiles are interpolated as `numpy.percentile` does by default. Raises `ValueError` without
    samples, or with one below 0.
    """
    samples_ms = np.asarray(samples_ns, dtype=np.float64).ravel() / 1e6
    if not len(samples_ms) or samples_ms.min() < 0:
        raise ValueError("no samples, or one below 0 ns")
    n = len(samples_ms)
    shown = [percent for percent in (50, 90, 95, 99) if n * (100 - percent) >= 100 * BEYOND]
    values = dict(zip(shown, map(float, np.percentile(samples_ms, shown)), strict=True))
    intervals = _block_bootstrap(samples_ms, {p: values[p] for p in (50, 95) if p in values})
    return Summary(
        n=n,
        min=float(samples_ms.min()),
        p50=values.get(50),
        p90=values.get(90),
        p95=values.get(95),
        p99=values.get(99),
        max=float(samples_ms.max()),
        interval=intervals.get(50),
        p95_interval=intervals.get(95),
    )


def _block_bootstrap(
    samples: Float64Array, percentiles: dict[int, float]
) -> dict[int, tuple[float, float]]:
    """Return the interval of each percentile by the circular moving-block bootstrap.

    Blocks keep what is correlated together (Politis and Romano 1992). A replicate is ten blocks
    drawn with replacement; it is never built, only counted: how often each segment of the run is in
    it, times how many of the segment's samples fall below each rank. So few blocks make the plain
    percentile interval too short, so it reaches further into the tails, as Student's t does with
    nine degrees of freedom (the expanded percentile interval of Hesterberg 2015).
    """
    if not percentiles:
        return {}
    n = len(samples)
    segments, bins = min(n, SEGMENTS), min(n, BINS)
    upper = np.sort(samples)[np.arange(1, bins + 1) * n // bins - 1]
    segment = np.arange(n) * segments // n
    cell = segment * bins + np.searchsorted(upper, samples)
    counts = np.bincount(cell, minlength=segments * bins).reshape(segments, bins)
    below = _block_draws(segments) @ np.cumsum(counts, axis=1, dtype=np.float64)
    total = below[:, -1:]
    tail = NormalDist().cdf(-student_t(BLOCKS - 1) * math.sqrt(BLOCKS / (BLOCKS - 1)))
    found = {}
    for percent, value in percentiles.items():
        replicates = upper[(100 * below < percent * total).sum(axis=1)]
        low, high = np.quantile(replicates, (tail, 1 - tail))
        # A value between two samples may fall outside what whole samples can reach.
        found[percent] = (min(float(low), value), max(float(high), value))
    return found


@cache
def _block_draws(segments: int) -> Float64Array:
    """Return how often each segment is in each replicate, (replicates, segments)."""
    length = max(1, round(segments / BLOCKS))
    blocks = math.ceil(segments / length)
    starts = np.random.default_rng(0).integers(segments, size=(REPLICATES, blocks))
    drawn = (starts[:, :, None] + np.arange(length)) % segments
    cell = np.arange(REPLICATES)[:, None, None] * segments + drawn
    counts = np.bincount(cell.ravel(), minlength=REPLICATES * segments)
    return counts.reshape(REPLICATES, segments).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as long NEW takes as BASE, with its interval over launches."""

    value: float
    low: float
    high: float
    launches: int
    """Of the side with fewer."""
    confidence: float = 0.95
    """Of the interval, as a share."""

    @property
    def percent_interval(self) -> tuple[float, float]:
        """Return the interval as a slowdown in percent, below 0 for what is faster."""
        return 100 * (self.low - 1), 100 * (self.high - 1)

    @property
    def verdict(self) -> Verdict:
        """Return which is faster, or that no difference is shown."""
        if self.low > 1:
            return Verdict.SLOWER
        return Verdict.FASTER if self.high < 1 else Verdict.NO_DIFFERENCE

    def launches_to_decide(self, limit: float) -> int | None:
        """Return about how many launches would put the interval on one side of a ratio `limit`.

        That is if launches go on scattering as they did. None where more than a thousand would not.
        """
        spread = math.log(self.high / self.value) * math.sqrt(self.launches)
        spread /= student_t(self.launches - 1, confidence=self.confidence)
        distance = abs(math.log(limit / self.value))

        def decided(launches: int) -> bool:
            quantile = student_t(launches - 1, confidence=self.confidence)
            return quantile * spread / math.sqrt(launches) < distance

        return _smallest(decided, LEAST_LAUNCHES, MOST_LAUNCHES)


def paired_ratio(ratios: Sequence[float], *, confidence: float = 0.95) -> Ratio:
    """Return the ratio NEW to BASE from one ratio a pair of interleaved launches.

    Student's t interval of the mean log ratio: each pair counts once, however many samples it had.
    Raises `ValueError` for fewer than five pairs or a ratio that is not above 0.
    """
    logs = _logs(ratios)
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    half = student_t(len(logs) - 1, confidence=confidence) * error
    return replace(_ratio(float(logs.mean()), half, len(logs)), confidence=confidence)


def unpaired_ratio(base_ms: Sequence[float], new_ms: Sequence[float]) -> Ratio:
    """Return the ratio NEW to BASE from a figure of each launch, taken at different times.

    Welch's interval of the difference of the mean logs. What changed on the machine between the two
    is in it. Raises `ValueError` for fewer than five launches a side or a figure not above 0.
    """
    base, new = _logs(base_ms), _logs(new_ms)
    parts = [float(side.var(ddof=1)) / len(side) for side in (base, new)]
    # Welch and Satterthwaite's degrees of freedom.
    below = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (base, new), strict=True))
    freedom = sum(parts) ** 2 / below if below else len(base) + len(new) - 2
    half = student_t(freedom) * math.sqrt(sum(parts))
    return _ratio(float(new.mean() - base.mean()), half, min(len(base), len(new)))


def _logs(values: Sequence[float]) -> Float64Array:
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < LEAST_LAUNCHES or not (numbers > 0).all():
        raise ValueError(f"{LEAST_LAUNCHES} launches or more, each above 0, not {values}")
    return np.log(numbers)


def _ratio(log: float, half: float, launches: int) -> Ratio:
    return Ratio(
        value=math.exp(log), low=math.exp(log - half), high=math.exp(log + half), launches=launches
    )


@cache
def student_t(freedom: float, *, confidence: float = 0.95) -> float:
    """Return what |t| of Student's t with `freedom` >= 1 stays below in a share `confidence`.

    With t = sqrt(freedom) tan(angle) the density is a power of a cosine, which 64 Gauss-Legendre
    nodes integrate to ten digits; the quantile is then bisected.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    scale *= 2 / math.sqrt(math.pi)

    def too_small(angle: float) -> bool:
        """Tell whether |t| stays below the value at `angle` less often than wanted."""
        heights = np.cos(angle * (nodes + 1) / 2) ** (freedom - 1)
        return bool(scale * angle / 2 * (weights @ heights) < confidence)

    # 64 is above the 99 % quantile of one degree of freedom, which is the largest.
    angle = _bisect(too_small, 0.0, math.atan(64 / math.sqrt(freedom)))
    return math.sqrt(freedom) * math.tan(angle)


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Right answers of NEW against BASE on the same images."""

    n: int
    lost: int
    """Images that only BASE had right."""
    gained: int
    """Images that only NEW has right."""

    @property
    def points(self) -> float:
        """Return NEW minus BASE in percentage points."""
        return 100 * (self.gained - self.lost) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Return the interval of `points`, by Tango's score method."""
        low, high = _tango_interval(self.gained, self.lost, self.n)
        return 100 * low, 100 * high

    @property
    def p_value(self) -> float:
        """Return the exact two-sided p of McNemar's test: both sides are equally often right."""
        return mcnemar_p(self.lost, self.gained)

    @property
    def verdict(self) -> Verdict:
        """Return which is right more often, or that no difference is shown."""
        low, high = self.interval
        if low > 0:
            return Verdict.BETTER
        return Verdict.WORSE if high < 0 else Verdict.NO_DIFFERENCE

    def images_to_decide(self, limit: float) -> int | None:
        """Return about how many images would put the interval on one side of `limit` points.

        That is if NEW goes on losing and gaining as large a share of them. None where ten million
        would not.
        """

        def decided(n: int) -> bool:
            scale = n / self.n
            low, high = _tango_interval(self.gained * scale, self.lost * scale, n)
            return 100 * low > limit or 100 * high < limit

        return _smallest(decided, self.n, MOST_IMAGES)


def mcnemar_p(lost: int, gained: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar 1947; binomial, no continuity).

    Whole numbers throughout, so that ten thousand images lose no digit.
    """
    n = lost + gained
    term = tail = 1
    for k in range(1, min(lost, gained) + 1):
        term = term * (n - k + 1) // k
        tail += term
    share: float = 2 * tail / 2**n
    return min(1.0, share)


def _tango_interval(gained: float, lost: float, n: int) -> tuple[float, float]:
    """Return the score interval of (gained - lost) / n.

    The difference is inside for as long as its score statistic stays below z; the chance of a loss
    is the likeliest one under that difference. Unlike Wald's it holds where nothing was lost or
    gained, and it needs no other counts (Tango 1998, Statistics in Medicine 17, 891-908).
    """
    estimate = (gained - lost) / n

    def inside(difference: float) -> bool:
        b = (2 * n - gained + lost) * difference - gained - lost
        c = -lost * difference * (1 - difference)
        loss = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * loss + difference * (1 - difference))
        return (gained - lost - n * difference) ** 2 <= Z_95**2 * variance

    return _bisect(inside, estimate, -1.0), _bisect(inside, estimate, 1.0)


def _bisect(holds: Callable[[float], bool], true: float, false: float) -> float:
    """Return where a condition that holds from `true` on ceases to hold towards `false`."""
    for _ in range(60):
        middle = (true + false) / 2
        true, false = (middle, false) if holds(middle) else (true, middle)
    return (true + false) / 2


def _smallest(holds: Callable[[int], bool], first: int, last: int) -> int | None:
    """Return the smallest number from `first` to `last` from which on a condition holds."""
    if holds(first):
        return first
    if not holds(last):
        return None
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (first, middle) if holds(middle) else (middle, last)
    return last
