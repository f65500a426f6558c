"""RTSP streams through OpenCV's FFmpeg: over TCP, without buffers that grow old.

One decoding thread: FFmpeg's frame threads hold back a frame each. FFmpeg decodes while it waits
for the network, so what decoding takes is not known here. A capture that timed out never delivers
again; it is closed, and the reader opens another.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import cv2
import numpy as np

from edgenet.errors import DeviceUnavailable
from edgenet.stream.address import Address
from edgenet.stream.connecting import CONNECT_S, why_not, why_unauthorised
from edgenet.stream.credentials import authorization, login_of
from edgenet.stream.frame import Clock, Delivered, Frame
from edgenet.stream.sources import STALL_S, Stalled
from edgenet.stream.sources.capture import delivered_by

OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
"""OpenCV reads FFmpeg's options from this at each opening."""
PATIENT = "rtsp_transport;tcp|flags;low_delay"
"""TCP, as OpenCV itself has it: over UDP pictures come damaged, and no earlier. Not nobuffer: it
throws away the first whole picture, and the next may be seconds away."""
EAGER = f"{PATIENT}|analyzeduration;100000|fpsprobesize;0"
"""Look at 0.1 s of the stream before the first picture; FFmpeg would look at a second and more."""
NEARLY = 0.97
"""Of a time-out: clocks differ a little in when it is over."""
NOT_DECODED = "has a stream, but none that FFmpeg decodes; set the camera to H.264"
_opening = threading.Lock()


class RtspSource:
    """One connection to a server."""

    live = True
    still = False

    def __init__(self, address: Address, *, now: Callable[[], int] = time.monotonic_ns) -> None:
        self.name = address.shown
        self._now = now
        self._capture = self._open(address.target, EAGER)
        self._sequence = 0
        self.delivered: Delivered = delivered_by(self._capture)

    def _open(self, url: str, options: str) -> cv2.VideoCapture:
        began_ns = self._now()
        with _ffmpeg_options(options):
            capture = cv2.VideoCapture(
                url,
                cv2.CAP_FFMPEG,
                [
                    *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(CONNECT_S * 1000)),
                    *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(STALL_S * 1000)),
                    *(cv2.CAP_PROP_N_THREADS, 1),
                ],
            )
        if capture.isOpened():
            return capture
        late = (self._now() - began_ns) / 1e9 >= NEARLY * CONNECT_S
        why = _why(url, late=late)
        if why is NOT_DECODED and options is EAGER:
            # A camera that does not describe its stream: one must look at more of it.
            return self._open(url, PATIENT)
        raise DeviceUnavailable(f"{self.name}: {why}")

    def read(self) -> Frame:
        """Return the next picture."""
        began_ns = self._now()
        there, bgr = self._capture.read()
        arrived_ns = self._now()
        # When its time is out FFmpeg gives away what its decoder held back, as if it had come now.
        if arrived_ns - began_ns >= NEARLY * STALL_S * 1e9:
            raise Stalled(f"{self.name}: no picture for {STALL_S:g} s")
        if not there:
            raise DeviceUnavailable(f"{self.name}: the server ended the stream")
        frame = Frame(
            bgr=np.asarray(bgr, np.uint8),
            sequence=self._sequence,
            captured_ns=arrived_ns,
            clock=Clock.ARRIVAL,
            arrived_ns=arrived_ns,
            decode_ns=None,
        )
        self._sequence += 1
        return frame

    def close(self) -> None:
        """End the connection."""
        self._capture.release()


def open_source(address: Address, *, realtime: bool) -> RtspSource:  # noqa: ARG001  always is
    """Return the stream at an address."""
    return RtspSource(address)


@contextmanager
def _ffmpeg_options(options: str) -> Iterator[None]:
    """Let OpenCV open with these options, unless the user has set others."""
    with _opening:
        if OPTIONS in os.environ:
            yield
            return
        os.environ[OPTIONS] = options
        try:
            yield
        finally:
            del os.environ[OPTIONS]


def _why(url: str, *, late: bool) -> str:
    """Return why a stream did not open: OpenCV does not tell, so the server is asked."""
    parts, login = urlsplit(url), login_of(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    try:
        status, head = _describe(url, bare, None)
        if status == 401 and login is not None:
            challenges = re.findall(r"(?im)^www-authenticate:\s*(.+?)\s*$", head)
            answer = authorization(challenges, login, "DESCRIBE", bare)
            if answer is not None:
                status, head = _describe(url, bare, answer)
    except (OSError, UnicodeError) as error:
        return why_not(error)
    if status is None:
        return "does not answer as an RTSP server does"
    if status == 401:
        return why_unauthorised(parts.scheme, had_login=login is not None)
    if status != 200:
        reason = head.partition("\r\n")[0].split(" ", 2)[-1]
        return f"answers {status} {reason}; check the path"
    if late:
        return f"has a stream but sends no picture within {CONNECT_S:g} s"
    return NOT_DECODED


def _describe(url: str, bare: str, answer: str | None) -> tuple[int | None, str]:
    """Return the status and the head of the server's answer to DESCRIBE."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    secure = parts.scheme == "rtsps"
    port = parts.port or (322 if secure else 554)
    with socket.create_connection((parts.hostname, port), CONNECT_S) as plain:
        connection = (
            ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)
            if secure
            else plain
        )
        authorised = f"Authorization: {answer}\r\n" if answer else ""
        request = f"DESCRIBE {bare} RTSP/1.0\r\nCSeq: 1\r\n{authorised}\r\n"
        connection.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 65536:
            piece = connection.recv(4096)
            if not piece:
                break
            head += piece
    text = head.decode(errors="replace")
    status = re.match(r"RTSP/1\.\d (\d{3})", text)
    return (int(status[1]) if status else None), text
