"""A live run from its parts: everything is opened, run, and closed again, whatever happens.

`watch` is what the command does; `stream` is the same for a Python program that only wants results.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from edgenet.board.machine import Machine
from edgenet.board.sampling import Sampler
from edgenet.board.sensors import Sensors
from edgenet.board.target import Target
from edgenet.bundle import Artifact, Bundle
from edgenet.measure.process_memory import resident_bytes
from edgenet.preprocess import Preprocessing, UInt8Array
from edgenet.stream.delivery import Delivery, Sink
from edgenet.stream.drift import Measure
from edgenet.stream.events import LabelChanges, Smoothing
from edgenet.stream.frame import Frame
from edgenet.stream.loading import Loaded, load_first
from edgenet.stream.onlookers import Onlookers, View
from edgenet.stream.pipeline import Pipeline
from edgenet.stream.reader import Fault, Opened, Reader
from edgenet.stream.recording import Recorder, Replay
from edgenet.stream.result import Result
from edgenet.stream.run import (
    NOBODY_READS,
    PLAYLIST_OVER,
    STOPPED,
    CameraRun,
    LiveRun,
    Replayed,
    Way,
    Written,
)
from edgenet.stream.shadow import Sampling, Shadow, require_reference
from edgenet.stream.sources import Source
from edgenet.stream.strip_reader import Reading, StripReader
from edgenet.stream.supervision import Supervision
from edgenet.stream.truth import Running, Truth, TruthReport

SENSORS_S = 5.0
"""Between readings of the board: they happen in this process, so not more often than it needs."""
MOST_READINGS = 720
"""Kept of a run; one that takes longer than an hour has them further apart."""


class LiveTruth:
    """What is right, read off the frames themselves; by default nothing is."""

    def __init__(self, truth: Truth | None = None) -> None:
        self._truth = truth
        self._strip = StripReader()
        self._reading: Reading | None = None

    @property
    def over(self) -> bool:
        """Tell whether the playlist has ended."""
        return self._truth is not None and self._truth.over

    def picture_of(self, frame: Frame) -> UInt8Array | None:
        """Return what the network may see of a frame: all but the marker; None for all of it."""
        if self._truth is None:
            return None
        self._reading = self._strip.read(frame.bgr)
        return None if self._reading is None else self._reading.picture

    def add(self, result: Result) -> None:
        """Count the result of the frame that `picture_of` saw last."""
        if self._truth is not None:
            self._truth.add(self._reading, result)

    def accepted(self) -> frozenset[int] | None:
        """Return what is right on the frame that `picture_of` saw last; None if it is not known."""
        return None if self._truth is None else self._truth.accepted(self._reading)

    def running(self) -> Running | None:
        """Return how it stands; None where nothing is known to be right."""
        return None if self._truth is None else self._truth.running()

    def report(self, loaded: Loaded) -> TruthReport | None:
        """Return the figures, after the same pictures were fed directly."""
        if self._truth is None:
            return None
        direct = self._truth.feed_directly(loaded.artifact, loaded.session, threads=loaded.threads)
        return self._truth.report(direct, reading_ns=self._strip.times_ns)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is watched, and where its labels go."""

    source: str | Callable[[], Source]
    preprocessing: Preprocessing
    """The bundle's own, with the region that is watched."""
    realtime: bool = False
    threads: int = 1
    seconds: float | None = None
    """None until somebody ends it."""
    sinks: Sequence[Callable[[], Sink]] = ()
    """What opens each way for events."""
    smoothing: Smoothing = field(default_factory=Smoothing)
    record: Path | None = None
    replay: Replay | None = None
    """The source, where it is a recording."""
    views: Sequence[View] = ()
    """Open already."""
    truth: LiveTruth = field(default_factory=LiveTruth)
    shadow: Sampling | None = None
    """How often a frame also goes to the float reference; None for never."""
    supervision: Supervision = field(default_factory=Supervision)
    """The service manager, where there is one."""


class Told(Protocol):
    """Who is told how it goes; must return at once."""

    def begun(self, loaded: Loaded, source: Opened) -> None:
        """The first frame is there."""

    def went_on(self, live: LiveRun, result: Result | None, running: Running | None) -> None:
        """A frame was labelled, or none came for a while; so it stands with what is right."""

    def failed(self, fault: Fault) -> None:
        """Something happened to the source."""

    def alarmed(self, measure: Measure) -> None:
        """The stream no longer looks like what the network was calibrated on."""


