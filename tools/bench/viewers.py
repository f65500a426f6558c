"""What those who look on cost the run that they look at, and how old a slow one's picture is.

    python tools/bench/viewers.py BUNDLE [--runtime litert] [--pairs 14] [--seconds 5] [--steady]

A loop prepares and classifies 640 x 480 pictures at a camera's 30 a second with a real artefact and
offers each result to the page, as `edgenet camera` does. Blocks of it take turns: nobody looks on,
or eight do as the page does, of which one takes a picture a second and the others every one. What
is timed is what a run reports: from the frame to its label; `offer` comes after that and is told
apart. The clients run on this machine too, at the lowest priority, so their work is in the figures.

`--steady` runs the loop back to back, while the viewers still ask 30 times a second: five times as
many samples and none that waited for a frame, for a 99th percentile that says more.

Ratios within one run of this: the median and the 99th percentile of eight viewers' blocks against
nobody's, each with a 95 % interval (bootstrap over pairs of blocks).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from edgenet import runtimes
from edgenet.bundle import Bundle, Precision
from edgenet.manifest import load_bundle
from edgenet.preprocess import prepare
from edgenet.stream.frame import Clock, Delivered, Frame
from edgenet.stream.result import Result, StageTimes
from edgenet.stream.status import Percentiles, Stage, Status, Tally
from edgenet.stream.viewer import Viewer

FRAMES_PER_SECOND = 30
VIEWERS = 8
SLOW_PERIOD_S = 1.0
LEAST_PERIOD_S = 0.9 / FRAMES_PER_SECOND
STATUS_EVERY_S = 0.5
SETTLE_S = 0.5
DRAWS = 2000


@dataclass
class Side:
    """Blocks of one kind."""

    latencies_ns: list[list[int]] = field(default_factory=list)
    offers_ns: list[int] = field(default_factory=list)
    missed: int = 0


class Loop:
    """A run's loop in short: prepare, classify, offer."""

    def __init__(self, bundle: Bundle, runtime: str, viewer: Viewer, *, steady: bool) -> None:
        (artifact, *_) = bundle.select((runtime,), (Precision.INT8,))
        self._session = runtimes.load(artifact.runtime, bundle.path(artifact))
        self._bundle = bundle
        self._viewer = viewer
        self._picture = _picture()
        self._sequence = 0
        self._interval_ns = 0 if steady else round(1e9 / FRAMES_PER_SECOND)
        self._status = _status(artifact.runtime, self._session.device)

    def block(self, seconds: float, side: Side | None) -> None:
        """Run at the camera's rate for some seconds; tell it to a side, or to nobody."""
        interval = self._interval_ns
        due = time.monotonic_ns()
        until = due + round(seconds * 1e9)
        latencies: list[int] = []
        while due < until:
            while (left := due - time.monotonic_ns()) > 0:
                time.sleep(left / 1e9)
            # The camera's own work: a picture of its own for every frame.
            bgr = np.roll(self._picture, 4 * self._sequence, axis=1)
            result = self._classify(bgr)
            latencies.append(result.labelled_ns - result.frame.captured_ns)
            before = time.perf_counter_ns()
            self._viewer.offer(result, self._status)
            took = time.perf_counter_ns() - before
            late = (time.monotonic_ns() - due) // interval if interval else 0
            due = due + (late + 1) * interval if interval else time.monotonic_ns()
            if side is not None:
                side.offers_ns.append(took)
                side.missed += late
        if side is not None:
            side.latencies_ns.append(latencies)

    def _classify(self, bgr: np.ndarray[Any, Any]) -> Result:
        began = time.monotonic_ns()
        image = np.ascontiguousarray(prepare(bgr, self._bundle.preprocessing)[..., ::-1])
        prepared = time.monotonic_ns()
        logits = self._session.run(image)["logits"][0]
        best = int(logits.argmax())
        ended = time.monotonic_ns()
        self._sequence += 1
        return Result(
            frame=Frame(
                bgr=bgr,
                sequence=self._sequence,
                captured_ns=began,
                clock=Clock.ARRIVAL,
                arrived_ns=began,
                decode_ns=None,
            ),
            image=image,
            logits=logits,
            best=best,
            labels=self._bundle.labels,
            stages=StageTimes(wait_ns=0, preprocess_ns=prepared - began, infer_ns=ended - prepared),
            labelled_ns=ended,
        )


def _picture() -> np.ndarray[Any, Any]:
    """Return a photograph, so that the JPEG files have the size that they have in life."""
    file = Path(__file__).parents[2] / "calibration/images/plasma_cat_1.jpg"
    found = cv2.imread(str(file))
    assert found is not None, file
    return np.asarray(cv2.resize(found, (640, 480), interpolation=cv2.INTER_CUBIC))


def _status(runtime: str, device: str) -> Status:
    some = Percentiles(n=300, p50_ms=10.0, p95_ms=12.0, p99_ms=15.0)
    names = ("wait", "decode", "preprocess", "infer", "draw", "encode")
    return Status(
        artifact=f"int8, {runtime}",
        device=device,
        source="synthetic://",
        delivered=Delivered(width=640, height=480, frames_per_second=30.0, format=None),
        window_s=10.0,
        frame_to_label=some,
        stages=tuple(Stage(name=name, latency=some) for name in names),
        tally=Tally(delivered=1, classified=1, dropped=0, repeated=0, stale=0),
    )


class Lookers:
    """The eight, in a process of their own."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--look-at", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, word: str) -> None:
        """Say go, stop or end."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Return what they saw."""
        self.tell("end")
        assert self._process.stdout is not None
        seen: dict[str, Any] = json.loads(self._process.stdout.read())
        self._process.wait()
        return seen


