"""A run on disk: frames, times and labels, so that it can be run again exactly.

A recording is a plain tar file: `header.json`, then for each frame that was labelled `NNNNNN.png`,
the frame without loss, and `NNNNNN.json`, its times and its label, and `end.json` last. It stands
under a hidden name until it is whole. Writing happens in a thread with a short queue: a disk that
cannot keep up costs frames of the recording, which are counted, and never of the run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import queue
import tarfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from edgenet.bundle import Artifact, Bundle, artifact_fields
from edgenet.errors import BadRecord, NotWritable, UsageError
from edgenet.runtimes import Float32Array
from edgenet.stream.frame import Clock, Delivered, Frame, UInt8Array
from edgenet.stream.result import Result
from edgenet.stream.sources import SourceEnded

VERSION = "1.0"
MAJOR = 1
WAITING = 8
"""Frames that may wait for the disk; each is a whole picture in memory."""
LAST_SECONDS = 10.0
"""For how long the end of a run waits for the disk."""
HEADER, END = "header.json", "end.json"
FAST_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


class Recorder:
    """Writes what it is offered; a context manager whose end makes the file appear."""

    def __init__(
        self, path: Path, bundle: Bundle, artifact: Artifact, *, preprocessing: str
    ) -> None:
        """Take the file's name, and which artefact labels; `preprocessing` is its hash.

        Raises `UsageError` for a folder.
        """
        if path.is_dir():
            raise UsageError(f"--record {path}: is a folder; give the name of a file")
        self.path = path
        self._partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        self._labelled_by = {
            "bundle_sha256": bundle.sha256,
            "artifact": artifact_fields(artifact),
            "preprocessing_sha256": preprocessing,
        }
        self._queue: queue.Queue[Result | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="edgenet recorder", daemon=True)
        self._source: tuple[str, Delivered] | None = None
        self.written = 0
        self.lost = 0
        """Labelled frames that are not in the file, because the disk was too slow or full."""
        self.fault: str | None = None
        self._tar: tarfile.TarFile | None = None

    def begin(self, source: str, delivered: Delivered) -> None:
        """Tell which source the frames come from, before the first of them."""
        self._source = source, delivered

    def __enter__(self) -> Recorder:
        """Make the file, under its hidden name; raises `NotWritable`."""
        try:
            self._tar = tarfile.open(self._partial, "w", format=tarfile.PAX_FORMAT)
        except OSError as error:
            raise NotWritable(
                f"{self.path}: cannot be written ({error.strerror or error}); choose another "
                "--record"
            ) from error
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        patience = LAST_SECONDS if kind is None else 0.5
        try:
            self._queue.put(None, timeout=patience)
            self._thread.join(patience)
        except queue.Full:
            pass
        if self._thread.is_alive():  # a disk that does not answer: what is there stays partial
            self.fault = f"the disk did not take it all in {patience:g} s; see {self._partial}"

    def offer(self, result: Result) -> None:
        """Queue a result for writing, or count it as lost; never waits."""
        try:
            self._queue.put_nowait(result)
        except queue.Full:
            self.lost += 1

    def _run(self) -> None:
        try:
            self._write_all()
        except OSError as error:
            self.fault = f"{self.path}: {error.strerror or error}"
            self.lost, self.written = self.lost + self.written + 1, 0
            self._partial.unlink(missing_ok=True)
            while self._queue.get() is not None:  # so that the run does not fill the queue
                self.lost += 1

    def _write_all(self) -> None:
        while (result := self._queue.get()) is not None:
            if not self.written:
                self._add_json(HEADER, self._header())
            name = f"{self.written:06d}"
            self._add(f"{name}.png", _png(result.frame.bgr))
            self._add_json(f"{name}.json", _result_fields(result))
            self.written += 1
        assert self._tar is not None
        if self.written:
            self._add_json(END, {"frames": self.written, "lost": self.lost})
            self._tar.close()
            self._partial.rename(self.path)
        else:  # a recording of nothing is of no use, and must not replace one that is
            self._tar.close()
            self._partial.unlink()

    def _header(self) -> dict[str, Any]:
        assert self._source is not None, "begin comes first"
        source, delivered = self._source
        return {
            "recording": VERSION,
            "source": source,
            "delivered": {
                "width": delivered.width,
                "height": delivered.height,
                "frames_per_second": delivered.frames_per_second,
                "format": delivered.format,
            },
            **self._labelled_by,
        }

    def _add_json(self, name: str, content: dict[str, Any]) -> None:
        self._add(name, json.dumps(content, ensure_ascii=False).encode() + b"\n")

    def _add(self, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        assert self._tar is not None
        self._tar.addfile(entry, io.BytesIO(data))


def logits_sha256(logits: Float32Array) -> str:
    """Return the identity of an answer: equal only for logits that are equal bit for bit."""
    return hashlib.sha256(np.ascontiguousarray(logits, "<f4").tobytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a recording says of one frame beside its picture."""

    sequence: int
    captured_ns: int
    clock: Clock
    arrived_ns: int
    decode_ns: int | None
    labelled_ns: int
    name: str | None
    index: int
    """Of the best class."""
    label: str
    logits_sha256: str


