"""Real conversions, stopped in the middle: nothing half written, whatever the moment."""

import random
import signal
import subprocess
import sys
import time

import pytest

from edgenet.convert.pipeline import WRITERS
from edgenet.errors import BrokenBundle
from edgenet.manifest import load_bundle

LINE = ["convert", "--weights", "random", "--width-multiplier", "0.25", "--resolution", "64"]


def start(output, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "edgenet", *LINE, "-o", str(output), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def seconds(tmp_path_factory):
    """How long a whole conversion takes here."""
    started = time.monotonic()
    child = start(tmp_path_factory.mktemp("whole") / "bundle")
    assert child.wait() == 0, child.stderr.read()
    child.stderr.close()
    return time.monotonic() - started


def kill(child, sent):
    child.send_signal(sent)
    _, error = child.communicate()
    return child.returncode, error


def test_kill_9_at_random_moments(tmp_path, seconds):
    draw = random.Random(5)
    output = tmp_path / "bundle"
    for _ in range(4):
        child = start(output, "--force")
        time.sleep(draw.uniform(0.2, 1.0) * seconds)
        kill(child, signal.SIGKILL)
        for folder in tmp_path.iterdir():
            try:
                bundle = load_bundle(folder)
            except BrokenBundle:
                assert folder != output
                continue
            assert len(bundle.artifacts) == len(WRITERS)
    child = start(output, "--force")
    assert child.wait() == 0, child.stderr.read()
    child.stderr.close()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_signals_leave_nothing(tmp_path, seconds, sent, code, share):
    child = start(tmp_path / "deep" / "bundle")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("deep/.bundle.partial-*")):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(share * seconds / 4)
    found, error = kill(child, sent)
    assert found == code, error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