def look(url: str) -> None:
    """Be the eight: look on between `go` and `stop` of standard input, tell of it at `end`."""
    os.nice(19)
    looking, over = threading.Event(), threading.Event()
    ages_ms: list[list[float]] = [[] for _ in range(VIEWERS)]
    sizes: list[int] = []

    def one(number: int) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        with closing(http.client.HTTPConnection(address.hostname, address.port)) as connection:
            after, status_at = -1, 0.0
            while not over.is_set():
                if not looking.wait(0.1):
                    continue
                asked_at = time.monotonic()
                connection.request("GET", f"/frame.jpg?after={after}&client={number}")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    told = json.loads(answer.headers["X-Result"])
                    after = told["sequence"]
                    ages_ms[number].append((time.monotonic_ns() - told["captured_ns"]) / 1e6)
                    sizes.append(len(body))
                if time.monotonic() - status_at > STATUS_EVERY_S:
                    status_at = time.monotonic()
                    connection.request("GET", "/status.json")
                    connection.getresponse().read()
                # One is slow; the others ask as often as a camera has a picture, and no more.
                since = time.monotonic() - asked_at
                time.sleep(SLOW_PERIOD_S if number == 0 else max(0.0, LEAST_PERIOD_S - since))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(VIEWERS)]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        word = line.strip()
        if word == "go":
            looking.set()
        elif word == "stop":
            looking.clear()
        else:
            break
    over.set()
    for thread in threads:
        thread.join()
    print(
        json.dumps(
            {
                "slow": ages_ms[0],
                "fast": [age for ages in ages_ms[1:] for age in ages],
                "sizes": sizes,
            }
        )
    )


def interval(nobody: Side, eight: Side, percent: float) -> tuple[float, float, float, float, float]:
    """Return a percentile of both sides in ms, their ratio and its interval over pairs."""
    rng = np.random.default_rng(0)
    sides = [[np.asarray(block) for block in side.latencies_ns] for side in (nobody, eight)]

    def figures(chosen: Sequence[int]) -> list[float]:
        return [
            float(np.percentile(np.concatenate([blocks[i] for i in chosen]), percent)) / 1e6
            for blocks in sides
        ]

    pairs = len(sides[0])
    base, new = figures(range(pairs))
    ratios = []
    for _ in range(DRAWS):
        drawn_base, drawn_new = figures(rng.integers(pairs, size=pairs).tolist())
        ratios.append(drawn_new / drawn_base)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return base, new, new / base, float(low), float(high)


def measure(bundle: Bundle, runtime: str, *, pairs: int, seconds: float, steady: bool) -> None:
    """Print the figures of one runtime."""
    nobody, eight = Side(), Side()
    with Viewer("127.0.0.1:0") as viewer:
        lookers = Lookers(viewer.urls[0])
        loop = Loop(bundle, runtime, viewer, steady=steady)
        loop.block(2.0, None)
        for number in range(pairs):
            # Turn about, so that a machine that gets slower hits both alike.
            for side in (nobody, eight) if number % 2 == 0 else (eight, nobody):
                lookers.tell("go" if side is eight else "stop")
                loop.block(SETTLE_S, None)
                loop.block(seconds, side)
        lookers.tell("stop")
        loop.block(SETTLE_S, None)
        seen = lookers.end()
        times = viewer.times
    rate = "back to back" if steady else f"at {FRAMES_PER_SECOND} fps"
    samples = sum(map(len, nobody.latencies_ns))
    print(f"{runtime}: {pairs} pairs of blocks of {seconds:g} s {rate}, {samples} frames a side")
    for percent in (50, 99):
        base, new, ratio, low, high = interval(nobody, eight, percent)
        print(
            f"  frame to label p{percent}: {base:.3f} ms with nobody, {new:.3f} ms with eight: "
            f"{100 * (ratio - 1):+.1f} % ({100 * (low - 1):+.1f} to {100 * (high - 1):+.1f} %)"
        )
    for name, side in (("nobody", nobody), ("eight", eight)):
        took_us = np.asarray(side.offers_ns) / 1e3
        print(
            f"  offer, with {name}: p50 {np.median(took_us):.1f} us, "
            f"p99 {np.percentile(took_us, 99):.1f} us; frames missed {side.missed}"
        )
    slow, fast = np.asarray(seen["slow"]), np.asarray(seen["fast"])
    print(
        f"  picture's age when it was there: slow viewer p50 {np.median(slow):.0f} ms, "
        f"max {slow.max():.0f} ms (n {len(slow)}); others p50 {np.median(fast):.0f} ms, "
        f"p99 {np.percentile(fast, 99):.0f} ms, "
        f"{len(fast) / (VIEWERS - 1) / (pairs * (seconds + SETTLE_S)):.1f} a second each"
    )
    print(
        f"  a picture: {np.median(seen['sizes']) / 1e3:.0f} kB, "
        f"encoded in {np.median(times.encode_ns) / 1e6:.2f} ms, {len(times.encode_ns)} times"
    )


def main() -> None:
    """Measure, or be the eight."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--runtime", default="litert")
    parser.add_argument("--pairs", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--steady", action="store_true")
    parser.add_argument("--look-at", metavar="URL", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.look_at:
        look(chosen.look_at)
    elif chosen.bundle is None:
        parser.error("which bundle?")
    else:
        bundle = load_bundle(chosen.bundle)
        measure(
            bundle,
            chosen.runtime,
            pairs=chosen.pairs,
            seconds=chosen.seconds,
            steady=chosen.steady,
        )


if __name__ == "__main__":
    main()
