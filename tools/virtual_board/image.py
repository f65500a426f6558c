"""A layer's folder as the disk that a board mounts."""

from __future__ import annotations

from pathlib import Path

from commands import run

IMAGE, ROOT = "squashfs", "root"
"""What a layer consists of: a disk, and the same files in a folder for user mode emulation."""


def pack(layer: Path, log: Path) -> None:
    """Write the image of a layer's root folder beside it. Everything in it belongs to root.

    It is not compressed: the emulated processor would have to unpack it.
    """
    plain = ("-noI", "-noId", "-noD", "-noF", "-noX", "-no-xattrs", "-all-root")
    quiet = ("-no-progress", "-quiet")
    run(["mksquashfs", layer / ROOT, layer / IMAGE, *plain, *quiet], log=log)
