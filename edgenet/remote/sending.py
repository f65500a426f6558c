"""The host's end of a deployment: talks to `receiver.py` on the board, and sends what it lacks.

    with receiving(connection, python, root) as board:
        board.send(contents, progress)
        board.place("data/0123", {"cat.jpg": content}, notes={})

One at a time a board: the receiver locks its folder, and ends when the block does.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgenet.errors import ConnectionLost, DeployRefused
from edgenet.remote.ssh import Connection

START = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv.pop())), 'receiver', 'exec'))"
"""Runs a program whose length is the last word; what follows it on standard input is its own."""
PIECE_BYTES = 1 << 18
LEAVE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Content:
    """A file by what is in it."""

    sha256: str
    size_bytes: int
    read_from: Path | bytes
    """Where it is here."""


class PipFailed(Exception):
    """The board's pip did not install what it was told to; its last lines. Never leaves here."""


class Receiving:
    """A receiver at work on a board; `receiving` starts it."""

    def __init__(
        self, connection: Connection, process: subprocess.Popen[bytes], errors: Callable[[], str]
    ) -> None:
        self._connection = connection
        self._process = process
        self._errors = errors
        self.root: str = self.ask("open")["root"]
        """The folder on the board, absolute and without links."""
        self.free_bytes = 0
        """Of the disk that it is on, as of the last `lacks`."""

    def lacks(self, contents: Sequence[Content]) -> tuple[tuple[Content, int], ...]:
        """Return those contents that the board lacks, each with how many bytes of it are there."""
        by_hash = {content.sha256: content for content in contents}
        wanted = [
            {"sha256": content.sha256, "size_bytes": content.size_bytes}
            for content in by_hash.values()
        ]
        answer = self.ask("want", files=wanted)
        self.free_bytes = answer["free_bytes"]
        return tuple((by_hash[sha256], there) for sha256, there in answer["lacks"])

    def send(
        self, contents: Sequence[Content], *, on_bytes: Callable[[int], None] = lambda _: None
    ) -> int:
        """Send what the board lacks of `contents`; return how many bytes that were."""
        missing = self.lacks(contents)
        if not missing:
            return 0
        files_ = [
            {"sha256": content.sha256, "size_bytes": content.size_bytes, "from_byte": there}
            for content, there in missing
        ]
        self._say({"do": "take", "files": files_})
        for content, there in missing:
            self._pour(content, there, on_bytes)
        self._answer()
        return sum(content.size_bytes - there for content, there in missing)

    def place(self, at: str, paths: Mapping[str, Content], *, notes: Mapping[str, str]) -> str:
        """Make the folder `at` ("bundles/...", "data/...") of contents that were sent.

        `notes` are small texts by file name. What stood there is replaced at once. Returns the
        folder's absolute path on the board.
        """
        listed = [
            {"path": path, "sha256": content.sha256, "size_bytes": content.size_bytes}
            for path, content in paths.items()
        ]
        found: str = self.ask("folder", at=at, files=listed, notes=dict(notes))["folder"]
        return found

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        """Return the answer to a request; raises `DeployRefused` with the board's reason."""
        self._say({"do": do, **words})
        return self._answer()

    def _say(self, request: Mapping[str, Any]) -> None:
        self._write(json.dumps(request).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:
            self._answer()  # it ended, but for a reason that it told
            self._fail()
        self._connection.count_sent(len(data))

    def _pour(self, content: Content, there: int, on_bytes: Callable[[int], None]) -> None:
        """Write a content from the byte `there` on."""
        if isinstance(content.read_from, bytes):
            self._write(content.read_from[there:])
            on_bytes(content.size_bytes - there)
            return
        left = content.size_bytes - there
        with content.read_from.open("rb") as file:
            file.seek(there)
            while left:
                piece = file.read(min(left, PIECE_BYTES))
                if not piece:
                    raise DeployRefused(
                        f"{content.read_from}: became shorter while it was sent; run it again"
                    )
                self._write(piece)
                on_bytes(len(piece))
                left -= len(piece)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            said = line.decode(errors="replace").strip()
            raise DeployRefused(
                f"{self._connection.host}: its Python says {said!r} where edgenet's receiver "
                "should answer; does a start-up file there print something?"
            ) from None
        if "refused" in found:
            raise DeployRefused(f"{self._connection.host}: {found['refused']}")
        if "pip_failed" in found:
            raise PipFailed(found["pip_failed"])
        return found

    def _fail(self) -> None:
        """Raise why the receiver is gone: the connection, or what Python said at its end."""
        self._process.wait(LEAVE_S)
        self._connection.check()
        said = self._errors().strip().splitlines() or ["without a word"]
        raise ConnectionLost(f"{self._connection.host}: its Python ended: {said[-1]}")


@contextmanager
def receiving(
    connection: Connection, python: str, root: str, *, through: Sequence[str] = ()
) -> Iterator[Receiving]:
    """Start the receiver on a board's Python for a folder there, and end it.

    `through` are words in front of the Python that let it be another user. Raises `DeployRefused`
    where another one is at work in that folder or it cannot be written.
    """
    source = (files("edgenet.remote") / "receiver.py").read_bytes()
    words = [*through, python, "-I", "-S", "-c", START, root, str(len(source))]
    with connection.start(words) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        errors: list[bytes] = []
        reading = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
        reading.start()

        def said() -> str:
            reading.join(LEAVE_S)
            return b"".join(errors).decode(errors="replace")

        try:
            with suppress(OSError):
                process.stdin.write(source)
            connection.count_sent(len(source))
            yield Receiving(connection, process, said)
        finally:
            with suppress(OSError):
                process.stdin.close()
            try:
                process.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
            reading.join(LEAVE_S)


def content_of(path: Path) -> Content:
    """Return a file of this machine as what it contains."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(PIECE_BYTES), b""):
            digest.update(piece)
            size += len(piece)
    return Content(sha256=digest.hexdigest(), size_bytes=size, read_from=path)


def content_of_bytes(data: bytes) -> Content:
    """Return bytes as a content."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Content(sha256=sha256, size_bytes=len(data), read_from=data)
