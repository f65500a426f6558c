"""A page's token that stays the same from one run to the next, in a file of its own."""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from edgenet.errors import UsageError
from edgenet.writing import writing

SHORTEST_TOKEN = 16
WORDING = re.compile(rf"[A-Za-z0-9._~-]{{{SHORTEST_TOKEN},}}")
"""What may stand in a URL as it is."""


def new_token() -> str:
    """Return a token that nobody can guess: 128 random bits."""
    return secrets.token_urlsafe(16)


def kept_token(path: Path) -> str:
    """Return the token in a file; where there is none, make one that only this user can read.

    Raises `UsageError` for a file that holds no token or that everybody can read, `NotWritable`
    where none can be made.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        _create(path, new_token())
    return _read(path)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            open_to_all = os.fstat(file.fileno()).st_mode & stat.S_IROTH
            text = file.read().strip()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise UsageError(f"--token-file {path}: cannot be read ({reason})") from None
    if open_to_all:
        raise UsageError(f"--token-file {path}: everybody can read it; run: chmod o-r {path}")
    if not WORDING.fullmatch(text):
        raise UsageError(
            f"--token-file {path}: holds no token of {SHORTEST_TOKEN} or more letters, digits and "
            "- . _ ~; delete it, and a new one is made"
        )
    return text


def _create(path: Path, token: str) -> None:
    """Write a token; one that another process has put there meanwhile stays."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with writing(path, option="--token-file"):
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{token}\n")
            with suppress(FileExistsError):
                os.link(partial, path)
        finally:
            partial.unlink(missing_ok=True)
