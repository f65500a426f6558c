"""Accuracy on a live stream of labelled pictures, and what of the loss is whose.

Each picture counts once, by the mean of the probabilities over the frames of its first showing:
the frames of one picture resemble each other, so the intervals count pictures. Frames around a
change are left out and counted, and so is every frame whose marker was not read: what is not
labelled is never wrong.

The same pictures are then fed directly, through the same artefact and through the float reference.
Live less direct is what screen, camera and codec cost; direct less reference is what quantisation
costs. All are pairs of answers to the same pictures. It knows no source and needs no more than
numpy and OpenCV.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from edgenet.bundle import Artifact, Bundle
from edgenet.data.labels import accepted_in
from edgenet.errors import BadData, BadImage
from edgenet.measure.accuracy import Accuracy, Proportion, score, top_indices
from edgenet.measure.evaluate import NO_REFERENCE, open_reference
from edgenet.measure.statistics import Float64Array, PairedDifference, Summary, summarise
from edgenet.preprocess import Preprocessing, pixels_sha256, prepare
from edgenet.runtimes import Float32Array, Session
from edgenet.stream.marker import pixels_check, this_machine
from edgenet.stream.playlist import Playlist
from edgenet.stream.result import Result
from edgenet.stream.strip_reader import Reading

GUARD = 2
"""Frames of the playlist on either side of a change: they may be a mix of two pictures."""
WINDOW = 50
"""Latest pictures of the sliding figure."""
TOP = 5
NOTHING_SCORED = "no picture was scored"
NOT_FED = "the pictures were not fed directly"
IS_REFERENCE = "the artefact is the reference"
DRAWN_FOR_LATER = "the playlist was drawn for later: its clock says nothing"
OTHER_MACHINE = (
    "the playlist runs on another machine, whose clock is not this one's; state the offset between "
    "them"
)
NO_CLOCK = "no frame of the playlist was read"


@dataclass(frozen=True, kw_only=True)
class FrameCounts:
    """What became of the frames; every one is in just one of the others."""

    total: int = 0
    scored: int = 0
    guarded: int = 0
    """Next to a change of the picture."""
    unlabelled: int = 0
    """Without a marker, or with one that could not be read or contradicts itself."""
    other_playlist: int = 0
    """With the marker of another data set."""
    without_picture: int = 0
    """Before the playlist's first picture, after its last, or in place of one it cannot read."""


@dataclass(frozen=True, kw_only=True)
class DirectAnswer:
    """What was answered to one picture as it is stored."""

    image_sha256: str
    top: tuple[int, ...]
    """The five best classes, best first."""
    reference_top: tuple[int, ...] | None
    """Of the float reference; None where none could run."""


@dataclass(frozen=True, kw_only=True)
class Direct:
    """What was answered to the pictures as they are stored."""

    artifact: Artifact
    reference: Artifact | None
    answers: Mapping[int, DirectAnswer]
    """By the place in the data set; without those that cannot be read here."""


@dataclass(frozen=True, kw_only=True)
class PictureScore:
    """One picture that was seen."""

    sample_id: int
    """Its place in the data set."""
    name: str
    accepted: frozenset[int]
    frames: int
    """Of its first showing that were scored."""
    top: tuple[int, ...]
    """The five best classes live, best first."""
    direct: DirectAnswer | None


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """The pictures with the same accepted labels."""

    label: str
    n: int
    right: int
    """Live, by the best class."""
    direct_right: int | None


@dataclass(frozen=True, kw_only=True)
class Running:
    """How it stands while it runs."""

    top1: Proportion
    top5: Proportion
    window_top1: Proportion
    """Over the latest pictures alone."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What the live answers lost, taken apart: each is a difference over the same pictures."""

    camera: PairedDifference
    """Live less direct, of the same artefact."""
    quantisation: PairedDifference | None
    """The artefact less the float reference, both direct."""
    both: PairedDifference | None
    """Live less the reference, direct."""
    quantisation_reason: str | None
    """Why the last two are None."""


