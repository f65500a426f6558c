"""The thread that reads a source and never waits for who takes its frames.

It owns the source: what has stalled or was lost is closed and opened again by the same thread, with
longer and longer pauses. What went wrong is counted and noted, and the run goes on. A clock and a
pause are arguments, so that a test can drive them by hand.
"""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType

import numpy as np

from edgenet.errors import BadImage, DeviceUnavailable
from edgenet.stream.frame import Delivered, Frame, UInt8Array
from edgenet.stream.slot import Slot
from edgenet.stream.sources import FIRST_PICTURE_S, Source, SourceEnded, Stalled, open_source

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""Between attempts to open a lost source again: doubled each time, up to the longest."""
STEADY_S = 2.0
"""A source that delivers for so long is well again: the next pause is the first one."""
FROZEN_S, FROZEN_PICTURES = 2.0, 5
"""The same pixels for so long, in at least so many pictures: no sensor does that, its noise alone
changes some of them. H.264 encodes a whole picture every second or so, and never twice alike: what
froze before such an encoder can be missed, while a camera that sees nothing move is never accused.
"""
STALE_S = 0.5
"""A frame that is older than this when it is taken, by its own clock, is counted as stale."""
MOST_FAULTS = 1000
"""Kept; a source that fails all day must not fill the memory."""
THUMBNAIL = 32
CLOSE_S = 8.0
"""How long closing waits for the thread: opening may take 3 s, the first picture some more."""

Pause = Callable[[threading.Event, float], bool]
"""Waits until an event is set, at most so many seconds; tells whether it is."""


class FaultKind(str, Enum):
    """What can be wrong with a source, and its end."""

    STALL = "stall"
    """Connected, and nothing comes."""
    LOST = "lost"
    """Unplugged, closed, refused."""
    RECONNECTED = "reconnected"
    FROZEN = "frozen"
    """Pictures come, always the same."""
    THAWED = "thawed"
    CHANGED_SIZE = "changed size"
    CORRUPT = "corrupt"
    """A picture that does not decode, or the first of several in a row."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that happened to a source."""

    kind: FaultKind
    at_ns: int
    """Of the monotonic clock, when it was noticed."""
    seconds: float
    """Without a picture (stall, lost, reconnected) or with the same one (frozen, thawed) until
    `at_ns`; 0 for what takes no time."""
    message: str


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the frames so far."""

    delivered: int
    """By the source; taken, dropped or waiting to be taken."""
    taken: int
    dropped: int
    """Never taken, because a newer one was there."""
    repeated: int
    """With exactly the pixels of the one before; not counted where that is no fault."""
    stale: int
    """Taken, and older than `STALE_S` by their own clock."""
    corrupt: int
    """Pictures that did not decode; in none of the numbers above."""
    reconnects: int
    waiting: int
    """0 or 1, in the slot."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a reader reads from; stays known while it is lost."""

    name: str
    """The URI without passwords."""
    live: bool
    still: bool
    delivered: Delivered


