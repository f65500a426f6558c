"""H.264 by real GStreamer: a file that is whole, and a stream that OpenCV reads."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from edgenet.data.photographs import calibration_set
from edgenet.errors import AddressUnavailable, DeviceUnavailable, NotWritable, UsageError
from edgenet.stream.listening import Address
from edgenet.stream.marker import Canvas, Layout, Marker
from edgenet.stream.outlets.gstreamer import CHILD, SYSTEM_PYTHON, Coding, RtspServer, VideoFile
from edgenet.stream.strip_reader import StripReader
from tests.processes import children_of

LAYOUT = Layout(width=640, height=480)
ANY_PORT = Address(host="127.0.0.1", port=0)


def coding(bitrate_kbit=2000, layout=LAYOUT):
    return Coding(layout=layout, frames_per_second=30, bitrate_kbit=bitrate_kbit)


def drawn(layout, count, each=10):
    """Yield frames and their markers, another photograph every `each` frames."""
    canvas, pictures = Canvas(layout), calibration_set().samples
    for number in range(count):
        if number % each == 0:
            frame, width, height = canvas.lay(pictures[number // each].read())
        marker = Marker(
            width=width,
            height=height,
            index=number // each,
            playlist=0xABCDEF,
            pixels=7,
            clock_ms=123_456_789 + 33 * number,
            since=number % each,
            until=each - 1 - number % each,
            machine=9,
        )
        canvas.mark(frame, marker)
        yield frame, marker


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    found = []
    while True:
        there, frame = capture.read()
        if not there:
            capture.release()
            return found
        found.append(frame)


@pytest.mark.parametrize("bitrate_kbit", [500, 1000, 2000])
@pytest.mark.parametrize("layout", [LAYOUT, Layout(width=1280, height=720)])
def test_every_marker_is_read_through_h264(tmp_path, bitrate_kbit, layout):
    path, markers = tmp_path / "playlist.mp4", []
    with VideoFile(path, coding(bitrate_kbit, layout)) as outlet:
        outlet.wait()
        for frame, marker in drawn(layout, 60):
            assert outlet.show(frame)
            markers.append(marker)
    reader = StripReader()
    readings = [reader.read(frame) for frame in frames_of(path)]
    assert [reading and reading.marker for reading in readings] == markers
    assert reader.searches == 1
    assert path.stat().st_size < 60 / 30 * bitrate_kbit * 1000 / 8 * 2
    assert [file.name for file in tmp_path.iterdir()] == ["playlist.mp4"]


def test_colours_come_back(tmp_path):
    """Encoder and reader mean the same by YUV, in sizes where others would take BT.709."""
    for layout in (LAYOUT, Layout(width=1280, height=720)):
        path = tmp_path / f"{layout.width}.mp4"
        frame = np.empty((layout.height, layout.width, 3), np.uint8)
        colours = [(40, 60, 220), (50, 200, 60), (210, 70, 50), (128, 128, 128)]
        for number, colour in enumerate(colours):
            frame[:, number * layout.width // 4 : (number + 1) * layout.width // 4] = colour
        with VideoFile(path, coding(layout=layout)) as outlet:
            outlet.wait()
            for _ in range(10):
                outlet.show(frame)
        seen = frames_of(path)[-1]
        for number, colour in enumerate(colours):
            middle = seen[:, (2 * number + 1) * layout.width // 8].mean(axis=0)
            assert np.abs(middle - colour).max() < 6


def interrupted(path):
    with VideoFile(path, coding()) as outlet:
        outlet.wait()
        for number, (frame, _) in enumerate(drawn(LAYOUT, 60)):
            outlet.show(frame)
            if number == 30:
                raise KeyboardInterrupt


def test_a_file_that_is_not_finished_is_not_there(tmp_path):
    path = tmp_path / "playlist.mp4"
    path.write_bytes(b"what was there before")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert [file.name for file in tmp_path.iterdir()] == ["playlist.mp4"]
    assert path.read_bytes() == b"what was there before"


@pytest.mark.parametrize(
    ("name", "error", "wrong"),
    [
        ("playlist.avi", UsageError, "not called .mp4"),
        ("nowhere/playlist.mp4", NotWritable, "cannot be written .No such file"),
        ("folder.mp4", UsageError, "is a folder"),
    ],
)
def test_files_that_are_refused(tmp_path, name, error, wrong):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(error, match=wrong):
        VideoFile(tmp_path / name, coding())


def test_a_full_disk_is_one_clear_error():
    """/dev/full takes nothing."""
    child = subprocess.Popen(
        [
            SYSTEM_PYTHON,
            CHILD,
            '{"width": 320, "height": 240, "frames_per_second": 30, "bitrate_kbit": 500, '
            '"path": "/dev/full"}',
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, errors = child.communicate(bytes(320 * 240 * 3) * 30)
    assert child.returncode == 1
    assert b"No space left" in errors or b"write" in errors


def test_without_the_bindings_it_says_which_packages():
    """The virtual environment's Python has no gi, as on a machine without Debian's package."""
    done = subprocess.run(
        [sys.executable, CHILD, "{}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "missing: No module named 'gi'\n")


def test_rtsp_to_opencv():
    with RtspServer(ANY_PORT, coding()) as server:
        capture = None
        reader, ids = StripReader(), []
        pid = os.fork()
        if pid == 0:  # the client, so that both ends run at once
            capture = cv2.VideoCapture(server.url, cv2.CAP_FFMPEG)
            while len(ids) < 60:
                there, frame = capture.read()
                reading = reader.read(frame) if there else None
                ids.append(reading.marker.index if reading else -1)
            os._exit(0 if min(ids) >= 0 and ids == sorted(ids) else 1)
        server.wait()
        ended = 0
        for frame, _ in drawn(LAYOUT, 600):
            assert server.show(frame)
            time.sleep(1 / 30)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
        assert ended, "the client has not read 60 frames in 20 s"
        assert os.waitstatus_to_exitcode(status) == 0


def test_a_port_in_use_is_one_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnavailable, match=rf"port {port} on 127.* in use .*--listen"):
            RtspServer(Address(host="127.0.0.1", port=port), coding())


def test_an_encoder_that_is_killed_is_one_clear_error():
    with RtspServer(ANY_PORT, coding()) as server:
        (pid,) = children_of(os.getpid(), named="python3")
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}/fd").exists() and list(Path(f"/proc/{pid}/fd").iterdir()):
            time.sleep(0.01)
        with pytest.raises(DeviceUnavailable, match="encoder ended with -9"):
            server.show(np.zeros((480, 640, 3), np.uint8))


def test_no_orphan_when_the_parent_is_killed():
    code = (
        "import time\n"
        "from edgenet.stream.listening import Address\n"
        "from edgenet.stream.marker import Layout\n"
        "from edgenet.stream.outlets.gstreamer import Coding, RtspServer\n"
        "layout = Layout(width=640, height=480)\n"
        "coding = Coding(layout=layout, frames_per_second=30, bitrate_kbit=500)\n"
        "server = RtspServer(Address(host='127.0.0.1', port=0), coding)\n"
        "print(server.url, flush=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    port = urlsplit(parent.stdout.readline().strip()).port
    (pid,) = children_of(parent.pid, named="python3")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the encoder outlived its parent"
        time.sleep(0.05)
    socket.create_server(("127.0.0.1", port)).close()
