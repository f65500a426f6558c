"""A live run: frames are taken, labelled and counted until somebody wishes to end it.

What it finds is a `CameraRun`, plain data for a report. Whoever looks on - the page, events, a
recording - is told of each result and can neither delay nor fail it. A clock is an argument.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edgenet.board.state import State, was_throttled
from edgenet.bundle import Artifact
from edgenet.errors import BadImage, EdgenetError
from edgenet.measure.process_memory import peak_resident_bytes
from edgenet.measure.timing import PUBLISHED, WarmUp
from edgenet.preprocess import Preprocessing, UInt8Array
from edgenet.stream.frame import Clock, Frame
from edgenet.stream.latency import Latencies
from edgenet.stream.loading import Loaded
from edgenet.stream.pipeline import Pipeline
from edgenet.stream.reader import Counts, Fault, Opened, Reader
from edgenet.stream.result import Result
from edgenet.stream.shadow import ShadowReport
from edgenet.stream.truth import TruthReport

STOPPED = "it was asked to end"
SOURCE_ENDED = "the source ended"
DURATION_OVER = "the duration is over"
PLAYLIST_OVER = "the playlist is over"
NOBODY_READS = "nobody reads the events any more"
INTERRUPTED = "interrupted"
WHOLE = (SOURCE_ENDED, DURATION_OVER, PLAYLIST_OVER)
"""Ends that leave nothing out, whatever duration was asked for."""
MOST_LABELS = 10
LOOK_S = 0.25
"""How often it is looked whether the run shall end, while no frame comes."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """What became of the events on one way out of the program."""

    name: str
    delivered: int
    lost: int
    fault: str | None


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of a recording."""

    file: str
    frames: int
    lost: int
    fault: str | None


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """How far the labels are those that a recording holds."""

    file: str
    recorded_by: Mapping[str, str | None]
    """The artefact whose labels it holds."""
    frames: int
    same_label: int
    same_logits: int
    """Bit for bit."""
    cut_off: bool
    """Whether the recording ends without its last part."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraRun:
    """What a live run has found."""

    source: Opened
    artifact: Artifact
    device: str
    runtime_version: str
    threads: int
    affinity: tuple[int, ...]
    load_ns: int
    first_inference_ns: int
    warm_up: WarmUp
    not_run: tuple[tuple[Artifact, str], ...]
    preprocessing: Preprocessing
    """With the region that was watched."""
    seconds: float
    """From the first frame that was asked for to the end."""
    ending: str
    """Why it ended, in words."""
    failure: EdgenetError | None
    """What the source failed with, after frames that are counted here."""
    complete: bool
    """False where it ended before the duration that was asked for."""
    labelled: int
    unfit: int
    """Frames that the crop does not fit into, after a change of size; they have no label."""
    samples_ns: Mapping[str, Sequence[int]]
    """Of the newest frames, by stage, in their order."""
    kept: int
    """How many frames that is of."""
    clocks: Mapping[Clock, int]
    """How many of these each clock has stamped, the commonest first: `frame_to_label` is its."""
    labels: tuple[tuple[str, int], ...]
    """The commonest best labels, and how many frames had them."""
    counts: Counts
    faults: tuple[tuple[float, Fault], ...]
    """Each with the second of the run in which it was noticed."""
    peak_bytes: int | None
    before_load_bytes: int | None = None
    states: tuple[State, ...] = ()
    """Of the board: before, during and after."""
    sensor_problems: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ()
    events: int | None = None
    """How often the label changed; None where nobody asked."""
    written: Written | None = None
    replayed: Replayed | None = None
    looked_on: bool = False
    """Whether a page or window was open to onlookers."""
    truth: TruthReport | None = None
    """None where nobody said what is right."""
    shadow: ShadowReport | None = None
    """None where nobody asked for it."""
    beside_ns: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Samples by stage of the frames beside which the shadow worked; in no other."""

    @property
    def quick(self) -> bool:
        """Tell whether it was too short for a figure that is published."""
        return self.labelled < PUBLISHED.runs or self.seconds < PUBLISHED.seconds

    @property
    def throttled(self) -> bool | None:
        """Tell whether the board was slowed down meanwhile; None where it cannot say."""
        return was_throttled(self.states)

    @property
    def clock(self) -> Clock | None:
        """Return whose clock the ages begin at; None without a frame."""
        return next(iter(self.clocks), None)


