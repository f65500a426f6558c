"""The child process of a launch: it loads one artefact and times it when it is told to.

    python -m edgenet.measure.launched REPLIES-FD

Requests come as lines of JSON on standard input, each is answered by one line on the descriptor
given; `edgenet.measure.launch` is the other end. SIGINT ends the loop that is timed, and what it
has so far is the answer. Nothing else runs in here: sensors are read by the parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from edgenet import runtimes
from edgenet.errors import EdgenetError
from edgenet.measure import timing
from edgenet.measure.process_memory import peak_resident_bytes, resident_bytes
from edgenet.preprocess import UInt8Array

PR_SET_PDEATHSIG = 1
Answer = dict[str, Any]


class Child:
    """One artefact in this process; each public method answers the request of its name."""

    def __init__(self) -> None:
        self._interrupted = False
        self._run: Callable[[], object] = lambda: None

    def interrupt(self, *_: object) -> None:
        """End the loop in work."""
        self._interrupted = True

    def open(self, *, runtime: str, path: str, threads: int, images: str) -> Answer:
        """Load the artefact and run it once on the first of the images, a .npy file of them."""
        pictures: UInt8Array = np.load(images)
        before = resident_bytes()
        began = time.perf_counter_ns()
        session = runtimes.load(runtime, Path(path), threads=threads)
        loaded = time.perf_counter_ns()
        session.run(pictures[:1])
        answered = time.perf_counter_ns()
        following = cycle([pictures[i : i + 1] for i in range(len(pictures))])
        self._run = lambda: session.run(next(following))
        return {
            "device": session.device,
            "version": session.version,
            "load_ns": loaded - began,
            "first_inference_ns": answered - loaded,
            "before_load_bytes": before,
            "affinity": sorted(os.sched_getaffinity(0)),
        }

    def warm_up(self, *, rules: Mapping[str, Any]) -> Answer:
        """Warm up, and tell the peak of memory so far: nothing is allocated after it."""
        found = timing.warm_up(self._run, timing.Rules(**rules))
        return {**asdict(found), "peak_rss_bytes": peak_resident_bytes()}

    def back_to_back(self, *, runs: int, seconds: float) -> Answer:
        """Time runs one after the other."""
        samples = timing.back_to_back(self._run, runs=runs, seconds=seconds, stopped=self._stopped)
        return {"samples_ns": list(samples)}

    def block(self, *, runs: int, seconds: float) -> Answer:
        """Time runs one after the other, and how long the threads waited for a processor."""
        # The waiting lies within the time, or a pause between two of these lines would turn it
        # negative; reading the files takes a thousandth of a block.
        began = time.perf_counter_ns()
        before = _waited_ns()
        answer = self.back_to_back(runs=runs, seconds=seconds)
        after = _waited_ns()
        elapsed = time.perf_counter_ns() - began
        waited = None if before is None or after is None else after - before
        return {**answer, "elapsed_ns": elapsed, "waited_ns": waited}

    def paced(self, *, frames_per_second: float, runs: int, seconds: float) -> Answer:
        """Time runs at a camera's rate."""
        found = timing.paced(
            self._run,
            frames_per_second=frames_per_second,
            runs=runs,
            seconds=seconds,
            stopped=self._stopped,
        )
        return {
            "samples_ns": list(found.samples_ns),
            "missed": found.missed,
            "reachable_per_second": found.reachable_per_second,
        }

    def operators(self, *, runtime: str, path: str, threads: int, images: str, runs: int) -> Answer:
        """Time every operator of the artefact, on the images in turn."""
        pictures: UInt8Array = np.load(images)
        shown = pictures[np.arange(runs) % len(pictures)]
        return asdict(runtimes.time_operators(runtime, Path(path), shown, threads=threads))

    def _stopped(self) -> bool:
        return self._interrupted


def _waited_ns() -> int | None:
    """Return how long the threads of this process waited for a processor, in all so far."""
    try:
        threads = [
            path.read_text(encoding="ascii").split()
            for path in Path("/proc/self/task").glob("*/schedstat")
        ]
    except OSError:
        return None
    # Time on a processor, time of waiting for one, turns; all 0 in a kernel that counts none.
    counted = any(int(ran) for ran, _, _ in threads)
    return sum(int(waited) for _, waited, _ in threads) if counted else None


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main(arguments: Sequence[str]) -> None:
    """Answer requests until standard input ends."""
    _die_with_parent()
    child = Child()
    signal.signal(signal.SIGINT, child.interrupt)
    with os.fdopen(int(arguments[0]), "w", encoding="utf-8") as replies:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = getattr(child, request.pop("do"))(**request)
            except EdgenetError as error:
                answer = {"error": str(error)}
            except Exception as error:  # noqa: BLE001 - the parent tells of it
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            replies.write(json.dumps(answer) + "\n")
            replies.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
