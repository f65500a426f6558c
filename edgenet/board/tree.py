"""A board on disk: the files and answers of a machine, to examine it somewhere else.

    <tree>/tree.json    what it is, where it comes from, what commands printed, what was refused
    <tree>/root/...     the files, under their own paths

A `documented` tree was written from published formats; only `edgenet doctor --record` makes a
`recorded` one. `.tar.gz` holds the same. Only what was read is kept, without serial numbers.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from edgenet.board.machine import (
    COMMAND_TIMEOUT_S,
    LARGEST_FILE_BYTES,
    FileRefused,
    Machine,
    Missing,
    Unreadable,
    by_number,
)
from edgenet.errors import BadTree, NotWritable, UsageError

DESCRIPTION = "tree.json"
ROOT = "root"
SCHEMA_VERSION = "1.0"
DOCUMENTED, RECORDED = "documented", "recorded"
ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")
COLON = "%3A"
"""Stands for a colon in names on disk: Windows allows none, and wheels are unpacked there too."""
MOST_FILES = 20_000
SERIAL = re.compile(r"^\s*Serial\s*:.*$\n?", re.MULTILINE)
"""In /proc/cpuinfo of a Raspberry Pi."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What `tree.json` says."""

    schema_version: str
    kind: str
    board: str
    sources: tuple[str, ...]
    commands: Mapping[str, str]
    """What each command printed."""
    failed_commands: Mapping[str, str]
    """Why a command printed nothing of use."""
    refused: Mapping[str, str]
    """Files that were there but could not be read, with the name of the error: EACCES."""


class Tree(Machine):
    """The machine that a tree is of."""

    def __init__(self, folder: Path, description: Description) -> None:
        super().__init__(folder / ROOT, self._replay)
        self.description = description

    def read(self, path: str) -> str:
        """Return a file's text as it was, or raise what reading it raised."""
        if path in self.description.refused:
            raise FileRefused(path, _error_number(self.description.refused[path]))
        try:
            return super().read(path.replace(":", COLON))
        except Missing:
            raise Missing(path) from None

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Return the paths that match, those included that could not be read."""
        found = [path.replace(COLON, ":") for path in super().glob(pattern.replace(":", COLON))]
        refused = [path for path in self.description.refused if PurePosixPath(path).match(pattern)]
        return tuple(sorted({*found, *refused}, key=by_number))

    def _replay(self, argv: Sequence[str], _timeout_s: float) -> str:
        command = " ".join(argv)
        if command in self.description.commands:
            return self.description.commands[command]
        missing = f"is not in this {self.description.kind} tree"
        raise Unreadable(command, self.description.failed_commands.get(command, missing))


class Recorder(Machine):
    """A machine that keeps all that is read from another."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine
        self._files: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._commands: dict[str, str] = {}
        self._failed_commands: dict[str, str] = {}

    def read(self, path: str) -> str:
        """Return a file's text without serial numbers."""
        try:
            text = SERIAL.sub("", self._machine.read(path))
        except FileRefused as refused:
            self._refused[path] = errno.errorcode[refused.code]
            raise
        self._files[path] = text
        return text

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Return the paths that match."""
        return self._machine.glob(pattern)

    def run(self, *argv: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Return the output of a command."""
        command = " ".join(argv)
        try:
            output = self._machine.run(*argv, timeout_s=timeout_s)
        except Unreadable as fault:
            self._failed_commands[command] = fault.reason
            raise
        self._commands[command] = output
        return output

    def save(self, path: Path, *, board: str, source: str) -> None:
        """Write the tree, whole or not at all: an archive if the name ends so, else a folder."""
        description = Description(
            schema_version=SCHEMA_VERSION,
            kind=RECORDED,
            board=board,
            sources=(source,),
            commands=self._commands,
            failed_commands=self._failed_commands,
            refused=self._refused,
        )
        contents = {DESCRIPTION: json.dumps(asdict(description), indent=2, ensure_ascii=False)}
        for name, text in sorted(self._files.items()):
            contents[f"{ROOT}{name.replace(':', COLON)}"] = text
        check_new(path)
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        write = _write_archive if path.name.endswith(ARCHIVE_SUFFIXES) else _write_folder
        try:
            try:
                write(partial, contents)
                partial.rename(path)
            finally:  # which a read-only file system refuses as well
                _remove(partial)
        except OSError as error:
            raise NotWritable(
                f"{path}: cannot be written ({error.strerror or error}); choose another --record"
            ) from error


