"""Where a playlist goes: one module a kind, each a context manager with the shape of `Outlet`."""

from __future__ import annotations

from typing import Protocol

from edgenet.errors import DeviceUnavailable
from edgenet.preprocess import UInt8Array


class Outlet(Protocol):
    """Takes the frames of a playlist."""

    live: bool
    """Frames are shown at the moment they come; where not, each is kept."""

    def wait(self) -> None:
        """Return as soon as somebody watches."""

    def show(self, frame: UInt8Array) -> bool:
        """Take one frame, (H, W, 3) BGR, before it returns; False when no more are wanted."""


def in_url(address: str) -> str:
    """Return an address as a URL has it: one of IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def cannot_listen(address: str, port: int, why: str) -> DeviceUnavailable:
    """Return the error of an address that is not ours, or of a port that is in use."""
    return DeviceUnavailable(
        f"cannot listen on {in_url(address)}:{port} ({why}); give another --listen ADDRESS:PORT, "
        "such as 127.0.0.1:0 for any free port"
    )
