"""One picture of a stream, and when it was taken. Knows no source and no network."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]


class Clock(str, Enum):
    """Who says when a frame was taken; all are on the scale of `time.monotonic_ns`."""

    SENSOR = "sensor"
    """The camera's sensor, at the start of the exposure."""
    DRIVER = "driver"
    """The kernel's driver, when the frame began to come in."""
    ARRIVAL = "arrival"
    """Nobody before us: the frame was here, and what it took to come is not known."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A decoded picture as its source delivered it."""

    bgr: UInt8Array
    """(H, W, 3) uint8, upright, blue first as OpenCV delivers it: the resize to the network's size
    treats every channel alike, so that swapping them afterwards is the same and cheaper."""
    sequence: int
    """Counts what the source delivered, from 0 on and through reconnects."""
    captured_ns: int
    """Of `time.monotonic_ns`, told by `clock`."""
    clock: Clock
    arrived_ns: int
    """Of `time.monotonic_ns`, when the decoded picture was here."""
    decode_ns: int | None
    """What decoding took; None where the source decodes out of our sight."""
    name: str | None = None
    """The file that it is, of a source of files."""


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What a source really delivers, read back from it and not what was asked for."""

    width: int
    height: int
    frames_per_second: float | None
    """By its own word; None where it has none."""
    format: str | None
    """Such as MJPG, YUYV or H264; None where it does not say."""
