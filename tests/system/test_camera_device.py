"""A real V4L2 device, on the virtual board: its kernel's `vivid` driver, looped from its output.

`make test` installs what the board takes; without it these tests fail, they do not skip.
"""

import hashlib
import json
import shlex

import cv2
import numpy as np
import pytest
from virtual_board import PYTHON

READ = """
import hashlib, json, sys, time
from edgenet.stream.reader import Reader
wanted, deadline = sys.argv[2:], time.monotonic() + 60
with Reader(sys.argv[1]) as reader:
    frames = []
    while time.monotonic() < deadline and (len(frames) < 5 or wanted):
        frame = reader.take(5)
        frames.append((frame, time.monotonic_ns()))
        if wanted and hashlib.sha256(frame.bgr.tobytes()).hexdigest() == wanted[0]:
            wanted.pop(0)
    given = reader.source.delivered
    print(json.dumps({
        "missing": wanted,
        "given": [given.width, given.height, given.frames_per_second, given.format],
        "shape": frames[-1][0].bgr.shape,
        "clocks": [frame.clock.value for frame, _ in frames],
        "waited_ms": [(frame.arrived_ns - frame.captured_ns) / 1e6 for frame, _ in frames],
        "decode_ms": [frame.decode_ns / 1e6 for frame, _ in frames],
        "sequences": [frame.sequence for frame, _ in frames],
        "faults": [fault.message for fault in reader.faults],
        "counts": reader.counts.__dict__,
    }))
"""
OPEN = """
import sys
from edgenet.errors import EdgenetError
from edgenet.stream.sources import open_source
try:
    open_source(sys.argv[1]).close()
except EdgenetError as error:
    print(f"{type(error).__name__} {error}")
else:
    print("opened")
"""
OPEN_TWICE = """
from edgenet.errors import DeviceUnavailable
from edgenet.stream.reader import Reader
from edgenet.stream.sources import open_source
import subprocess, sys
code = "import sys, time; from edgenet.stream.reader import Reader\\n" \\
       "with Reader('0'): print('here', flush=True); sys.stdin.read()"
first = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
assert first.stdout.readline() == "here\\n"
try:
    open_source("0")
except DeviceUnavailable as error:
    print(error)
print(first.pid)
from edgenet.stream.cameras import find_cameras
print(find_cameras().found[0].problem)
first.communicate("")
with Reader("0") as reader:
    print(reader.take(5) is not None)
"""
LIST = """
import dataclasses, json
from edgenet.stream.cameras import find_cameras, first_camera
print(json.dumps([dataclasses.asdict(find_cameras()), first_camera()]))
"""


def sha256(picture):
    return hashlib.sha256(picture.tobytes()).hexdigest()


def test_pictures_come_bit_for_bit(pi5, tmp_path):
    draw = np.random.default_rng(5)
    pictures = [draw.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(2)]
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, picture in zip(paths, pictures, strict=True):
        cv2.imwrite(str(path), picture)
    pi5.show(*paths, hold_s=0.5)
    hashes = [sha256(picture) for picture in pictures]
    found = json.loads(pi5.python(READ, "/dev/video0", *hashes, hashes[0]))
    pi5.show()
    assert found["missing"] == []
    assert found["given"][:2] == [640, 480]
    assert found["given"][2] > 0
    assert found["given"][3] is not None
    assert found["shape"] == [480, 640, 3]
    assert all(0 < waited < 5000 for waited in found["waited_ms"])
    assert all(decode > 0 for decode in found["decode_ms"])
    assert found["sequences"] == sorted(set(found["sequences"]))
    assert found["counts"]["taken"] == len(found["sequences"])


def test_the_drivers_clock_is_taken_where_it_can_be_true(pi5):
    """`vivid` stamps with the end of a frame that it hands out before, or with its beginning."""
    choose = "v4l2-ctl -d /dev/video0 --set-ctrl timestamp_source={}"
    try:
        pi5.run(choose.format(1))
        begins = json.loads(pi5.python(READ, "/dev/video0"))
    finally:
        pi5.run(choose.format(0))
    assert set(begins["clocks"]) == {"driver"}
    assert all(0 < waited < 5000 for waited in begins["waited_ms"])
    untrue = 'sum(frame.clock.value == "arrival" for frame, _ in frames) < 12'
    ends = json.loads(pi5.python(READ.replace("len(frames) < 5", untrue), "0"))
    # A late reader finds some of these stamps possible; three that are not end the matter.
    third = [at for at, clock in enumerate(ends["clocks"]) if clock == "arrival"][2]
    assert set(ends["clocks"][third:]) == {"arrival"}
    assert len(ends["clocks"][third:]) == 10


def test_what_is_asked_for_by_name_and_not_there_is_refused(pi5):
    said = pi5.python(OPEN, "v4l2:///dev/video0?fourcc=MJPG")
    assert said.startswith("DeviceUnavailable v4l2:///dev/video0?fourcc=MJPG: gives ")
    assert "not MJPG; it has " in said


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/dev/video9", "no such device (have: /dev/video0"),
        ("/dev/video1", "gives no pictures"),
        ("/dev/null", "is no camera"),
    ],
)
def test_what_does_not_open_says_why(pi5, path, complaint):
    said = pi5.python(OPEN, path)
    assert said.startswith(f"DeviceUnavailable {path}: ")
    assert complaint in said
    assert said.count("\n") == 1


def test_who_may_not_open_it_is_told_what_to_do(pi5):
    program = shlex.join([PYTHON, "-c", OPEN, "/dev/video0"])
    said = pi5.run(f"cd / && sudo -n -u nobody {program}")
    assert said.startswith("DeviceUnavailable /dev/video0: permission denied; ")
    assert "usermod -aG video" in said


def test_a_device_in_use_says_by_whom_and_can_be_had_afterwards(pi5):
    refused, pid, listed, afterwards = pi5.python(OPEN_TWICE).splitlines()
    assert "is in use by python" in refused
    assert f"({pid})" in refused
    assert "is in use by" in listed
    assert afterwards == "True"


def test_the_list_of_cameras(pi5):
    cameras, first = json.loads(pi5.python(LIST))
    (camera,) = cameras["found"]
    assert camera["uri"] == first == "/dev/video0"
    assert camera["name"] == "vivid"
    assert camera["problem"] is None
    assert any("640x480" in line or "any size" in line for line in camera["gives"])
