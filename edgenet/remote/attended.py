"""The board's end of a command with `--host`: one edgenet command, run for somebody elsewhere.

    python -m edgenet.remote.attended FOLDER

`edgenet.remote.relay` is the other end. Standard input brings a request, one line of JSON, and
then a line now and again: an empty one is a sign of life, `interrupt` is a Ctrl-C. When it ends, or
is silent for too long because the link is gone, the command is interrupted as by Ctrl-C, then
terminated, then killed: nothing stays behind. The command works in a folder of its own below
FOLDER, which is removed.

Standard output carries frames: a line of JSON, and as many bytes as it says. `to` is `out` or
`err` for what the command printed, else the name of a file or pipe of the request; the last frame
has the exit code. Standard library only.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import json
import os
import select
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgenet.remote.asking import asked_as

OUT, ERR = "out", "err"
INTERRUPT = b"interrupt"
REQUEST_S = 30.0
"""For the request to come."""
PATIENCE_S = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
"""How a command is ended that nobody waits for, and for how long each way is given."""
LAST_WORDS_S = 2.0
"""For frames that nobody may be reading any more."""
LOOK_S = 0.2
"""Between two looks whether the command has ended."""
CHUNK = 1 << 16
RUN = "run-"
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for."""

    words: Sequence[str]
    """The command's words behind `edgenet`; names of files are of the run's own folder."""
    command: Sequence[str]
    """What was typed elsewhere."""
    files: Mapping[str, str]
    """Small files to write into the folder, their bytes in Base64."""
    pipes: Sequence[str]
    """Named pipes to make there; what the command writes into one is passed on as it comes."""
    bring: Sequence[str]
    """Files to send when the command has ended; one that is not there was not made."""
    silence_s: float
    """Without a sign of life, until whoever asked is taken to be gone."""


class Lines:
    """Lines of a descriptor, each waited for no longer than is said."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held = b""

    def take(self, timeout_s: float) -> bytes | None:
        """Return the next line without its end; None when there is no more, or none in time."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._held:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                return None
            read = os.read(self._descriptor, CHUNK)
            if not read:
                return None
            self._held += read
        line, _, self._held = self._held.partition(b"\n")
        return line


