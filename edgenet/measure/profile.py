"""A profile: every artefact of a bundle timed by the same rules, each in a process of its own.

In that process one artefact is loaded, answers once, warms up, runs back to back and then at a
camera's rate. The parent meanwhile only reads sensors. Ctrl-C keeps what is there and marks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgenet.board.sensors import State
from edgenet.bundle import Artifact
from edgenet.measure.launch import Opened
from edgenet.measure.timing import PUBLISHED, Paced, Rules, WarmUp

NULL = "null"
SYNTHETIC = 4
"""How many pictures of noise stand in for those of a bundle without golden ones."""


class Progress(Protocol):
    """Where the work says how far it is."""

    def step(self, description: str, *, total: int = 1) -> Callable[[], None]:
        """Begin a step of `total` parts; the function returned marks one as done."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured of each artefact."""

    threads: tuple[int, ...] = (1,)
    """Each artefact is measured with each of these."""
    frames_per_second: float = 30.0
    """The camera's rate."""
    rules: Rules = PUBLISHED
    quick: bool = False
    """Whether the rules are too short for a figure that is published."""
    soak_minutes: int = 0


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident memory of the process that holds one artefact; None where the system tells none."""

    before_load_bytes: int | None
    """Python, numpy and the pictures."""
    peak_bytes: int | None
    """The most until the end of the warm-up; nothing is allocated after it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One artefact with one number of threads, in one launch."""

    artifact: Artifact
    threads: int
    opened: Opened
    warm_up: WarmUp
    memory: Memory
    back_to_back_ns: Sequence[int]
    paced: Paced | None
    """None when it was interrupted before."""
    soak: tuple[Paced, ...]
    """Minute by minute."""
    before: State
    during: Sequence[State]
    after: State
    complete: bool
    """False when it was interrupted: what is there is right, but less than was asked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """What was measured of a bundle on this machine."""

    plan: Plan
    pictures: str
    """What the artefacts were shown while they were timed."""
    measured: tuple[Measured, ...]
    not_run: tuple[tuple[Artifact, str], ...]
    """Artefacts that cannot run here, each with the reason."""
    complete: bool
