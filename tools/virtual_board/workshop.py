"""Where things are built, and when they are built again.

All that is made lies in one folder outside the checkout. A thing has a name and a key: the hash of
everything that it is made from. It is made in a temporary folder that is renamed when it is whole,
so a thing that is there is complete, whatever interrupted the last build. It does not know what
versions a package index or mirror has today: new ones come when the key changes or the folder is
deleted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

UNUSED_S = 3600
"""For how long an older version of a thing is kept: another checkout may be using it."""


class Workshop:
    """The folder in which everything is made and kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.built = folder / "built"
        self.log = folder / "build.log"

    def make(self, name: str, inputs: Sequence[object], maker: Callable[[Path], None]) -> Path:
        """Return the folder of the thing `name` made from `inputs`; make it if it is not there."""
        key = hashlib.sha256("\0".join(map(str, inputs)).encode()).hexdigest()[:12]
        target = self.built / f"{name}-{key}"
        if not target.exists():
            started = time.monotonic()
            partial = self.built / f".{target.name}.partial-{os.getpid()}"
            partial.mkdir(parents=True)
            try:
                maker(partial)
                partial.rename(target)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            say(f"{name} built in {time.monotonic() - started:.1f} s")
        os.utime(target)
        return target

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one build run at a time; a second one waits, and finds everything made."""
        self.built.mkdir(parents=True, exist_ok=True)
        with (self.folder / "build.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another build")
                fcntl.flock(lock, fcntl.LOCK_EX)
            for partial in self.built.glob(".*.partial-*"):
                shutil.rmtree(partial)
            yield
            self._forget_unused()

    def _forget_unused(self) -> None:
        for thing in self.built.iterdir():
            if time.time() - thing.stat().st_mtime > UNUSED_S and self._has_newer(thing):
                shutil.rmtree(thing)

    def _has_newer(self, thing: Path) -> bool:
        name = thing.name.rpartition("-")[0]
        versions = [each for each in self.built.iterdir() if each.name.rpartition("-")[0] == name]
        return max(versions, key=lambda each: each.stat().st_mtime) != thing


def open_workshop() -> Workshop:
    """Return the workshop that EDGENET_BOARD_DIR names, or the one in the user's cache."""
    named = os.environ.get("EDGENET_BOARD_DIR")
    folder = Path(named) if named else Path.home() / ".cache/edgenet/virtual-board"
    return Workshop(folder.absolute())


def sources_of(*paths: Path) -> str:
    """Return the hash of files and folders, to stand among the inputs of what is made of them."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(_files(path)):
            digest.update(f"{file.relative_to(path.parent)}\0".encode())
            digest.update(str(file.readlink()).encode() if file.is_symlink() else file.read_bytes())
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = [each for each in path.rglob("*") if each.is_symlink() or each.is_file()]
    return [each for each in found if "__pycache__" not in each.parts]


def say(message: str) -> None:
    """Tell the person what happens; stdout is for what was asked for."""
    print(f"board: {message}", file=sys.stderr, flush=True)
