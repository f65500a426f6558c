"""Who looks on, so that not more do than the board can serve."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException

GONE_AFTER_S = 10.0
"""Without a request."""
MOST_IN_FLIGHT = 2
"""Requests of one client: one that is on its way while another is drawn."""


class Clients:
    """Places for `most` clients, each kept for a while after its last request."""

    def __init__(self, most: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._seen: dict[str, float] = {}
        self._in_flight: dict[str, int] = {}

    @property
    def count(self) -> int:
        """Return how many look on now."""
        limit = self._now() - GONE_AFTER_S
        self._seen = {
            name: at for name, at in self._seen.items() if at > limit or name in self._in_flight
        }
        return len(self._seen)

    @contextmanager
    def place(self, name: str) -> Iterator[None]:
        """Hold a place during one request.

        Raises 503 where all are taken, 429 where this client has two requests under way.
        """
        if self.count >= self._most and name not in self._seen:
            raise HTTPException(
                503, f"{self._most} are looking on; try later", {"Retry-After": "10"}
            )
        under_way = self._in_flight.get(name, 0)
        if under_way >= MOST_IN_FLIGHT:
            raise HTTPException(429, "two requests are under way; wait for one")
        self._seen[name] = self._now()
        self._in_flight[name] = under_way + 1
        try:
            yield
        finally:
            self._seen[name] = self._now()
            if self._in_flight[name] == 1:
                del self._in_flight[name]
            else:
                self._in_flight[name] -= 1
