"""What a V4L2 device says of itself: name, formats, sizes, rates, and who uses it.

Asked with the kernel's own calls (include/uapi/linux/videodev2.h): no tool has to be installed, and
the reason why a device does not open stays known, which OpenCV keeps to itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgenet.errors import DeviceUnavailable

QUERYCAP, ENUM_FMT, REQBUFS = 0x80685600, 0xC0405602, 0xC0145608
ENUM_FRAMESIZES, ENUM_FRAMEINTERVALS = 0xC02C564A, 0xC034564B
CAN_CAPTURE, CAN_CAPTURE_PLANES, CAN_STREAM = 0x1, 0x1000, 0x04000000
TRANSFORMS = 0x8000 | 0x4000
"""Takes pictures in as well: a codec or a scaler, no camera."""
HAS_DEVICE_CAPS = 0x80000000
BUFFER_CAPTURE, BUFFER_CAPTURE_PLANES, MEMORY_MMAP = 1, 9, 1
DISCRETE = 1
MOST = 64
"""Formats, sizes or rates that one asks for; a driver that never ends would keep us for ever."""
DECODABLE = ("MJPG", "JPEG", "YUYV", "UYVY", "YU12", "YV12", "NV12", "NV21", "BGR3", "RGB3", "GREY")
"""What OpenCV makes pictures of. A sensor's raw data (such as pBAA) is not among it."""


@dataclass(frozen=True, kw_only=True)
class PictureSize:
    """One size of one format."""

    width: int
    height: int
    frames_per_second: float | None
    """The highest rate; None where the driver names none."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One kind of picture that a device gives."""

    fourcc: str
    sizes: tuple[PictureSize, ...]
    """Empty where the driver takes any size."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A V4L2 device, as it describes itself."""

    path: str
    card: str
    driver: str
    captures: bool
    """Whether it is a camera; one camera has other devices beside it."""
    formats: tuple[Format, ...]
    in_use: bool

    @property
    def decodable(self) -> tuple[Format, ...]:
        """Return the formats that OpenCV makes pictures of."""
        return tuple(each for each in self.formats if each.fourcc in DECODABLE)


def describe_device(path: str) -> Device:
    """Return what a device says of itself; `DeviceUnavailable` says why it does not open."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceUnavailable(f"{path}: {_why_closed(path, error)}") from None
    try:
        return _describe(path, descriptor)
    except OSError as error:
        raise DeviceUnavailable(
            f"{path}: is no camera ({os.strerror(error.errno or 0)}); edgenet camera --list shows "
            "those that are"
        ) from None
    finally:
        os.close(descriptor)


def users_of(path: str) -> tuple[str, ...]:
    """Return the programs that have a file open, as "name (pid)"; others' only for root."""
    found = []
    real = os.path.realpath(path)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended, or is another user's
            if int(process.name) == os.getpid():
                continue
            if any(os.path.realpath(link) == real for link in (process / "fd").iterdir()):
                name = (process / "comm").read_text().strip()
                found.append(f"{name} ({process.name})")
    return tuple(sorted(found))


def why_in_use(path: str) -> str:
    """Return in words who has a camera."""
    users = users_of(path)
    who = f" by {', '.join(users)}" if users else f"; fuser -v {path} shows by what"
    return f"is in use{who}; end that program, or choose another camera"


def _why_closed(path: str, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        others = sorted(Path("/dev").glob("video*"))
        there = ", ".join(map(str, others)) if others else "there is no /dev/video* at all"
        return f"no such device (have: {there}); is the camera plugged in?"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            "permission denied; cameras belong to the group video: sudo usermod -aG video $USER, "
            "then log in again"
        )
    if error.errno == errno.EBUSY:
        return why_in_use(path)
    return f"cannot be opened ({error.strerror})"


def _describe(path: str, descriptor: int) -> Device:
    answer = bytearray(104)
    fcntl.ioctl(descriptor, QUERYCAP, answer)
    driver, card = _text(answer[:16]), _text(answer[16:48])
    capabilities, of_device = struct.unpack_from("II", answer, 84)
    can = of_device if capabilities & HAS_DEVICE_CAPS else capabilities
    captures = bool(can & (CAN_CAPTURE | CAN_CAPTURE_PLANES)) and bool(can & CAN_STREAM)
    captures = captures and not can & TRANSFORMS
    kind = BUFFER_CAPTURE if can & CAN_CAPTURE else BUFFER_CAPTURE_PLANES
    return Device(
        path=path,
        card=card,
        driver=driver,
        captures=captures,
        formats=tuple(_formats(descriptor, kind)) if captures else (),
        in_use=captures and _in_use(descriptor, kind),
    )


def _in_use(descriptor: int, kind: int) -> bool:
    """Tell whether another program streams: then no buffers are to be had."""
    for count in (1, 0):  # and give them back
        try:
            fcntl.ioctl(descriptor, REQBUFS, bytearray(struct.pack("5I", count, kind, 1, 0, 0)))
        except OSError as error:
            return error.errno == errno.EBUSY
    return False


def _formats(descriptor: int, kind: int) -> Iterator[Format]:
    for index in range(MOST):
        asked = bytearray(struct.pack("2I", index, kind).ljust(64, b"\0"))
        if not _answers(descriptor, ENUM_FMT, asked):
            return
        (code,) = struct.unpack_from("I", asked, 44)
        yield Format(
            fourcc=struct.pack("I", code & 0x7FFFFFFF).decode("latin-1").rstrip(),
            sizes=tuple(_sizes(descriptor, code)),
        )


def _sizes(descriptor: int, code: int) -> Iterator[PictureSize]:
    for index in range(MOST):
        asked = bytearray(struct.pack("2I", index, code).ljust(44, b"\0"))
        if not _answers(descriptor, ENUM_FRAMESIZES, asked):
            return
        kind, width, height = struct.unpack_from("3I", asked, 8)
        if kind != DISCRETE:
            return
        rates = list(_rates(descriptor, code, width, height))
        yield PictureSize(
            width=width, height=height, frames_per_second=max(rates) if rates else None
        )


def _rates(descriptor: int, code: int, width: int, height: int) -> Iterator[float]:
    for index in range(MOST):
        asked = bytearray(struct.pack("4I", index, code, width, height).ljust(52, b"\0"))
        if not _answers(descriptor, ENUM_FRAMEINTERVALS, asked):
            return
        # The shortest interval comes first where they are a range.
        _, numerator, denominator = struct.unpack_from("3I", asked, 16)
        if numerator:
            yield denominator / numerator


def _answers(descriptor: int, request: int, asked: bytearray) -> bool:
    try:
        fcntl.ioctl(descriptor, request, asked)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTTY):  # no more of them; not known here
            return False
        raise
    return True


def _text(data: bytes | bytearray) -> str:
    return bytes(data).split(b"\0", 1)[0].decode(errors="replace")
