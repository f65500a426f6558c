"""The desktop's window on a real X server, and what is said where none can open."""

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs import Run, nearest_colour

from edgenet.stream.window import Window

SCREEN = (1024, 768)


@pytest.fixture(scope="module")
def display(tmp_path_factory):
    """A screen without a monitor, whose memory is a file."""
    folder = tmp_path_factory.mktemp("screen")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        [
            "Xvfb",
            "-displayfd",
            str(writing),
            "-screen",
            "0",
            f"{SCREEN[0]}x{SCREEN[1]}x24",
            "-fbdir",
            folder,
            "-nolisten",
            "tcp",
        ],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as answer:
        number = answer.readline().strip()
    assert number, "Xvfb did not start; tools/install_system_packages.sh tests"
    yield Screen(f":{number}", folder / "Xvfb_screen0")
    server.terminate()
    server.wait()


class Screen:
    def __init__(self, name, memory):
        self.name = name
        self._memory = memory

    def pixels(self):
        """Return what is on the screen, (H, W, 3) blue first; the file is an X window dump."""
        data = self._memory.read_bytes()
        header = struct.unpack(">25I", data[:100])
        size, width, height, line, colours = (header[i] for i in (0, 4, 5, 12, 19))
        begin = size + 12 * colours
        rows = np.frombuffer(data, np.uint8, line * height, begin).reshape(height, line)
        return rows[:, : 4 * width].reshape(height, width, 4)[:, :, :3]


@pytest.fixture(scope="module")
def desktop_opencv(tmp_path_factory):
    """An OpenCV with windows, beside the one without that these tests run on."""
    import cv2

    folder = tmp_path_factory.mktemp("desktop")
    subprocess.run(
        [
            sys.executable,
            *("-m", "pip", "install", "--quiet", "--no-deps", "--target", folder),
            "--disable-pip-version-check",
            f"opencv-python>={cv2.__version__.rsplit('.', 1)[0]}",
        ],
        check=True,
    )
    return folder


@pytest.fixture
def desktop(display, desktop_opencv, monkeypatch):
    monkeypatch.setenv("DISPLAY", display.name)
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    monkeypatch.setenv("PYTHONPATH", str(desktop_opencv))
    return display


def wait_for(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "never"
        time.sleep(0.05)


def colours_on(screen):
    """Return which of the run's colours fill a good part of the screen."""
    pixels = screen.pixels()[::8, ::8].reshape(-1, 3)
    vivid = pixels[(pixels.max(axis=1) > 200) & (pixels.min(axis=1) < 60)]
    names = [nearest_colour(pixel) for pixel in vivid]
    return {name for name in set(names) if names.count(name) > 500}


def test_the_newest_picture_with_its_label(desktop):
    with Window() as window:
        assert window.fault is None
        with Run(window, label="a label that is easy to see") as run:
            seen = set()
            wait_for(lambda: seen.update(colours_on(desktop)) or len(seen) == 3)
            pixels = desktop.pixels()
            assert (pixels.min(axis=2) > 230).sum() > 500, "white letters"
            wait_for(lambda: len(window.times.draw_ns) > 20)
            before = (pixels.max(axis=2) < 100).sum()
            run.stalled = True
            wait_for(lambda: (desktop.pixels().max(axis=2) < 100).sum() > before + 10_000)
            run.stalled = False
            wait_for(lambda: (desktop.pixels().max(axis=2) < 100).sum() < before + 5_000)
            assert not window.closed_by_user
    assert window.times.encode_ns == ()


def test_the_window_goes_with_the_run(desktop):
    window = Window()
    with window:
        pid = window._onlooker.pid
    assert not Path(f"/proc/{pid}").exists()
    window.close()
    assert not window.closed_by_user


def test_q_closes_it_and_the_run_goes_on(desktop):
    with Window() as window, Run(window) as run:
        wait_for(lambda: len(window.times.draw_ns) > 3)
        xdotool("search", "--sync", "--name", "edgenet", "windowfocus", "--sync", "key", "q")
        wait_for(lambda: window.closed_by_user)
        assert window.fault is None
        before = run.sequence
        wait_for(lambda: run.sequence > before + 3)


def xdotool(*arguments):
    subprocess.run(["xdotool", *arguments], check=True, timeout=20, capture_output=True)


def test_a_display_that_does_not_answer(desktop_opencv, monkeypatch):
    """OpenCV aborts there, and no `except` could hold it."""
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(desktop_opencv))
    with Window() as window:
        assert "no window: its process was ended by SIGABRT" in window.fault
        assert "\n" not in window.fault
        with Run(window) as run:
            time.sleep(0.3)
            assert run.sequence > 3


def test_an_opencv_without_windows(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":987")
    with Window() as window:
        assert "edgenet[desktop]" in window.fault


def test_no_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with Window() as window, Run(window) as run:
        assert window.fault == (
            "no window: there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set); "
            "use --view and a browser"
        )
        time.sleep(0.2)
        assert run.sequence > 2
        assert not window.wanted
