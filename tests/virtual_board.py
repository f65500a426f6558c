"""A virtual board for tests, started and used by the commands that people use."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BOARD = Path(__file__).parents[1] / "tools/virtual_board/board"
PYTHON = "/opt/checkout/bin/python"
"""On the board, with edgenet and the runtimes."""


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run tools/virtual_board/board and return what came of it."""
    return subprocess.run([BOARD, *words], capture_output=True, text=True, check=False)


class VirtualBoard:
    """A running board."""

    def __init__(self, state: dict) -> None:
        self.name: str = state["name"]
        self.pid: int = state["pid"]
        self.port: int = state["port"]
        self.ssh_config = Path(state["ssh_config"])
        """For `ssh -F`, in which the board is called `name`."""

    def run(self, line: str) -> str:
        """Return what a shell command prints on the board; it must succeed."""
        done = command("ssh", "--name", self.name, "--", line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def python(self, code: str, *arguments: str) -> str:
        """Return what a Python program prints on the board; it must succeed."""
        words = ["ssh", "-F", self.ssh_config, self.name, PYTHON, "-", *arguments]
        done = subprocess.run(words, input=code, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def copy(self, source: Path, folder: str) -> None:
        """Copy a file or folder into `folder` on the board."""
        done = command("copy", "--name", self.name, source, folder)
        assert done.returncode == 0, done.stderr

    def show(self, *pictures: Path, hold_s: float = 1.0) -> None:
        """Let the camera see pictures; none: end what plays them."""
        done = command("camera", "--name", self.name, "--hold", str(hold_s), *pictures)
        assert done.returncode == 0, done.stderr


def running() -> dict[str, VirtualBoard]:
    """Return the boards that are running, by name."""
    done = command("status", "--json")
    assert done.returncode == 0, done.stderr
    return {state["name"]: VirtualBoard(state) for state in json.loads(done.stdout)}


@contextmanager
def started(profile: str, name: str, *options: str) -> Iterator[VirtualBoard]:
    """Boot a board and give it; afterwards it is stopped, and nothing of it may be left."""
    done = command("start", profile, "--name", name, *options)
    assert done.returncode == 0, done.stderr
    board = running()[name]
    try:
        yield board
    finally:
        stopped = command("stop", name)
    assert stopped.returncode == 0, stopped.stderr
    assert not is_alive(board.pid)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not waited for does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] != "Z"
