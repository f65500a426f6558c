"""The virtual board itself: it is what it says, computes as the host does, sees, and goes away.

`make test` installs QEMU and what else it takes; without it these tests fail, they do not skip.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import convert_quietly
from virtual_board import BOARD, command, is_alive, running, started

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.convert.pipeline import WRITERS
from edgenet.measure.profile import NULL

START_BY_TURNS = """
import sys, time
from pathlib import Path
import machine
lock, mark, done = Path("board.lock"), Path("held"), 0
deadline = time.monotonic() + 30
while done < 60 and time.monotonic() < deadline:
    try:
        with machine._lock(lock, "board"):
            mark.touch(exist_ok=False)
            time.sleep(0.001)
            mark.unlink()
            done += 1
    except machine.BoardError as error:
        assert "being started by someone else" in str(error)
assert done == 60
"""
WAIT_FOR_FRAMES = """
import hashlib, sys, time
import cv2
camera = cv2.VideoCapture(0)
wanted, deadline, seen = sys.argv[1:], time.monotonic() + 60, []
while wanted and time.monotonic() < deadline:
    arrived, frame = camera.read()
    seen.append(hashlib.sha256(frame.tobytes()).hexdigest())
    if seen[-1] == wanted[0]:
        wanted.pop(0)
assert not wanted, f"{len(seen)} frames, {len(set(seen))} different, {frame.shape}, {frame[0, :4]}"
"""
PI4 = f"tests-pi4-{os.getpid()}"


@pytest.fixture(scope="module")
def bundle(fashion, tmp_path_factory):
    """INT8 for each runtime, integers throughout, small enough to be copied in a second."""
    return convert_quietly(
        fashion,
        tmp_path_factory.mktemp("board") / "int8",
        targets=[each for each in WRITERS if each.precision is Precision.INT8 and not each.variant],
    )


@pytest.fixture(scope="module")
def on_the_board(pi5, bundle):
    """Return the bundle's folder on the board."""
    pi5.copy(bundle.root, "/tmp/test-virtual-board")
    return "/tmp/test-virtual-board"


def test_it_is_a_raspberry_pi_5(pi5):
    assert pi5.run("uname -m").strip() == "aarch64"
    assert pi5.run("cat /proc/device-tree/model") == "Raspberry Pi 5 Model B Rev 1.0\0"
    assert "raspberrypi,5-model-b\0" in pi5.run("cat /proc/device-tree/compatible")
    assert pi5.run("cat /etc/debian_version").startswith("12.")


def test_its_processor_is_a_cortex_a76(pi5):
    processor = pi5.run("cat /proc/cpuinfo")
    assert "asimddp" in processor.split()
    assert "CPU part\t: 0xd0b" in processor


def test_the_user_is_that_of_raspberry_pi_os(pi5):
    assert pi5.run("whoami; sudo -n whoami").split() == ["pi", "root"]
    assert "video" in pi5.run("id -nG").split()


