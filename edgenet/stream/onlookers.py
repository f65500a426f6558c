"""Those who look on at one run: the page, the window; what they are shown is put together here.

A status is made only when somebody waits for one, and not more often than anybody can read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol

import numpy as np

from edgenet.board.state import State
from edgenet.measure.accuracy import Proportion
from edgenet.stream.latency import WINDOW_S, percentiles
from edgenet.stream.loading import Loaded
from edgenet.stream.onlooker import Times
from edgenet.stream.reader import Reader
from edgenet.stream.result import Result
from edgenet.stream.run import LiveRun
from edgenet.stream.shadow import Shadow
from edgenet.stream.status import LiveAccuracy, LiveAgreement, Stage, Status, Tally
from edgenet.stream.truth import Running

EVERY_S = 0.25
SHOWN_AS = {"wait": "wait", "decode": "decode", "preprocess": "preprocess", "inference": "infer"}
NEWEST_TIMES = 1800
"""Of drawing and encoding: about the window."""


class View(Protocol):
    """One onlooker, `Viewer` or `Window`."""

    @property
    def wanted(self) -> bool:
        """Tell whether it waits for anything."""

    @property
    def times(self) -> Times:
        """Return what drawing and encoding took."""

    @property
    def fault(self) -> str | None:
        """Return why it is gone though nobody closed it; None while all is well."""

    def offer(self, result: Result | None, status: Status) -> None:
        """Show a result; never waits."""


class Onlookers:
    """The onlookers of one run; without any it costs nothing."""

    def __init__(
        self,
        views: Sequence[View],
        *,
        model: str,
        loaded: Loaded,
        board: Callable[[], State | None],
        running: Callable[[], Running | None],
        shadow: Shadow | None = None,
    ) -> None:
        """`model` is what the network is called; the others tell how things stand."""
        self._shadow = shadow
        self._views = views
        self._artifact = f"{model}, {loaded.artifact.label}"
        self._device = loaded.session.device
        self._board, self._running = board, running
        self._status: Status | None = None
        self._made_at_s = 0.0

    def show(self, live: LiveRun, reader: Reader, result: Result | None) -> None:
        """Hand the newest result to whoever waits for it."""
        for view in self._views:
            if view.wanted:
                view.offer(result, self._newest(live, reader))

    @property
    def fault(self) -> str | None:
        """Return why one of them is gone though nobody closed it; None while all is well."""
        return next((view.fault for view in self._views if view.fault is not None), None)

    @property
    def samples_ns(self) -> dict[str, Sequence[int]]:
        """Return what drawing and encoding took, by stage; only what there is."""
        times = [view.times for view in self._views]
        found = {
            "draw": list(chain.from_iterable(each.draw_ns for each in times)),
            "encode": list(chain.from_iterable(each.encode_ns for each in times)),
        }
        return {stage: samples for stage, samples in found.items() if samples}

    def _newest(self, live: LiveRun, reader: Reader) -> Status:
        if self._status is None or live.seconds - self._made_at_s >= EVERY_S:
            self._status, self._made_at_s = self._make(live, reader), live.seconds
        return self._status

    def _make(self, live: LiveRun, reader: Reader) -> Status:
        window, counts, source = live.latencies.window(), reader.counts, reader.source
        board = self._board() or State()
        clocks = board.cpu_clock_mhz
        stages = [Stage(name=name, latency=window[stage]) for stage, name in SHOWN_AS.items()]
        stages += [
            Stage(name=name, latency=percentiles(np.asarray(samples[-NEWEST_TIMES:], np.int64)))
            for name, samples in self.samples_ns.items()
        ]
        return Status(
            artifact=self._artifact,
            device=self._device,
            source=source.name,
            delivered=source.delivered,
            window_s=WINDOW_S,
            labels_per_second=live.latencies.labelled_per_second(),
            frame_to_label=window["frame_to_label"],
            stages=tuple(stages),
            tally=Tally(
                delivered=counts.delivered,
                classified=live.latencies.labelled,
                dropped=counts.dropped,
                repeated=counts.repeated,
                stale=counts.stale,
            ),
            fault=reader.trouble,
            temperature_c=board.soc_temperature_c,
            clock_mhz=max(clocks) if clocks else None,
            throttled=board.throttled,
            throttle_reasons=board.throttle_reasons,
            accuracy=_accuracy(self._running()),
            agreement=_agreement(self._shadow),
        )


def _accuracy(running: Running | None) -> LiveAccuracy | None:
    if running is None:
        return None
    low, high = running.top1.interval
    return LiveAccuracy(
        top1=_share(running.top1),
        top5=_share(running.top5),
        low=low / 100,
        high=high / 100,
        pictures=running.top1.n,
        window_top1=_share(running.window_top1),
        window_pictures=running.window_top1.n,
    )


def _agreement(shadow: Shadow | None) -> LiveAgreement | None:
    top1 = None if shadow is None else shadow.standing.top1
    if shadow is None or top1 is None:
        return None
    low, high = top1.interval
    return LiveAgreement(
        top1=_share(top1),
        low=low / 100,
        high=high / 100,
        frames=top1.n,
        alarms=tuple(measure.name for measure in shadow.drift if measure.alarm),
    )


def _share(found: Proportion) -> float:
    return found.right / found.n
