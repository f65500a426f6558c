"""Interleaved launches: what two processes that took turns on one machine say of each other.

In a launch both sides are alive at once and run in turns, block by block, so that what the machine
does meanwhile hits both. A launch gives one ratio, however many runs it had; intervals are over
launches. It does not know how a launch is made: `edgenet.measure.versus` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from edgenet.measure.statistics import LEAST_LAUNCHES, Ratio, paired_ratio

CONFIDENCE = 0.99
"""Of the interval that decides. One in twenty of all equal pairs would be called different at 95 %;
docs/decisions/0009-interleaved-launches.md has the figures."""
BUSY = 0.1
"""Share of waiting from which on a small slowdown cannot be ruled out: waiting is in both sides'
latency and dilutes what they differ by."""


@dataclass(frozen=True, kw_only=True)
class InterleavedLaunch:
    """One launch: a fresh process a side."""

    rounds_ms: tuple[tuple[float, float], ...]
    """Median of the block of BASE and of that of NEW, round by round."""
    p95_ms: tuple[float, float] | None
    """Of all runs of BASE and of NEW; None with fewer than ten of them beyond."""
    waited: float | None
    """Share of the time for which they were ready to run and other processes had the processors;
    None where the system does not tell."""

    @property
    def base_ms(self) -> float:
        """Return BASE's median block."""
        return median(base for base, _ in self.rounds_ms)

    @property
    def new_ms(self) -> float:
        """Return NEW's median block."""
        return median(new for _, new in self.rounds_ms)

    @property
    def ratio(self) -> float:
        """Return NEW to BASE: the median of the rounds.

        Blocks of one round are neighbours in time. Medians over all rounds would lose that: where a
        neighbour comes and goes, they were seen to scatter ten times as far.
        """
        return median(new / base for base, new in self.rounds_ms)


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
