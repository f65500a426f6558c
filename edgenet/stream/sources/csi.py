"""Cameras on a ribbon cable, by whatever gives access to them here.

    Picamera2               in this process; the only one that tells when the sensor exposed
    rpicam-vid              a child whose raw pictures come through a pipe (libcamera-vid before)
    nvarguscamerasrc        the same, with GStreamer's gst-launch-1.0

Written after their documentation and tried with stand-ins that speak it: not verified on hardware.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as NothingCame
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any

import cv2
import numpy as np

from edgenet.errors import DeviceUnavailable, UsageError
from edgenet.stream.address import Address
from edgenet.stream.frame import Clock, Delivered, Frame, UInt8Array
from edgenet.stream.sources import STALL_S, Source, Stalled
from edgenet.stream.sources.capture import capture_time

SIZE = (640, 480)
FPS = 30.0
ROW = 64
"""Rows are padded to a multiple of this, so widths are multiples of it."""
PIPE_BYTES = 1 << 20
"""As large as Linux lets a user make it: fewer turns for a picture."""
END_S = 2.0
"""How long a child may take to put its camera down."""
LIBCAMERA_PROGRAMS = ("rpicam-vid", "libcamera-vid")
NVARGUS = "nvarguscamerasrc"
NOTHING = (
    "nothing here gives access to such a camera; install one of: Picamera2 (apt install "
    "python3-picamera2, and make the venv with --system-site-packages), rpicam-vid (apt install "
    f"rpicam-apps), or GStreamer with {NVARGUS}"
)
NUMPY = "bookworm's is built for numpy 1: pip install 'numpy<2' into this environment"


@dataclass(frozen=True, kw_only=True)
class _Raw:
    """A program that writes pictures, and how their bytes lie."""

    argv: Sequence[str]
    format: str
    picture_bytes: int
    to_bgr: Callable[[UInt8Array], UInt8Array]


class ChildSource:
    """Pictures from the standard output of a program."""

    live = True
    still = False

    def __init__(
        self, address: Address, raw: _Raw, *, now: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.name = address.shown
        self._raw, self._now = raw, now
        width, height = address.options.size or SIZE
        self.delivered = Delivered(
            width=width,
            height=height,
            frames_per_second=address.options.fps or FPS,
            format=raw.format,
        )
        self._bytes = np.empty(raw.picture_bytes, np.uint8)
        self._sequence = 0
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the source
        try:
            # A session of its own: Ctrl-C in the terminal is for us, and we end it.
            self._child = subprocess.Popen(  # noqa: S603  built below
                raw.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,
            )
        except OSError as error:
            self._said.close()
            raise DeviceUnavailable(
                f"{self.name}: {raw.argv[0]} does not start ({error.strerror})"
            ) from None
        assert self._child.stdout is not None
        self._pipe = self._child.stdout.fileno()
        _widen(self._pipe)

    def read(self) -> Frame:
        """Return the next picture."""
        self._fill()
        here_ns = self._now()
        bgr = self._raw.to_bgr(self._bytes)
        arrived_ns = self._now()
        frame = Frame(
            bgr=bgr,
            sequence=self._sequence,
            captured_ns=here_ns,
            clock=Clock.ARRIVAL,
            arrived_ns=arrived_ns,
            decode_ns=arrived_ns - here_ns,
        )
        self._sequence += 1
        return frame

    def close(self) -> None:
        """End the program and wait until it is gone."""
        if self._said.closed:
            return
        self._child.terminate()
        try:
            self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._said.close()

    def _fill(self) -> None:
        """Read one picture's bytes; a pipe holds less than one, so this is the newest."""
        view = self._bytes.data
        until_ns = self._now() + round(STALL_S * 1e9)
        filled = 0
        while filled < len(view):
            left_s = (until_ns - self._now()) / 1e9
            if left_s <= 0 or not select.select([self._pipe], [], [], left_s)[0]:
                raise Stalled(f"{self.name}: no picture for {STALL_S:g} s from {self._program}")
            count = os.readv(self._pipe, [view[filled:]])
            if count == 0:
                raise DeviceUnavailable(f"{self.name}: {self._program} ended: {self._last_words()}")
            filled += count

    @property
    def _program(self) -> str:
        return self._raw.argv[0].rpartition("/")[2]

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(END_S)
        self._said.seek(0)
        lines = self._said.read()[-4096:].decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else f"exit code {self._child.returncode}"


