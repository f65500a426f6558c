"""Several boards at once: each in a thread of its own, so that none waits for another.

A board that drops out is told when it does, and the others go on. One Ctrl-C ends the command on
every board as it would end it here; a second one leaves at once, and the boards see to themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgenet import interruption
from edgenet.errors import EdgenetError
from edgenet.remote.installed import Installation, find_installation
from edgenet.remote.relay import Relay
from edgenet.remote.ssh import Connection, connect

LOOK_S = 0.1
"""Between two looks whether somebody has pressed Ctrl-C."""

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board that was reached, and what is installed there."""

    connection: Connection
    installation: Installation
    relay: Relay

    @property
    def host(self) -> str:
        """Return what ssh calls it."""
        return self.connection.host


@dataclass(frozen=True, kw_only=True)
class Ran(Generic[Found]):
    """What came of one host."""

    host: str
    found: Found | None = None
    """None where it failed."""
    failure: EdgenetError | None = None


def on_each(
    hosts: Sequence[str],
    work: Callable[[Board], Found],
    *,
    failed: Callable[[str, EdgenetError], None],
) -> list[Ran[Found]]:
    """Run `work` with each of the boards at once and return what came of each, in their order.

    `failed` is called from a board's thread when it fails, while others may go on. Raises
    `KeyboardInterrupt` when a Ctrl-C finds no board reached, or when there is a second one.
    """
    with interruption.ends_well() as stopped:
        crew = [_Hand(host, work, failed) for host in hosts]
        for hand in crew:
            hand.start()
        told = False
        try:
            while any(hand.is_alive() for hand in crew):
                for hand in crew:
                    hand.join(LOOK_S / len(crew))
                if stopped() and not told:
                    told = True
                    for hand in crew:
                        hand.interrupt()
                left = [hand for hand in crew if hand.is_alive()]
                if told and left and not any(hand.reached for hand in left):
                    raise KeyboardInterrupt  # nothing runs there that could end well
        except BaseException:
            for hand in crew:
                hand.leave()
            raise
    for hand in crew:
        if hand.bug is not None:
            raise hand.bug
    return [hand.ran for hand in crew]


class _Hand(threading.Thread, Generic[Found]):
    """The thread of one board."""

    def __init__(
        self,
        host: str,
        work: Callable[[Board], Found],
        failed: Callable[[str, EdgenetError], None],
    ) -> None:
        super().__init__(name=host, daemon=True)
        self.ran: Ran[Found] = Ran(host=host)
        self.bug: BaseException | None = None
        """What is no failure of the board: to be raised again where it is seen."""
        self._work = work
        self._failed = failed
        self._interrupted = threading.Event()
        self._board: Board | None = None
        self._changing = threading.Lock()

    def run(self) -> None:
        """Reach the board and do the work there."""
        host = self.ran.host
        try:
            with connect(host) as connection:
                installation = find_installation(connection)
                board = Board(
                    connection=connection,
                    installation=installation,
                    relay=Relay(connection, installation),
                )
                with self._changing:
                    self._board = board
                if self._interrupted.is_set():
                    raise KeyboardInterrupt
                self.ran = Ran(host=host, found=self._work(board))
        except EdgenetError as error:
            self.ran = Ran(host=host, failure=error)
            self._failed(host, error)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self.bug = error

    @property
    def reached(self) -> bool:
        """Tell whether the board has answered."""
        return self._board is not None

    def interrupt(self) -> None:
        """Pass on a Ctrl-C."""
        with self._changing:
            self._interrupted.set()
            if self._board is not None:
                self._board.relay.interrupt()

    def leave(self) -> None:
        """Close the connection, whatever goes on: the board ends the command by itself."""
        with self._changing:
            if self._board is not None:
                self._board.connection.close()
