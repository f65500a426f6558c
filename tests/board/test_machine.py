"""Files and commands that are there, missing, refused, slow or crash: all of them for real."""

import os
import subprocess
import sys

import pytest

from edgenet.board.machine import (
    LARGEST_FILE_BYTES,
    FileRefused,
    Machine,
    Missing,
    Unreadable,
    run_command,
)


def test_reads_below_its_root(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/model").write_bytes(b"Some Board Rev 1\0")
    (tmp_path / "proc/compatible").write_bytes(b"maker,board\0maker,chip\0")
    machine = Machine(tmp_path)
    assert machine.read("/proc/model") == "Some Board Rev 1"
    assert machine.read("/proc/compatible").splitlines() == ["maker,board", "maker,chip"]


def test_numbers_sort_by_value(tmp_path):
    for number in (0, 2, 10, 1):
        (tmp_path / f"cpu{number}").mkdir()
        (tmp_path / f"cpu{number}/clock").touch()
    found = Machine(tmp_path).glob("/cpu[0-9]*/clock")
    assert found == ("/cpu0/clock", "/cpu1/clock", "/cpu2/clock", "/cpu10/clock")


def test_missing(tmp_path):
    (tmp_path / "file").touch()
    for path in ("/nothing", "/file/below"):
        with pytest.raises(Missing, match=f"{path}: is not there"):
            Machine(tmp_path).read(path)


def test_a_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "temp").mkdir()
    with pytest.raises(FileRefused, match="/temp: is a directory") as caught:
        Machine(tmp_path).read("/temp")
    assert not caught.value.denied


def test_a_sensor_without_a_value_now(tmp_path):
    """A pipe that nobody has written to says EAGAIN, as a zone does whose block has no power."""
    os.mkfifo(tmp_path / "temp")
    writer = os.open(tmp_path / "temp", os.O_RDWR)
    try:
        with pytest.raises(FileRefused, match="has no value now"):
            Machine(tmp_path).read("/temp")
    finally:
        os.close(writer)


def test_another_users_file(tmp_path):
    (tmp_path / "energy_uj").write_text("1")
    (tmp_path / "energy_uj").chmod(0)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from edgenet.board.machine import FileRefused, Machine\n"
        "os.chdir(sys.argv[1])\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"  # root may read everything
        "try: Machine(Path('.')).read('/energy_uj')\n"
        "except FileRefused as refused: print(refused, refused.denied)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.stdout == "/energy_uj: permission denied True\n", done.stderr


def test_no_file_fills_the_memory(tmp_path):
    (tmp_path / "long").write_bytes(b"x" * (LARGEST_FILE_BYTES + 10))
    assert len(Machine(tmp_path).read("/long")) == LARGEST_FILE_BYTES


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo bad luck >&2; exit 3", "bad luck"),
        ("echo on stdout; exit 3", "on stdout"),
        ("exit 3", "failed with exit code 3"),
        ("kill -ILL $$", "crashed with SIGILL .an instruction that this processor lacks"),
        ("kill -SEGV $$", "crashed with SIGSEGV"),
        ("sleep 20", "no answer in 0.3 s"),
    ],
)
def test_commands_that_fail(script, reason):
    with pytest.raises(Unreadable, match=f"sh -c .*: {reason}"):
        run_command(("sh", "-c", script), 0.3 if "sleep" in script else 10.0)


def test_commands_that_cannot_start(tmp_path):
    with pytest.raises(Unreadable, match="vcgencmd-x: vcgencmd-x is not installed"):
        run_command(("vcgencmd-x",), 1.0)
    (tmp_path / "script").write_text("not executable")
    with pytest.raises(Unreadable, match="permission denied"):
        run_command((str(tmp_path / "script"),), 1.0)


def test_python_is_this_one():
    assert Machine().run("python", "-c", "import sys; print(sys.prefix)").strip() == sys.prefix