class PicameraSource:
    """Pictures from Picamera2."""

    live = True
    still = False

    def __init__(self, address: Address, *, now: Callable[[], int] = time.monotonic_ns) -> None:
        self.name = address.shown
        try:
            from picamera2 import Picamera2
        except (ImportError, ValueError) as error:  # what is built for another numpy: ValueError
            raise DeviceUnavailable(
                f"{self.name}: Picamera2 is here and does not load ({error}); {NUMPY}"
            ) from None
        self._now = now
        self._sequence = 0
        fps = address.options.fps or FPS
        self._camera: Any = None
        try:
            self._camera = Picamera2(int(address.target))
            interval_us = round(1e6 / fps)
            # RGB888 is blue first in memory: DRM names read from the highest byte.
            configuration = self._camera.create_video_configuration(
                main={"format": "RGB888", "size": address.options.size or SIZE},
                controls={"FrameDurationLimits": (interval_us, interval_us)},
                buffer_count=4,
            )
            self._camera.configure(configuration)
            self._camera.start()
        except (RuntimeError, IndexError, OSError) as error:
            self.close()
            raise DeviceUnavailable(
                f"{self.name}: Picamera2 does not open it ({error}); is the cable in, and does no "
                "other program have the camera? rpicam-hello --list-cameras shows what is there"
            ) from None
        width, height = self._camera.camera_configuration()["main"]["size"]
        self.delivered = Delivered(
            width=width, height=height, frames_per_second=fps, format="RGB888"
        )

    def read(self) -> Frame:
        """Return the next picture, and when its exposure began."""
        try:
            job = self._camera.capture_request(wait=False)
            request = self._camera.wait(job, timeout=STALL_S)
        except (TimeoutError, NothingCame):  # two classes before Python 3.11
            raise Stalled(f"{self.name}: no picture for {STALL_S:g} s") from None
        except RuntimeError as error:
            raise DeviceUnavailable(f"{self.name}: gives no more pictures ({error})") from None
        try:
            here_ns = self._now()
            metadata = request.get_metadata()
            bgr = np.asarray(request.make_array("main"), np.uint8)
        finally:
            request.release()
        # The stamp is of the first row read out; its exposure began that much before.
        stamp_ns = metadata.get("SensorTimestamp", 0) - 1000 * metadata.get("ExposureTime", 0)
        captured_ns, clock = capture_time(stamp_ns, here_ns, Clock.SENSOR)
        frame = Frame(
            bgr=bgr,
            sequence=self._sequence,
            captured_ns=captured_ns,
            clock=clock,
            arrived_ns=self._now(),
            decode_ns=None,
        )
        self._sequence += 1
        return frame

    def close(self) -> None:
        """Give the camera back."""
        camera, self._camera = self._camera, None
        if camera is not None:
            with suppress(RuntimeError):  # it may not have started
                camera.stop()
            camera.close()


def open_source(address: Address, *, realtime: bool) -> Source:  # noqa: ARG001  always is
    """Return a camera by the first means that is here."""
    if importlib.util.find_spec("picamera2") is not None:
        return PicameraSource(address)
    for program in LIBCAMERA_PROGRAMS:
        if found := shutil.which(program):
            return ChildSource(address, _libcamera(found, address))
    if nvargus := nvargus_program():
        return ChildSource(address, _nvargus(nvargus, address))
    raise DeviceUnavailable(f"{address.shown}: {NOTHING}")


def nvargus_program() -> str | None:
    """Return GStreamer's program where it has the element for these cameras."""
    launch, inspect = shutil.which("gst-launch-1.0"), shutil.which("gst-inspect-1.0")
    if launch is None or inspect is None:
        return None
    known = subprocess.run([inspect, NVARGUS], capture_output=True, check=False)  # noqa: S603
    return launch if known.returncode == 0 else None


def _libcamera(program: str, address: Address) -> _Raw:
    width, height = address.options.size or SIZE
    if width % ROW or height % 2:
        raise UsageError(
            f"{address.shown}: through {program} the width is a multiple of {ROW} and the height "
            "even, such as 640x480 or 1280x720"
        )
    words = {
        "--camera": address.target,
        "--timeout": "0",
        "--codec": "yuv420",
        "--width": str(width),
        "--height": str(height),
        "--framerate": f"{address.options.fps or FPS:g}",
        "--verbose": "0",
        "--output": "-",
    }
    return _Raw(
        argv=[
            program,
            "--nopreview",
            "--flush",
            *(word for pair in words.items() for word in pair),
        ],
        format="YU12",
        picture_bytes=width * height * 3 // 2,
        to_bgr=lambda data: _planes_to_bgr(data, width, height),
    )


def _nvargus(program: str, address: Address) -> _Raw:
    width, height = address.options.size or SIZE
    rate = Fraction(address.options.fps or FPS).limit_denominator(1001)
    sensor = f"video/x-raw(memory:NVMM),format=NV12,framerate={rate.numerator}/{rate.denominator}"
    scaled = f"video/x-raw,format=BGRx,width={width},height={height}"
    newest = ["queue", "leaky=downstream", "max-size-buffers=1"]
    elements = [
        [NVARGUS, f"sensor-id={address.target}"],
        [sensor],
        ["nvvidconv"],
        [scaled],
        newest,
        ["fdsink", "fd=1", "sync=false"],
    ]
    pipeline = [word for element in elements for word in ("!", *element)][1:]
    return _Raw(
        argv=[program, "-q", *pipeline],
        format="BGRx",
        picture_bytes=width * height * 4,
        to_bgr=lambda data: _bgr(cv2.cvtColor(data.reshape(height, width, 4), cv2.COLOR_BGRA2BGR)),
    )


def _planes_to_bgr(data: UInt8Array, width: int, height: int) -> UInt8Array:
    """Return the picture of three planes, the two of colour at half its size.

    The program fills all of 0 to 255, as JPEG does; OpenCV's own YU12 takes 16 to 235 for granted
    and would cut off what is dark and what is bright.
    """
    luma = data[: width * height].reshape(height, width)
    quarter = (2, height // 2, width // 2)
    blue, red = data[width * height :].reshape(quarter)
    wide = [
        cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in (red, blue)
    ]
    return _bgr(cv2.cvtColor(cv2.merge([luma, *wide]), cv2.COLOR_YCrCb2BGR))


def _bgr(picture: Any) -> UInt8Array:
    return np.asarray(picture, np.uint8)


def _widen(pipe: int) -> None:
    import fcntl

    # 1031 is F_SETPIPE_SZ, which Python names only from 3.10 on Linux; refused, it stays as it was.
    with suppress(OSError):
        fcntl.fcntl(pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)
