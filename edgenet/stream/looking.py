"""The end of a live run's child: it takes pictures, and ends when the run does.

    python -m SOME.MODULE CONTROL MEMORY ...

Both are numbers of descriptors. There is one picture's room in the memory: it is the child's from
the message that brings it until the child asks for the next. `edgenet.stream.child` is the other
end.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.stream.frame import UInt8Array

LARGEST_MESSAGE = 1 << 17
NICENESS = 10
"""Whoever looks on goes behind what is measured."""
AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux shares the processor out by session first, the session's own niceness is what counts:
that of a process says only who goes first within its session."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What one message of the run brings; each part may be missing."""

    status: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    """As `edgenet.stream.onlooker.describe` makes it."""
    array: UInt8Array | None
    """A picture, (H, W, 3) uint8 BGR, or what else was shared, in the memory of both: valid until
    the next is asked for."""


class Looking:
    """The socket and the memory of a child."""

    def __init__(self, control: int, memory: int) -> None:
        """Take over the descriptors, and step back behind the run."""
        # A service manager ends the whole group: the run has to end first, and it says when.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        step_back()
        self.control = socket.socket(fileno=control)
        self._parent = os.getppid()
        self._memory = memory
        self._room = mmap.mmap(-1, 1)
        self.settings: dict[str, Any] = json.loads(self.control.recv(LARGEST_MESSAGE))

    @property
    def is_orphan(self) -> bool:
        """Tell whether the run is gone while something that it forked still holds its socket."""
        return os.getppid() != self._parent

    def say(self, **message: Any) -> None:
        """Tell the run something: `ready`, `want`, `draw_ns`, `encode_ns`."""
        with suppress(OSError):  # it is gone, which `receive` tells next
            self.control.send(json.dumps(message).encode())

    def receive(self) -> Message | None:
        """Return the next message; None when the run has ended. Raises `BlockingIOError`."""
        try:
            data = self.control.recv(LARGEST_MESSAGE)
        except ConnectionResetError:
            return None
        if not data:
            return None
        message = json.loads(data)
        shape = message.get("shape")
        return Message(
            status=message.get("status"),
            result=message.get("result"),
            array=None if shape is None else self._picture(tuple(shape)),
        )

    def _picture(self, shape: tuple[int, ...]) -> UInt8Array:
        size = int(np.prod(shape))
        if size > len(self._room):
            self._room = mmap.mmap(self._memory, size)
        picture: UInt8Array = np.ndarray(shape, np.uint8, self._room)
        return picture


def step_back() -> None:
    """Go behind everything else that wants the processor."""
    os.nice(NICENESS)
    with suppress(OSError):  # a kernel that knows no such groups
        AUTOGROUP.write_text(str(NICENESS), encoding="ascii")
