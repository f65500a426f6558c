"""JPEG pictures one after the other over HTTP (multipart/x-mixed-replace), as IP cameras have them.

Read here and not by FFmpeg: what decoding takes is then known, a damaged picture is counted and not
smeared over, a change of size is seen, and when several pictures have come meanwhile only the
newest is decoded.
"""

from __future__ import annotations

import http.client
import select
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from urllib.parse import quote, urlsplit

import cv2
import numpy as np

from edgenet.errors import BadImage, DeviceUnavailable
from edgenet.stream.address import Address, shown
from edgenet.stream.connecting import CONNECT_S, why_not, why_unauthorised
from edgenet.stream.credentials import authorization, login_of
from edgenet.stream.frame import Clock, Delivered, Frame, UInt8Array
from edgenet.stream.multipart import NotMultipart, Parts
from edgenet.stream.sources import STALL_S, Stalled

PIECE = 256 * 2**10
MOST_PIECES_AHEAD = 64
"""Read in search of something newer: a server without a pace of its own never runs dry."""
TAIL = 1024
"""A JPEG ends with its end mark; some cameras fill up behind it."""


class MjpegSource:
    """One connection to a server."""

    live = True
    still = False

    def __init__(self, address: Address, *, now: Callable[[], int] = time.monotonic_ns) -> None:
        self.name = address.shown
        self._now = now
        self._response = self._request(address.target)
        kind = Message()
        kind["content-type"] = self._response.headers.get("Content-Type", "")
        boundary = kind.get_param("boundary")
        if kind.get_content_maintype() != "multipart" or not isinstance(boundary, str):
            self.close()
            raise DeviceUnavailable(
                f"{self.name}: gives {kind.get_content_type()}, not a stream of JPEG pictures; "
                "look up the camera's address for MJPEG, or use its rtsp://"
            )
        self._parts = Parts(boundary)
        self._whole: list[bytes] = []
        self._arrived_ns = self._last_ns = now()
        self._sequence = 0
        self._shape = (0, 0)

    @property
    def delivered(self) -> Delivered:
        """Return the size of the newest picture; a server does not tell its rate."""
        height, width = self._shape
        return Delivered(width=width, height=height, frames_per_second=None, format="MJPG")

    def read(self) -> Frame:
        """Return the newest picture that is here, or the next one."""
        while not self._whole:
            self._receive()
        for _ in range(MOST_PIECES_AHEAD):
            if not self._more_is_here():
                break
            self._receive()
        *older, newest = self._whole
        self._whole = []
        self._sequence += len(older)
        self._last_ns = began_ns = self._now()
        bgr = _decode(newest, self.name)
        self._shape = bgr.shape[:2]
        arrived_ns = self._now()
        frame = Frame(
            bgr=bgr,
            sequence=self._sequence,
            captured_ns=self._arrived_ns,
            clock=Clock.ARRIVAL,
            arrived_ns=arrived_ns,
            decode_ns=arrived_ns - began_ns,
        )
        self._sequence += 1
        return frame

    def close(self) -> None:
        """End the connection."""
        with suppress(OSError):
            self._response.close()
            self._socket.close()

    def _request(self, url: str) -> http.client.HTTPResponse:
        """Return the answer to a request for `url`, with its user and password if it asks."""
        parts, login = urlsplit(url), login_of(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path = quote(path, safe="%/:?#[]@!$&'()*+,;=")  # what people type, such as a space
        response = self._get(url, path, {})
        if response.status == http.client.UNAUTHORIZED and login is not None:
            challenges = response.headers.get_all("WWW-Authenticate", [])
            answer = authorization(challenges, login, "GET", path)
            if answer is not None:
                response.close()
                response = self._get(url, path, {"Authorization": answer})
        if response.status == http.client.OK:
            return response
        response.close()
        self._socket.close()
        if response.status == http.client.UNAUTHORIZED:
            why = why_unauthorised(parts.scheme, had_login=login is not None)
        elif location := response.headers.get("Location"):
            why = f"has moved to {shown(location)}; give that address"
        else:
            why = f"answers {response.status} {response.reason}; check the path"
        raise DeviceUnavailable(f"{self.name}: {why}")

    def _get(self, url: str, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        assert parts.hostname is not None
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.hostname, parts.port, timeout=CONNECT_S)
        try:
            connection.connect()
            self._socket = connection.sock
            self._socket.settimeout(STALL_S)
            connection.request("GET", path, headers={**headers, "Accept": "multipart/*, */*;q=0.1"})
        except (OSError, UnicodeError) as error:
            connection.close()
            raise DeviceUnavailable(f"{self.name}: {why_not(error)}") from None
        try:
            return connection.getresponse()
        except TimeoutError:
            connection.close()
            raise DeviceUnavailable(
                f"{self.name}: is connected and answers nothing for {STALL_S:g} s"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise DeviceUnavailable(
                f"{self.name}: does not answer as an HTTP server does ({type(error).__name__})"
            ) from None

    def _more_is_here(self) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return bool(select.select([self._socket], [], [], 0)[0])

    def _receive(self) -> None:
        """Take in what comes, at the latest two seconds after the last picture."""
        left_s = STALL_S - (self._now() - self._last_ns) / 1e9
        try:
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            data = self._response.read1(PIECE)
            here_ns = self._now()
            if not data:
                raise ConnectionError("closed")
            if whole := self._parts.feed(data):
                self._whole += whole
                self._arrived_ns = here_ns
        except TimeoutError:
            raise Stalled(f"{self.name}: no picture for {STALL_S:g} s") from None
        except NotMultipart:
            raise DeviceUnavailable(f"{self.name}: sends something else than pictures") from None
        except (OSError, http.client.HTTPException):
            raise DeviceUnavailable(f"{self.name}: the server closed the connection") from None


def open_source(address: Address, *, realtime: bool) -> MjpegSource:  # noqa: ARG001  always is
    """Return the stream of JPEG pictures at an address."""
    return MjpegSource(address)


def _decode(data: bytes, name: str) -> UInt8Array:
    """Return the (H, W, 3) picture; OpenCV fills with grey what is missing, so that is refused."""
    if not data.startswith(b"\xff\xd8") or data.rfind(b"\xff\xd9", -TAIL) < 0:
        raise BadImage(f"{name}: a picture of {len(data)} bytes is no whole JPEG")
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise BadImage(f"{name}: a picture of {len(data)} bytes does not decode")
    return np.asarray(bgr, np.uint8)
