"""Ctrl-C that cannot get lost.

Python raises `KeyboardInterrupt` wherever it happens to be. Inside what compiled packages run
while they are imported there is nobody to pass it on: it is printed, or becomes another error, or
is gone, and the program goes on. So the signal is remembered, and long work asks for it between its
steps.
Must stay without imports of ours or of others: it is set up before anything else is loaded.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

MESSAGE = "edgenet: interrupted"
EXIT_CODE = 128 + signal.SIGINT

_seen = False


def watch() -> None:
    """Raise `KeyboardInterrupt` on SIGINT from now on, and remember it."""
    signal.signal(signal.SIGINT, _interrupt)


def happened() -> bool:
    """Tell whether a SIGINT has come since `watch`."""
    return _seen


def check() -> None:
    """Raise `KeyboardInterrupt` if a SIGINT has come, again where the first one got lost."""
    if _seen:
        raise KeyboardInterrupt


@contextmanager
def ends_well() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether a SIGINT or SIGTERM has come: a wish to end, no failure.

    Only the first one is taken so; the next does what it would have done outside of the block.
    """
    wished = False
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    def wish(_signal: int, _frame: FrameType | None) -> None:
        nonlocal wished
        wished = True
        restore()

    for each in before:
        signal.signal(each, wish)
    try:
        yield lambda: wished
    finally:
        restore()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    global _seen
    _seen = True
    raise KeyboardInterrupt