class Reader:
    """Frames of a source, read by a thread of its own: `with Reader("0") as reader: ...`.

    The block begins with the first picture, or raises what stands in its way: `UsageError`,
    `DeviceUnavailable`, `BadData` or `BadImage`. After that a live source may come and go.
    """

    def __init__(
        self,
        source: str | Callable[[], Source],
        *,
        realtime: bool = False,
        now: Callable[[], int] = time.monotonic_ns,
        pause: Pause = threading.Event.wait,
    ) -> None:
        self._open: Callable[[], Source] = (
            (lambda: open_source(source, realtime=realtime)) if isinstance(source, str) else source
        )
        self._now, self._pause = now, pause
        self._opened: Opened | None = None
        self._slot = Slot(keep=False)
        self._ready, self._stop = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._faults: deque[Fault] = deque(maxlen=MOST_FAULTS)
        self._kinds: Counter[FaultKind] = Counter()
        self._delivered = self._taken = self._stale = self._corrupt = 0
        self._first_sequence = 0
        """Of the source that is open now: it counts from 0, we go on."""
        self._last: Frame | None = None
        self._error: BadImage | None = None
        """Of the picture before, if it did not decode."""
        self._started_ns = now()
        self._trouble: str | None = None
        self._out_since_ns: int | None = None
        self._well_since_ns: int | None = None
        self._attempts = self._rounds = 0
        self._repeats = _Repeats()
        self._thread = threading.Thread(target=self._run, name="edgenet reader", daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:  # Ctrl-C while the first picture is waited for
            self._close()
            raise
        if self._failure is not None:
            self._close()
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def take(self, timeout_s: float) -> Frame | None:
        """Return the newest frame that nobody took yet; of files the next one, none is left out.

        None when there is none in time, or no more. Raises what ended the reading of a file.
        """
        frame = self._slot.take(timeout_s)
        if frame is None:
            if self._failure is not None:
                raise self._failure
            return None
        self._taken += 1
        self._stale += self._now() - frame.captured_ns > STALE_S * 1e9
        return frame

    @property
    def ended(self) -> bool:
        """Tell whether every frame was taken and none will come, for no fault: `take` raises it."""
        return self._slot.ended and self._failure is None

    @property
    def source(self) -> Opened:
        """Return what is read, as it was when it was last there."""
        assert self._opened is not None, "the block has not begun"
        return self._opened

    @property
    def counts(self) -> Counts:
        """Return what became of the frames so far."""
        delivered, taken, waiting = self._delivered, self._taken, int(self._slot.waiting)
        return Counts(
            delivered=delivered,
            taken=taken,
            dropped=max(0, delivered - taken - waiting),
            repeated=self._repeats.count,
            stale=self._stale,
            corrupt=self._corrupt,
            reconnects=self._kinds[FaultKind.RECONNECTED],
            waiting=waiting,
        )

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Return what went wrong and what mended, in order; the last thousand of it."""
        return tuple(self._faults)

    def faults_since(self, number: int) -> tuple[Fault, ...]:
        """Return what came after the first `number` faults of this run, in order, and is kept."""
        new = sum(self._kinds.values()) - number
        return tuple(self._faults)[-new:] if new else ()

    @property
    def trouble(self) -> str | None:
        """Return in words what is wrong now; None where pictures come and move."""
        trouble, last = self._trouble, self._last
        if trouble is not None and last is not None:
            return f"no picture for {(self._now() - last.arrived_ns) / 1e9:.1f} s: {trouble}"
        return self._repeats.trouble

    @property
    def rounds(self) -> int:
        """Return how often the thread has tried for a picture; one that hangs tries no more."""
        return self._rounds

    def _close(self) -> None:
        self._stop.set()
        self._slot.close()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            self._read_on()
        except BaseException as error:  # noqa: BLE001  raised again where frames are taken
            self._failure = error
        finally:
            self._slot.close()
            self._ready.set()

    def _read_on(self) -> None:
        source: Source | None = None
        try:
            while not self._stop.is_set():
                self._rounds += 1
                try:
                    source = source or self._begin()
                    frame = source.read()
                except SourceEnded:
                    self._end()
                    return
                except BadImage as error:
                    self._met_corrupt(error)
                except DeviceUnavailable as error:
                    if self._stop.is_set():
                        return  # nobody waits for pictures any more
                    if not self._bears(error):
                        raise
                    self._met_outage(error)
                    if source is not None:
                        source.close()  # takes two seconds where the server still says nothing
                        source = None
                    self._wait()
                else:
                    self._received(source, frame)
        finally:
            if source is not None:
                source.close()

    def _begin(self) -> Source:
        source = self._open()
        self._first_sequence = self._delivered
        self._look(source)
        self._slot.keep = not source.live
        self._error = None
        return source

    def _look(self, source: Source) -> None:
        self._opened = Opened(
            name=source.name, live=source.live, still=source.still, delivered=source.delivered
        )

    def _end(self) -> None:
        if self._last is None:
            # Nothing but pictures that do not decode; a source without any says so itself.
            raise self._error or DeviceUnavailable(f"{self.source.name}: ended without a picture")

    def _received(self, source: Source, frame: Frame) -> None:
        if self._first_sequence:
            frame = replace(frame, sequence=self._first_sequence + frame.sequence)
        last, self._last = self._last, frame
        if self._out_since_ns is not None:
            self._note(FaultKind.RECONNECTED, self._out_since_ns, "pictures come again")
            self._out_since_ns = self._trouble = None
            self._well_since_ns = frame.arrived_ns
        elif self._attempts and frame.arrived_ns - (self._well_since_ns or 0) > STEADY_S * 1e9:
            self._attempts = 0
        if last is None or last.bgr.shape != frame.bgr.shape:
            self._look(source)
        if last is not None and last.bgr.shape != frame.bgr.shape:
            self._note(
                FaultKind.CHANGED_SIZE,
                None,
                f"pictures are {_size(frame.bgr)} now, they were {_size(last.bgr)}",
            )
        if source.live and not source.still:
            change = self._repeats.see(frame)
            if change is not None:
                kind, since_ns, message = change
                self._note(kind, since_ns, message)
        self._error = None
        self._delivered = frame.sequence + 1
        # Last: who takes the frame finds it counted.
        self._slot.put(frame)
        self._ready.set()

    def _met_corrupt(self, error: BadImage) -> None:
        self._corrupt += 1
        if self._error is None:
            self._note(FaultKind.CORRUPT, None, str(error))
        self._error = error
        waited_s = (self._now() - self._started_ns) / 1e9
        if self._last is None and self.source.live and waited_s > FIRST_PICTURE_S:
            raise DeviceUnavailable(
                f"{self.source.name}: delivers, but no picture decodes ({error}); look at it with "
                "another program"
            )

    def _bears(self, error: DeviceUnavailable) -> bool:
        """Tell whether to try again: whenever a live source was well, and some time before that.

        Who joins a video stream waits for its next whole picture, and the first one may take.
        """
        if self._last is not None:
            return self.source.live
        waited_s = (self._now() - self._started_ns) / 1e9
        return isinstance(error, Stalled) and waited_s < FIRST_PICTURE_S

    def _met_outage(self, error: DeviceUnavailable) -> None:
        """Note an outage, once."""
        if self._last is None:
            return  # its beginning is no outage
        self._trouble = str(error)
        if self._out_since_ns is None:
            self._out_since_ns = self._last.arrived_ns
            kind = FaultKind.STALL if isinstance(error, Stalled) else FaultKind.LOST
            self._note(kind, self._out_since_ns, str(error))
            self._repeats.forget()

    def _wait(self) -> None:
        """Wait before the next attempt, longer each time."""
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._attempts, 10))
        self._attempts += 1
        # Jitter, so that many cameras of one server do not all come back in the same moment.
        self._pause(self._stop, pause_s * random.uniform(0.75, 1.0))

    def _note(self, kind: FaultKind, since_ns: int | None, message: str) -> None:
        now = self._now()
        seconds = 0.0 if since_ns is None else (now - since_ns) / 1e9
        self._kinds[kind] += 1
        self._faults.append(Fault(kind=kind, at_ns=now, seconds=seconds, message=message))


class _Repeats:
    """Whether the picture still moves."""

    def __init__(self) -> None:
        self.count = 0
        self._checksum: int | None = None
        self._last: UInt8Array | None = None
        self._since_ns = 0
        """When the first of the pictures came that are all alike."""
        self._alike = 0
        self._frozen = False

    @property
    def trouble(self) -> str | None:
        return "the picture is frozen: always the same pixels come" if self._frozen else None

    def see(self, frame: Frame) -> tuple[FaultKind, int, str] | None:
        """Return what changed with this frame, since when and in words; None mostly."""
        # A few pixels tell nearly all pictures apart; only where they are alike, all are compared.
        height, width = frame.bgr.shape[:2]
        rows, columns = max(1, height // THUMBNAIL), max(1, width // THUMBNAIL)
        checksum = zlib.crc32(frame.bgr[::rows, ::columns].tobytes())
        same = (
            checksum == self._checksum
            and self._last is not None
            and np.array_equal(self._last, frame.bgr)
        )
        self._checksum, self._last = checksum, frame.bgr
        if same:
            self.count += 1
            self._alike += 1
            lasted_ns = frame.arrived_ns - self._since_ns
            if self._frozen or self._alike < FROZEN_PICTURES or lasted_ns < FROZEN_S * 1e9:
                return None
            self._frozen = True
            return FaultKind.FROZEN, self._since_ns, f"{self._alike} pictures with the same pixels"
        since_ns, thawed = self._since_ns, self._frozen
        self._since_ns, self._alike, self._frozen = frame.arrived_ns, 1, False
        return (FaultKind.THAWED, since_ns, "the picture moves again") if thawed else None

    def forget(self) -> None:
        """Begin anew: what comes after an outage is no repetition."""
        self._checksum, self._last, self._frozen, self._alike = None, None, False, 0


def _size(bgr: UInt8Array) -> str:
    return f"{bgr.shape[1]} x {bgr.shape[0]}"
