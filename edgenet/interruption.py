"""Ctrl-C that cannot get lost.

Python raises `KeyboardInterrupt` wherever it happens to be. Inside what compiled packages run
while they are imported there is nobody to pass it on: it is printed, becomes another error, is gone
while the program goes on, or aborts the process. So an import is always let finish, which takes a
second or two; and the signal is remembered, and long work asks for it between its steps.
Must stay without imports of ours or of others: it is set up before anything else is loaded.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

MESSAGE = "edgenet: interrupted"
EXIT_CODE = 128 + signal.SIGINT
IMPORTER = "<frozen importlib._bootstrap>"
"""Where Python's own import is, on the stack of whatever it imports."""
AGAIN_S = 0.05
"""Until it is looked again whether an import has finished."""

_seen = False


def watch() -> None:
    """Raise `KeyboardInterrupt` on SIGINT from now on, after an import if there is one."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt_unless_importing)


def happened() -> bool:
    """Tell whether a SIGINT has come since `watch`."""
    return _seen


def check() -> None:
    """Raise `KeyboardInterrupt` if a SIGINT has come, again where the first one got lost."""
    if _seen:
        settle()
        raise KeyboardInterrupt


def settle() -> None:
    """Raise nothing more for a SIGINT that has come: it has been taken notice of."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    # Python's end would make an alarm that is on its way end the program.
    if signal.getsignal(signal.SIGALRM) is _interrupt_unless_importing:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


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


@contextmanager
def passed_on(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` in place of raising `KeyboardInterrupt`, for the first SIGINT within the block.

    So nothing of what is being read or written there gets lost. The next one raises.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield  # nothing would be raised here
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        try:
            before(number, frame)
        except KeyboardInterrupt:
            tell()

    signal.signal(signal.SIGINT, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(_signal: int, frame: FrameType | None) -> None:
    global _seen
    again, _seen = _seen, True
    if again:  # whoever asks twice does not wait
        settle()
        raise KeyboardInterrupt
    _interrupt_unless_importing(_signal, frame)


def _interrupt_unless_importing(_signal: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTER:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            return
        frame = frame.f_back
    settle()
    raise KeyboardInterrupt
