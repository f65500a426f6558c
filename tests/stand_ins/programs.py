"""Programs that give access to a camera on a ribbon cable, as their documentation describes them.

Each is a Python file that is put under its name into a folder on PATH. It checks the words that it
is called with and writes pictures as the real one would: a stamp, and below it one colour.
"""

from __future__ import annotations

import sys
from pathlib import Path

COLOUR = (200, 60, 30)
"""Blue, green, red of what the stand-ins show."""

RPICAM_VID = """
import argparse, sys, time
import cv2, numpy as np
from edgenet.stream.stamp import draw_stamp

parser = argparse.ArgumentParser()
for name in ("camera", "timeout", "codec", "width", "height", "framerate", "verbose", "output"):
    parser.add_argument("--" + name, required=True)
parser.add_argument("--nopreview", action="store_true", required=True)
parser.add_argument("--flush", action="store_true", required=True)
asked = parser.parse_args()
if asked.camera != "0":
    sys.exit("ERROR: *** no cameras available ***")
assert (asked.timeout, asked.codec, asked.output) == ("0", "yuv420", "-"), asked
width, height = int(asked.width), int(asked.height)
due = time.monotonic()
while True:
    bgr = np.full((height, width, 3), {colour}, np.uint8)
    draw_stamp(bgr, time.monotonic_ns())
    # Full range, as the program asks libcamera for with this codec (its sYCC colour space).
    luma, red, blue = cv2.split(cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb))
    half = (width // 2, height // 2)
    planes = [luma, *(cv2.resize(it, half, interpolation=cv2.INTER_AREA) for it in (blue, red))]
    sys.stdout.buffer.write(b"".join(it.tobytes() for it in planes))
    sys.stdout.buffer.flush()
    {after}
    due += 1 / float(asked.framerate)
    time.sleep(max(0.0, due - time.monotonic()))
"""

GST_LAUNCH = r"""
import re, sys, time
import numpy as np
from edgenet.stream.stamp import draw_stamp

line = " ".join(sys.argv[1:])
assert line.startswith("-q nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),"), line
assert "! nvvidconv ! video/x-raw,format=BGRx," in line, line
assert line.endswith("! queue leaky=downstream max-size-buffers=1 ! fdsink fd=1 sync=false"), line
width, height = map(int, re.search(r"width=(\d+),height=(\d+) !", line).groups())
numerator, denominator = map(int, re.search(r"framerate=(\d+)/(\d+)", line).groups())
while True:
    bgrx = np.full((height, width, 4), (*{colour}, 255), np.uint8)
    draw_stamp(bgrx[:, :, :3], time.monotonic_ns())
    sys.stdout.buffer.write(bgrx.tobytes())
    sys.stdout.buffer.flush()
    time.sleep(denominator / numerator)
"""

GST_INSPECT = """
import sys
sys.exit(0 if sys.argv[1:] == ["nvarguscamerasrc"] else 1)
"""

PICAMERA2 = """
import time
from concurrent.futures import Future
import numpy as np
from edgenet.stream.stamp import draw_stamp

EXPOSURE_US = 8000

class Request:
    def __init__(self, size):
        self.size, self.released = size, False
        self.read_out_ns = time.monotonic_ns() - 5_000_000

    def get_metadata(self):
        return {{"SensorTimestamp": self.read_out_ns, "ExposureTime": EXPOSURE_US}}

    def make_array(self, stream):
        assert stream == "main" and not self.released
        bgr = np.full((self.size[1], self.size[0], 3), {colour}, np.uint8)
        draw_stamp(bgr, self.read_out_ns - 1000 * EXPOSURE_US)
        return bgr

    def release(self):
        assert not self.released
        self.released = True
        Picamera2.held -= 1

class Picamera2:
    held = 0
    running = 0
    silent = False

    def __init__(self, number):
        if number:
            raise IndexError("list index out of range")

    def create_video_configuration(self, main, controls, buffer_count):
        assert main["format"] == "RGB888" and buffer_count == 4
        return {{"main": main, "controls": controls}}

    def configure(self, configuration):
        self.configuration = configuration

    def camera_configuration(self):
        return self.configuration

    def start(self):
        Picamera2.running += 1

    def stop(self):
        Picamera2.running -= 1

    def close(self):
        pass

    def capture_request(self, wait):
        assert wait is False
        job = Future()
        if not Picamera2.silent:
            time.sleep(self.configuration["controls"]["FrameDurationLimits"][0] / 1e6)
            Picamera2.held += 1
            assert Picamera2.held <= 4
            job.set_result(Request(self.configuration["main"]["size"]))
        return job

    def wait(self, job, timeout):
        return job.result(timeout)
"""


def put_program(folder: Path, name: str, text: str, *, after: str = "pass") -> None:
    """Put a stand-in on disk under the name of the real program; `after` follows each picture."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text.format(colour=COLOUR, after=after)}")
    path.chmod(0o755)
