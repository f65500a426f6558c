"""The board's end of `edgenet deploy`: takes files by their hashes, builds environments, switches.

Its source is sent over SSH and run by the board's own Python (3.8 or newer); it imports nothing but
the standard library. It answers each line of JSON on standard input by one on standard output:

    open    lock the folder, clear what was cut off     -> root
    want    which of these contents are missing         -> lacks [[sha256, bytes there]], free_bytes
    take    those bytes follow, one content behind the other
    folder  make a folder of contents, all at once
    environment   make a virtual environment of wheels, or by the board's pip; all at once
    switch  use this environment
    tidy    forget contents and environments that nothing uses
    remove  remove everything

A content waits under its hash in `incoming/` until a folder or environment has it, so that a
connection that is cut costs nothing that had arrived. Nothing is written outside the one folder:
paths are checked, and every folder that is filled is new.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, Mapping, Optional, Sequence

INCOMING, NEW = "incoming", ".new-"
FOLDERS = ("bundles", "data", "venvs")
"""Whose sub-folders `folder` and `environment` fill."""
PIECE_BYTES = 1 << 20
SHA256 = re.compile(r"^[0-9a-f]{64}$")
NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
PIP_LAST_LINES = 20
NOT_NEEDED = re.compile(r"^numpy/(.*/)?tests/|\.(a|h|pyi)$")
"""What no program needs to run: numpy's own tests, what compilers and type checkers read."""
EMPTY_PARENTS = 2
"""So many folders above ours go with it where they are empty: ~/.local/share, ~/.local."""
PYTHON = "%d.%d" % sys.version_info[:2]
FULL_PYTHON = "%d.%d.%d" % sys.version_info[:3]

Answer = Dict[str, Any]
Files = Sequence[Mapping[str, Any]]


class Refused(Exception):
    """What cannot be done here, in one line."""


class PipFailed(Exception):
    """pip on the board did not do it; its last lines."""


