"""A camera that sends JPEG pictures over HTTP and fails on command.

The time of drawing is in the pixels of each picture. In a test it runs in threads; as a program it
prints its URL and takes commands, one a line: stall, freeze, corrupt, size 320x240, die, come_back,
go_on.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

from edgenet.stream.sources.synthetic import draw_scene
from edgenet.stream.stamp import draw_stamp

BOUNDARY = "picture"
REALM, NONCE = "stand-in", "8b1d"


class MjpegServer:
    """`with MjpegServer() as server: ... server.url`; it keeps its port when it comes back."""

    def __init__(self, *, fps=30.0, size=(640, 480), login=None, scheme="basic", lengths=True):
        """`login`: (user, password) that it asks for by `scheme`, basic or digest."""
        self.fps, self.login, self.scheme, self.lengths = fps, login, scheme, lengths
        self.port = 0
        self.requests = 0
        self._scene = draw_scene(*size)
        self._mode = "go_on"
        self._corrupt = 0
        self._newest = (0, b"")
        self._changed = threading.Condition()
        self._connections = set()
        self._server = None
        self._stop = threading.Event()

    def __enter__(self):
        self.come_back()
        threading.Thread(target=self._draw, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self.die()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/stream.mjpg"

    def url_with(self, user, password):
        return f"http://{user}:{password}@127.0.0.1:{self.port}/stream.mjpg"

    def stall(self):
        """Stay connected and send nothing."""
        self._mode = "stall"

    def freeze(self):
        """Send the same picture again and again."""
        self._mode = "freeze"

    def go_on(self):
        """Do what a camera does."""
        self._mode = "go_on"

    def corrupt(self, pictures=1):
        """Cut the next pictures off in the middle."""
        self._corrupt = pictures

    def size(self, width, height):
        """Go on with pictures of another size."""
        self._scene = draw_scene(width, height)

    def die(self):
        """Close every connection and the port."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        for connection in list(self._connections):
            with suppress(OSError):  # its client has gone already
                connection.shutdown(socket.SHUT_RDWR)

    def come_back(self):
        """Listen again, on the same port."""
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.camera = self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def next(self, after):
        """Return the number and the bytes of the next picture."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest[0] > after or self._stop.is_set())
            return self._newest

    def _draw(self):
        number, due = 0, time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / self.fps, time.monotonic() - 1)
            if self._mode == "stall":
                continue
            number += 1
            data = self._newest[1]
            if self._mode != "freeze" or not data:
                bgr = np.roll(self._scene, 4 * number % self._scene.shape[1], axis=1)
                draw_stamp(bgr, time.monotonic_ns())
                data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
            if self._corrupt:
                self._corrupt -= 1
                data = data[: len(data) // 2]
            with self._changed:
                self._newest = (number, data)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def lets_in(self, header, method, path):
        """Tell whether an Authorization header is right."""
        if self.login is None:
            return True
        if self.scheme == "basic":
            return header == "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
        said = dict(re.findall(r'(\w+)="?([^",]*)"?', header or ""))

        def md5(*parts):
            return hashlib.md5(":".join(parts).encode()).hexdigest()

        middle = [said.get(key, "") for key in ("nonce", "nc", "cnonce", "qop")]
        who = md5(self.login[0], REALM, self.login[1])
        right = md5(who, *middle, md5(method, path))
        return said.get("response") == right and said.get("nonce") == NONCE


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients come and go


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        camera = self.server.camera
        camera.requests += 1
        if not camera.lets_in(self.headers.get("Authorization"), "GET", self.path):
            asked = f'realm="{REALM}", nonce="{NONCE}", qop="auth", algorithm=MD5'
            challenge = "Basic realm=x" if camera.scheme == "basic" else f"Digest {asked}"
            self.send_response(401)
            self.send_header("WWW-Authenticate", challenge)
            self.end_headers()
            return
        if self.path == "/picture.jpg":
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.end_headers()
            return
        if self.path != "/stream.mjpg":
            self.send_error(404)
            return
        camera._connections.add(self.connection)
        try:
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace;boundary={BOUNDARY}")
            self.end_headers()
            number = camera._newest[0]
            while not camera._stop.is_set():
                number, data = camera.next(number)
                length = f"Content-Length: {len(data)}\r\n" if camera.lengths else ""
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\n{length}\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
        finally:
            camera._connections.discard(self.connection)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--size", default="640x480")
    options = parser.parse_args()
    size = tuple(int(side) for side in options.size.split("x"))
    with MjpegServer(fps=options.fps, size=size) as server:
        print(server.url, flush=True)
        for line in sys.stdin:
            command, *words = line.split()
            numbers = [int(word) for text in words for word in text.split("x")]
            getattr(server, command)(*numbers)


if __name__ == "__main__":
    main()
