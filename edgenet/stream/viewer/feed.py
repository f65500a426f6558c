"""The newest picture for those who wait for one: asked for, encoded once, handed to all of them.

Nothing is asked for while nobody waits. Whoever comes back late gets the newest picture and never
one that lay about: between the run and a browser there is no queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from edgenet.stream.frame import UInt8Array
from edgenet.stream.looking import Looking
from edgenet.stream.viewer.picture import Kind, encode

STATUS_GOOD_FOR_S = 0.2
STATUS_WAIT_S = 1.0
SHARED_FOR_S = 0.02
"""A picture that came this recently is given at once to others who ask for it; later ones wait for
the next, or they would see an older one than there is."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with the result of the very same frame."""

    result: Mapping[str, Any]
    jpegs: Mapping[Kind, bytes]
    """Only of the kinds that somebody waited for."""
    shared_ns: int
    """Of `time.monotonic_ns`, when it was handed to those who waited."""

    @property
    def sequence(self) -> int:
        """Return the frame's number."""
        return int(self.result["sequence"])

    @property
    def age_ms(self) -> float:
        """Return how old the frame is now, by its own clock."""
        captured_ns: int = self.result["captured_ns"]
        return (time.monotonic_ns() - captured_ns) / 1e6


class Feed:
    """What the run's messages bring, to be used within one event loop."""

    def __init__(self, looking: Looking) -> None:
        self.picture: Picture | None = None
        self.status: Mapping[str, Any] | None = None
        self.status_ns = 0
        self._looking = looking
        self._waiting_for: list[Kind] = []
        self._frame_asked = self._status_asked = False
        self._encoder = ThreadPoolExecutor(max_workers=1)
        loop = asyncio.get_running_loop()
        self._next_picture: asyncio.Future[Picture] = loop.create_future()
        self._next_status: asyncio.Future[None] = loop.create_future()
        self._work: set[asyncio.Task[None]] = set()

    async def next_picture(self, kind: Kind, *, after: int, wait_s: float) -> Picture | None:
        """Return the newest picture if its frame is not `after`, None if none comes in time."""
        deadline = time.monotonic() + wait_s
        newest = self.picture
        recent = newest is not None and time.monotonic_ns() - newest.shared_ns < SHARED_FOR_S * 1e9
        self._waiting_for.append(kind)
        try:
            while not (recent and _serves(newest, kind, after)):
                left = deadline - time.monotonic()
                if left <= 0:
                    # The run has nothing newer: its age says what it is.
                    return self.picture if _serves(self.picture, kind, after) else None
                if not self._frame_asked:
                    self._frame_asked = True
                    self._looking.say(want="frame")
                coming = self._next_picture
                await asyncio.wait([coming], timeout=left)
                recent = coming.done()
                newest = coming.result() if recent else None
            return newest
        finally:
            self._waiting_for.remove(kind)

    async def fresh_status(self) -> Mapping[str, Any] | None:
        """Return how the run is doing; what was known last if it says nothing for a second."""
        if time.monotonic_ns() - self.status_ns > STATUS_GOOD_FOR_S * 1e9:
            if not self._status_asked:
                self._status_asked = True
                self._looking.say(want="status")
            await asyncio.wait([self._next_status], timeout=STATUS_WAIT_S)
        return self.status

    def receive(self) -> bool:
        """Take the messages that are there; False when the run has ended."""
        while True:
            try:
                message = self._looking.receive()
            except BlockingIOError:
                return True
            if message is None:
                return False
            if message.status is not None:
                self.status, self.status_ns = message.status, time.monotonic_ns()
                self._status_asked = False
                waiting = self._next_status
                self._next_status = asyncio.get_running_loop().create_future()
                waiting.set_result(None)
            if message.array is not None and message.result is not None:
                task = asyncio.create_task(self._publish(message.array, message.result))
                self._work.add(task)
                task.add_done_callback(self._work.discard)

    async def _publish(self, bgr: UInt8Array, result: Mapping[str, Any]) -> None:
        """Encode a picture while it lies in the shared memory, and hand it to all who wait."""
        loop, kinds = asyncio.get_running_loop(), frozenset(self._waiting_for)
        try:
            encoded = await loop.run_in_executor(self._encoder, encode, bgr, result, kinds)
        finally:
            self._frame_asked = False  # the memory is the run's again
        self._looking.say(**encoded.times)
        self.picture = Picture(result=result, jpegs=encoded.jpegs, shared_ns=time.monotonic_ns())
        waiting, self._next_picture = self._next_picture, loop.create_future()
        waiting.set_result(self.picture)


def _serves(picture: Picture | None, kind: Kind, after: int) -> bool:
    return picture is not None and kind in picture.jpegs and picture.sequence != after
