"""A window on the desktop with the newest picture and its label, where there is a desktop.

It is a process of its own: OpenCV aborts the whole process where its display does not answer, and
nobody who drags a window about holds up the run. Where no window can open, `fault` says why, and
the run goes on without.

    python -m edgenet.stream.window CONTROL MEMORY
"""

from __future__ import annotations

import resource
import select
import sys
import time
from collections.abc import Sequence
from types import TracebackType

from edgenet.stream.display import NO_DISPLAY, NO_WINDOWS, has_windows, is_display_named
from edgenet.stream.frame import UInt8Array
from edgenet.stream.looking import Looking
from edgenet.stream.onlooker import Onlooker, Times
from edgenet.stream.result import Result
from edgenet.stream.status import Status

TITLE = "edgenet"
INSTEAD = "use --view and a browser"
NO_GUI, CLOSED = 3, 4
"""The child's exit codes: its OpenCV was built without windows; the user closed the window."""
LONGEST_SIDE = 1280
STATUS_EVERY_S = 0.5
PATIENCE_S = 0.02
"""Between looks at the window's own keys and buttons."""
ESCAPE = 27


class Window:
    """The run's end of it. Use it in a `with`; look at `fault` within."""

    def __init__(self) -> None:
        self._onlooker = Onlooker("edgenet.stream.window", {}) if is_display_named() else None

    def __enter__(self) -> Window:
        if self._onlooker is not None:
            self._onlooker.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def fault(self) -> str | None:
        """Return why there is no window, in one line; None where there is one, or was."""
        if self._onlooker is None:
            return f"no window: {NO_DISPLAY}; {INSTEAD}"
        if self._onlooker.fault is None or self.closed_by_user:
            return None
        if self._onlooker.exit_code == NO_GUI:
            return f"no window: {NO_WINDOWS}; or {INSTEAD}"
        return f"no window: {' '.join(self._onlooker.fault.split())}"

    @property
    def closed_by_user(self) -> bool:
        """Tell whether its button, q or Escape closed it."""
        return self._onlooker is not None and self._onlooker.exit_code == CLOSED

    @property
    def wanted(self) -> bool:
        """Tell whether the window waits for what `offer` brings."""
        return self._onlooker is not None and self._onlooker.wanted

    @property
    def times(self) -> Times:
        """Return what drawing took so far; nothing is encoded."""
        return Times(draw_ns=(), encode_ns=()) if self._onlooker is None else self._onlooker.times

    def offer(self, result: Result | None, status: Status) -> None:
        """Show the newest result; never waits and never fails the run."""
        if self._onlooker is not None:
            self._onlooker.offer(result, status)

    def close(self) -> None:
        """Close the window; may be called twice."""
        if self._onlooker is not None:
            self._onlooker.close()


def main(arguments: Sequence[str]) -> None:
    """Open a window, and show in it what the run hands over, until either of them ends."""
    looking = Looking(int(arguments[0]), int(arguments[1]))
    # A display that does not answer aborts the process, and nobody wants a core file of that.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from edgenet.stream.drawing import shrink, with_fault, with_label  # isort: split

    import cv2

    if not has_windows():
        sys.exit(NO_GUI)
    cv2.setNumThreads(1)
    cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    cv2.waitKey(1)
    looking.say(ready=True)
    looking.say(want="frame")
    labelled: UInt8Array | None = None
    fault, asked_at = None, 0.0
    while True:
        if time.monotonic() - asked_at > STATUS_EVERY_S:
            asked_at = time.monotonic()
            looking.say(want="status")
        if select.select([looking.control], [], [], PATIENCE_S)[0]:
            message = looking.receive()
            if message is None:
                return
            if message.status is not None:
                fault = message.status["fault"]
            began = time.perf_counter_ns()
            if message.array is not None and message.result is not None:
                if labelled is None:
                    cv2.resizeWindow(TITLE, message.array.shape[1], message.array.shape[0])
                small = shrink(message.array, longest_side=LONGEST_SIDE)
                labelled = with_label(small, message.result)
                looking.say(want="frame")
            if labelled is not None:
                cv2.imshow(TITLE, labelled if fault is None else with_fault(labelled, fault))
            if message.array is not None:
                looking.say(draw_ns=time.perf_counter_ns() - began)
        key = cv2.waitKey(1) & 0xFF
        if key in (ord("q"), ESCAPE) or cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            sys.exit(CLOSED)


if __name__ == "__main__":
    main(sys.argv[1:])
