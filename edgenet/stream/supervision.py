"""What a service manager is told of a live run: ready, alive, how it goes, ending (sd_notify(3)).

The first label is what makes it ready. It counts as alive while labels flow, or while the source is
known to be gone and its thread keeps trying to have it back, and the page is there if one was asked
for. An inference that hangs, or a thread that does not come round any more, sends nothing, and the
manager's watchdog ends the process. It needs no library: a message is a datagram to the socket that
the environment names.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Protocol

from edgenet.errors import AddressUnavailable
from edgenet.stream.result import Result

STATUS_S = 2.0
"""Between two states that are told."""
PINGS = 4
"""In the time that the watchdog allows, while all is well."""
SOCKET, LIMIT, LIMIT_OF = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class Source(Protocol):
    """What is asked of a `Reader`."""

    @property
    def trouble(self) -> str | None:
        """Return in words what is wrong with the source now."""

    @property
    def rounds(self) -> int:
        """Return how often the reading thread has come round."""


class Supervision:
    """The manager's end of one run; without a manager it does nothing."""

    def __init__(
        self,
        address: str | None = None,
        *,
        watchdog_s: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Tell the socket at `address`: a path, or with an @ before it an abstract name.

        `watchdog_s` is how long the manager bears to hear nothing. Raises `AddressUnavailable` for
        what is no address of a Unix socket.
        """
        if address is not None and address[:1] not in ("/", "@"):
            raise AddressUnavailable(
                f"{SOCKET}={address}: a service manager's socket begins with / or @; unset it"
            )
        self._address = address and (f"\0{address[1:]}" if address[0] == "@" else address)
        self._ping_s = None if watchdog_s is None else watchdog_s / PINGS
        self._now = now
        self._ready = self._alive = False
        self._pinged_at = self._told_at = float("-inf")
        self._rounds = 0

    def see(
        self,
        result: Result | None,
        source: Source,
        *,
        page_fault: Callable[[], str | None],
        rate: Callable[[], float | None],
    ) -> None:
        """Take notice of a result, or that none came for a while; never waits.

        `page_fault` tells why the page is gone, and `rate` gives labels a second; they are only
        asked where there is a manager.
        """
        if self._address is None:
            return
        trouble = None
        if (fault := page_fault()) is not None:
            self._alive, trouble = False, f"the page is gone: {fault}"
        elif result is not None:
            self._alive = True
        elif (trouble := source.trouble) is not None and source.rounds != self._rounds:
            self._rounds, self._alive = source.rounds, True
        now = self._now()
        ready = not self._ready and result is not None
        ping = self._alive and self._ping_s is not None and now - self._pinged_at >= self._ping_s
        words = None
        if now - self._told_at >= STATUS_S:
            words = trouble or _words(result, rate)
        if not (self._ready or ready):
            return  # the manager waits for the first label, and has a limit of its own for that
        lines = [*["READY=1"] * ready, *["WATCHDOG=1"] * ping]
        lines += [] if words is None else [f"STATUS={words}"]
        if not lines or not self._send(*lines):
            return
        self._ready = True
        if ping:
            self._pinged_at, self._alive = now, False
        if words is not None:
            self._told_at = now

    def ending(self, reason: str) -> None:
        """Tell that the run ends, and why, in words; nothing is told after that."""
        if self._address is not None:
            # What is still to be closed and written has the manager's whole patience.
            ping = [] if self._ping_s is None else ["WATCHDOG=1"]
            self._send("STOPPING=1", *ping, f"STATUS={reason}")
            self._address = None

    def _send(self, *lines: str) -> bool:
        """Tell whether it could be sent: a manager that does not listen must not fail the run."""
        assert self._address is not None
        try:
            # A new one each time: a message goes every second or so, and nothing is left to close.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
                messenger.setblocking(False)
                messenger.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True


def supervision_of(environment: MutableMapping[str, str]) -> Supervision:
    """Return what tells the manager that `environment` names, if there is one.

    The names are taken out of it: no command that the run starts is what the manager waits for.
    Raises `AddressUnavailable` for a socket that cannot be one.
    """
    address, limit_us = environment.pop(SOCKET, None), environment.pop(LIMIT, "")
    ours = environment.pop(LIMIT_OF, None) in (None, str(os.getpid()))
    watched = ours and limit_us.isdecimal() and int(limit_us) > 0
    return Supervision(address or None, watchdog_s=int(limit_us) / 1e6 if watched else None)


def _words(result: Result | None, rate: Callable[[], float | None]) -> str | None:
    if result is None:
        return None
    best, per_second = result.guesses[0], rate()
    told = f"{best.label} {100 * best.probability:.0f} %, age {result.age_ms:.0f} ms"
    return told if per_second is None else f"{told}, {per_second:.1f} labels/s"
