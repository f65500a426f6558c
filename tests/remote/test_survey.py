"""What a board says about itself, where the programs that it asks are stand-ins on its path."""

import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ssh_server import served

from edgenet.board.target import load_target
from edgenet.errors import DeployRefused
from edgenet.remote.ssh import COMMAND_VARIABLE, connect
from edgenet.remote.survey import survey

TOOLS = ("sh", "id", "uname", "date", "cat", "dirname", "df", "awk", "tr", "sed", "readlink")


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Give a board whose path holds a few programs and no Python, and that folder."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in TOOLS:
        (programs / name).symlink_to(shutil.which(name))
    with served(tmp_path / "sshd", {"PATH": str(programs)}) as board:
        monkeypatch.setenv(COMMAND_VARIABLE, board.ssh_command)
        yield board, programs


def look(board, **options):
    with connect(board.host) as connection:
        return survey(connection, **options)


def stand_in(programs, name, text):
    (programs / name).unlink(missing_ok=True)
    (programs / name).write_text(f"#!/bin/sh\n{text}\n")
    (programs / name).chmod(0o755)


def test_this_machine(board):
    found = look(board)
    assert found.user and found.home == str(board.home)
    assert found.root == f"{board.home}/.local/share/edgenet"
    assert (found.root_exists, found.writable, found.environment) == (False, True, None)
    assert found.board.architecture == platform.machine()
    assert found.board.cpus and found.board.systems
    python = found.python()
    assert python.glibc is not None and python.bits == 64
    assert abs(found.clock_ahead_s) < 5 and not found.clock_is_off
    assert found.free_bytes == pytest.approx(shutil.disk_usage(board.home).free, rel=0.05)
    assert not list(board.home.iterdir())


def test_a_target_of_the_users_own(board):
    assert look(board, target=load_target("jetson")).board.target.title == "NVIDIA Jetson"


def test_no_python(bare):
    board, _ = bare
    with pytest.raises(DeployRefused) as error:
        look(board).python()
    assert "board: has no Python 3; edgenet needs Python 3.10 to 3.13 there" in str(error.value)


SAYS = (
    """echo '{"version": [%s], "executable": "/usr/bin/python3", "bits": %d, "libc": %s, """
    """"resolver": null, "pip": null, "picamera2": false, "opencv": false, "numpy": null}'"""
)


def test_a_python_that_is_too_old(bare):
    board, programs = bare
    stand_in(programs, "python3", SAYS % ("3, 8, 10", 64, '"glibc 2.31"'))
    with pytest.raises(DeployRefused) as error:
        look(board).python()
    assert "board: has Python 3.8.10; edgenet needs Python 3.10 to 3.13" in str(error.value)
    stand_in(programs, "python3.11", SAYS % ("3, 11, 2", 64, '"glibc 2.31"'))
    assert look(board).python().short == "3.11"


def test_a_python_that_does_not_start(bare):
    board, programs = bare
    stand_in(programs, "python3", "echo broken >&2; exit 1")
    with pytest.raises(DeployRefused, match="has no Python 3"):
        look(board).python()


def test_each_python_is_asked_once(bare):
    board, programs = bare
    stand_in(programs, "python3.11", f'echo x >> {board.home}/asked; exec {sys.executable} "$@"')
    (programs / "python3").symlink_to("python3.11")
    assert len(look(board).pythons) == 1
    assert (board.home / "asked").read_text() == "x\n"


def test_a_32_bit_system_on_a_64_bit_kernel(bare):
    board, programs = bare
    stand_in(programs, "uname", "echo aarch64")
    stand_in(programs, "python3", SAYS % ("3, 11, 2", 32, '"glibc 2.36"'))
    found = look(board)
    assert found.board.architecture == "aarch64"
    assert found.wheel_architecture(found.python()) == "armv7l"


def test_another_c_library(bare):
    board, programs = bare
    stand_in(programs, "python3", SAYS % ("3, 12, 3", 64, "null"))
    assert look(board).python().glibc is None


@pytest.mark.parametrize(("years", "off"), [(-20, True), (3, True), (0, False)])
def test_a_clock_that_is_years_off(bare, years, off):
    board, programs = bare
    stand_in(programs, "date", f"echo {int(time.time() + years * 365.25 * 86400)}")
    found = look(board)
    assert found.clock_is_off is off
    assert found.clock_ahead_s == pytest.approx(years * 365.25 * 86400, abs=10)


def test_a_board_that_is_none(bare):
    board, programs = bare
    stand_in(programs, "df", "exit 1")
    with pytest.raises(DeployRefused) as error:
        look(board)
    assert "board: does not tell its free" in str(error.value)


def test_a_folder_that_is_not_ours_to_write(board, small_disk):
    assert look(board, root=f"{small_disk}/edgenet").writable
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert not look(board, root=f"{small_disk}/edgenet").writable


def test_the_files_that_name_a_board_are_read():
    """On the boards themselves; here there may be none of them."""
    from edgenet.remote.survey import _shown_files

    shown = _shown_files()
    assert {"/proc/device-tree/model", "/etc/nv_tegra_release", "/etc/os-release"} <= set(shown)
    assert Path("/proc/cpuinfo").exists()
