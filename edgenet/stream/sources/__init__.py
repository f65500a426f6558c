"""Where pictures come from: one module a kind, each with `open_source` and its own `Source`.

A source knows nothing of who takes its pictures and how fast. It is used by one thread, the
reader's, and never heals itself: what failed is closed and opened again.
"""

from __future__ import annotations

import importlib
from typing import Protocol

from edgenet.errors import DeviceUnavailable
from edgenet.stream.address import parse_address
from edgenet.stream.frame import Delivered, Frame

STALL_S = 2.0
"""A source that gives nothing for so long has stalled."""
FIRST_PICTURE_S = 10.0
"""How long the first one may take: sensors start, streams wait for a whole picture."""


class SourceEnded(Exception):
    """There is no further picture, and nothing is wrong; never leaves `edgenet.stream`."""


class Stalled(DeviceUnavailable):
    """A source that is there and gives nothing."""


class Source(Protocol):
    """An open source of pictures."""

    @property
    def name(self) -> str:
        """Return the URI as it may be shown: no password is in it."""

    @property
    def live(self) -> bool:
        """Tell whether pictures that nobody takes are gone."""

    @property
    def still(self) -> bool:
        """Tell whether the same picture many times is no fault."""

    @property
    def delivered(self) -> Delivered:
        """Return what really comes, as far as the source says so by now."""

    def read(self) -> Frame:
        """Return the next picture, of a live source the newest that is here; blocks up to 2 s.

        Raises `SourceEnded` after the last one, `BadImage` for one that does not decode (the next
        may), `DeviceUnavailable` when nothing comes: then close this and open another.
        """

    def close(self) -> None:
        """Let go of the device, connection or child process; may be called twice."""


def open_source(uri: str, *, realtime: bool = False) -> Source:
    """Return the source at `uri`; `realtime` gives files at their own rate, as a camera would.

    Raises `UsageError` for a URI that is wrong in itself, `DeviceUnavailable` for what does not
    open and `BadData` or `BadImage` for a file that holds no pictures.
    """
    address = parse_address(uri)
    module = importlib.import_module(f"{__name__}.{address.kind}")
    source: Source = module.open_source(address, realtime=realtime)
    return source
