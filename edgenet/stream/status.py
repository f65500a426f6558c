"""How a live run is doing, as those who look on see it: the page, the metrics, the window.

What is not known is None. It knows neither how the figures come about nor who looks at them.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgenet.stream.frame import Delivered


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """Of one latency, over the sliding window."""

    n: int
    """Frames in the window that have this latency."""
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    """Each None with too few samples beyond it."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of the way from frame to label, in the order in which it is gone."""

    name: str
    """wait, decode, preprocess, infer, draw or encode."""
    latency: Percentiles


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of the frames since the run began."""

    delivered: int
    classified: int
    dropped: int
    """Overtaken by a newer one before anybody took them."""
    repeated: int
    """The same picture as the frame before."""
    stale: int
    """Too old by their own clock when they were taken."""


@dataclass(frozen=True, kw_only=True)
class LiveAccuracy:
    """Right answers on the labelled playlist that the camera is looking at."""

    top1: float
    """A share of the pictures, like the rest."""
    top5: float | None
    low: float
    high: float
    """The 95 % interval of `top1`."""
    pictures: int
    """Frames of one picture are not independent, so pictures are what is counted."""
    window_top1: float | None = None
    """Over the last `window_pictures`."""
    window_pictures: int | None = None


@dataclass(frozen=True, kw_only=True)
class LiveAgreement:
    """How often the artefact says what the float reference says; not an accuracy."""

    top1: float
    """A share of the frames, like the rest."""
    low: float
    high: float
    """The 95 % interval of `top1`."""
    frames: int
    """That both have answered."""
    alarms: tuple[str, ...] = ()
    """In which ways the stream no longer looks like the calibration set."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is shown beside the newest result."""

    artifact: str
    """Which model answers, such as "mobilenet_v1_1.0_224 int8, litert"."""
    device: str
    """Where it runs."""
    source: str
    """The URI as it may be shown: without a password."""
    delivered: Delivered | None = None
    """What the source delivers; None before its first frame."""
    window_s: float
    """The length of the sliding window."""
    labels_per_second: float | None = None
    """Over the window."""
    frame_to_label: Percentiles | None = None
    """Age of the frames when their labels were known, by the clock of the result."""
    stages: tuple[Stage, ...] = ()
    tally: Tally | None = None
    fault: str | None = None
    """What is wrong with the source now, in words; None while all is well."""
    temperature_c: float | None = None
    """Of the processor."""
    clock_mhz: float | None = None
    """Of the fastest core."""
    throttled: bool | None = None
    """Whether the board is slowed down now."""
    throttle_reasons: tuple[str, ...] = ()
    accuracy: LiveAccuracy | None = None
    """None without a labelled playlist."""
    agreement: LiveAgreement | None = None
    """None where no float reference runs on the side."""
