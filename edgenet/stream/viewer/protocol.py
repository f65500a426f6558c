"""HTTP/1.1 as uvicorn speaks it, for clients that may stop half-way: nobody holds a place for ever.

uvicorn waits without end for the head of a request, and for a client that does not read.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

TIMEOUT_S = 10.0
"""For a request to be whole, and for a client to read something."""
SEND_BUFFER = 1 << 16
"""Bytes in the kernel: what waits there for a slow reader is old when it is read."""


class ImpatientProtocol(H11Protocol):
    """A connection that is cut when its client lets us wait for too long."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        transport.set_write_buffer_limits(high=0)
        self._head = self.loop.call_later(TIMEOUT_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        for timer in (self._head, self._reading):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; the time for a request runs from its first byte to its last."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before and self._head is not None:
            self._head.cancel()
            self._head = None
        elif self.cycle is before and self._between_requests() and self._head is None:
            self._head = self.loop.call_later(TIMEOUT_S, self.transport.abort)

    def pause_writing(self) -> None:
        """Note that the client does not read as fast as we write."""
        self.flow.pause_writing()
        self._reading = self.loop.call_later(TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the client has read."""
        if self._reading is not None:
            self._reading.cancel()
        self.flow.resume_writing()

    def _between_requests(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)
