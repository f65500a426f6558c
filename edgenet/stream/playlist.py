"""A labelled playlist: the pictures of a data set, one after the other, each beside its marker.

Who shows it and who watches it open the same data set. The marker gives a picture's place in the
whole set, so that the watching side need not know which of them are shown, and the set's identity,
so that another set is noticed. Where the frames go is in `edgenet.stream.outlets`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from edgenet import interruption
from edgenet.data.sample import Dataset, Sample
from edgenet.errors import BadData, BadImage, UsageError
from edgenet.preprocess import UInt8Array, pixels_sha256
from edgenet.stream.marker import (
    BITS,
    LONGEST_COUNT,
    MOST_PICTURES,
    NO_PICTURE,
    OVER,
    Canvas,
    Layout,
    Marker,
    pixels_check,
    this_machine,
)
from edgenet.stream.outlets import Outlet

FEWEST_FRAMES = 5
"""Of a picture: two at either end of it are thrown away by whoever watches."""
LEAD_S = 2.0
"""Without a picture at the beginning, while a viewer opens the stream, and at the end."""

Warn = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Playlist:
    """A labelled data set and what marks it."""

    dataset: Dataset
    identity: int
    """Of the names and labels of its samples in their order; fits into the marker."""


def playlist_of(dataset: Dataset) -> Playlist:
    """Return the playlist of a labelled data set; raises `BadData` for more than a marker counts.

    No picture is read for it: whether both sides have the same pixels is told picture by picture.
    """
    if len(dataset.samples) > MOST_PICTURES:
        raise BadData(
            f"{dataset.name}: has {len(dataset.samples)} pictures, and a marker counts "
            f"{MOST_PICTURES}; give fewer"
        )
    listing = json.dumps([[sample.name, *sample.labels] for sample in dataset.samples])
    digest = hashlib.sha256(listing.encode()).digest()
    return Playlist(
        dataset=dataset, identity=int.from_bytes(digest, "big") >> 256 - BITS["playlist"]
    )


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long each picture is shown, in frames."""

    seconds: float
    """Of each picture."""
    frames_per_second: float

    def __post_init__(self) -> None:
        if self.frames_each < FEWEST_FRAMES:
            raise UsageError(
                f"{self.seconds:g} s at {self.frames_per_second:g} frames a second are "
                f"{self.frames_each} frames a picture; show each for {FEWEST_FRAMES} or more, for "
                f"instance --seconds {FEWEST_FRAMES / self.frames_per_second:.2g}"
            )

    @property
    def frames_each(self) -> int:
        """Return the frames of one picture."""
        return round(self.seconds * self.frames_per_second)

    @property
    def lead(self) -> int:
        """Return the frames without a picture before the first and after the last."""
        return round(LEAD_S * self.frames_per_second)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What one frame shows."""

    position: int | None
    """Among the pictures that are shown; None before the first and after the last."""
    over: bool = False
    since: int = 0
    """Frames of this picture before it."""
    until: int = 0
    """Frames of this picture behind it."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """What is shown, and how."""

    playlist: Playlist
    chosen: tuple[int, ...]
    """Places in the data set, in the order in which they are shown; never none."""
    pace: Pace
    layout: Layout
    loop: bool = False
    """Begin again behind the last picture, for ever."""

    def moment(self, tick: int) -> Moment | None:
        """Return what the frame number `tick` shows; None behind the end."""
        pace = self.pace
        place, since = divmod(tick - pace.lead, pace.frames_each)
        if place < 0:
            return Moment(position=None)
        if place >= len(self.chosen) and not self.loop:
            behind = tick - pace.lead - len(self.chosen) * pace.frames_each
            return Moment(position=None, over=True) if behind < pace.lead else None
        return Moment(
            position=place % len(self.chosen), since=since, until=pace.frames_each - 1 - since
        )


@dataclass(frozen=True, kw_only=True)
class Played:
    """What came of it."""

    frames: int
    skipped: int
    """Frames that were not drawn because the one before took too long."""


def play(
    show: Show,
    outlet: Outlet,
    *,
    warn: Warn,
    now: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Played:
    """Show the playlist until it is over or nobody wants more; a picture not readable is warned of.

    A live outlet gets its frames at their time, from when somebody watches; what is late is left
    out, so that the pictures keep their time. Others get every frame, as fast as they take them,
    with a marker that says of its clock that it means nothing.
    """
    interval_ns = 1e9 / show.pace.frames_per_second
    frames = skipped = tick = 0
    with _Artist(show, machine=this_machine() if outlet.live else 0, warn=warn) as artist:
        outlet.wait()
        began = now()
        while (moment := show.moment(tick)) is not None:
            interruption.check()
            while outlet.live and (left := began + tick * interval_ns - now()) > 0:
                sleep(left / 1e9)
            if not outlet.show(artist.draw(moment, now() if outlet.live else 0)):
                break
            frames += 1
            following = tick + 1
            if outlet.live:
                following = max(following, int((now() - began) / interval_ns))
            skipped += following - tick - 1
            tick = following
    return Played(frames=frames, skipped=skipped)


class _Picture:
    """One picture, read, and what its marker says of it."""

    def __init__(self, canvas: Canvas, index: int, sample: Sample) -> None:
        pixels = sample.read()
        self.index = index
        self.check = pixels_check(pixels_sha256(pixels))
        self.frame, self.width, self.height = canvas.lay(pixels)


class _Artist:
    """Draws the frames of a show; reads each picture while the one before it is shown."""

    def __init__(self, show: Show, *, machine: int, warn: Warn) -> None:
        self._show = show
        self._canvas = Canvas(show.layout)
        self._blank, _, _ = self._canvas.lay(None)
        self._machine = machine
        self._warn = warn
        self._warned: set[int] = set()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edgenet playlist")
        self._position: int | None = None
        self._picture: _Picture | None = None
        self._next: tuple[int, Future[_Picture]] = self._read(0)

    def __enter__(self) -> _Artist:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def draw(self, moment: Moment, now_ns: int) -> UInt8Array:
        """Return the frame (H, W, 3) BGR; it is good until the next is drawn."""
        if moment.position != self._position:
            self._turn_to(moment.position)
        picture = self._picture
        frame = picture.frame if picture else self._blank
        nothing = OVER if moment.over else NO_PICTURE
        self._canvas.mark(
            frame,
            Marker(
                width=picture.width if picture else 0,
                height=picture.height if picture else 0,
                index=picture.index if picture else nothing,
                playlist=self._show.playlist.identity,
                pixels=picture.check if picture else 0,
                clock_ms=now_ns // 1_000_000,
                since=min(moment.since, LONGEST_COUNT),
                until=min(moment.until, LONGEST_COUNT),
                machine=self._machine,
            ),
        )
        return frame

    def _turn_to(self, position: int | None) -> None:
        self._position, self._picture = position, None
        if position is None:
            return
        expected, future = self._next
        if expected != position:  # frames were skipped, a whole picture among them
            future.cancel()
            _, future = self._read(position)
        try:
            self._picture = future.result()
        except BadImage as error:
            if position not in self._warned:
                self._warn(f"not shown: {error}")
            self._warned.add(position)
        self._next = self._read((position + 1) % len(self._show.chosen))

    def _read(self, position: int) -> tuple[int, Future[_Picture]]:
        index = self._show.chosen[position]
        sample = self._show.playlist.dataset.samples[index]
        return position, self._pool.submit(partial(_Picture, self._canvas, index, sample))
