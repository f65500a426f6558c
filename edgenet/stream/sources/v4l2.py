"""USB cameras and other V4L2 devices, through OpenCV.

The format is asked for first: left alone, OpenCV takes uncompressed pictures, of which USB 2
carries few a second. Then size and rate; all are read back, for drivers give what they have.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import cv2
import numpy as np

from edgenet.errors import BadImage, DeviceUnavailable
from edgenet.stream.address import Address, Options
from edgenet.stream.frame import Clock, Delivered, Frame
from edgenet.stream.sources import STALL_S, Stalled
from edgenet.stream.sources.capture import capture_time, delivered_by
from edgenet.stream.v4l2_device import Device, describe_device, why_in_use

SIZE = (640, 480)
FPS = 30.0
COMPRESSED = "MJPG"

MOST_IMPOSSIBLE = 3
"""Stamps that cannot be true, of the future for instance; after that the driver is not asked again:
ages by two clocks in one run would mean nothing."""

# Whole seconds that a grab waits; OpenCV's own are ten, and it reads this at the first camera.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{STALL_S:.0f}")


class V4l2Source:
    """An open camera."""

    live = True
    still = False

    def __init__(self, address: Address, *, now: Callable[[], int] = time.monotonic_ns) -> None:
        self.name = address.shown
        self._now = now
        device = describe_device(address.target)
        self._check(device)
        self._capture = cv2.VideoCapture(address.target, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise DeviceUnavailable(
                f"{self.name}: OpenCV does not open it; it is a {device.card} ({device.driver})"
            )
        _ask(self._capture, address.options, device)
        self.delivered: Delivered = delivered_by(self._capture)
        self._check_given(address.options, device)
        self._sequence = self._impossible = 0

    def read(self) -> Frame:
        """Return the next picture; its time is the driver's where that tells one."""
        began_ns = self._now()
        grabbed = self._capture.grab()
        here_ns = self._now()
        if not grabbed:
            if here_ns - began_ns >= 0.9 * STALL_S * 1e9:
                raise Stalled(f"{self.name}: no picture for {STALL_S:g} s")
            raise DeviceUnavailable(f"{self.name}: gives no more pictures; was it unplugged?")
        captured_ns, clock = self._captured(here_ns)
        there, bgr = self._capture.retrieve()
        arrived_ns = self._now()
        if not there or bgr is None:
            raise BadImage(f"{self.name}: a picture does not decode")
        frame = Frame(
            bgr=np.asarray(bgr, np.uint8),
            sequence=self._sequence,
            captured_ns=captured_ns,
            clock=clock,
            arrived_ns=arrived_ns,
            decode_ns=arrived_ns - here_ns,
        )
        self._sequence += 1
        return frame

    def close(self) -> None:
        """Give the camera back."""
        self._capture.release()

    def _captured(self, here_ns: int) -> tuple[int, Clock]:
        if self._impossible == MOST_IMPOSSIBLE:
            return here_ns, Clock.ARRIVAL
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        captured_ns, clock = capture_time(stamp_ns, here_ns, Clock.DRIVER)
        self._impossible += clock is Clock.ARRIVAL
        return captured_ns, clock

    def _check(self, device: Device) -> None:
        """Raise `DeviceUnavailable` where OpenCV would only say that it did not open."""
        if not device.captures:
            raise DeviceUnavailable(
                f"{self.name}: {device.card} gives no pictures; edgenet camera --list shows what "
                "does"
            )
        if device.in_use:
            raise DeviceUnavailable(f"{self.name}: {why_in_use(device.path)}")
        if not device.decodable:
            given = ", ".join(each.fourcc for each in device.formats) or "nothing"
            raise DeviceUnavailable(
                f"{self.name}: gives raw data of a sensor ({given}), which OpenCV makes no picture "
                "of; use csi://0"
            )

    def _check_given(self, options: Options, device: Device) -> None:
        """Raise `DeviceUnavailable` where what was asked for by name is not what comes."""
        given = self.delivered
        wrong = []
        if options.fourcc is not None and given.format != options.fourcc:
            wrong.append(f"{given.format}, not {options.fourcc}")
        if options.size is not None and (given.width, given.height) != options.size:
            wrong.append(f"{given.width}x{given.height}, not {options.size[0]}x{options.size[1]}")
        if wrong:
            self.close()
            raise DeviceUnavailable(
                f"{self.name}: gives {' and '.join(wrong)}; it has {offered(device)}"
            )


def open_source(address: Address, *, realtime: bool) -> V4l2Source:  # noqa: ARG001  always is
    """Return an open camera."""
    return V4l2Source(address)


def offered(device: Device) -> str:
    """Return in words which formats and sizes a camera has."""
    return "; ".join(
        f"{each.fourcc} {' '.join(dict.fromkeys(f'{it.width}x{it.height}' for it in each.sizes))}"
        if each.sizes
        else each.fourcc
        for each in device.decodable
    )


def _ask(capture: cv2.VideoCapture, options: Options, device: Device) -> None:
    """Ask for format, size and rate, in this order: each opens the device anew."""
    has = [each.fourcc for each in device.decodable]
    fourcc = options.fourcc or (COMPRESSED if COMPRESSED in has else None)
    if fourcc is not None:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
    width, height = options.size or SIZE
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
    capture.set(cv2.CAP_PROP_FPS, options.fps or FPS)
