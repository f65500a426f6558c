"""Files that are there whole or not at all, and what is said where they cannot be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgenet.errors import NotWritable


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it, so that it is never half there."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with writing(path):
        try:
            partial.write_bytes(data)
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path, *, option: str = "-o") -> Iterator[None]:
    """Turn what the system says against writing below `path` into `NotWritable`, naming `path`.

    `option` is what `path` was given with.
    """
    try:
        yield
    except OSError as error:
        raise NotWritable(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another "
            f"place with {option}"
        ) from error