def check_new(path: Path) -> None:
    """Raise `UsageError` where a tree could not be saved, before the work rather than after."""
    if path.exists():
        raise UsageError(f"{path}: is there already; give --record another name")
    if not path.absolute().parent.is_dir():
        raise UsageError(
            f"{path.absolute().parent}: is no folder, so nothing can be recorded in it"
        )


def documented() -> Mapping[str, Path]:
    """Return the trees that come with edgenet, by name."""
    found = Path(str(files("edgenet.targets"))).glob(f"*/trees/*/{DESCRIPTION}")
    return {path.parent.name: path.parent for path in sorted(found)}


@contextmanager
def open_tree(name_or_path: str) -> Iterator[Tree]:
    """Give the machine in a folder, in an archive, or in the documented tree of that name.

    Raises `UsageError` where there is none, `BadTree` for one that is damaged or too new.
    """
    path = documented().get(name_or_path, Path(name_or_path))
    if path.is_dir():
        yield Tree(path, _description(path))
    elif path.is_file():
        with tempfile.TemporaryDirectory(prefix="edgenet-tree-") as folder:
            _unpack(path, Path(folder))
            yield Tree(Path(folder), _description(Path(folder), shown=path))
    else:
        known = ", ".join(documented())
        raise UsageError(
            f"no tree {name_or_path!r}: give what doctor --record wrote, or one of {known}"
        )


def _description(folder: Path, *, shown: Path | None = None) -> Description:
    import fastjsonschema

    path = shown or folder / DESCRIPTION
    try:
        content = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        _validator()(content)
    except FileNotFoundError:
        raise BadTree(
            f"{shown or folder}: has no {DESCRIPTION}, so it is no tree; give what doctor --record "
            "wrote"
        ) from None
    except fastjsonschema.JsonSchemaValueException as error:
        message = error.message.replace("data", DESCRIPTION, 1)
        raise BadTree(f"{path}: {message}; record it again or use a newer edgenet") from None
    except (ValueError, RecursionError) as error:
        raise BadTree(f"{path}: {DESCRIPTION} is not JSON ({error})") from None
    return Description(**{**content, "sources": tuple(content["sources"])})


def _unpack(archive: Path, folder: Path) -> None:
    """Write the files of an archive below `folder`: plain ones, with plain names, of sane sizes."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for number, member in enumerate(tar):
                parts = PurePosixPath(member.name).parts
                plain = member.isfile() and ".." not in parts and not member.name.startswith("/")
                if not plain or member.size > LARGEST_FILE_BYTES or number >= MOST_FILES:
                    raise BadTree(f"{archive}: {member.name} is nothing that doctor records")
                target = folder.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise BadTree(f"{archive}: is no whole .tar.gz ({error})") from None


def _write_archive(path: Path, contents: Mapping[str, str]) -> None:
    """Write the same bytes for the same contents: no times, no names of users."""
    with (
        path.open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, text in contents.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _write_folder(path: Path, contents: Mapping[str, str]) -> None:
    for name, text in contents.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _error_number(name: str) -> int:
    """Return the number of an error; of EIO for a name that this system does not have."""
    return int(getattr(errno, name, errno.EIO))


@cache
def _validator() -> Any:
    import fastjsonschema

    schema = json.loads((files("edgenet.schemas") / "tree.schema.json").read_bytes())
    return fastjsonschema.compile(schema)
