"""The machine as files and commands: all that anything in this package reads goes through here.

The same code then reads a live board, a tree that somebody recorded on one and a tree written from
published formats (`tree.py`). Knows nothing about boards or sensors.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

COMMAND_TIMEOUT_S = 5.0
"""Long for a command that reads a sensor, short for a person who waits."""
LARGEST_FILE_BYTES = 1 << 20
"""Nothing read here is longer; /proc/cpuinfo of 128 cores has 200 kB."""
PYTHON = "python"
"""As the first word of a command: the Python that runs this."""

CommandRunner = Callable[[Sequence[str], float], str]
"""Runs a command for at most so many seconds and returns its output, or raises `Unreadable`."""


class Unreadable(Exception):
    """A file or command that told nothing, and why; never leaves `edgenet.board`."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.reason = reason


class Missing(Unreadable):
    """A file that is not there."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "is not there")


class FileRefused(Unreadable):
    """A file that is there and cannot be read."""

    def __init__(self, path: str, code: int) -> None:
        super().__init__(path, REFUSALS.get(code, os.strerror(code).lower()))
        self.code = code

    @property
    def denied(self) -> bool:
        """Tell whether another user may read it."""
        return self.code in (errno.EACCES, errno.EPERM)


REFUSALS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EAGAIN: "has no value now (EAGAIN): its part of the chip is off or missing",
    errno.EINVAL: "has no value now (EINVAL): its part of the chip is off or missing",
}


def run_command(argv: Sequence[str], timeout_s: float) -> str:
    """Return what a command writes to stdout; raises `Unreadable` if it fails, crashes or hangs."""
    shown = " ".join(argv)
    program = sys.executable if argv[0] == PYTHON else argv[0]
    # Without the environment variable a file in the working directory could shadow a package.
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(  # noqa: S603  the commands are this package's own
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise Unreadable(shown, f"{argv[0]} is not installed") from None
    except PermissionError:
        raise Unreadable(shown, "permission denied") from None
    except subprocess.TimeoutExpired:
        raise Unreadable(shown, f"no answer in {timeout_s:g} s") from None
    except OSError as error:
        raise Unreadable(shown, str(error.strerror)) from None
    if done.returncode < 0:
        raise Unreadable(shown, f"crashed with {_signal_name(-done.returncode)}")
    output = done.stdout.decode(errors="replace")
    if done.returncode > 0:
        said = (done.stderr.decode(errors="replace") or output).strip().splitlines()
        raise Unreadable(shown, said[-1] if said else f"failed with exit code {done.returncode}")
    return output


def _signal_name(number: int) -> str:
    name = signal.Signals(number).name
    illegal = " (an instruction that this processor lacks)" if name == "SIGILL" else ""
    return name + illegal


class Machine:
    """A root folder and a way to run commands: this machine unless told otherwise."""

    def __init__(self, root: Path = Path("/"), run: CommandRunner = run_command) -> None:
        self._root = root
        self._run = run

    def read(self, path: str) -> str:
        """Return a file's text without outer white space; NUL, as in device trees, ends a line.

        Raises `Missing` or `FileRefused`.
        """
        try:
            data = _read_bytes(self._root / path.lstrip("/"))
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(path) from None
        except OSError as error:
            # A driver whose device has gone says ENODEV or EIO, which is no "not there".
            raise FileRefused(path, error.errno or errno.EIO) from None
        return data.decode(errors="replace").replace("\0", "\n").strip()

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Return the paths of the files that match, sorted, numbers by their value."""
        found = self._root.glob(pattern.lstrip("/"))
        paths = (f"/{path.relative_to(self._root).as_posix()}" for path in found)
        return tuple(sorted(paths, key=by_number))

    def run(self, *argv: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Return the output of a command; raises `Unreadable`."""
        return self._run(argv, timeout_s)


def _read_bytes(path: Path) -> bytes:
    """Return a file's bytes without ever waiting for them.

    Python's own files turn the EAGAIN of a sensor that is switched off into a TypeError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        parts = []
        left = LARGEST_FILE_BYTES
        while left and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def by_number(path: str) -> list[tuple[str, int]]:
    """Return a key that puts cpu2 before cpu10."""
    return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", path)]
