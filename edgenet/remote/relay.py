"""The host's end of a command with `--host`: ask a board for it, pass on what it says, as it comes.

`edgenet.remote.attended` is the other end and tells the form of what goes over the wire. Ctrl-C is
passed on; the board ends the command by itself when this end is gone, however that came. It does
not know the commands.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from edgenet.errors import ConnectionLost
from edgenet.remote.attended import ERR, INTERRUPT, OUT
from edgenet.remote.installed import Installation
from edgenet.remote.ssh import Connection
from edgenet.writing import writing

RECORDS = "records"
"""Below the board's root: where commands work that were asked for from here."""
ALIVE_S = 5.0
"""Between two signs of life."""
SILENCE_S = 30.0
"""Without one, until the board takes this end to be gone and ends the command."""
SSH_FAILED = 255
LAST_WORDS = 300
"""Characters of what the board's Python said that go into a message."""


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What a board is to run."""

    words: Sequence[str]
    """The command's words behind `edgenet`, with the names of files there."""
    command: Sequence[str]
    """The command as it was typed here, for this host alone."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Small files to lay beside it."""
    pipes: Mapping[str, BinaryIO] = field(default_factory=dict)
    """Files that it writes as it goes along, and where their bytes go here at once."""
    bring: Mapping[str, Path] = field(default_factory=dict)
    """Files that it leaves, and where they go here when it has ended."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A command that has ended on a board."""

    status: int
    """Its exit code."""
    brought: frozenset[str]
    """The files of `Errand.bring` that came; the others were not made."""


@dataclass(frozen=True, kw_only=True)
class Outlets:
    """Where what a command prints goes, in whole lines of bytes as far as it prints lines."""

    out: Callable[[bytes], None]
    err: Callable[[bytes], None]


class Relay:
    """One errand on one board. `run` it in any thread; `interrupt` it from another."""

    def __init__(self, connection: Connection, installation: Installation) -> None:
        self._connection = connection
        self._installation = installation
        self._process: subprocess.Popen[bytes] | None = None
        self._writing = threading.Lock()
        self._interrupted = False
        self._ended = threading.Event()

    def run(self, errand: Errand, outlets: Outlets) -> Ended:
        """Run the command on the board until it ends.

        Raises `ConnectionLost` when the connection ends first, `NotWritable` where a file that it
        brings cannot be kept.
        """
        words = [self._installation.python, "-m", "edgenet.remote.attended"]
        process = self._connection.start([*words, f"{self._installation.root}/{RECORDS}"])
        alive = threading.Thread(target=self._stay_alive, name="signs of life", daemon=True)
        with process:
            try:
                self._begin(process, errand)
                alive.start()
                return self._passed_on(process, errand, outlets)
            finally:
                self._ended.set()
                process.kill()

    def interrupt(self) -> None:
        """Pass on a Ctrl-C; one that comes before the command has begun is told right behind it."""
        with self._writing:
            self._interrupted = True
            self._write(INTERRUPT)

    def _begin(self, process: subprocess.Popen[bytes], errand: Errand) -> None:
        request = {
            "words": list(errand.words),
            "command": list(errand.command),
            "files": {name: base64.b64encode(data).decode() for name, data in errand.files.items()},
            "pipes": list(errand.pipes),
            "bring": list(errand.bring),
            "silence_s": SILENCE_S,
        }
        with self._writing:
            self._process = process
            self._write(json.dumps(request).encode())
            if self._interrupted:
                self._write(INTERRUPT)

    def _write(self, line: bytes) -> None:
        """Send a line; whoever calls it holds `_writing`."""
        if self._process is None or self._process.stdin is None:
            return
        data = line + b"\n"
        self._connection.count_sent(len(data))
        # Past Python's buffer, which would try again when it is closed. Who reads no more will say
        # so by the end of what it sends.
        with suppress(BrokenPipeError, ValueError):
            while data:
                data = data[os.write(self._process.stdin.fileno(), data) :]

    def _stay_alive(self) -> None:
        while not self._ended.wait(ALIVE_S):
            with self._writing:
                self._write(b"")

    def _passed_on(
        self, process: subprocess.Popen[bytes], errand: Errand, outlets: Outlets
    ) -> Ended:
        assert process.stdout is not None
        with _Arrivals(errand.bring) as arrivals:
            while header := process.stdout.readline():
                frame = json.loads(header)
                if "status" in frame:
                    return Ended(status=int(frame["status"]), brought=arrivals.keep())
                data = process.stdout.read(frame["bytes"])
                if len(data) < frame["bytes"]:
                    break
                to = frame["to"]
                if to == OUT:
                    outlets.out(data)
                elif to == ERR:
                    outlets.err(data)
                elif to in errand.pipes:
                    errand.pipes[to].write(data)
                    errand.pipes[to].flush()
                else:
                    arrivals.take(to, data)
        raise self._lost(process)

    def _lost(self, process: subprocess.Popen[bytes]) -> ConnectionLost:
        """Return why there was no exit code."""
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace").strip()
        if process.wait() == SSH_FAILED:
            self._connection.check()
        told = f" ({' '.join(said[-LAST_WORDS:].split())})" if said else ""
        return ConnectionLost(
            f"{self._connection.host}: what runs commands there ended before the command{told}; "
            f"run it again, or edgenet deploy BUNDLE --host {self._connection.host}"
        )


class _Arrivals:
    """Files on their way: each is written beside its place, and put there when it is whole."""

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = places
        self._open: dict[str, IO[bytes]] = {}

    def __enter__(self) -> _Arrivals:
        return self

    def __exit__(self, *_: object) -> None:
        for name, stream in self._open.items():
            stream.close()
            self._partial(name).unlink(missing_ok=True)

    def take(self, name: str, data: bytes) -> None:
        """Add to a file; raises `NotWritable` where it cannot be written here."""
        place = self._places[name]
        with writing(place):
            if name not in self._open:
                place.parent.mkdir(parents=True, exist_ok=True)
                self._open[name] = self._partial(name).open("wb")
            self._open[name].write(data)

    def keep(self) -> frozenset[str]:
        """Put all that has come into its place, and return its names."""
        names = frozenset(self._open)
        for name in names:
            with writing(self._places[name]):
                self._open[name].close()
                self._partial(name).replace(self._places[name])
            del self._open[name]
        return names

    def _partial(self, name: str) -> Path:
        place = self._places[name]
        return place.with_name(f".{place.name}.part")