class Recording:
    """A recording that is read back, frame by frame."""

    def __init__(self, path: Path) -> None:
        """Open it and read its header.

        Raises `UsageError` where there is no such file, `BadRecord` for what is no recording.
        """
        if not path.is_file():
            raise UsageError(f"--replay {path}: no such file; give one that --record wrote")
        self.path = path
        self._tar: tarfile.TarFile | None = None
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed in `close`
            self._members = iter(self._tar)
            header = json.loads(self._read(HEADER))
            major = int(str(header["recording"]).partition(".")[0])
            if major > MAJOR:
                raise BadRecord(
                    f"{path}: version {header['recording']} of recordings is newer than the "
                    f"{VERSION} that this edgenet reads; upgrade edgenet"
                )
            delivered = header["delivered"]
            self.source: str = header["source"]
            self.delivered = Delivered(
                width=delivered["width"],
                height=delivered["height"],
                frames_per_second=delivered["frames_per_second"],
                format=delivered["format"],
            )
            self.bundle_sha256: str = header["bundle_sha256"]
            self.artifact: dict[str, str | None] = header["artifact"]
            self.preprocessing_sha256: str = header["preprocessing_sha256"]
        except (tarfile.TarError, ValueError, KeyError, TypeError, EOFError) as error:
            self.close()
            raise BadRecord(
                f"{path}: is no recording ({error}); give a file that --record wrote"
            ) from None
        except BaseException:
            self.close()
            raise
        self.cut_off = False
        """Whether it ended without its last part, as after a power cut."""

    def __iter__(self) -> Iterator[tuple[UInt8Array, Recorded]]:
        """Yield each frame, (H, W, 3) uint8 BGR, and what was said of it.

        A file that was cut off ends after its last whole frame. Raises `BadRecord` for a damaged
        one.
        """
        number = 0
        try:
            while (name := self._next_name()) != END:
                picture = cv2.imdecode(np.frombuffer(self._content(), np.uint8), cv2.IMREAD_COLOR)
                fields = json.loads(self._read(f"{number:06d}.json"))
                if name != f"{number:06d}.png" or picture is None:
                    raise BadRecord(f"{self.path}: frame {number} is damaged; copy it again")
                yield np.asarray(picture, np.uint8), _recorded(fields)
                number += 1
        except (tarfile.TarError, EOFError):
            self.cut_off = True
        except (ValueError, KeyError, TypeError) as error:
            raise BadRecord(
                f"{self.path}: frame {number} is damaged ({error}); copy it again"
            ) from None

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._tar is not None:
            self._tar.close()

    def _next_name(self) -> str:
        member = next(self._members, None)
        if member is None:
            raise EOFError("it ends there")
        self._member = member
        return member.name

    def _content(self) -> bytes:
        assert self._tar is not None
        stream = self._tar.extractfile(self._member)
        data = stream.read() if stream is not None else b""
        if len(data) != self._member.size:
            raise EOFError
        return data

    def _read(self, name: str) -> bytes:
        found = self._next_name()
        if found != name:
            raise ValueError(f"{found} stands in place of {name}")
        return self._content()


class Replay:
    """A recording as a source of frames, and how far today's labels are the recorded ones.

    Each frame comes once, in order, as fast as it is taken, and is as old as its reading: what was
    recorded of its time is in `Recorded`, and nothing here pretends that it happens again.
    """

    live = False
    still = True

    def __init__(self, recording: Recording, *, now: Callable[[], int] = time.monotonic_ns) -> None:
        self.recording = recording
        self._frames = iter(recording)
        self._now = now
        self._read = 0
        self._pending: deque[Recorded] = deque()
        self.name = f"replay of {recording.path}"
        self.delivered = recording.delivered
        self.compared = self.same_label = self.same_logits = 0

    def read(self) -> Frame:
        """Return the next frame; raises `SourceEnded` after the last one."""
        began = self._now()
        following = next(self._frames, None)
        if following is None:
            raise SourceEnded
        bgr, recorded = following
        self._pending.append(recorded)
        arrived = self._now()
        self._read += 1
        return Frame(
            bgr=bgr,
            sequence=self._read - 1,
            captured_ns=arrived,
            clock=Clock.ARRIVAL,
            arrived_ns=arrived,
            decode_ns=arrived - began,
            name=recorded.name,
        )

    def check(self, result: Result) -> None:
        """Hold the label of the next frame, in order, against the recorded one."""
        recorded = self._pending.popleft()
        self.compared += 1
        self.same_label += recorded.label == result.label
        self.same_logits += recorded.logits_sha256 == logits_sha256(result.logits)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self.recording.close()


def _png(bgr: UInt8Array) -> bytes:
    done, data = cv2.imencode(".png", bgr, FAST_PNG)
    if not done:
        raise OSError("a frame did not encode")
    return data.tobytes()


def _result_fields(result: Result) -> dict[str, Any]:
    frame, best = result.frame, result.guesses[0]
    return {
        "sequence": frame.sequence,
        "captured_ns": frame.captured_ns,
        "clock": frame.clock.value,
        "arrived_ns": frame.arrived_ns,
        "decode_ns": frame.decode_ns,
        "wait_ns": result.stages.wait_ns,
        "preprocess_ns": result.stages.preprocess_ns,
        "infer_ns": result.stages.infer_ns,
        "labelled_ns": result.labelled_ns,
        "name": frame.name,
        "index": best.index,
        "label": best.label,
        "probability": best.probability,
        "logits_sha256": logits_sha256(result.logits),
    }


def _recorded(fields: dict[str, Any]) -> Recorded:
    return Recorded(
        sequence=fields["sequence"],
        captured_ns=fields["captured_ns"],
        clock=Clock(fields["clock"]),
        arrived_ns=fields["arrived_ns"],
        decode_ns=fields["decode_ns"],
        labelled_ns=fields["labelled_ns"],
        name=fields["name"],
        index=fields["index"],
        label=fields["label"],
        logits_sha256=fields["logits_sha256"],
    )
