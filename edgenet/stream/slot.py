"""A place for one frame between a source and who takes it.

Of a live source the newest frame wins and nobody waits to put one in. Of any other, each frame
stays until it is taken, and whoever puts the next one in waits for that.
"""

from __future__ import annotations

import threading

from edgenet.stream.frame import Frame


class Slot:
    """Holds one frame at most; used by one thread on either side."""

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        """Whether a frame stays until it is taken; otherwise a newer one replaces it."""
        self._frame: Frame | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> bool:
        """Put a frame in; False where the slot was closed while it was waited for room."""
        with self._changed:
            if self.keep:
                self._changed.wait_for(lambda: self._frame is None or self._closed)
            if self._closed:
                return False
            self._frame = frame
            self._changed.notify_all()
            return True

    def take(self, timeout_s: float) -> Frame | None:
        """Return the frame that is there or comes in time, once; None if there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed, timeout_s)
            frame, self._frame = self._frame, None
            self._changed.notify_all()
            return frame

    def close(self) -> None:
        """Let nobody wait any more: what is in the slot can still be taken, nothing is put in."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def waiting(self) -> bool:
        """Tell whether a frame is in here."""
        return self._frame is not None

    @property
    def ended(self) -> bool:
        """Tell whether nothing is in here and nothing will come."""
        with self._changed:
            return self._closed and self._frame is None