def watch(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    plan: Plan,
    *,
    target: Target,
    stopped: Callable[[], bool],
    told: Told,
) -> CameraRun:
    """Return what a run by `plan` has found, with the first of `artifacts` that runs here.

    Raises what the source, the artefacts or a way out fail with before the first frame; afterwards
    they are faults of the run.
    """
    bundle.require_classifier("camera")
    if plan.shadow is not None:
        require_reference(bundle)
    before_load = resident_bytes()
    deliveries: list[Delivery] = []
    with ExitStack() as stack:
        sampler = stack.enter_context(
            Sampler(
                Sensors(Machine(), target.sensors).read, interval_s=SENSORS_S, most=MOST_READINGS
            )
        )
        loaded = load_first(bundle, artifacts, threads=plan.threads)
        stack.enter_context(closing(loaded.session))
        shadow = None
        if plan.shadow is not None:
            shadow = stack.enter_context(
                Shadow(bundle, loaded.artifact, plan.shadow, stopped=stopped)
            )
        for open_sink in plan.sinks:
            deliveries.append(stack.enter_context(Delivery(open_sink())))
        recorder = _recorder(bundle, loaded, plan)
        if recorder is not None:
            stack.enter_context(recorder)
        truth = plan.truth
        onlookers = Onlookers(
            plan.views,
            model=bundle.name,
            loaded=loaded,
            board=lambda: sampler.newest,
            running=truth.running,
            shadow=shadow,
        )
        changes, events = LabelChanges(plan.smoothing), 0
        with Reader(plan.source, realtime=plan.realtime) as reader:
            if recorder is not None:
                recorder.begin(reader.source.name, reader.source.delivered)
            told.begun(loaded, reader.source)

            def reason_to_stop() -> str | None:
                if stopped():
                    return STOPPED
                if truth.over:
                    return PLAYLIST_OVER
                return NOBODY_READS if any(way.reader_gone for way in deliveries) else None

            live = LiveRun(
                reader,
                Pipeline(loaded.session, plan.preprocessing, bundle.labels),
                stopped=reason_to_stop,
                seconds=plan.seconds,
                picture_of=truth.picture_of,
                beside=lambda since_ns: shadow is not None and shadow.worked_since(since_ns),
            )
            noted = 0
            for result in live:
                if result is not None:
                    truth.add(result)
                    event = changes.add(result) if deliveries else None
                    if event is not None:
                        events += 1
                        for way in deliveries:
                            way.offer(event)
                    if recorder is not None:
                        recorder.offer(result)
                    if plan.replay is not None:
                        plan.replay.check(result)
                    if shadow is not None:
                        shadow.offer(result, truth.accepted())
                        for measure in shadow.new_alarms():
                            told.alarmed(measure)
                faults = reader.faults_since(noted)
                noted += len(faults)
                for fault in faults:
                    told.failed(fault)
                onlookers.show(live, reader, result)
                plan.supervision.see(
                    result,
                    reader,
                    page_fault=lambda: onlookers.fault,
                    rate=live.latencies.labelled_per_second,
                )
                told.went_on(live, result, truth.running())
            found = live.found(loaded, plan.preprocessing)
            plan.supervision.ending(found.ending)
        seen = None if shadow is None else shadow.report()
        # The camera is closed: nothing competes with what is fed directly.
        report = truth.report(loaded)
        found = replace(
            found,
            samples_ns={**found.samples_ns, **onlookers.samples_ns},
            looked_on=bool(plan.views),
            truth=report,
            shadow=seen,
        )
    return replace(
        found,
        before_load_bytes=before_load,
        states=tuple(sample.state for sample in sampler.samples),
        sensor_problems=sampler.problems,
        events=events if deliveries else None,
        ways=tuple(
            Way(name=way.name, delivered=way.delivered, lost=way.lost, fault=way.fault)
            for way in deliveries
        ),
        written=None if recorder is None else _written(recorder),
        replayed=None if plan.replay is None else _replayed(plan.replay),
    )


def _recorder(bundle: Bundle, loaded: Loaded, plan: Plan) -> Recorder | None:
    if plan.record is None:
        return None
    preprocessing = plan.preprocessing.sha256()
    return Recorder(plan.record, bundle, loaded.artifact, preprocessing=preprocessing)


def stream(
    bundle: Bundle, artifacts: Sequence[Artifact], plan: Plan
) -> Generator[Result, None, None]:
    """Yield the result of each frame until the source ends; a live one goes on for ever.

    Everything is closed when the generator is: at the end of a `for`, by `close()`, or with it.
    Raises as `watch` does, and what the source of files fails with in the middle.
    """
    bundle.require_classifier("stream")
    loaded = load_first(bundle, artifacts, threads=plan.threads)
    with (
        closing(loaded.session),
        Reader(plan.source, realtime=plan.realtime) as reader,
    ):
        pipeline = Pipeline(loaded.session, plan.preprocessing, bundle.labels)
        live = LiveRun(reader, pipeline, seconds=plan.seconds)
        for result in live:
            if result is not None:
                yield result
        if live.failure is not None:
            raise live.failure


def _written(recorder: Recorder) -> Written:
    return Written(
        file=str(recorder.path),
        frames=recorder.written,
        lost=recorder.lost,
        fault=recorder.fault,
    )


def _replayed(replay: Replay) -> Replayed:
    return Replayed(
        file=str(replay.recording.path),
        recorded_by=replay.recording.artifact,
        frames=replay.compared,
        same_label=replay.same_label,
        same_logits=replay.same_logits,
        cut_off=replay.recording.cut_off,
    )