class LiveRun:
    """One run in the making: iterate over it, and take `found` at its end."""

    def __init__(
        self,
        reader: Reader,
        pipeline: Pipeline,
        *,
        stopped: Callable[[], str | None] = lambda: None,
        seconds: float | None = None,
        picture_of: Callable[[Frame], UInt8Array | None] = lambda _: None,
        beside: Callable[[int], bool] = lambda _: False,
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take an open reader; end when `stopped` says why, after `seconds`, or with the source.

        `picture_of` gives the part of a frame that the network sees; None is the whole. `beside`
        tells whether something of ours has worked on the side since a time.
        """
        self._reader, self._pipeline = reader, pipeline
        self._stopped, self._picture_of, self._now = stopped, picture_of, now
        self._beside = beside
        self._began_ns = now()
        self._ends_ns = None if seconds is None else self._began_ns + int(seconds * 1e9)
        self._labels: Counter[str] = Counter()
        self._unfit = 0
        self._ending: str | None = None
        self.failure: EdgenetError | None = None
        """What the source failed with after the first label."""
        self.latencies = Latencies()

    def __iter__(self) -> Iterator[Result | None]:
        """Yield each result, and None wherever no frame came for a quarter of a second.

        Raises `BadImage` where the crop does not fit into the first frame, and what a source fails
        with before it; what it fails with later is kept, for what was measured is right.
        """
        while (ending := self._ended()) is None:
            try:
                frame = self._reader.take(LOOK_S)
            except EdgenetError as error:
                if not self.latencies.labelled:
                    raise
                self.failure = error
                break
            taken_ns = self._now()
            if frame is None:
                yield None
                continue
            try:
                picture = self._picture_of(frame)
                result = self._pipeline.label(frame, taken_ns=taken_ns, picture=picture)
            except BadImage:
                if not self.latencies.labelled:
                    raise
                self._unfit += 1
                continue
            since_ns = frame.arrived_ns - (frame.decode_ns or 0)
            self.latencies.add(result, beside=self._beside(since_ns))
            self._labels[result.label] += 1
            yield result
        self._ending = ending

    @property
    def seconds(self) -> float:
        """Return how long it has been going on."""
        return (self._now() - self._began_ns) / 1e9

    def found(self, loaded: Loaded, preprocessing: Preprocessing) -> CameraRun:
        """Return what this run has found, as far as it is known here."""
        ending = str(self.failure) if self.failure else self._ending or INTERRUPTED
        return CameraRun(
            source=self._reader.source,
            artifact=loaded.artifact,
            device=loaded.session.device,
            runtime_version=loaded.session.version,
            threads=loaded.threads,
            affinity=tuple(sorted(os.sched_getaffinity(0))),
            load_ns=loaded.load_ns,
            first_inference_ns=loaded.first_inference_ns,
            warm_up=loaded.warm_up,
            not_run=loaded.not_run,
            preprocessing=preprocessing,
            seconds=self.seconds,
            ending=ending,
            failure=self.failure,
            complete=self.failure is None and (ending in WHOLE or self._ends_ns is None),
            labelled=self.latencies.labelled,
            unfit=self._unfit,
            samples_ns={
                stage: samples.tolist() for stage, samples in self.latencies.samples_ns().items()
            },
            beside_ns={
                stage: samples.tolist()
                for stage, samples in self.latencies.samples_beside_ns().items()
            },
            kept=self.latencies.kept,
            clocks=self.latencies.clocks,
            labels=tuple(self._labels.most_common(MOST_LABELS)),
            counts=self._reader.counts,
            faults=tuple(
                ((fault.at_ns - self._began_ns) / 1e9, fault) for fault in self._reader.faults
            ),
            peak_bytes=peak_resident_bytes(),
        )

    def _ended(self) -> str | None:
        if (reason := self._stopped()) is not None:
            return reason
        if self._reader.ended:
            return SOURCE_ENDED
        if self._ends_ns is not None and self._now() >= self._ends_ns:
            return DURATION_OVER
        return None
