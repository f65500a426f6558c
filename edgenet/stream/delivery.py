"""Events on their way out of the program, in a thread of their own for each way.

A slow disk, a full pipe or a broker that does not answer holds up nothing: what does not fit into a
short queue is lost and counted. A way that fails is told once and tried again with the next event.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edgenet.errors import EdgenetError, NotWritable, UsageError
from edgenet.stream.events import Event

WAITING = 64
"""Events that may wait for one way out."""
STDOUT = 1
TO_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
"""Not waiting for the reader of a named pipe."""
LAST_SECONDS = 2.0
"""For how long the end of the run waits for what is still queued."""


class Sink(Protocol):
    """One way out."""

    name: str

    def deliver(self, event: Event) -> None:
        """Give an event away; may take its time. Raises `OSError` or `EdgenetError`."""

    def close(self) -> None:
        """End it; whatever it has started ends with it."""


class Delivery:
    """The thread of one sink; `with Delivery(sink) as delivery: delivery.offer(event)`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._queue: queue.Queue[Event | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name=f"edgenet {sink.name}", daemon=True)
        self.delivered = 0
        self.lost = 0
        """Events for which there was no room, or that the sink did not take."""
        self.fault: str | None = None
        """What it failed with last."""
        self.reader_gone = False
        """Whether the other end of a pipe was closed: nobody will read what comes."""

    def __enter__(self) -> Delivery:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # On the way out of a failure, or of a second Ctrl-C, nobody waits.
        patience = LAST_SECONDS if kind is None else 0.0
        try:
            self._queue.put(None, timeout=patience or None, block=bool(patience))
        except queue.Full:
            self.lost += self._queue.qsize()
        else:
            self._thread.join(patience)
        self._sink.close()

    @property
    def name(self) -> str:
        """Return the sink's name."""
        return self._sink.name

    def offer(self, event: Event) -> None:
        """Queue an event, or count it as lost; never waits."""
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.lost += 1
            self.fault = f"more than {WAITING} events were waiting"

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                self._sink.deliver(event)
            except (OSError, EdgenetError) as error:
                self.lost += 1
                self.fault = str(error)
                self.reader_gone = self.reader_gone or isinstance(error, BrokenPipeError)
            else:
                self.delivered += 1


class EventLines:
    """A JSON line for each event, at the end of a file or on standard output."""

    def __init__(self, place: str) -> None:
        """Open a file for appending, or standard output for "-".

        Raises `UsageError` for a folder, `NotWritable` for what cannot be opened, such as a named
        pipe that nobody reads.
        """
        self.name = "events"
        if place != "-" and Path(place).is_dir():
            raise UsageError(f"--events {place}: is a folder; give a file, or - for stdout")
        # A descriptor and no file object: one that is stuck in a write could not be closed.
        self._descriptor = os.dup(STDOUT) if place == "-" else _to_append(place)
        os.set_blocking(self._descriptor, True)

    def deliver(self, event: Event) -> None:
        """Write one whole line."""
        line = json.dumps(event.fields(), ensure_ascii=False).encode() + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        """Close the file; standard output stays open."""
        os.close(self._descriptor)


def _to_append(place: str) -> int:
    """Return a descriptor at the end of a file; `NotWritable` says why there is none."""
    try:
        return os.open(place, TO_APPEND, 0o644)
    except OSError as error:
        # The error that Linux has for it says "No such device or address".
        reason = "nobody reads this pipe" if error.errno == errno.ENXIO else error.strerror
        raise NotWritable(
            f"--events {place}: cannot be written ({reason}); choose another file"
        ) from error
