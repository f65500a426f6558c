"""What was measured, as a comparison needs it; mostly earlier and stored.

`edgenet.report.reading` makes these from a file. What is not known is None here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgenet.measure.accuracy import Proportion
from edgenet.measure.statistics import Summary


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What an artefact said of one image."""

    image_sha256: str
    """Of its decoded RGB pixels."""
    accepted: frozenset[int]
    """Classes that are right."""
    top: int
    """The class that it found best."""

    @property
    def image(self) -> tuple[str, frozenset[int]]:
        """Return what makes two predictions be about the same image: its pixels and its labels."""
        return self.image_sha256, self.accepted

    @property
    def right(self) -> bool:
        """Return whether the best class is one of those accepted."""
        return self.top in self.accepted


@dataclass(frozen=True, kw_only=True)
class Camera:
    """What a live run looked at, as far as it changes a latency."""

    clock: str | None
    """Whose clock the ages of frames begin at; None without a frame."""
    live: bool
    """Whether frames came at their own rate."""
    frames_per_second: float | None
    """By the source's own word."""
    size: tuple[int, int]
    """Of its pictures, (width, height)."""
    format: str | None
    recorded: bool
    """Whether the frames were written down meanwhile."""
    shadowed: bool
    """Whether some of the frames went to the float reference on the side."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One artefact, measured with one number of threads."""

    runtime: str
    precision: str
    variant: str | None
    threads: int
    device: str | None
    runtime_version: str | None
    size_bytes: int | None
    quick: bool | None
    complete: bool | None
    throttled: bool | None
    affinity: tuple[int, ...] | None
    paced_fps: float | None
    governor: str | None
    power_mode: str | None
    latency: Mapping[str, Summary]
    """By its name, `inference_ms`; only those that were measured."""
    launches: tuple[Mapping[str, Summary], ...]
    """The same of each launch, where there were several."""
    peak_rss_bytes: int | None
    added_bytes: int | None
    """Of `peak_rss_bytes`, what came on top of what was resident before the artefact was loaded."""
    top1: Proportion | None
    """Accuracy; None for random weights."""
    agreement: Proportion | None
    """With the float reference of its own bundle."""
    predictions: tuple[Prediction, ...]
    camera: Camera | None = None
    """None for what was timed without one."""

    @property
    def artifact(self) -> tuple[str, str, str | None]:
        """Return what makes an artefact of two bundles the same one."""
        return self.runtime, self.precision, self.variant

    @property
    def artifact_label(self) -> str:
        """Return the artefact's name in tables and messages, as `Artifact.label`."""
        return " ".join(filter(None, self.artifact))

    @property
    def label(self) -> str:
        """Return the artefact with its threads."""
        return f"{self.artifact_label}, {self.threads} thread{'s' if self.threads > 1 else ''}"


def unmeasured(artifact: tuple[str, str, str | None], *, threads: int) -> Record:
    """Return a record of `Record.artifact` of which nothing else is known."""
    runtime, precision, variant = artifact
    return Record(
        runtime=runtime,
        precision=precision,
        variant=variant,
        threads=threads,
        device=None,
        runtime_version=None,
        size_bytes=None,
        quick=None,
        complete=None,
        throttled=None,
        affinity=None,
        paced_fps=None,
        governor=None,
        power_mode=None,
        latency={},
        launches=(),
        peak_rss_bytes=None,
        added_bytes=None,
        top1=None,
        agreement=None,
        predictions=(),
    )


@dataclass(frozen=True, kw_only=True)
class Document:
    """What one run of `evaluate`, `profile` or `camera` wrote."""

    source: str
    """The file, as it was given."""
    kind: str
    created: str
    bundle_sha256: str
    machine: str | None
    board: str | None
    preprocessing_sha256: str | None
    records: tuple[Record, ...]
    emulated: bool = False
    """Whether the board says so of itself: then its times are no board's."""
    not_run: tuple[str, ...] = ()
    """Artefacts that did not run, each with the reason."""
