"""A label, on the frame that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from edgenet.measure.classify import Guess, best_guesses
from edgenet.runtimes import Float32Array
from edgenet.stream.frame import Clock, Frame, UInt8Array

GUESSES = 5


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """What one frame took, stage by stage, in ns."""

    wait_ns: int
    """In the slot, from its arrival until it was taken."""
    preprocess_ns: int
    infer_ns: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the network says of one frame."""

    frame: Frame
    image: UInt8Array
    """(1, R, R, 3) uint8 RGB: what the network saw of it."""
    logits: Float32Array
    """(classes,)."""
    best: int
    """Index of the largest: found before `labelled_ns`, which the rest need not wait for."""
    labels: Sequence[str]
    """Name of each class."""
    stages: StageTimes
    labelled_ns: int
    """Of `time.monotonic_ns`, when the label was known."""

    @property
    def label(self) -> str:
        """Return the best label."""
        return self.labels[self.best]

    @cached_property
    def guesses(self) -> tuple[Guess, ...]:
        """Return the five best with their probabilities, best first; computed when first asked."""
        return best_guesses(self.logits, self.labels, count=min(GUESSES, len(self.labels)))

    @property
    def age_ms(self) -> float:
        """Return how old the frame was when its label was known, by the frame's own clock."""
        return (self.labelled_ns - self.frame.captured_ns) / 1e6

    @property
    def clock(self) -> Clock:
        """Return whose clock `age_ms` begins at."""
        return self.frame.clock
