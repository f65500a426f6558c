"""A camera that sends H.264 over RTSP: GStreamer's server, run by the system's Python.

The time of drawing is in the pixels of each picture, as `edgenet.stream.stamp` reads it; it is
written here once more because the system's Python has no numpy. As a program it prints its URL;
a test starts it with `RtspServer` and ends, stops or freezes it from outside.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's: the packages of GStreamer for Python are not on the index."""


class RtspServer:
    """`with RtspServer() as server: ... server.url`; it keeps its port when it comes back."""

    def __init__(self, *, fps=30, size=(640, 480), login=None, keyframes=30, bitrate=2000):
        self.port = 0
        self._words = [f"--fps={fps}", f"--size={size[0]}x{size[1]}", f"--keyframes={keyframes}"]
        self._words += [f"--bitrate={bitrate}", *([f"--login={':'.join(login)}"] if login else [])]
        self._process = None

    def __enter__(self):
        self.come_back()
        return self

    def __exit__(self, *_):
        self.die()

    @property
    def url(self):
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def url_with(self, user, password):
        return f"rtsp://{user}:{password}@127.0.0.1:{self.port}/stream"

    def come_back(self):
        """Start, on the port that it had before."""
        command = [SYSTEM_PYTHON, __file__, f"--port={self.port}", *self._words]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = self._process.stdout.readline()
        assert line.startswith("rtsp://"), f"{command} did not start: {line!r}"
        self.port = int(line.rpartition(":")[2].partition("/")[0])

    def die(self):
        """End at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def stall(self):
        """Stay connected and send nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        """Go on after a stall."""
        self._process.send_signal(signal.SIGCONT)

    def freeze(self):
        """Send the same picture again and again."""
        self._say("freeze")

    def go_on(self):
        """Do what a camera does."""
        self._say("go_on")

    def _say(self, command):
        print(command, file=self._process.stdin, flush=True)


class Camera:
    """Draws pictures and hands them to GStreamer."""

    def __init__(self, width, height, fps):
        self.width, self.height, self.fps = width, height, fps
        self.frozen = False
        self.source = None
        row = bytes(
            value
            for x in range(width)
            for value in (255 * x // width, (x * 7) % 200, 60 if (x // 40) % 2 else 190)
        )
        self._rows = row * 2

    def picture(self, number):
        """Return (height, width, 3) bytes, blue first: stripes that move, under a stamp."""
        side = self.width // 40
        value = time.monotonic_ns().to_bytes(8, "big")
        data = value + (zlib.crc32(value) & 0xFFFF).to_bytes(2, "big")
        bits = "".join(f"{byte:08b}" for byte in data)
        cells = {"0": b"\x10" * (3 * side), "1": b"\xeb" * (3 * side)}
        start = 3 * (4 * number % self.width)
        row = self._rows[start : start + 3 * self.width]
        rest = row[3 * 40 * side :]
        stamp = b"".join(
            (b"".join(cells[bit] for bit in bits[first : first + 40]) + rest) * side
            for first in (0, 40)
        )
        return stamp + row * (self.height - 2 * side)

    def draw_on(self, gst):
        """Draw for ever, at a steady rate."""
        number, due, data = 0, time.monotonic(), b""
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + 1 / self.fps, time.monotonic() - 1 / self.fps)
            source = self.source
            if source is None:
                continue
            if not self.frozen or not data:
                number += 1
                data = self.picture(number)
            if source.emit("push-buffer", gst.Buffer.new_wrapped(data)) != gst.FlowReturn.OK:
                self.source = None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--login")
    parser.add_argument("--keyframes", type=int, default=30)
    parser.add_argument("--bitrate", type=int, default=2000)
    options = parser.parse_args()

    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    width, height = (int(side) for side in options.size.split("x"))
    camera = Camera(width, height, options.fps)
    caps = f"video/x-raw,format=BGR,width={width},height={height},framerate={options.fps}/1"
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( appsrc name=drawn is-live=true do-timestamp=true format=time caps={caps} ! "
        "videoconvert ! video/x-raw,format=I420 ! "
        f"x264enc tune=zerolatency speed-preset=ultrafast bitrate={options.bitrate} "
        f"key-int-max={options.keyframes} ! h264parse ! rtph264pay name=pay0 pt=96 "
        "config-interval=1 )"
    )
    factory.set_shared(True)

    def configure(_factory, media):
        camera.source = media.get_element().get_by_name("drawn")

    factory.connect("media-configure", configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    if options.login:
        protect(options.login, server, factory, GstRtspServer)
    server.get_mount_points().add_factory("/stream", factory)
    server.attach(None)
    threading.Thread(target=camera.draw_on, args=(Gst,), daemon=True).start()
    threading.Thread(target=obey, args=(camera,), daemon=True).start()
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/stream", flush=True)
    GLib.MainLoop().run()


def protect(login, server, factory, rtsp):
    """Ask for a user and a password, by digest."""
    user, _, password = login.partition(":")
    token = rtsp.RTSPToken()
    token.set_string("media.factory.role", user)
    gi_rtsp = rtsp.RTSPAuth()
    gi_rtsp.add_basic(rtsp.RTSPAuth.make_basic(user, password), token)
    server.set_auth(gi_rtsp)
    factory.add_role_from_structure(_permissions(user))


def _permissions(user):
    from gi.repository import Gst

    text = f"{user}, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
    return Gst.Structure.new_from_string(text)


def obey(camera):
    """Do what stdin says, and end with it."""
    for line in sys.stdin:
        camera.frozen = line.strip() == "freeze"
    os._exit(0)


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).parent]
    main()
