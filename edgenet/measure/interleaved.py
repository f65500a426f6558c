"""Interleaved launches: what two processes that took turns on one machine say of each other.

In a launch both sides are alive at once and run in turns, block by block, so that what the machine
does meanwhile hits both. A launch gives one ratio, however many runs it had; intervals are over
launches. What decides is the **own time** of an inference: a block's time, less that for which its
threads were ready to run and other processes had the processors, by the number of its runs. Beside
a neighbour p50 jumps by whole time slices of the scheduler, own time stays what it is.

It does not know how a launch is made: `edgenet.measure.versus` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from edgenet.measure.statistics import LEAST_LAUNCHES, Ratio, paired_ratio

CONFIDENCE = 0.99
"""Of the interval that decides. At 95 %, one in twenty of all equal pairs would be called
different; docs/decisions/0009-interleaved-launches.md has the figures."""

Sides = tuple[float, float]
"""A time of BASE and of NEW in ms."""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """One figure of one launch."""

    base_ms: float
    new_ms: float
    ratio: float


def middle(rounds_ms: Sequence[Sides]) -> Turns:
    """Return the medians of rounds: of each side, and of the ratio of the two blocks of a round.

    Those blocks are neighbours in time. The ratio of the two medians would lose that.
    """
    return Turns(
        base_ms=median(base for base, _ in rounds_ms),
        new_ms=median(new for _, new in rounds_ms),
        ratio=median(new / base for base, new in rounds_ms),
    )


@dataclass(frozen=True, kw_only=True)
class InterleavedLaunch:
    """One launch: a fresh process a side."""

    rounds_own_ms: tuple[Sides, ...] | None
    """Own time in each block, of the rounds in which it is known; None where these are not the
    most, or the kernel does not count waiting."""
    rounds_p50_ms: tuple[Sides, ...]
    """Median run of each block."""
    p95_ms: Sides | None
    """Of all runs; None with fewer than ten of them beyond."""
    waited: float | None
    """Share of the time for which they were ready to run and had no processor."""

    @property
    def figures(self) -> dict[str, Turns]:
        """Return the figures that are known, by name; the first decides."""
        figures = {}
        if self.rounds_own_ms is not None:
            figures["own"] = middle(self.rounds_own_ms)
        figures["p50"] = middle(self.rounds_p50_ms)
        if self.p95_ms is not None:
            figures["p95"] = middle([self.p95_ms])
        return figures


@dataclass(frozen=True, kw_only=True)
class Interleaving:
    """How the launches of one comparison were made."""

    command: tuple[str, ...]
    """What makes them again."""
    launches: int
    """As many were asked for, of each pair."""
    rounds: int
    """In each launch."""
    block_seconds: float
    pictures: str
    """What the artefacts were shown, in words."""
    complete: bool
    """False when it was interrupted: the launches that are here are whole."""
    not_run: tuple[tuple[str, str], ...]
    """Artefacts, with their threads, of which there is no launch, each with the reason."""


def ratio_of(ratios: Sequence[float]) -> Ratio | None:
    """Return the ratio over launches by which `--against` decides; None with too few of them."""
    if len(ratios) < LEAST_LAUNCHES:
        return None
    return paired_ratio(ratios, confidence=CONFIDENCE)


def waited(launches: Sequence[InterleavedLaunch]) -> float | None:
    """Return the share of waiting of the middle launch."""
    known = [launch.waited for launch in launches if launch.waited is not None]
    return median(known) if known else None
