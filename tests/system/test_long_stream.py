"""A minute of pictures with every fault of a stream in it: nothing grows, nothing is left behind.

Ten minutes: EDGENET_STREAM_SECONDS=600.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgenet.stream.reader import FaultKind, Reader
from edgenet.stream.stamp import read_stamp

SECONDS = float(os.environ.get("EDGENET_STREAM_SECONDS", "60"))
WARM_UP = 1 / 6
"""Of the time: what is allocated once has been by then."""
MOST_GROWTH_BYTES = 5_000_000
STAND_IN = Path(__file__).parents[1] / "stand_ins/mjpeg_server.py"


@pytest.fixture
def camera():
    """A server in a process of its own: its memory is not ours."""
    command = [sys.executable, STAND_IN, "--fps=30"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.url = process.stdout.readline().strip()
        yield process
        process.stdin.close()
        process.wait(10)


def resident_bytes():
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_long_run_with_every_fault(camera):
    script = [  # when, as a share of the time, and what the camera does then
        (0.20, "stall"),
        (0.27, "go_on"),
        (0.40, "freeze"),
        (0.48, "go_on"),
        (0.55, "corrupt 3"),
        (0.60, "size 320x240"),
        (0.65, "size 640x480"),
        (0.70, "die"),
        (0.74, "come_back"),
    ]
    threads, open_before = threading.active_count(), descriptors()
    began, settled, grown = time.monotonic(), None, 0
    ages = []
    with Reader(camera.url) as reader:
        while (share := (time.monotonic() - began) / SECONDS) < 1:
            while script and share >= script[0][0]:
                print(script.pop(0)[1], file=camera.stdin, flush=True)
            if (frame := reader.take(0.2)) is None:
                continue
            if (drawn_ns := read_stamp(frame.bgr)) and not reader.trouble:
                ages.append((time.monotonic_ns() - drawn_ns) / 1e6)
            if share > WARM_UP and settled is None:
                settled = resident_bytes()
        grown = resident_bytes() - settled
        counts, faults = reader.counts, reader.faults
    assert [fault.kind for fault in faults] == [
        FaultKind.STALL,
        FaultKind.RECONNECTED,
        FaultKind.FROZEN,
        FaultKind.THAWED,
        FaultKind.CORRUPT,
        FaultKind.CHANGED_SIZE,
        FaultKind.CHANGED_SIZE,
        FaultKind.LOST,
        FaultKind.RECONNECTED,
    ]
    assert 1 <= counts.corrupt <= 3  # one that a newer picture overtook is not decoded
    assert counts.reconnects == 2
    assert counts.delivered == counts.taken + counts.dropped + counts.waiting
    assert counts.taken > 0.6 * 30 * SECONDS
    assert grown < MOST_GROWTH_BYTES
    # The last tenth is as young as the first: nothing queues.
    tenth = len(ages) // 10
    assert sorted(ages[-tenth:])[tenth // 2] < sorted(ages[:tenth])[tenth // 2] + 30
    assert threading.active_count() == threads
    assert descriptors() == open_before