class Receiver:
    """One folder of a board, locked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: Optional[int] = None
        self._sizes: Optional[Mapping[int, Sequence[Path]]] = None

    def open(self) -> Answer:
        """Make the folder, lock it and clear what was cut off; return its path without links.

        Raises `Refused` where another one has it.
        """
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.root = self.root.resolve()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._lock = os.open(self.root / "lock", flags, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(
                "another deployment to this board is at work; wait until it has ended"
            ) from None
        for name in (INCOMING, *FOLDERS):
            path = self.root / name
            if path.is_symlink():
                raise Refused(f"{path}: is a symbolic link where a folder belongs; remove it")
            path.mkdir(mode=0o755, exist_ok=True)
            for left in path.glob(NEW + "*"):
                shutil.rmtree(left, ignore_errors=True)
        return {"root": str(self.root)}

    def want(self, files: Files) -> Answer:
        """Return which contents are missing, how many bytes of each are there, and the room."""
        lacks = []
        for file in files:
            sha256, size = file["sha256"], file["size_bytes"]
            if self._find(sha256, size) is None:
                part = self._part(sha256)
                there = part.lstat().st_size if part.exists() else 0
                if there > size:
                    part.unlink()
                    there = 0
                lacks.append([sha256, there])
        room = os.statvfs(self.root)
        return {"lacks": lacks, "free_bytes": room.f_bavail * room.f_frsize}

    def take(self, files: Files, stream: BinaryIO) -> Answer:
        """Read contents from `stream`: each goes on where what is there of it ends."""
        for file in files:
            sha256, left = file["sha256"], file["size_bytes"] - file["from_byte"]
            part = self._part(sha256)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            with os.fdopen(os.open(part, flags, 0o644), "ab") as target:
                if target.tell() != file["from_byte"]:
                    raise Refused(f"{part}: changed meanwhile; run the command again")
                while left:
                    piece = stream.read(min(left, PIECE_BYTES))
                    if not piece:
                        raise EOFError
                    target.write(piece)
                    left -= len(piece)
            if _sha256(part) != sha256:
                part.unlink()
                raise Refused(f"{sha256[:12]}: arrived damaged; run the command again")
            part.rename(self._whole(sha256))
        return {}

    def folder(self, at: str, files: Files, notes: Mapping[str, str]) -> Answer:
        """Make the folder `at` of contents by their paths, and of `notes` (texts by name).

        What stood there is replaced at once, when the new one is whole.
        """
        target = self._place(at)
        with _new_folder(target) as new:
            for file in files:
                path = new.joinpath(*_parts(file["path"]))
                path.parent.mkdir(parents=True, exist_ok=True)
                _link(self._must_find(file["sha256"], file["size_bytes"]), path)
                path.chmod(0o644)
            for name, text in notes.items():
                with new.joinpath(*_parts(name)).open("x", encoding="utf-8") as note:
                    note.write(text)
        self._sizes = None
        return {"folder": str(target)}

    def environment(
        self,
        name: str,
        wheels: Mapping[str, str],
        like: Optional[str],
        pip: Optional[Sequence[str]],
        system_site: bool,
        installation: Mapping[str, Any],
    ) -> Answer:
        """Make the virtual environment `name`.

        Its packages are those of `wheels` (hashes by file name), and before them those of the
        environment `like` but edgenet, or what `pip` installs.
        """
        with _new_folder(self._place("venvs/" + name)) as new:
            packages = new / "lib" / ("python" + PYTHON) / "site-packages"
            packages.mkdir(parents=True)
            self._fill(packages, wheels, like, pip)
            _finish(new, system_site=system_site)
            found = _packages(packages)
            described = {**installation, "python": FULL_PYTHON, "packages": found}
            (new / "installation.json").write_text(json.dumps(described) + "\n", "utf-8")
        return {"packages": found}

    def _fill(
        self,
        packages: Path,
        wheels: Mapping[str, str],
        like: Optional[str],
        pip: Optional[Sequence[str]],
    ) -> None:
        """Put packages into an environment's folder of them."""
        if like is not None:
            of_python = Path("lib") / ("python" + PYTHON) / "site-packages"
            _link_tree(self._place("venvs/" + like) / of_python, packages)
            for own in (packages / "edgenet", *packages.glob("edgenet-*")):
                shutil.rmtree(own)
        if pip is not None:
            _run_pip(pip, packages)
        for sha256 in wheels.values():
            wheel = self._must_find(sha256, None)
            _unpack(wheel, packages)
            wheel.unlink()  # a board has little room

    def switch(self, name: str) -> Answer:
        """Let `current` be the environment `name`."""
        self._place("venvs/" + name)
        temporary = self.root / (NEW + "current")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to("venvs/" + name)
        temporary.rename(self.root / "current")
        return {}

    def tidy(self) -> Answer:
        """Forget contents that waited, and environments that neither are current nor run."""
        shutil.rmtree(self.root / INCOMING)
        current = (self.root / "current").resolve()
        for venv in (self.root / "venvs").iterdir():
            if venv != current and not _is_in_use(venv):
                shutil.rmtree(venv)
        return {}

    def remove(self) -> Answer:
        """Remove everything, and the folders above where nothing else is in them."""
        shutil.rmtree(self.root)
        for above in list(self.root.parents)[:EMPTY_PARENTS]:
            if above == Path.home():
                break
            with contextlib.suppress(OSError):
                above.rmdir()
        return {}

    def _place(self, at: str) -> Path:
        """Return the path of a sub-folder of ours, such as bundles/0123."""
        kind, _, name = at.partition("/")
        if kind not in FOLDERS or not NAME.match(name):
            raise Refused(f"{at!r}: is no folder of a deployment")
        return self.root / kind / name

    def _whole(self, sha256: str) -> Path:
        if not SHA256.match(sha256):
            raise Refused(f"{sha256!r}: is no hash")
        return self.root / INCOMING / sha256

    def _part(self, sha256: str) -> Path:
        return self._whole(sha256).with_suffix(".part")

    def _must_find(self, sha256: str, size_bytes: Optional[int]) -> Path:
        found = self._find(sha256, size_bytes)
        if found is None:
            raise Refused(f"{sha256[:12]}: has not arrived; run the command again")
        return found

    def _find(self, sha256: str, size_bytes: Optional[int]) -> Optional[Path]:
        """Return a file with that content, one that waits or one of a folder; None for none.

        Folders are looked at only for a given size; what is there is read, never believed.
        """
        waiting = self._whole(sha256)
        if waiting.is_symlink() or waiting.is_file():
            if not waiting.is_symlink() and _sha256(waiting) == sha256:
                return waiting
            waiting.unlink()
        if size_bytes is None:
            return None
        if self._sizes is None:
            self._sizes = _by_size(self.root / "bundles", self.root / "data")
        alike = self._sizes.get(size_bytes, ())
        return next((path for path in alike if _sha256(path) == sha256), None)


def _by_size(*folders: Path) -> Mapping[int, Sequence[Path]]:
    """Return the files in folders by their size."""
    found: Dict[int, List[Path]] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found.setdefault(status.st_size, []).append(path)
    return found


HASHES: Dict[Sequence[int], str] = {}
"""Of files that were read, by which file it is and when it was changed."""


def _sha256(path: Path) -> str:
    status = path.lstat()
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in HASHES:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for piece in iter(lambda: file.read(PIECE_BYTES), b""):
                digest.update(piece)
        HASHES[key] = digest.hexdigest()
    return HASHES[key]