def test_it_reaches_nobody(pi5):
    """Not even this machine, which the emulated network calls 10.0.2.2."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket\nprint(socket.socket().connect_ex(('10.0.2.2', {port})))"
        assert int(pi5.python(code)) != 0


def test_nothing_of_the_host_side_is_installed(pi5):
    code = "import importlib.util as u\nprint([n for n in ('torch', 'onnx') if u.find_spec(n)])"
    assert pi5.python(code).strip() == "[]"


@pytest.fixture(scope="module")
def verification(pi5, on_the_board):
    """Return what `edgenet verify` finds there, for all runtimes."""
    return json.loads(pi5.run(f"edgenet verify {on_the_board} --json"))


@pytest.mark.parametrize("runtime", [name for name in runtimes.names() if name != NULL])
def test_every_runtime_answers_as_on_the_host(runtime, verification):
    (found,) = (
        each for each in verification["artifacts"] if each["artifact"]["runtime"] == runtime
    )
    assert found["holds"] is True
    assert found["artifact"]["precision"] == "int8"


def test_tflite_runtime_does_too(pi5, on_the_board):
    python = "/opt/tflite-runtime/bin/python"
    answer = pi5.run(f"{python} -m edgenet verify {on_the_board} --runtime litert --json")
    (artifact,) = json.loads(answer)["artifacts"]
    assert artifact["runtime_version"].startswith("tflite-runtime")


def test_the_camera_sees_pictures_bit_for_bit(pi5, tmp_path):
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(2)]
    pictures.append(np.full((100, 200, 3), 99, np.uint8))
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, picture in zip(paths, pictures, strict=True):
        cv2.imwrite(str(path), picture)
    seen = [*pictures[:2], np.zeros((480, 640, 3), np.uint8)]
    seen[2][80:400] = 99  # of another size: made to fit, between black bars
    pi5.show(*paths, hold_s=0.5)
    hashes = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in seen]
    pi5.python(WAIT_FOR_FRAMES, *hashes, hashes[0])
    pi5.show()
    assert "v4l2-ctl" not in pi5.run("ps -eo comm")


def test_what_is_no_picture_is_refused(pi5, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for path, complaint in ((text, "not a picture"), (tmp_path / "none.png", "no such picture")):
        done = command("camera", "--name", pi5.name, path)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1 and complaint in done.stderr


def test_a_raspberry_pi_4_beside_it(pi5, bundle):
    with started("pi4", PI4) as pi4:
        assert {pi4.name, pi5.name} <= running().keys()
        assert pi4.run("cat /proc/device-tree/model") == "Raspberry Pi 4 Model B Rev 1.5\0"
        processor = pi4.run("cat /proc/cpuinfo")
        assert "CPU part\t: 0xd08" in processor
        assert "asimddp" not in processor.split()
        pi4.copy(bundle.root, "/tmp/bundle")
        pi4.run("edgenet verify /tmp/bundle --runtime litert")
    assert pi4.name not in running()
    assert is_alive(pi5.pid)
    with socket.create_server(("127.0.0.1", pi4.port)):
        pass


def test_a_name_runs_once(pi5):
    done = command("start", "pi5", "--name", pi5.name)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{pi5.name} is running already" in line


def test_a_taken_port_is_named(pi5):
    done = command("start", "pi4", "--name", PI4, "--port", str(pi5.port))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"board: port {pi5.port} of this machine is taken"
    assert PI4 not in running()


def test_missing_programs_are_named(pi5, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ssh").symlink_to(shutil.which("ssh"))
    done = subprocess.run(
        [sys.executable, BOARD.with_name("cli.py"), "start", "pi5"],
        env={"PATH": str(tools), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "qemu-system-aarch64" in line and "apt-get install" in line and "ssh," not in line
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_start_that_is_ended_leaves_no_board(pi5, sent):
    """SIGINT ends the board with it. After SIGKILL the board is known, and `stop` ends it."""
    starting = subprocess.Popen([BOARD, "start", "pi4", "--name", PI4], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while PI4 not in (boards := running()):
        assert starting.poll() is None and time.monotonic() < deadline
    board = boards[PI4]
    starting.send_signal(sent)
    starting.wait()
    if sent == signal.SIGKILL:
        assert is_alive(board.pid)
        assert command("stop", PI4).returncode == 0
    assert not is_alive(board.pid)
    assert PI4 not in running()


def test_one_starter_at_a_time_and_no_lock_is_left(tmp_path):
    """The file is removed by whoever holds it, between another's opening and locking it too."""
    tools = {**os.environ, "PYTHONPATH": str(BOARD.parent)}
    starters = [
        subprocess.Popen([sys.executable, "-c", START_BY_TURNS], cwd=tmp_path, env=tools)
        for _ in range(6)
    ]
    assert [starter.wait(60) for starter in starters] == [0] * 6
    assert list(tmp_path.iterdir()) == []
