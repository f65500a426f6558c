"""A live run for those who look on: frames of one colour, labelled with its name, 30 a second."""

import threading
import time
from dataclasses import replace

import numpy as np

from edgenet.stream.frame import Clock, Delivered, Frame
from edgenet.stream.result import Result, StageTimes
from edgenet.stream.status import Percentiles, Stage, Status, Tally

COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}
"""Blue first, as in a frame."""


def nearest_colour(bgr):
    return min(COLOURS, key=lambda name: sum(abs(np.subtract(COLOURS[name], bgr, dtype=int))))


def result(sequence, *, size=(640, 480), label=None, probability=0.9):
    names = list(COLOURS)
    name = names[sequence % len(names)]
    now = time.monotonic_ns()
    bgr = np.empty((size[1], size[0], 3), np.uint8)
    bgr[:] = COLOURS[name]
    others = [other for other in names if other != name]
    shares = [probability, *((1 - probability) / len(others) for _ in others)]
    return Result(
        frame=Frame(
            bgr=bgr,
            sequence=sequence,
            captured_ns=now - 5_000_000,
            clock=Clock.DRIVER,
            arrived_ns=now - 3_000_000,
            decode_ns=2_000_000,
        ),
        image=np.zeros((1, 8, 8, 3), np.uint8),
        logits=np.log(shares, dtype=np.float32),
        best=0,
        labels=[label or name, *others],
        stages=StageTimes(wait_ns=500_000, preprocess_ns=800_000, infer_ns=1_500_000),
        labelled_ns=now,
    )


def percentiles(p50_ms):
    return Percentiles(n=300, p50_ms=p50_ms, p95_ms=2 * p50_ms, p99_ms=None)


STATUS = Status(
    artifact="colours int8, null",
    device="CPU",
    source="rtsp://camera.example/stream",
    delivered=Delivered(width=640, height=480, frames_per_second=30.0, format="MJPG"),
    window_s=10.0,
    labels_per_second=29.9,
    frame_to_label=percentiles(5.0),
    stages=(Stage(name="preprocess", latency=percentiles(0.8)),),
    tally=Tally(delivered=1234, classified=1200, dropped=34, repeated=0, stale=0),
)


class Run:
    """Offers a result 30 times a second, in a thread; `status` and the rest may be changed."""

    def __init__(self, viewer, *, frames_per_second=30, **results):
        self.viewer = viewer
        self.results = results
        self.status = STATUS
        self.stalled = False
        self.offer_ns = []
        self.sequence = 0
        self._pause = 1 / frames_per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _go(self):
        while not self._stop.wait(self._pause):
            if self.stalled:
                self.viewer.offer(None, replace(self.status, fault="no frame for 2 s: stalled"))
                continue
            offered = result(self.sequence, **self.results)
            began = time.perf_counter_ns()
            self.viewer.offer(offered, self.status)
            self.offer_ns.append(time.perf_counter_ns() - began)
            self.sequence += 1
