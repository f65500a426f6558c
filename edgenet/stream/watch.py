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
from edgenet.preprocess import Preprocessing
from edgenet.stream.delivery import Delivery, Sink
from edgenet.stream.events import LabelChanges, Smoothing
from edgenet.stream.loading import Loaded, load_first
from edgenet.stream.pipeline import Pipeline
from edgenet.stream.reader import Fault, Opened, Reader
from edgenet.stream.recording import Recorder, Replay
from edgenet.stream.result import Result
from edgenet.stream.run import CameraRun, LiveRun, Replayed, Way, Written
from edgenet.stream.sources import Source

SENSORS_S = 5.0
"""Between readings of the board: they happen in this process, so not more often than it needs."""
MOST_READINGS = 720
"""Kept of a run; one that takes longer than an hour has them further apart."""


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


class Told(Protocol):
    """Who is told how it goes; must return at once."""

    def begun(self, loaded: Loaded, source: Opened) -> None:
        """The first frame is there."""

    def went_on(self, live: LiveRun, result: Result | None) -> None:
        """A frame was labelled, or none came for a while."""

    def failed(self, fault: Fault) -> None:
        """Something happened to the source."""


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
    before_load = resident_bytes()
    deliveries: list[Delivery] = []
    with ExitStack() as stack:
        sensors = Sensors(Machine(), target.sensors)
        sampler = stack.enter_context(
            Sampler(sensors.read, interval_s=SENSORS_S, most=MOST_READINGS)
        )
        loaded = load_first(bundle, artifacts, threads=plan.threads)
        stack.enter_context(closing(loaded.session))
        for open_sink in plan.sinks:
            deliveries.append(stack.enter_context(Delivery(open_sink())))
        recorder = None
        if plan.record is not None:
            recorder = stack.enter_context(
                Recorder(
                    plan.record,
                    bundle,
                    loaded.artifact,
                    preprocessing=plan.preprocessing.sha256(),
                )
            )
        reader = stack.enter_context(Reader(plan.source, realtime=plan.realtime))
        if recorder is not None:
            recorder.begin(reader.source.name, reader.source.delivered)
        told.begun(loaded, reader.source)
        live = LiveRun(
            reader,
            Pipeline(loaded.session, plan.preprocessing, bundle.labels),
            stopped=lambda: stopped() or any(way.reader_gone for way in deliveries),
            seconds=plan.seconds,
        )
        changes = LabelChanges(plan.smoothing)
        events = noted = 0
        for result in live:
            if result is not None:
                event = changes.add(result) if deliveries else None
                if event is not None:
                    events += 1
                    for way in deliveries:
                        way.offer(event)
                if recorder is not None:
                    recorder.offer(result)
                if plan.replay is not None:
                    plan.replay.check(result)
            for fault in reader.faults[noted:]:
                told.failed(fault)
            noted = len(reader.faults)
            told.went_on(live, result)
        found = live.found(loaded, plan.preprocessing)
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
