"""Where a new bundle goes: a folder that is there whole or not at all.

A hidden folder beside the destination is filled and renamed when it is whole, manifest last, so
that no folder ever loads that is not complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgenet.errors import EdgenetError, UsageError
from edgenet.manifest import read_manifest
from edgenet.writing import writing


@contextmanager
def new_bundle(destination: Path, *, replace: bool) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `destination` when the block ends well.

    The folder is hidden beside the destination and is removed when the block fails. What a killed
    run left there is removed first. Raises `UsageError` when the destination is taken and `replace`
    is not set, or is something other than a bundle, `NotWritable` when there is no room for it.
    """
    if destination.is_symlink():
        raise UsageError(f"{destination}: is a symbolic link; give -o the folder that it points to")
    destination = destination.resolve()
    _remove_leftovers(destination)
    _check_destination(destination, replace=replace)
    parent = destination.parent
    partial = parent / f".{destination.name}.partial-{os.getpid()}"
    old = parent / f".{destination.name}.old-{os.getpid()}"
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    with writing(destination):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            yield partial
            if replace and destination.exists():
                destination.rename(old)
            partial.rename(destination)
            if old.exists():
                old.rename(partial)  # from here on it is litter and never put back
                shutil.rmtree(partial, ignore_errors=True)
        except BaseException:
            if old.exists() and not destination.exists():
                old.rename(destination)
            shutil.rmtree(partial, ignore_errors=True)
            for folder in missing:
                if folder.exists() and not any(folder.iterdir()):
                    folder.rmdir()
            raise


def _check_destination(destination: Path, *, replace: bool) -> None:
    above = next(folder for folder in destination.parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{above}: is a file, so no bundle fits into it; choose another -o")
    if not destination.exists():
        return
    try:
        read_manifest(destination)
    except EdgenetError:
        raise UsageError(
            f"{destination}: exists and is no bundle that this edgenet reads, so it is not "
            "replaced; choose another -o or remove it yourself"
        ) from None
    if not replace:
        raise UsageError(f"{destination}: exists already; choose another -o or add --force")


def _remove_leftovers(destination: Path) -> None:
    """Clear what killed runs left beside `destination`; put back a bundle caught in a swap."""
    for kind in ("partial", "old"):
        for folder in destination.parent.glob(f".{destination.name}.{kind}-*"):
            pid = folder.name.rpartition("-")[2]
            # Our own number is a killed run's: in a container every run may get the same one.
            if not pid.isdecimal() or (int(pid) != os.getpid() and _is_running(int(pid))):
                continue
            if kind == "old" and not destination.exists():
                folder.rename(destination)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
