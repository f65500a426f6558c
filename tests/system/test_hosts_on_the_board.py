"""Commands with --host on the virtual board: another processor, a real camera, a board that dies.

What is timed there says nothing about a board. `edgenet deploy` has its own tests; here the board's
own edgenet, of this checkout, stands where it would have put it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import pytest
from conftest import convert_quietly
from virtual_board import PYTHON, started

from edgenet import __version__
from edgenet.bundle import Precision
from edgenet.convert.pipeline import WRITERS
from edgenet.data.dataset import open_dataset
from edgenet.remote.installed import HOME_FOLDER, bundle_folder
from edgenet.remote.ssh import COMMAND_VARIABLE
from edgenet.stream.marker import Layout
from edgenet.stream.playlist import Pace, Show, play, playlist_of

PATIENCE_S = 240
LITERT = ["--runtime", "litert", "--precision", "int8"]
FEWEST = Pace(seconds=0.5, frames_per_second=10)
"""Five frames a picture: the one in the middle counts."""


@pytest.fixture(scope="module")
def bundle(fashion, tmp_path_factory):
    """What a Pi would run, and a float reference."""
    wanted = [each for each in WRITERS if each.runtime in ("onnxruntime", "litert")]
    wanted = [each for each in wanted if each.precision is not Precision.FLOAT16]
    wanted = [each for each in wanted if not each.variant]
    return convert_quietly(fashion, tmp_path_factory.mktemp("hosts") / "small", targets=wanted)


def put_edgenet(board, bundle):
    """Let edgenet and a bundle be where `edgenet deploy` puts them."""
    described = {
        "schema_version": "1.0",
        "edgenet": __version__,
        "python": "3.11.2",
        "runtimes": ["litert"],
    }
    part = {"schema_version": "1.0", "bundle_sha256": bundle.sha256, "left_out": []}
    folder = bundle_folder(HOME_FOLDER, bundle.sha256)
    board.copy(bundle.root, "/tmp")
    board.run(
        f"mkdir -p {HOME_FOLDER}/venvs/0/bin {HOME_FOLDER}/bundles && cd {HOME_FOLDER} && "
        f"ln -s venvs/0 current && echo '{json.dumps(described)}' > current/installation.json && "
        f"printf '#!/bin/sh\\nexec {PYTHON} \"$@\"\\n' > current/bin/python && "
        f"chmod 755 current/bin/python && cd && mv /tmp/{bundle.root.name} {folder} && "
        f"echo '{json.dumps(part)}' > {folder}/part.json"
    )


@pytest.fixture(scope="module")
def deployed(pi5, bundle):
    put_edgenet(pi5, bundle)
    yield pi5
    pi5.run(f"rm -r {HOME_FOLDER}")


@pytest.fixture(autouse=True)
def reached(pi5, monkeypatch, tmp_path):
    monkeypatch.setenv(COMMAND_VARIABLE, f"ssh -F {pi5.ssh_config}")
    monkeypatch.chdir(tmp_path)


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "edgenet", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def edgenet(*words):
    child = start(*words)
    out, err = child.communicate(timeout=PATIENCE_S)
    return child.returncode, out, err


def document(*words):
    code, out, err = edgenet(*words, "--json")
    assert code == 0, err
    return json.loads(out)


def commands_on(board):
    """Return the commands that run on a board for somebody elsewhere."""
    return board.run("pgrep -f '[e]dgenet.remote.attended|-m [e]dgenet ' || true").split()


def labelled(root):
    """Return a folder of four labelled pictures."""
    for number, sample in enumerate(open_dataset("fashion-mnist", labelled=True).samples[:4]):
        folder = root / sample.labels[0]
        folder.mkdir(parents=True, exist_ok=True)
        picture = cv2.cvtColor(sample.read(), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return root


def test_verify(deployed, bundle):
    found = document("verify", bundle.root, "--host", deployed.name)
    assert found["machine"] == "aarch64"
    assert found["holds"] is True
    assert {each["artifact"]["runtime"] for each in found["artifacts"]} == {
        "onnxruntime",
        "litert",
    }


def test_doctor(deployed):
    code, out, err = edgenet("doctor", "--host", deployed.name)
    assert code == 0, err
    assert out.startswith("Raspberry Pi 5 Model B Rev 1.0: ")
    assert out.endswith(f"host: {deployed.name}\n")


def test_profile(deployed, bundle, tmp_path):
    line = ["profile", bundle.root, *LITERT, "--quick", "--duration", "1", "--layers", "off"]
    line += ["--data", labelled(tmp_path / "labelled")]
    code, out, err = edgenet(*line, "--host", deployed.name, "-o", "pi5.json")
    assert code == 0, err
    assert "on Raspberry Pi 5 Model B Rev 1.0: EMULATED" in out
    found = json.loads(Path("pi5.json").read_text())
    assert found["board"]["model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["machine"] == "aarch64"
    assert found["command"][-2:] == ["--host", deployed.name]
    (record,) = found["records"]
    assert len(record["samples_ns"]["inference"]) >= 50
    assert found["data"] == {"name": "labelled", "n": 4, "unreadable": []}


def test_the_same_pictures_get_the_same_answers(deployed, bundle):
    line = ["evaluate", bundle.root, *LITERT, "--data", "fashion-mnist", "--limit", "20"]
    (there,) = document(*line, "--host", deployed.name)["records"]
    (here,) = document(*line)["records"]
    assert len(there["predictions"]) == 20
    for answered, expected in zip(there["predictions"], here["predictions"], strict=True):
        assert answered["image_sha256"] == expected["image_sha256"]
        assert answered["top5"][0] == expected["top5"][0]


class Kept:
    """An outlet that keeps the frame in the middle of each picture."""

    live = False

    def __init__(self):
        self.frames = []
        self._shown = 0

    def wait(self):
        pass

    def show(self, frame):
        place = self._shown - FEWEST.lead
        if place >= 0 and place % FEWEST.frames_each == FEWEST.frames_each // 2:
            self.frames.append(frame.copy())
        self._shown += 1
        return True


@pytest.fixture
def shown(deployed, tmp_path):
    """The board's camera sees four pictures of a labelled folder, again and again."""
    root = labelled(tmp_path / "labelled")
    kept = Kept()
    show = Show(
        playlist=playlist_of(open_dataset(str(root), labelled=True)),
        chosen=(0, 1, 2, 3),
        pace=FEWEST,
        layout=Layout(width=640, height=480),
    )
    play(show, kept, warn=pytest.fail)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, frame in zip(paths, kept.frames[:4], strict=True):
        cv2.imwrite(str(path), frame)
    deployed.show(*paths, hold_s=0.8)
    yield root
    deployed.show()