@dataclass(frozen=True, kw_only=True)
class TruthReport:
    """What a live run over a labelled playlist came to."""

    playlist: str
    pictures_in_playlist: int
    frames: FrameCounts
    guard: int
    frames_right: Proportion | None
    """Of the frames that were scored. They are not independent, so its interval means nothing."""
    live: Accuracy | None
    """None where no picture was scored."""
    window: Accuracy | None
    """Over the latest pictures alone, as many as `window_length` at most."""
    window_length: int
    classes: tuple[ClassScore, ...]
    pictures: tuple[PictureScore, ...]
    """In the order in which they were seen."""
    other_pixels: int
    """Pictures left out because they are stored otherwise here than where they were shown."""
    unreadable: int
    """Pictures left out because they cannot be read here."""
    calibrated_on: int
    """Pictures that INT8 was calibrated on, which are in all figures and flatter them."""
    direct: Accuracy | None
    reference: Accuracy | None
    reference_artifact: Artifact | None
    losses: Losses | None
    losses_reason: str | None
    draw_to_label: Summary | None
    """From the drawing of a frame, which is before its light leaves a screen, to its label."""
    draw_to_label_reason: str | None
    clock_offset_ms: float | None
    """What was stated to lie between the clocks."""
    reading: Summary | None
    """What reading a marker takes once it is found; it is in no stage that is timed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Picture:
    """One showing that is over."""

    sample_id: int
    check: int
    frames: int
    top: tuple[int, ...]


class Truth:
    """Scores the results of one run over a labelled playlist."""

    def __init__(
        self,
        playlist: Playlist,
        bundle: Bundle,
        *,
        guard: int = GUARD,
        window: int = WINDOW,
        clock_offset_ms: float | None = None,
    ) -> None:
        """Know what is right.

        `clock_offset_ms` is what the playlist's monotonic clock shows more than this machine's,
        where it is another machine's. Raises `BadData` for a bundle that is no classifier or has
        random weights, and for a playlist with a label that is none of the bundle's.
        """
        bundle.require_classifier("--truth")
        if not bundle.model.trained:
            raise BadData(
                f"{bundle.root}: its weights are random, so there is no accuracy to measure; give "
                "a bundle of trained weights"
            )
        self._playlist = playlist
        self._bundle = bundle
        self._accepted = accepted_in(playlist.dataset, bundle.labels)
        self._guard, self._window = guard, window
        self._clock_offset_ms = clock_offset_ms
        self._machine = this_machine()
        self._counts = dict.fromkeys(FrameCounts.__dataclass_fields__, 0)
        self._frames_right = 0
        self._pictures: dict[int, _Picture] = {}
        self._current: tuple[int, int] | None = None
        self._probabilities: Float64Array = np.zeros(len(bundle.labels))
        self._frames = 0
        self._right = [0, 0]
        self._latest: deque[bool] = deque(maxlen=window)
        self._draw_to_label_ns = array("q")
        self._no_clock = NO_CLOCK
        self.over = False
        """Whether the playlist has said that it is over."""

    def add(self, reading: Reading | None, result: Result) -> None:
        """Count one frame: what its marker says, and what the network says of the rest of it."""
        self._counts["total"] += 1
        kind = self._kind(reading)
        self._counts[kind] += 1
        if reading is None or kind in ("unlabelled", "other_playlist"):
            return
        marker, sample_id = reading.marker, reading.sample_id
        shown = None if sample_id is None else (sample_id, marker.pixels)
        if shown != self._current:
            self._finish()
            self._current = shown
        self.over = self.over or reading.over
        if sample_id is None:
            return
        self._clock(reading, result)
        if kind == "scored":
            self._frames_right += result.best in self._accepted[sample_id]
            self._frames += 1
            self._probabilities += _probabilities(result.logits)

    def accepted(self, reading: Reading | None) -> frozenset[int] | None:
        """Return what is right on a frame with this marker; None where that is not sure."""
        if reading is None or reading.sample_id is None or self._kind(reading) != "scored":
            return None
        return self._accepted[reading.sample_id]

    def running(self) -> Running | None:
        """Return the figures over the pictures whose first showing is over; None without any."""
        n = len(self._pictures)
        if not n:
            return None
        return Running(
            top1=Proportion(right=self._right[0], n=n),
            top5=Proportion(right=self._right[1], n=n),
            window_top1=Proportion(right=sum(self._latest), n=len(self._latest)),
        )

    def seen(self) -> tuple[int, ...]:
        """Return the places in the data set of the pictures that were scored."""
        self._finish()
        return tuple(self._pictures)

    def feed_directly(
        self,
        artifact: Artifact,
        session: Session,
        *,
        threads: int = 1,
        on_sample: Callable[[], None] = lambda: None,
    ) -> Direct:
        """Return what `artifact`, open in `session`, and the reference make of what was seen.

        The pictures are read as they are stored, and prepared as in `evaluate`.
        """
        answers = {}
        with ExitStack() as stack:
            opened = {artifact: session}
            reference, other = open_reference(self._bundle, opened, threads, stack)
            sessions = [session, *([other] if other and other is not session else [])]
            for sample_id in self.seen():
                on_sample()
                try:
                    pixels = self._playlist.dataset.samples[sample_id].read()
                    image = prepare(pixels, self._preprocessing)
                except BadImage:
                    continue
                tops = [top_indices(each.run(image)["logits"][0], TOP) for each in sessions]
                answers[sample_id] = DirectAnswer(
                    image_sha256=pixels_sha256(pixels),
                    top=tops[0],
                    reference_top=tops[-1] if other else None,
                )
        return Direct(artifact=artifact, reference=reference, answers=answers)

    def report(self, direct: Direct | None, *, reading_ns: Sequence[int] = ()) -> TruthReport:
        """Return the figures; `reading_ns` is what reading the markers took, for the record.

        A picture that cannot be read here, or is another one here than where it was shown, is in
        none of them.
        """
        self._finish()
        fed = direct.answers if direct else {}
        kept, other_pixels, unreadable = [], 0, 0
        for picture in self._pictures.values():
            answer = fed.get(picture.sample_id)
            if direct and answer is None:
                unreadable += 1
            elif answer and pixels_check(answer.image_sha256) != picture.check:
                other_pixels += 1
            else:
                kept.append(self._score(picture, answer))
        calibrated = set(self._bundle.calibration.images if self._bundle.calibration else ())
        losses, latency = _losses(kept, direct), self._draw_to_label()
        return TruthReport(
            playlist=self._playlist.dataset.name,
            pictures_in_playlist=len(self._playlist.dataset.samples),
            frames=FrameCounts(**self._counts),
            guard=self._guard,
            frames_right=Proportion(right=self._frames_right, n=self._counts["scored"])
            if self._counts["scored"]
            else None,
            live=_accuracy(kept, lambda picture: picture.top),
            window=_accuracy(kept[-self._window :], lambda picture: picture.top),
            window_length=self._window,
            classes=self._classes(kept),
            pictures=tuple(kept),
            other_pixels=other_pixels,
            unreadable=unreadable,
            calibrated_on=sum(
                picture.direct is not None and picture.direct.image_sha256 in calibrated
                for picture in kept
            ),
            direct=_accuracy(kept, _direct_top) if direct else None,
            reference=_accuracy(kept, _reference_top) if direct and direct.reference else None,
            reference_artifact=direct.reference if direct else None,
            losses=losses if isinstance(losses, Losses) else None,
            losses_reason=losses if isinstance(losses, str) else None,
            draw_to_label=latency if isinstance(latency, Summary) else None,
            draw_to_label_reason=latency if isinstance(latency, str) else None,
            clock_offset_ms=self._clock_offset_ms,
            reading=summarise(reading_ns) if len(reading_ns) else None,
        )

    @property
    def _preprocessing(self) -> Preprocessing:
        return self._bundle.preprocessing

    def _kind(self, reading: Reading | None) -> str:
        """Return which of `FrameCounts` a frame is counted in."""
        if reading is None:
            return "unlabelled"
        marker, sample_id = reading.marker, reading.sample_id
        if marker.playlist != self._playlist.identity:
            return "other_playlist"
        if sample_id is None:
            return "without_picture"
        if sample_id >= len(self._playlist.dataset.samples):
            return "unlabelled"
        near = min(marker.since, marker.until) < self._guard
        return "guarded" if near else "scored"

    def _clock(self, reading: Reading, result: Result) -> None:
        """Note how long ago the frame was drawn, where that can be told."""
        machine = reading.marker.machine
        offset_ms = self._clock_offset_ms
        if machine == 0:
            self._no_clock = DRAWN_FOR_LATER
        elif offset_ms is None and machine != self._machine:
            self._no_clock = OTHER_MACHINE
        else:
            drawn_ns = reading.drawn_ns - round((offset_ms or 0) * 1e6)
            self._draw_to_label_ns.append(result.labelled_ns - drawn_ns)

    def _draw_to_label(self) -> Summary | str:
        """Return the latencies, or why there are none."""
        samples = self._draw_to_label_ns
        early = sum(sample < 0 for sample in samples)
        if early:
            return (
                f"{early} of {len(samples)} labels came before their frame was drawn, so the "
                "stated offset between the clocks is wrong"
            )
        return summarise(samples) if samples else self._no_clock

    def _finish(self) -> None:
        """Close the showing that was open; a picture that was seen before keeps its score."""
        current, frames = self._current, self._frames
        if current is not None and frames and current[0] not in self._pictures:
            sample_id, check = current
            top = top_indices((self._probabilities / frames).astype(np.float32), TOP)
            self._pictures[sample_id] = _Picture(
                sample_id=sample_id, check=check, frames=frames, top=top
            )
            accepted = self._accepted[sample_id]
            self._right[0] += top[0] in accepted
            self._right[1] += bool(accepted & set(top))
            self._latest.append(top[0] in accepted)
        self._current, self._frames = None, 0
        self._probabilities[:] = 0

    def _score(self, picture: _Picture, direct: DirectAnswer | None) -> PictureScore:
        return PictureScore(
            sample_id=picture.sample_id,
            name=self._playlist.dataset.samples[picture.sample_id].name,
            accepted=self._accepted[picture.sample_id],
            frames=picture.frames,
            top=picture.top,
            direct=direct,
        )

    def _classes(self, pictures: Sequence[PictureScore]) -> tuple[ClassScore, ...]:
        groups: dict[frozenset[int], list[PictureScore]] = {}
        for picture in pictures:
            groups.setdefault(picture.accepted, []).append(picture)
        return tuple(
            ClassScore(
                label=" | ".join(self._bundle.labels[index] for index in sorted(accepted)),
                n=len(group),
                right=sum(picture.top[0] in accepted for picture in group),
                direct_right=sum(_direct_top(picture)[0] in accepted for picture in group)
                if all(picture.direct for picture in group)
                else None,
            )
            for accepted, group in sorted(groups.items(), key=lambda item: sorted(item[0]))
        )


def _probabilities(logits: Float32Array) -> Float64Array:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(weights / weights.sum())


def _direct_top(picture: PictureScore) -> tuple[int, ...]:
    assert picture.direct is not None
    return picture.direct.top


def _reference_top(picture: PictureScore) -> tuple[int, ...]:
    assert picture.direct is not None
    assert picture.direct.reference_top is not None
    return picture.direct.reference_top


Tops = Callable[[PictureScore], tuple[int, ...]]


def _accuracy(pictures: Sequence[PictureScore], tops: Tops) -> Accuracy | None:
    if not pictures:
        return None
    return score([tops(picture) for picture in pictures], [each.accepted for each in pictures])


def _losses(pictures: Sequence[PictureScore], direct: Direct | None) -> Losses | str:
    """Return the differences, or why there are none."""
    if direct is None:
        return NOT_FED
    if not pictures:
        return NOTHING_SCORED
    reason = None
    if direct.reference is None:
        reason = NO_REFERENCE
    elif direct.reference == direct.artifact:
        reason = IS_REFERENCE
    return Losses(
        camera=_difference(pictures, _live_top, _direct_top),
        quantisation=None if reason else _difference(pictures, _direct_top, _reference_top),
        both=None if reason else _difference(pictures, _live_top, _reference_top),
        quantisation_reason=reason,
    )


def _live_top(picture: PictureScore) -> tuple[int, ...]:
    return picture.top


def _difference(pictures: Sequence[PictureScore], new: Tops, base: Tops) -> PairedDifference:
    """Return the right answers of `new` against `base`, by the best class."""
    pairs = [
        (new(picture)[0] in picture.accepted, base(picture)[0] in picture.accepted)
        for picture in pictures
    ]
    return PairedDifference(
        n=len(pairs),
        lost=sum(before and not after for after, before in pairs),
        gained=sum(after and not before for after, before in pairs),
    )
