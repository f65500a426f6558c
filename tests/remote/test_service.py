"""The unit that deploy writes, judged by systemd's own tools, and what is refused before it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ssh_server import served

from edgenet.cli import run
from edgenet.errors import DeployRefused, UsageError
from edgenet.remote.service import (
    SERVICE_ROOT,
    UNIT,
    Place,
    look,
    plan_line,
    quoted,
    remove,
    require_root,
    require_systemd,
    service_wishes,
    unit_text,
)
from edgenet.remote.ssh import COMMAND_VARIABLE, connect

PLACE = Place(
    host="pi5",
    user="pi",
    is_root=False,
    booted=True,
    version=252,
    groups=("video",),
    address="10.0.2.15",
    there=(),
)
WORDS = (
    sys.executable,
    "-m",
    "edgenet",
    "camera",
    "/opt/edgenet/bundles/0123",
    "--view",
    "[::]:80",
)


def place(**changes):
    return Place(**{**vars(PLACE), **changes})


def made(words, place, *, runtimes):
    return unit_text(words, place, environment="0123abcd", runtimes=runtimes)


def settings(text):
    """Return the lines of a unit that say something, as (key, value)."""
    return [
        line.partition("=")[::2] for line in text.splitlines() if "=" in line and line[0] != "#"
    ]


def analyze(tmp_path, verb, text, *options):
    unit = tmp_path / UNIT
    unit.write_text(text)
    return subprocess.run(
        ["systemd-analyze", verb, *options, unit], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("runtimes", [("litert",), ("onnxruntime", "openvino")])
@pytest.mark.parametrize("groups", [(), ("video",), ("video", "render")])
def test_systemd_understands_every_line(tmp_path, groups, runtimes):
    text = made(WORDS, place(groups=groups), runtimes=runtimes)
    done = analyze(tmp_path, "verify", text, "--man=no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("runtimes", [("litert",), ("openvino",)])
def test_it_is_hardened(tmp_path, runtimes):
    text = made(WORDS, PLACE, runtimes=runtimes)
    done = analyze(tmp_path, "security", text, "--offline=yes", "--threshold=30", "--no-pager")
    assert done.returncode == 0, done.stdout
    weakened = text.replace("DynamicUser=yes", "User=root").replace("CapabilityBoundingSet=", "#")
    weakened = weakened.replace("SystemCallFilter=", "#").replace("Restrict", "#")
    assert analyze(tmp_path, "security", weakened, "--offline=yes", "--threshold=30").returncode


def test_it_is_for_what_the_board_is():
    old, new = (
        settings(made(WORDS, place(version=version), runtimes=("litert",)))
        for version in (252, 257)
    )
    assert ("RestartSec", "10") in old
    assert "RestartSteps" not in dict(old), "it would complain of a word that it does not know"
    assert {("RestartSec", "2"), ("RestartSteps", "6"), ("RestartMaxDelaySec", "60")} <= set(new)
    assert ("StartLimitIntervalSec", "0") in old, "else it gives up after five attempts"
    assert dict(old)["SupplementaryGroups"] == "video"
    assert dict(old)["MemoryDenyWriteExecute"] == "yes"
    openvino = settings(made(WORDS, PLACE, runtimes=("openvino",)))
    assert dict(openvino)["MemoryDenyWriteExecute"] == "no"
    assert "@" not in made(WORDS, PLACE, runtimes=()).replace("@system-service", "").replace(
        "@privileged", ""
    ).replace("between @", "")


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/opt/edgenet/bundles/0123", "/opt/edgenet/bundles/0123"),
        ("a b", '"a b"'),
        ("", '""'),
        ('say "x"', '"say \\"x\\""'),
        ("100%", '"100%%"'),
        ("${HOME}", '"$${HOME}"'),
        ("back\\slash", '"back\\\\slash"'),
        ("*=./it's.sh", '"*=./it\'s.sh"'),
        (";", '";"'),
    ],
)
def test_words_mean_nothing_in_a_unit(tmp_path, word, written):
    assert quoted(word) == written
    text = made((sys.executable, word), PLACE, runtimes=())
    done = analyze(tmp_path, "verify", text, "--man=no")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_no_unit_can_hold():
    with pytest.raises(UsageError, match="no unit can hold"):
        quoted("two\nlines")


def test_a_board_is_asked_what_it_offers(board):
    with connect(board.host) as connection:
        found = look(connection)
        assert found.host == board.host
        assert found.address == "127.0.0.1"
        assert found.booted is Path("/run/systemd/system").is_dir()
        assert found.version is not None, "its tools are installed for these tests"
        assert "video" in found.groups
        assert found.is_root is (os.getuid() == 0)
        assert (SERVICE_ROOT in found.there) is Path(SERVICE_ROOT).exists()
        assert remove(connection, place(there=(SERVICE_ROOT,)), as_root=()) == ()


def test_without_systemd_it_is_refused():
    require_systemd(PLACE)
    with pytest.raises(DeployRefused, match="pi5: is not run by systemd"):
        require_systemd(place(booted=False))


def test_sudo_is_asked_for_nothing_that_needs_no_root(tmp_path, monkeypatch):
    """A board whose sudo first does, then asks for a password; it keeps account of its calls."""
    sudo, calls = tmp_path / "sudo", tmp_path / "calls"
    sudo.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n')
    sudo.chmod(0o755)
    with served(tmp_path / "sshd", {"PATH": f"{tmp_path}:{os.environ['PATH']}"}) as running:
        monkeypatch.setenv(COMMAND_VARIABLE, running.ssh_command)
        with connect(running.host) as connection:
            look(connection)
            assert require_root(connection, place(is_root=True), "a service") == ()
            assert not calls.exists()
            assert require_root(connection, PLACE, "a service") == ("sudo", "-n")
            assert calls.read_text() == "-n true\n"
            sudo.write_text("#!/bin/sh\nexit 1\n")
            with pytest.raises(DeployRefused, match="sudo asks pi for a password") as refused:
                require_root(connection, PLACE, "a service")
    assert "\n" not in str(refused.value)
    assert "/etc/sudoers.d/pi-edgenet" in str(refused.value)


def test_what_is_done_as_root_is_said():
    assert "with sudo it fills /opt/edgenet" in plan_line(PLACE)
    assert plan_line(place(is_root=True)).startswith("pi5: as root it")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--service --view 0.0.0.0:80", "take one from 1024 on"),
        ("--service --view 0.0.0.0:0", "take one from 1024 on"),
        ("--service --view nowhere", "HOST:PORT"),
        ("--view 0.0.0.0:8080", "add --service"),
        ("-- --source 0", "--source: is for a camera that starts at power-on"),
        ("--service -- --window", "--window: is not for a service"),
        ("--service -- --view 0.0.0.0:8080", "--view: is not for a service"),
        ("--service -- --sorce 0", "No such option: --sorce"),
        ("--service -- other", "other: is not for a service"),
        ("--service -- --runtime tpu", "tpu"),
    ],
)
def test_a_wrong_command_line(small_bundle, capsys, line, told):
    words = ["deploy", str(small_bundle.root), "--host", "nowhere.invalid", *line.split()]
    assert run(words) == 2
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1


def test_where_the_page_is():
    assert service_wishes("[::]:8080", ("--source", "0")).options == ("--source", "0")
