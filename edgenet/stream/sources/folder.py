"""Pictures in files: each once and in the order of their names, or at a rate like a camera's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from edgenet.data.dataset import open_dataset
from edgenet.data.sample import Sample
from edgenet.errors import UsageError
from edgenet.stream.address import Address
from edgenet.stream.frame import Clock, Delivered, Frame, UInt8Array
from edgenet.stream.sources import SourceEnded


class PictureSource:
    """Pictures from files, read one by one."""

    still = True

    def __init__(
        self,
        address: Address,
        samples: Sequence[Sample],
        *,
        now: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = address.shown
        self._samples, self._loop, self._fps = samples, address.options.loop, address.options.fps
        self._now, self._sleep = now, sleep
        self._at = self._sequence = 0
        self._due_ns = now()
        self._shape = (0, 0)

    @property
    def live(self) -> bool:
        """Tell whether it has a rate: then it is as a camera."""
        return self._fps is not None

    @property
    def delivered(self) -> Delivered:
        """Return the size of the picture that was read last; pictures may differ."""
        height, width = self._shape
        return Delivered(width=width, height=height, frames_per_second=self._fps, format=None)

    def read(self) -> Frame:
        """Return the next picture; `BadImage` names the file that does not decode."""
        if self._at == len(self._samples):
            if not self._loop:
                raise SourceEnded
            self._at = 0
        sample = self._samples[self._at]
        self._at += 1
        self._wait()
        began_ns = self._now()
        bgr = _read_bgr(sample)
        self._shape = bgr.shape[:2]
        arrived_ns = self._now()
        frame = Frame(
            bgr=bgr,
            sequence=self._sequence,
            captured_ns=began_ns,
            clock=Clock.ARRIVAL,
            arrived_ns=arrived_ns,
            decode_ns=arrived_ns - began_ns,
            name=sample.name,
        )
        self._sequence += 1
        return frame

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _wait(self) -> None:
        """Wait until the next picture is due, where there is a rate."""
        if self._fps is None:
            return
        while (left_ns := self._due_ns - self._now()) > 0:
            self._sleep(left_ns / 1e9)
        interval_ns = round(1e9 / self._fps)
        self._due_ns = max(self._due_ns, self._now() - interval_ns) + interval_ns


def open_source(address: Address, *, realtime: bool) -> PictureSource:
    """Return the pictures of a folder; `BadData` where it has none."""
    if realtime and address.options.fps is None:
        raise UsageError(
            f"{address.shown}: a folder has no rate of its own; give one: {address.shown}?fps=10"
        )
    return PictureSource(address, open_dataset(address.target, labelled=False).samples)


def one_picture(address: Address, sample: Sample) -> PictureSource:
    """Return a source of a single file."""
    return PictureSource(address, (sample,))


def is_picture(path: Path) -> bool:
    """Tell whether OpenCV reads a file as one picture, by its first bytes and not by its name."""
    return bool(cv2.haveImageReader(str(path)))


def _read_bgr(sample: Sample) -> UInt8Array:
    return np.asarray(cv2.cvtColor(sample.read(), cv2.COLOR_RGB2BGR), np.uint8)