def test_the_camera_of_the_board(deployed, bundle, shown):
    """Its page through the tunnel, its live accuracy, and its good end at a Ctrl-C."""
    line = ["camera", bundle.root, *LITERT, "--truth", shown, "--host", deployed.name]
    child = start(*line, "-o", "camera.json")
    url = next(
        found[1]
        for line in child.stderr
        if (found := re.match(r"page: (http://127\.0\.0\.1:\d+/)$", line))
    )
    next(line for line in child.stderr if "Ctrl-C ends it" in line)
    with urllib.request.urlopen(url, timeout=20) as page:
        assert b"<html" in page.read()
    time.sleep(12)
    with urllib.request.urlopen(f"{url}metrics", timeout=20) as metrics:
        assert b"edgenet_" in metrics.read()
    listening = deployed.run("ss -Hltn | awk '{print $4}'").split()
    assert {each.rpartition(":")[0] for each in listening if not each.endswith(":22")} == {
        "127.0.0.1"
    }
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, err
    assert out.splitlines()[-2:] == [f"host: {deployed.name}", "record: camera.json"]
    found = json.loads(Path("camera.json").read_text())
    assert found["board"]["model"] == "Raspberry Pi 5 Model B Rev 1.0"
    (record,) = found["records"]
    assert record["camera"]["source"].startswith("/dev/video0")
    truth = record["truth"]
    assert truth["frames"]["scored"] > 0
    assert truth["frames"]["other_playlist"] == 0
    assert truth["pictures_left_out"] == {"other_pixels": 0, "unreadable": 0}
    assert len(truth["pictures"]) == 4
    assert record["accuracy"]["n"] == 4
    assert record["accuracy"]["top1"]["right"] >= 3
    assert commands_on(deployed) == []


def test_a_board_that_freezes_does_not_hold_the_other(deployed, bundle, tmp_path, monkeypatch):
    """As with a cable that is pulled. When it is back, it has ended the command by itself."""
    with started("pi5", f"tests-frozen-{os.getpid()}") as frozen:
        put_edgenet(frozen, bundle)
        both = tmp_path / "both"
        both.write_text(f"Include {deployed.ssh_config}\nInclude {frozen.ssh_config}\n")
        monkeypatch.setenv(COMMAND_VARIABLE, f"ssh -F {both}")
        line = ["camera", bundle.root, *LITERT, "--source", "synthetic://", "--duration", "25"]
        child = start(*line, "--host", f"{deployed.name},{frozen.name}", "--json")
        ready = set()
        for told in child.stderr:
            if "Ctrl-C ends it" in told:
                ready.add(told.partition(":")[0])
            if len(ready) == 2:
                break
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            out, err = child.communicate(timeout=PATIENCE_S)
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        assert child.returncode == 1
        assert f"edgenet: {frozen.name}: dropped out: " in err
        assert err.splitlines()[-1] == f"edgenet: 1 of 2 hosts failed: {frozen.name}"
        good, bad = json.loads(out)["hosts"]
        assert good["exit_code"] == 0
        assert good["document"]["complete"] is True
        assert bad["document"] is None
        assert "the connection was lost" in bad["document_reason"]
        deadline = time.monotonic() + 60
        while commands_on(frozen):
            assert time.monotonic() < deadline
            time.sleep(1)
