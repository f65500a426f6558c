"""The command as a user runs it: what it refuses, what it serves, how it ends."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenet.cli import run
from edgenet.stream.strip_reader import StripReader
from tests.processes import children_of

COMMAND = [sys.executable, "-m", "edgenet", "playlist"]
BAD = [
    ("playlist photographs", 2, "say where to show it: --serve mjpeg"),
    ("playlist photographs --serve mjpeg -o x.mp4", 2, "say where to show it"),
    ("playlist photographs --serve srt", 2, "'srt' is not one of 'mjpeg', 'rtsp'"),
    ("playlist nowhere --serve mjpeg", 2, "no data at 'nowhere'"),
    ("playlist texts --serve mjpeg", 1, "texts: has no sub-folders; it needs one a class"),
    ("playlist fashion-mnist -o x.mp4 --loop", 2, "--loop never ends, and a file must"),
    ("playlist fashion-mnist -o x.avi", 2, "x.avi: is not called .mp4"),
    ("playlist fashion-mnist -o no/x.mp4", 1, "no/x.mp4: cannot be written"),
    ("playlist fashion-mnist -o x.mp4 --quality 5", 2, "--quality is of --serve mjpeg"),
    ("playlist fashion-mnist --serve mjpeg --bitrate 500", 2, "--bitrate is of --serve rtsp"),
    ("playlist fashion-mnist -o x.mp4 --size 640", 2, "--size 640: is not WIDTHxHEIGHT"),
    ("playlist fashion-mnist -o x.mp4 --size 642x480", 2, "multiples of 4"),
    ("playlist fashion-mnist -o x.mp4 --seconds 0.1", 2, "3 frames a picture"),
    ("playlist fashion-mnist -o x.mp4 --seconds 0", 2, "'--seconds'"),
    ("playlist fashion-mnist -o x.mp4 --seconds nan", 2, "'--seconds'"),
    ("playlist fashion-mnist -o x.mp4 --fps 500", 2, "'--fps'"),
    ("playlist fashion-mnist --serve mjpeg --listen 127.0.0.1", 2, "--listen .* write HOST:PORT"),
    ("playlist fashion-mnist --serve mjpeg --listen 127.0.0.1:70000", 2, "a port is 0 to 65535"),
    (
        "playlist fashion-mnist --serve mjpeg --listen 192.0.2.1:0",
        1,
        "192.0.2.1 is no addr.*--listen",
    ),
    (
        "playlist fashion-mnist --serve rtsp --listen 192.0.2.1:0",
        1,
        "192.0.2.1 is no addr.*--listen",
    ),
    ("playlist fashion-mnist --fullscreen", 1, "there is no display here.*--serve mjpeg"),
]


@pytest.mark.parametrize(("line", "code", "message"), BAD, ids=[line for line, _, _ in BAD])
def test_bad_input(tmp_path, monkeypatch, capsys, line, code, message):
    monkeypatch.chdir(tmp_path)
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("hello")
    assert run(line.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    (told,) = err.splitlines()
    assert re.search(message, told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts"]


def test_a_display_that_does_not_answer_is_one_clear_error(monkeypatch, capsys):
    monkeypatch.setenv("DISPLAY", ":4711")
    assert run(["playlist", "fashion-mnist", "--fullscreen"]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert re.search("built without windows|no window can be opened on the display ':4711'", told)


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes, with a file that is no picture."""
    for label, grey in (("Coat", 60), ("Bag", 190)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(2):
            pixels = np.full((90, 120, 3), grey + 20 * number, np.uint8)
            cv2.imwrite(str(tmp_path / "data" / label / f"{number}.png"), pixels)
    (tmp_path / "data/Coat/2.png").write_bytes(b"hello")
    return tmp_path / "data"


def watched(url, count=10**6):
    capture, reader, readings = cv2.VideoCapture(url, cv2.CAP_FFMPEG), StripReader(), []
    while len(readings) < count:
        there, frame = capture.read()
        if not there:
            break
        readings.append(reader.read(frame))
        if readings[-1] and readings[-1].over:
            break
    capture.release()
    return readings


@pytest.mark.parametrize("kind", ["mjpeg", "rtsp"])
def test_served_from_the_first_client_to_the_end(pictures, kind):
    line = [str(pictures), "--serve", kind, "--listen", "127.0.0.1:0", "--seconds", "0.4"]
    with subprocess.Popen(
        [*COMMAND, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        url = child.stdout.readline().strip()
        readings = watched(url)
        out, err = child.communicate(timeout=30)
    assert child.returncode == 0
    assert "5 pictures, " in out
    assert "5 pictures of data, from when the first client comes, once" in err
    assert "not shown: " in err and "2.png" in err
    assert all(readings)
    ids = [reading.sample_id for reading in readings if reading.sample_id is not None]
    assert ids == sorted(ids)
    assert set(ids) == {0, 1, 2, 3}  # Bag before Coat; the last cannot be read
    for reading in readings:
        if reading.sample_id is not None and reading.marker.since > 2:
            grey = (190, 210, 60, 80)[reading.sample_id]
            assert abs(reading.picture.mean() - grey) < 3
            assert 0 < time.monotonic_ns() - reading.drawn_ns < 60e9


def test_a_video_of_a_draw(pictures, capsys, tmp_path):
    path = tmp_path / "playlist.mp4"
    line = ["--limit", "2", "--seed", "1", "--seconds", "0.2", "--size", "320x240", "-o", str(path)]
    assert run(["playlist", str(pictures), *line]) == 0
    assert "2 pictures, 132 frames" in capsys.readouterr().out
    readings = watched(str(path))
    assert all(readings)
    shown = {reading.sample_id for reading in readings} - {None}
    assert len(shown) == 2
    assert {reading.drawn_ns for reading in readings} == {0}


@pytest.mark.parametrize("kind", ["mjpeg", "rtsp"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ends_clean_on_a_signal(pictures, kind, number, code):
    line = [str(pictures), "--serve", kind, "--listen", "127.0.0.1:0", "--loop"]
    with subprocess.Popen(
        [*COMMAND, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        readings = watched(child.stdout.readline().strip(), count=30)
        assert all(readings)
        encoders = children_of(child.pid)
        assert len(encoders) == (kind == "rtsp")
        child.send_signal(number)
        _, err = child.communicate(timeout=30)
    assert child.returncode == code
    assert "Traceback" not in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in encoders)


def test_ends_clean_before_anybody_came(pictures):
    for kind in ("mjpeg", "rtsp"):
        line = [str(pictures), "--serve", kind, "--listen", "127.0.0.1:0"]
        with subprocess.Popen(
            [*COMMAND, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout.readline().strip()
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=30)
        assert child.returncode == 130
        assert err.splitlines()[-1] == "edgenet: interrupted"
        assert "Traceback" not in err