class Frames:
    """What goes to the other end, for as long as there is one; used by one thread alone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read = True

    def send(self, to: str, data: bytes) -> None:
        """Send bytes that the command printed, or a part of a file."""
        self._write(json.dumps({"to": to, "bytes": len(data)}).encode() + b"\n" + data)

    def end(self, status: int) -> None:
        """Say that all has been sent, and the exit code."""
        self._write(json.dumps({"status": status}).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            while self._read and data:
                data = data[os.write(self._descriptor, data) :]
        except BrokenPipeError:  # then standard input ends too, and the attendant sees to the rest
            self._read = False


class Attendant(threading.Thread):
    """Listens to whoever asked, and ends the command when nobody is there any more."""

    def __init__(self, lines: Lines, silence_s: float, folder: Path, group: int) -> None:
        super().__init__(name="attendant", daemon=True)
        self._lines = lines
        self._silence_s = silence_s
        self._folder = folder
        self._group = group
        self.ended = threading.Event()
        """Set when the command has ended: its number may soon be another process's."""

    def run(self) -> None:
        """Pass on what comes, until nothing does."""
        while (line := self._lines.take(self._silence_s)) is not None:
            if line == INTERRUPT:
                self._signal(signal.SIGINT)
        for number, patience_s in PATIENCE_S:
            self._signal(number)
            if self.ended.wait(patience_s):
                break
        # The other thread may be held up in writing to a link that is dead.
        time.sleep(LAST_WORDS_S)
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(1)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the command and its children, as a terminal does."""
        if not self.ended.is_set():
            with suppress(ProcessLookupError):
                os.killpg(self._group, number)


def attend(request: Request, folder: Path, lines: Lines, frames: Frames) -> None:
    """Run the command in `folder` and send what comes of it."""
    for name in (*request.files, *request.pipes, *request.bring):
        _inside(folder, name)
    for name, text in request.files.items():
        _inside(folder, name).write_bytes(base64.b64decode(text))
    with _pipes(folder, request.pipes) as (pipes, writers):
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "edgenet", *request.words],
            cwd=folder,
            env={**os.environ, **asked_as(request.command)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        attendant = Attendant(lines, request.silence_s, folder, child.pid)
        attendant.start()
        assert child.stdout is not None
        assert child.stderr is not None
        sources = {child.stdout.fileno(): OUT, child.stderr.fileno(): ERR, **pipes}
        for descriptor, to, data in _chunks(sources, child, attendant, writers):
            if data:
                frames.send(to, data)
            else:
                sources.pop(descriptor)
    status = child.wait()
    for name in request.bring:
        _send_file(_inside(folder, name), name, frames)
    frames.end(status if status >= 0 else 128 - status)


def _chunks(
    sources: Mapping[int, str],
    child: subprocess.Popen[bytes],
    attendant: Attendant,
    writers: list[int],
) -> Iterator[tuple[int, str, bytes]]:
    """Yield what each source gives, b"" at its end; behind the child's end nothing of it runs."""
    with selectors.DefaultSelector() as selector:
        for descriptor, to in sources.items():
            selector.register(descriptor, selectors.EVENT_READ, to)
        while selector.get_map():
            for key, _ in selector.select(LOOK_S):
                data = os.read(key.fd, CHUNK)
                if not data:
                    selector.unregister(key.fd)
                yield key.fd, key.data, data
            if not attendant.ended.is_set() and _has_ended(child):
                # Not reaped yet, so that the number of the group is still the child's.
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                attendant.ended.set()
                while writers:
                    os.close(writers.pop())


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@contextmanager
def _pipes(folder: Path, names: Sequence[str]) -> Iterator[tuple[dict[int, str], list[int]]]:
    """Give the reading ends of new named pipes, and writing ends that keep them open."""
    readers: dict[int, str] = {}
    writers = []
    try:
        for name in names:
            path = _inside(folder, name)
            os.mkfifo(path)
            readers[os.open(path, os.O_RDONLY | os.O_NONBLOCK)] = name
            writers.append(os.open(path, os.O_WRONLY))
        yield readers, writers
    finally:
        for descriptor in (*readers, *writers):
            os.close(descriptor)


def _send_file(path: Path, name: str, frames: Frames) -> None:
    with suppress(FileNotFoundError), path.open("rb") as stream:
        frames.send(name, b"")  # also of an empty file it is known that it is there
        while chunk := stream.read(CHUNK):
            frames.send(name, chunk)


def _inside(folder: Path, name: str) -> Path:
    if Path(name).name != name or name in ("", ".."):
        raise ValueError(f"{name!r} is no plain name of a file")
    return folder / name


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _run_folder(above: Path) -> Iterator[Path]:
    """Give a new folder that is this run's alone, and remove it and those of runs that were killed.

    A folder whose run is alive is locked by it.
    """
    above.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with _locked(above, fcntl.LOCK_EX):  # a new folder is not locked at once
            for left in above.glob(f"{RUN}*"):
                with suppress(BlockingIOError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(left)
            folder = Path(tempfile.mkdtemp(prefix=RUN, dir=above))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(_locked(folder, fcntl.LOCK_EX))
        yield folder


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def main(arguments: Sequence[str]) -> None:
    """Attend to the one request that standard input brings."""
    lines = Lines(sys.stdin.fileno())
    line = lines.take(REQUEST_S)
    if line is None:
        return
    request = Request(**json.loads(line))
    with _run_folder(Path(arguments[0])) as folder:
        attend(request, folder, lines, Frames(sys.stdout.fileno()))


if __name__ == "__main__":
    main(sys.argv[1:])