def _parts(path: str) -> Sequence[str]:
    """Return the names in a path that stays below where it begins; raises `Refused` for others."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        raise Refused(f"{path!r}: is a path that leaves its folder")
    return parts


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:  # a file system without links, or with too many
        if error.errno not in (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)


def _link_tree(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        into = target / path.relative_to(source)
        if path.is_dir():
            into.mkdir(parents=True, exist_ok=True)
        else:
            into.parent.mkdir(parents=True, exist_ok=True)
            _link(path, into)


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give a new folder to fill, which then stands at `target` in place of what was there.

    Where it cannot be filled, nothing of it is left.
    """
    new = Path(tempfile.mkdtemp(prefix=NEW, dir=target.parent))
    try:
        yield new
        new.chmod(0o755)
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            old = Path(tempfile.mkdtemp(prefix=NEW, dir=target.parent))
            target.rename(old / "old")
            new.rename(target)
            shutil.rmtree(old)
            return
        new.rename(target)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _unpack(wheel: Path, packages: Path) -> None:
    """Unpack a wheel as its specification says, without scripts and what programs do not need."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                _unpack_member(archive, member, packages)


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, packages: Path) -> None:
    parts = _parts(member.filename)
    if parts[0].endswith(".data") and len(parts) > 2:
        kind, parts = parts[1], parts[2:]
        if kind not in ("purelib", "platlib"):
            return  # programs, headers, manuals
    if NOT_NEEDED.search("/".join(parts)):
        return
    path = packages.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # never written through: it may be another environment's file as well
    with archive.open(member) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, PIECE_BYTES)
    if member.external_attr >> 16 & 0o111:
        path.chmod(0o755)


def _run_pip(words: Sequence[str], packages: Path) -> None:
    """Let the board's pip put packages into a folder; raises `PipFailed` with what it said."""
    done = subprocess.run(  # noqa: S603
        [*words, "--target", str(packages)],
        env={**os.environ, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        said = done.stdout.decode(errors="replace").splitlines()
        raise PipFailed("\n".join(said[-PIP_LAST_LINES:]))
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for path in packages.rglob("*"):
        if path.is_file() and NOT_NEEDED.search(path.relative_to(packages).as_posix()):
            path.unlink()


SCRIPT = """#!/bin/sh
'''exec' "${0%/*}/python" "$0" "$@"
' '''
from edgenet.__main__ import main

main()
"""
"""A program for both the shell and Python: the kernel takes no long path of an interpreter."""


def _finish(new: Path, *, system_site: bool) -> None:
    """Make a virtual environment of a folder with packages."""
    system = Path(getattr(sys, "_base_executable", None) or sys.executable)
    lines = (
        f"home = {system.parent}",
        f"include-system-site-packages = {str(system_site).lower()}",
        f"version = {FULL_PYTHON}",
    )
    (new / "pyvenv.cfg").write_text("".join(line + "\n" for line in lines), "utf-8")
    programs = new / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(system)
    (programs / "python3").symlink_to("python")
    (programs / "edgenet").write_text(SCRIPT, "utf-8")
    (programs / "edgenet").chmod(0o755)


def _packages(folder: Path) -> Sequence[Mapping[str, Any]]:
    """Return name, version and size of every distribution in a folder, by its RECORD."""
    found = []
    for information in sorted(folder.glob("*.dist-info")):
        name, _, version = information.name[: -len(".dist-info")].partition("-")
        size = 0
        with (information / "RECORD").open(encoding="utf-8") as record:
            for line in record:
                with contextlib.suppress(OSError):  # left out, or made later
                    size += (folder / line.rsplit(",", 2)[0].strip('"')).lstat().st_size
        found.append({"name": name.replace("_", "-"), "version": version, "size_bytes": size})
    return found


def _is_in_use(venv: Path) -> bool:
    """Tell whether a process has a library of an environment loaded."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if os.fsencode(venv) + b"/" in maps.read_bytes():
                return True
    return False


def answer(receiver: Receiver, request: Mapping[str, Any], stream: BinaryIO) -> Answer:
    """Return the answer to one request."""
    words = dict(request)
    do = words.pop("do")
    if do == "take":
        words["stream"] = stream
    try:
        found: Answer = getattr(receiver, do)(**words)
    except Refused as refused:
        return {"refused": str(refused)}
    except PipFailed as failed:
        return {"pip_failed": str(failed)}
    except OSError as error:
        return {"refused": f"{error.filename or receiver.root}: {error.strerror or error}"}
    return found


def main() -> None:
    """Answer requests about the folder that the first argument names until the input ends."""
    os.umask(0o022)
    receiver = Receiver(Path(sys.argv[1]))
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        answered = answer(receiver, request, sys.stdin.buffer)
        sys.stdout.write(json.dumps(answered) + "\n")
        sys.stdout.flush()
        if request["do"] == "take" and answered:
            break  # what follows are bytes that were to be taken


if __name__ == "__main__":
    # Whoever cut the connection hears nothing any more.
    with contextlib.suppress(EOFError, BrokenPipeError):
        main()
