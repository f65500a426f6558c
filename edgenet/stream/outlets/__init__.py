"""Where a playlist goes: one module a kind, each a context manager with the shape of `Outlet`."""

from __future__ import annotations

from typing import Protocol

from edgenet.preprocess import UInt8Array

LISTEN_OPTION = "--listen"
"""The option that says where the servers among them listen."""


class Outlet(Protocol):
    """Takes the frames of a playlist."""

    live: bool
    """Frames are shown at the moment they come; where not, each is kept."""

    def wait(self) -> None:
        """Return as soon as somebody watches."""

    def show(self, frame: UInt8Array) -> bool:
        """Take one frame, (H, W, 3) BGR, before it returns; False when no more are wanted."""
