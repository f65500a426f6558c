"""The board's end by itself: a process, a request, frames."""

import base64
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from processes import children_of
from virtual_board import is_alive

QUICK = ["camera", "--list", "--json"]
FOREVER = ["camera", "--source", "synthetic://", "--runtime", "null", "--view", "off"]


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "edgenet.remote.attended", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


def ask(child, words, **fields):
    request = {
        "words": words,
        "command": ["edgenet", *words, "--host", "pi5"],
        "files": {},
        "pipes": [],
        "bring": [],
        "silence_s": 30,
        **fields,
    }
    child.stdin.write(json.dumps(request).encode() + b"\n")


def frames(child):
    """Yield (to, bytes) and at last ("status", number)."""
    stream = os.fdopen(os.dup(child.stdout.fileno()), "rb")
    with stream:
        for line in stream:
            frame = json.loads(line)
            if "status" in frame:
                yield "status", frame["status"]
            else:
                yield frame["to"], stream.read(frame["bytes"])


def wait_until_labelling(child):
    for to, data in frames(child):
        if to == "err" and b"Ctrl-C ends it" in data:
            return
    raise AssertionError(child.stderr.read().decode())


@pytest.fixture
def child(tmp_path):
    process = start(tmp_path / "records")
    yield process
    process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    process.wait()


def test_a_command_and_its_end(child, tmp_path):
    ask(child, QUICK)
    found = list(frames(child))
    assert found[-1] == ("status", 0)
    document = json.loads(b"".join(data for to, data in found if to == "out"))
    assert document["command"] == ["edgenet", *QUICK, "--host", "pi5"]
    assert child.wait(10) == 0
    assert list((tmp_path / "records").iterdir()) == []


def test_files_go_in_and_out(child, tmp_path):
    text = b"no target"
    words = ["doctor", "--target", "mine.toml"]
    files = {"mine.toml": base64.b64encode(text).decode()}
    ask(child, words, files=files, bring=["mine.toml", "never made.json"])
    found = list(frames(child))
    assert found[-1] == ("status", 1)
    assert b"mine.toml" in b"".join(data for to, data in found if to == "err")
    assert b"".join(data for to, data in found if to == "mine.toml") == text
    assert "never made.json" not in [to for to, _ in found]


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "..", ""])
@pytest.mark.parametrize("where", ["files", "pipes", "bring"])
def test_no_name_leads_out_of_the_folder(child, tmp_path, name, where):
    asked = {name: ""} if where == "files" else [name]
    ask(child, QUICK, **{where: asked})
    assert child.wait(20) != 0
    assert b"is no plain name of a file" in child.stderr.read()
    assert [path.name for path in tmp_path.rglob("*")] == ["records"]


@pytest.mark.parametrize("how", ["the end", "silence"])
def test_nobody_is_there_any_more(child, tmp_path, how):
    ask(child, FOREVER, silence_s=30 if how == "the end" else 3)
    wait_until_labelling(child)
    (folder,) = (tmp_path / "records").iterdir()
    began = time.monotonic()
    if how == "the end":
        child.stdin.close()
    for _ in frames(child):
        pass
    assert time.monotonic() - began < 20
    child.wait(20)
    assert not folder.exists()


def test_an_interrupt_is_a_ctrl_c(child):
    ask(child, FOREVER)
    wait_until_labelling(child)
    child.stdin.write(b"interrupt\n")
    found = list(frames(child))
    assert found[-1] == ("status", 0)
    assert b"frames labelled in" in b"".join(data for to, data in found if to == "out")


def test_what_was_killed_is_cleared_away_and_what_runs_is_not(child, tmp_path):
    ask(child, FOREVER)
    wait_until_labelling(child)
    (alive,) = (tmp_path / "records").iterdir()
    (tmp_path / "records/run-of-old").mkdir()
    other = start(tmp_path / "records")
    ask(other, QUICK)
    assert list(frames(other))[-1] == ("status", 0)
    other.communicate()
    assert list((tmp_path / "records").iterdir()) == [alive]


def test_a_supervisor_that_is_killed_takes_its_command_along(child):
    ask(child, FOREVER)
    wait_until_labelling(child)
    (pid,) = children_of(child.pid, named="python")
    child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_request(child, tmp_path):
    child.stdin.close()
    assert child.wait(10) == 0
    assert list(tmp_path.iterdir()) == []
