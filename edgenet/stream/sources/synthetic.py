"""A picture that is drawn here: something moves, and the time of drawing is in its pixels.

A camera for tests and benches that is on every machine and whose capture time is known exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from edgenet.errors import UsageError
from edgenet.stream.address import Address
from edgenet.stream.frame import Clock, Delivered, Frame, UInt8Array
from edgenet.stream.sources import SourceEnded
from edgenet.stream.stamp import NARROWEST, draw_stamp

SIZE = (640, 480)
FPS = 30.0
STEP = 4
"""Pixels that the picture moves by from frame to frame."""


class SyntheticSource:
    """Frames at the ticks of a clock, drawn when they are due."""

    live = True
    still = True

    def __init__(
        self,
        address: Address,
        *,
        now: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        options = address.options
        width, height = options.size or SIZE
        if width < NARROWEST:
            raise UsageError(f"{address.shown}: is drawn {NARROWEST} pixels wide or wider")
        self.name = address.shown
        self._fps = options.fps or FPS
        self._frames = options.frames
        self._picture = _draw_scene(width, height)
        self._now, self._sleep = now, sleep
        self._sequence = 0
        self._due_ns = now()

    @property
    def delivered(self) -> Delivered:
        """Return the size and rate of what is drawn."""
        height, width = self._picture.shape[:2]
        return Delivered(width=width, height=height, frames_per_second=self._fps, format=None)

    def read(self) -> Frame:
        """Return the next picture when it is due."""
        if self._sequence == self._frames:
            raise SourceEnded
        while (left_ns := self._due_ns - self._now()) > 0:
            self._sleep(left_ns / 1e9)
        drawn_ns = self._now()
        # A tick that nobody was there for is over: no burst follows.
        self._due_ns = max(self._due_ns, drawn_ns - round(1e9 / self._fps)) + round(1e9 / self._fps)
        bgr = np.roll(self._picture, STEP * self._sequence % self._picture.shape[1], axis=1)
        draw_stamp(bgr, drawn_ns)
        frame = Frame(
            bgr=bgr,
            sequence=self._sequence,
            captured_ns=drawn_ns,
            clock=Clock.SENSOR,
            arrived_ns=self._now(),
            decode_ns=None,
        )
        self._sequence += 1
        return frame

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


def open_source(address: Address, *, realtime: bool) -> SyntheticSource:  # noqa: ARG001  always is
    """Return a source of pictures drawn here."""
    return SyntheticSource(address)


def _draw_scene(width: int, height: int) -> UInt8Array:
    """Return slopes and discs of colour: smooth and sharp parts, the same on every machine."""
    y, x = np.mgrid[:height, :width]
    bgr = np.stack(
        [
            128 + 100 * np.sin(2 * np.pi * x / width),
            64 + 128 * y / height,
            128 + 100 * np.cos(4 * np.pi * x / width),
        ],
        axis=2,
    )
    for number, colour in enumerate(
        [(30, 30, 220), (40, 200, 40), (220, 120, 20), (235, 235, 235)]
    ):
        centre = (width * (2 * number + 1) / 8, height * (0.4 + 0.15 * (number % 3)))
        radius = min(width, height) * (0.08 + 0.03 * number)
        bgr[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = colour
    return bgr.astype(np.uint8)
