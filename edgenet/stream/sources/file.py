"""A video file: every picture once and in order, or at its own rate like a camera's.

Decoding uses one thread, so that what it takes can be measured and does not change with the board.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from edgenet.data.sample import Sample
from edgenet.errors import BadData
from edgenet.preprocess import read_picture
from edgenet.stream.address import Address
from edgenet.stream.frame import Clock, Delivered, Frame
from edgenet.stream.sources import Source, SourceEnded
from edgenet.stream.sources.capture import delivered_by
from edgenet.stream.sources.folder import is_picture, one_picture

FPS = 25.0
"""Where a file does not know its own rate."""
NEARLY_ALL = 0.95
"""Headers count pictures roughly: only what lacks more than the rest was cut off."""


class FileSource:
    """Pictures of a video."""

    still = True

    def __init__(
        self,
        address: Address,
        *,
        realtime: bool,
        now: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = address.shown
        self.live = realtime
        self._path, self._loop = address.target, address.options.loop
        self._now, self._sleep = now, sleep
        self._sequence = self._at = 0
        self._capture = _open(self._path)
        self.delivered: Delivered = delivered_by(self._capture)
        self._count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._due_ns = now()

    def read(self) -> Frame:
        """Return the next picture."""
        self._wait()
        began_ns = self._now()
        there, bgr = self._capture.read()
        if not there:
            self._rewind()
            began_ns = self._now()
            there, bgr = self._capture.read()
            if not there:
                raise SourceEnded
        arrived_ns = self._now()
        frame = Frame(
            bgr=np.asarray(bgr, np.uint8),
            sequence=self._sequence,
            captured_ns=began_ns,
            clock=Clock.ARRIVAL,
            arrived_ns=arrived_ns,
            decode_ns=arrived_ns - began_ns,
        )
        self._sequence += 1
        self._at += 1
        return frame

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def _rewind(self) -> None:
        """Begin again, or raise `SourceEnded`; `BadData` for a file that was cut off."""
        if self._at == 0:
            raise BadData(f"{self.name}: holds no picture that decodes; is it damaged?")
        if self._at < NEARLY_ALL * self._count:
            raise BadData(
                f"{self.name}: ends after {self._at} of {self._count} pictures; copy it again"
            )
        if not self._loop:
            raise SourceEnded
        # Opened anew and not wound back: that is exact in every container.
        self._capture.release()
        self._capture, self._at = _open(self._path), 0

    def _wait(self) -> None:
        if not self.live:
            return
        while (left_ns := self._due_ns - self._now()) > 0:
            self._sleep(left_ns / 1e9)
        interval_ns = round(1e9 / (self.delivered.frames_per_second or FPS))
        self._due_ns = max(self._due_ns, self._now() - interval_ns) + interval_ns


def open_source(address: Address, *, realtime: bool) -> Source:
    """Return the pictures of a video or of one picture; `BadData` where a file holds none."""
    path = Path(address.target)
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        raise BadData(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    if is_picture(path):
        sample = Sample(
            name=path.name, read=partial(read_picture, path), labels=(), origin=str(path)
        )
        return one_picture(address, sample)
    return FileSource(address, realtime=realtime)


def _open(path: str) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise BadData(
            f"{path}: is neither a video nor a picture that OpenCV reads; try MP4 or JPEG"
        )
    return capture
