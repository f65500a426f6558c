"""When the label of a stream changes: smoothed over frames, with "unknown" below a threshold."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from edgenet.errors import UsageError
from edgenet.stream.frame import Clock
from edgenet.stream.result import Result

UNKNOWN = "unknown"
EXAMPLE = "3/5"


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """What it takes to call a label the stream's."""

    needed: int = 3
    """Frames that must say so ..."""
    of: int = 5
    """... of so many, the newest."""
    threshold: float = 0.3
    """Softmax below which a frame says "unknown"."""

    def __post_init__(self) -> None:
        # With half of them or fewer, two labels could both be the stream's.
        if not 1 <= self.needed <= self.of or 2 * self.needed <= self.of:
            raise UsageError(
                f"--smooth {self.needed}/{self.of}: give N/M with N more than half of M, "
                f"such as {EXAMPLE}"
            )
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"--unknown {self.threshold:g}: give a softmax from 0 to 1")


def parse_smoothing(text: str, *, threshold: float) -> Smoothing:
    """Return the smoothing in a text N/M; raises `UsageError` for anything else."""
    needed, _, of = text.partition("/")
    if not (needed.isdecimal() and of.isdecimal()):
        raise UsageError(f"--smooth {text}: give N/M, such as {EXAMPLE}")
    return Smoothing(needed=int(needed), of=int(of), threshold=threshold)


@dataclass(frozen=True, kw_only=True)
class Event:
    """The stream's label has changed."""

    at_ns: int
    """Wall clock, ns since 1970: when the deciding frame was labelled."""
    label: str
    """Or `UNKNOWN`."""
    index: int | None
    """Of the class; None for `UNKNOWN`."""
    previous: str | None
    """None for the first."""
    probability: float
    """Mean softmax of the best class over the frames that say so."""
    votes: int
    of: int
    """Frames that were asked; fewer than were asked for at the very beginning."""
    sequence: int
    """Of the deciding frame."""
    age_ms: float
    """Of the deciding frame when its label was known, by `clock`."""
    clock: Clock

    @property
    def time(self) -> str:
        """Return `at_ns` as ISO 8601 in UTC, to the millisecond."""
        moment = datetime.fromtimestamp(self.at_ns / 1e9, timezone.utc)
        return moment.isoformat(timespec="milliseconds")

    def fields(self) -> dict[str, Any]:
        """Return the event as JSON values, as every way out of the program gives it."""
        return {
            "time": self.time,
            "label": self.label,
            "index": self.index,
            "previous": self.previous,
            "probability": round(self.probability, 4),
            "votes": self.votes,
            "of": self.of,
            "sequence": self.sequence,
            "age_ms": round(self.age_ms, 3),
            "clock": self.clock.value,
        }


@dataclass(frozen=True, kw_only=True)
class _Vote:
    label: str
    index: int | None
    probability: float


class LabelChanges:
    """The stream's label, and when it changes; add each result once, in order."""

    def __init__(self, smoothing: Smoothing, *, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._smoothing = smoothing
        self._wall_ns = wall_ns
        self._votes: deque[_Vote] = deque(maxlen=smoothing.of)
        self.current: str | None = None
        """None until enough frames agree for the first time."""

    def add(self, result: Result) -> Event | None:
        """Return the change that this frame decides; None where it decides none."""
        best = result.guesses[0]
        sure = best.probability >= self._smoothing.threshold
        self._votes.append(
            _Vote(
                label=best.label if sure else UNKNOWN,
                index=best.index if sure else None,
                probability=best.probability,
            )
        )
        # Classes may share a name; it is the class that is counted.
        ((index, votes),) = Counter(vote.index for vote in self._votes).most_common(1)
        those = [vote for vote in self._votes if vote.index == index]
        label = those[0].label
        if votes < self._smoothing.needed or label == self.current:
            return None
        previous, self.current = self.current, label
        return Event(
            at_ns=self._wall_ns(),
            label=label,
            index=index,
            previous=previous,
            probability=sum(vote.probability for vote in those) / votes,
            votes=votes,
            of=len(self._votes),
            sequence=result.frame.sequence,
            age_ms=result.age_ms,
            clock=result.clock,
        )
