"""The last step of `make demo`, as it is run there, and that it leaves nobody behind."""

import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgenet.bundle import shipped_bundle

DEMO = Path(__file__).parents[2] / "tools/live_demo.py"


@pytest.fixture
def bundle(tmp_path):
    """Return the bundle of the wheel, where its records may be written."""
    return shutil.copytree(shipped_bundle(), tmp_path / "mobilenet")


def demo(bundle, *, seconds):
    return subprocess.Popen(
        [sys.executable, DEMO, bundle, "--seconds", str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_served(told):
    """Tell whether anybody listens where the camera looked."""
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)/stream\.mjpg", told)[1])
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_it_prints_the_record_and_ends_its_server(bundle):
    with demo(bundle, seconds=6) as child:
        out, told = child.communicate(timeout=120)
    assert child.returncode == 0, told
    for words in ("frame to label", "dropped", "camera (live - direct)", "http://127.0.0.1:8080/"):
        assert words in out
    assert int(re.search(r"photographs: (\d+) of 57 pictures seen", out)[1]) >= 5
    assert not is_served(told)


def test_the_cameras_exit_code_is_kept(bundle):
    (bundle / "manifest.json").write_text("no JSON")
    with demo(bundle, seconds=2) as child:
        out, told = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "manifest.json" in told
    assert "http://127.0.0.1:8080/" not in out


def test_a_request_to_end_ends_the_server_too(bundle):
    with demo(bundle, seconds=60) as child:
        told = ""
        while "/stream.mjpg" not in told:
            told += child.stderr.readline()
        assert is_served(told)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGTERM
    assert not is_served(told)
