"""A child process that looks on at a live run: the browser's page, the desktop's window.

It pulls: a picture is handed over only when the child has asked for one, through memory that both
share, so that nobody who looks on slowly, or not at all, costs the run more than asking a socket.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from edgenet.stream.child import Child
from edgenet.stream.result import Result
from edgenet.stream.status import Status

READY_S = 60.0
"""How long the child may take to start: a board's card may be slow."""
LONGEST_LABEL = 200
MOST_TIMES = 200_000


@dataclass(frozen=True, kw_only=True)
class Times:
    """What drawing and encoding took in the child, in ns, in the order in which it was done."""

    draw_ns: Sequence[int]
    """Fewer than `encode_ns`: a browser draws by itself."""
    encode_ns: Sequence[int]


class Onlooker:
    """The run's end of it. Use it in a `with`: the block begins when the child is ready."""

    def __init__(
        self, module: str, settings: Mapping[str, Any], *, inherit: Sequence[int] = ()
    ) -> None:
        """Start `python -m module CONTROL MEMORY INHERITED...`, each a descriptor's number."""
        self._draw, self._encode = array("q"), array("q")
        self._frame_wanted = self._status_wanted = self._is_ready = False
        self._last: Result | None = None
        self._shown: int | None = None
        self._child = Child(module, settings, inherit=inherit)

    def __enter__(self) -> Onlooker:
        try:
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Return the child's process number."""
        return self._child.pid

    @property
    def fault(self) -> str | None:
        """Return why the child is gone, in words; None while it is there."""
        return self._child.fault

    @property
    def exit_code(self) -> int | None:
        """Return the child's exit code, below 0 for a signal; None while it runs."""
        return self._child.exit_code

    @property
    def wanted(self) -> bool:
        """Tell whether anybody waits for what `offer` brings; costs a microsecond or two."""
        self._hear()
        return (self._frame_wanted or self._status_wanted) and not self._child.gone

    @property
    def times(self) -> Times:
        """Return what drawing and encoding took so far."""
        self._hear()
        return Times(draw_ns=tuple(self._draw), encode_ns=tuple(self._encode))

    def wait_until_ready(self) -> None:
        """Return when the child is ready, or gone: then `fault` says why."""
        until_s = time.monotonic() + READY_S
        while not self._is_ready and not self._child.gone:
            message = self._child.wait(until_s - time.monotonic())
            if message is not None:
                self._take(message)
            elif not self._child.gone and time.monotonic() >= until_s:
                self._child.lose(f"was not ready after {READY_S:.0f} s")

    def offer(self, result: Result | None, status: Status) -> None:
        """Hand over the newest result if somebody waits for it; never waits, never fails the run.

        None where there is no new result, such as while the source stalls: the status still goes.
        """
        if result is not None:
            self._last = result
        last = self._last
        if not self.wanted:
            return
        message: dict[str, Any] = {}
        if self._status_wanted:
            message["status"] = _finite(asdict(status))
        try:
            if self._frame_wanted and last is not None and last.frame.sequence != self._shown:
                shape = self._child.share(last.frame.bgr)
                message |= {"result": describe(last), "shape": shape}
                self._frame_wanted, self._shown = False, last.frame.sequence
            if message:
                self._child.send(message)
        except OSError as error:  # it went away just now, or there is no memory for the picture
            self._child.lose(f"could not be shown a frame ({error.strerror})")
        self._status_wanted = False

    def close(self) -> None:
        """End the child; may be called twice."""
        self._hear()
        self._child.close()
        self._last = None

    def _hear(self) -> None:
        """Take what the child has said."""
        for message in self._child.heard():
            self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        self._frame_wanted |= message.get("want") == "frame"
        self._status_wanted |= message.get("want") == "status"
        self._is_ready |= message.get("ready", False)
        for name, samples in (("draw_ns", self._draw), ("encode_ns", self._encode)):
            if name in message and len(samples) < MOST_TIMES:
                samples.append(message[name])


def describe(result: Result) -> dict[str, Any]:
    """Return the result without its picture, as JSON values."""
    frame, stages = result.frame, result.stages
    described = {
        "sequence": frame.sequence,
        "guesses": [
            {
                "index": guess.index,
                "label": guess.label[:LONGEST_LABEL],
                "probability": float(guess.probability),
            }
            for guess in result.guesses
        ],
        "captured_ns": frame.captured_ns,
        "labelled_ns": result.labelled_ns,
        "clock": frame.clock.value,
        "age_at_label_ms": result.age_ms,
        "stages_ms": {
            "wait": stages.wait_ns / 1e6,
            "decode": None if frame.decode_ns is None else frame.decode_ns / 1e6,
            "preprocess": stages.preprocess_ns / 1e6,
            "infer": stages.infer_ns / 1e6,
        },
        "name": frame.name,
    }
    finite: dict[str, Any] = _finite(described)
    return finite


def _finite(value: Any) -> Any:
    """Return JSON values with None for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
