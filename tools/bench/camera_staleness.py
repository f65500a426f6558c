"""How old is the picture that a slow consumer gets? MJPEG and RTSP, next to a plain read() loop.

A server in a process of its own draws 30 pictures a second with the time of drawing in their
pixels. A consumer takes one every 200 ms and reads that time, so that encoding, network, decoding
and queues are all in the figure.

    python tools/bench/camera_staleness.py                       60 s each: six minutes
    python tools/bench/camera_staleness.py --seconds 10 --json staleness.json

Readers: `edgenet` as the camera command reads; `ffmpeg, drained` the same thread over OpenCV's
FFmpeg in place of our own reading of MJPEG, which has to be worth it; `plain loop` is
`cv2.VideoCapture(url).read()` in the consumer. The exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from edgenet.report.table import render
from edgenet.stream.address import parse_address
from edgenet.stream.frame import UInt8Array
from edgenet.stream.reader import Counts, Reader
from edgenet.stream.sources.rtsp import RtspSource
from edgenet.stream.stamp import read_stamp

STAND_INS = Path(__file__).parents[2] / "tests/stand_ins"
SERVERS = {
    "MJPEG": [sys.executable, str(STAND_INS / "mjpeg_server.py")],
    "RTSP": ["/usr/bin/python3", str(STAND_INS / "rtsp_server.py")],
}
FPS = 30.0
RTSP_TARGET_MS = 80.0
FLAT_MS = 15.0
"""Between the first and the last quarter of a run: less is no growth."""
Take = Callable[[], UInt8Array | None]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one reader gave one consumer."""

    stream: str
    reader: str
    pictures: int
    unreadable: int
    first_ms: float
    p50_ms: float
    p95_ms: float
    max_ms: float
    growth_ms: float
    """Median of the last quarter less that of the first."""
    decode_ms: float | None
    dropped: int | None


@contextmanager
def serving(stream: str) -> Iterator[str]:
    """Run a server in a process of its own; give its URL."""
    process = subprocess.Popen(
        [*SERVERS[stream], f"--fps={FPS:.0f}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


def consume(take: Take, seconds: float, period_s: float) -> tuple[list[float], int]:
    """Return the age of each picture in ms, and how many told none."""
    ages: list[float] = []
    unreadable = 0
    due = time.monotonic()
    end = due + seconds
    while due < end:
        due += period_s
        time.sleep(max(0.0, due - time.monotonic()))
        bgr = take()
        drawn_ns = None if bgr is None else read_stamp(bgr)
        if drawn_ns is None:
            unreadable += 1
        else:
            ages.append((time.monotonic_ns() - drawn_ns) / 1e6)
    return ages, unreadable


def with_reader(stream: str, name: str, reader: Reader, options: argparse.Namespace) -> Figures:
    """Measure a reader of ours."""
    decode: list[float] = []

    def take() -> UInt8Array | None:
        frame = reader.take(2.0)
        if frame is None:
            return None
        if frame.decode_ns is not None:
            decode.append(frame.decode_ns / 1e6)
        return frame.bgr

    with reader:
        ages, unreadable = consume(take, options.seconds, 1 / options.consumer_fps)
        counts = reader.counts
    return figures(stream, name, ages, unreadable, counts=counts, decode=decode)


def with_plain_loop(stream: str, url: str, options: argparse.Namespace) -> Figures:
    """Measure what people write."""
    capture = cv2.VideoCapture(url)

    def take() -> UInt8Array | None:
        there, bgr = capture.read()
        return np.asarray(bgr, np.uint8) if there else None

    ages, unreadable = consume(take, options.seconds, 1 / options.consumer_fps)
    capture.release()
    return figures(stream, "plain loop", ages, unreadable, counts=None, decode=[])


def figures(
    stream: str,
    reader: str,
    ages: Sequence[float],
    unreadable: int,
    *,
    counts: Counts | None,
    decode: Sequence[float],
) -> Figures:
    """Return what stands in the table."""
    if len(ages) < 8:
        raise SystemExit(f"{stream}, {reader}: only {len(ages)} pictures; nothing to tell")
    quarter = len(ages) // 4
    return Figures(
        stream=stream,
        reader=reader,
        pictures=len(ages),
        unreadable=unreadable,
        first_ms=ages[0],
        p50_ms=float(np.percentile(ages, 50)),
        p95_ms=float(np.percentile(ages, 95)),
        max_ms=max(ages),
        growth_ms=float(np.median(ages[-quarter:]) - np.median(ages[:quarter])),
        decode_ms=float(np.median(decode)) if decode else None,
        dropped=counts.dropped if counts else None,
    )


def measure(options: argparse.Namespace) -> list[Figures]:
    """Measure every reader on every stream."""
    found = []
    for stream in SERVERS:
        with serving(stream) as url:
            found.append(with_reader(stream, "edgenet", Reader(url), options))
            if stream == "MJPEG":
                ffmpeg = Reader(partial(RtspSource, parse_address(url)))
                found.append(with_reader(stream, "ffmpeg, drained", ffmpeg, options))
            found.append(with_plain_loop(stream, url, options))
    return found


def missed(found: Sequence[Figures]) -> list[str]:
    """Return the targets that were missed, in words."""
    misses = []
    for each in (each for each in found if each.reader == "edgenet"):
        target_ms = 1000 / FPS + (each.decode_ms or 0) if each.stream == "MJPEG" else RTSP_TARGET_MS
        if each.p50_ms > target_ms:
            misses.append(f"{each.stream}: p50 {each.p50_ms:.0f} ms, target {target_ms:.0f} ms")
        if each.growth_ms > FLAT_MS:
            misses.append(f"{each.stream}: grew by {each.growth_ms:.0f} ms")
    return misses


def table(found: Sequence[Figures]) -> str:
    """Return the figures, and how many times older the others' pictures are."""
    ours = {each.stream: each.p50_ms for each in found if each.reader == "edgenet"}
    rows = [
        [
            each.stream,
            each.reader,
            f"{each.first_ms:.0f}",
            f"{each.p50_ms:.1f}",
            f"{each.p95_ms:.1f}",
            f"{each.max_ms:.0f}",
            f"{each.growth_ms:+.1f}",
            "-" if each.decode_ms is None else f"{each.decode_ms:.2f}",
            "-" if each.dropped is None else str(each.dropped),
            f"{each.p50_ms / ours[each.stream]:.1f} x",
        ]
        for each in found
    ]
    head = ["stream", "reader", "first ms", "p50", "p95", "max", "growth", "decode", "dropped"]
    return render([*head, "p50 ratio"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--consumer-fps", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, OpenCV {cv2.__version__}; source {FPS:g} "
        f"a second, consumer {options.consumer_fps:g} a second, {options.seconds:g} s each"
    )
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=2))
    misses = missed(found)
    for miss in misses:
        print(f"missed: {miss}", file=sys.stderr)
    sys.exit(1 if misses else 0)


if __name__ == "__main__":
    main()
