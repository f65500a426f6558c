"""A playlist as MJPEG over HTTP, with nothing but the standard library and OpenCV's JPEG.

Each client gets the newest frame when it is ready for one. What lies in the kernel's buffers is
kept short, because it would be an old picture.
"""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import cv2

from edgenet import interruption
from edgenet.preprocess import UInt8Array
from edgenet.stream.listening import Address, listen
from edgenet.stream.outlets import LISTEN_OPTION

PATH = "/stream.mjpg"
BOUNDARY = "edgenet"
MOST_CLIENTS = 8
SEND_BUFFER_BYTES = 64 * 1024
LOOK_EVERY_S = 0.2
"""Whether there was a Ctrl-C, while nobody watches."""
PATIENCE_S = 10.0
"""For a client that takes nothing, before it is let go."""


class MjpegServer:
    """An outlet that serves at `url`."""

    live = True

    def __init__(self, address: Address, *, quality: int) -> None:
        """Listen; raises `AddressUnavailable` where that cannot be."""
        self._quality = quality
        self._newest = _Newest()
        newest = self._newest

        class Handler(_Handler):
            frames = newest

        self._server = _Server(listen(address, option=LISTEN_OPTION), Handler)
        bound = Address(host=address.host, port=self._server.server_address[1])
        self.url = f"http://{bound.text}{PATH}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="edgenet mjpeg", daemon=True
        )

    def __enter__(self) -> MjpegServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._newest.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self) -> None:
        """Return when the first client has asked for the stream."""
        while not self._newest.watched.wait(LOOK_EVERY_S):
            interruption.check()

    def show(self, frame: UInt8Array) -> bool:
        """Encode a frame and offer it to every client."""
        _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        self._newest.put(data.tobytes())
        return True


class _Newest:
    """The newest JPEG, for any number of readers."""

    def __init__(self) -> None:
        self.watched = threading.Event()
        self.places = threading.BoundedSemaphore(MOST_CLIENTS)
        self._changed = threading.Condition()
        self._data: bytes | None = None
        self._number = 0
        self._closed = False

    def put(self, data: bytes) -> None:
        with self._changed:
            self._data, self._number = data, self._number + 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def after(self, number: int) -> tuple[int, bytes] | None:
        """Return a frame newer than `number` as soon as there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number > number)
            return None if self._closed or self._data is None else (self._number, self._data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: type[_Handler]) -> None:
        """Take a socket that listens: the base class asks a name server who we are."""
        super().__init__(listener.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    frames: _Newest
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """Send frames until one side ends it."""
        if self.path != PATH:
            self.send_error(404, "only " + PATH)
            return
        if not self.frames.places.acquire(blocking=False):
            self.send_error(503, f"{MOST_CLIENTS} clients are here already")
            return
        try:
            self._stream()
        finally:
            self.frames.places.release()

    def _stream(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.frames.watched.set()
        number = 0
        while (found := self.frames.after(number)) is not None:
            number, data = found
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n"
            self.wfile.write(head.encode() + b"\r\n" + data + b"\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """Keep requests off stderr."""
