"""What a live run over a labelled playlist comes to: counted by hand, and by real sessions."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.data import fashion_mnist
from edgenet.data.dataset import open_dataset
from edgenet.data.sample import Dataset, Sample
from edgenet.errors import BadData
from edgenet.preprocess import pixels_sha256, prepare
from edgenet.stream.frame import Clock, Frame
from edgenet.stream.marker import (
    NO_PICTURE,
    OVER,
    Canvas,
    Layout,
    Marker,
    pixels_check,
    this_machine,
)
from edgenet.stream.playlist import playlist_of
from edgenet.stream.result import Result, StageTimes
from edgenet.stream.strip_reader import Reading, StripReader
from edgenet.stream.truth import (
    DRAWN_FOR_LATER,
    IS_REFERENCE,
    NO_CLOCK,
    NOT_FED,
    OTHER_MACHINE,
    Direct,
    DirectAnswer,
    Truth,
)

NOW_NS = 5_000_000_000_000


@pytest.fixture(scope="module")
def dataset():
    found = fashion_mnist.test_set()
    return replace(found, samples=found.samples[:12])


@pytest.fixture
def truth(small_bundle, dataset):
    return Truth(playlist_of(dataset), small_bundle)


def label_of(dataset, sample_id):
    return int(dataset.samples[sample_id].labels[0])


def seen(dataset, sample_id, **fields):
    """Return a reading of one of the pictures, in the middle of its time unless told otherwise."""
    check = 0
    if sample_id < len(dataset.samples):
        check = pixels_check(pixels_sha256(dataset.samples[sample_id].read()))
    defaults = {
        "width": 1,
        "height": 1,
        "index": sample_id,
        "playlist": playlist_of(dataset).identity,
        "pixels": check,
        "clock_ms": NOW_NS // 1_000_000 - 40,
        "since": 7,
        "until": 7,
        "machine": this_machine(),
    }
    return Reading(marker=Marker(**{**defaults, **fields}), picture=np.zeros((2, 2, 3), np.uint8))


def said(logits, labels, *, labelled_ns=NOW_NS):
    logits = np.asarray(logits, np.float32)
    return Result(
        frame=Frame(
            bgr=np.zeros((2, 2, 3), np.uint8),
            sequence=0,
            captured_ns=labelled_ns,
            clock=Clock.ARRIVAL,
            arrived_ns=labelled_ns,
            decode_ns=None,
        ),
        image=np.zeros((1, 8, 8, 3), np.uint8),
        logits=logits,
        best=int(logits.argmax()),
        labels=labels,
        stages=StageTimes(wait_ns=0, preprocess_ns=0, infer_ns=0),
        labelled_ns=labelled_ns,
    )


def answer(small_bundle, index, *, strength=8.0):
    """Return a result whose best class is `index`."""
    logits = np.zeros(10)
    logits[index] = strength
    return said(logits, small_bundle.labels)


def test_each_picture_counts_once_by_the_mean_of_its_frames(small_bundle, dataset, truth):
    """Two of three frames are wrong, but the right one is surer."""
    right = label_of(dataset, 0)
    for _ in range(2):
        truth.add(seen(dataset, 0), answer(small_bundle, (right + 1) % 10, strength=2))
    truth.add(seen(dataset, 0), answer(small_bundle, right, strength=20))
    for _ in range(5):
        truth.add(seen(dataset, 1), answer(small_bundle, (label_of(dataset, 1) + 1) % 10))
    report = truth.report(None)
    assert (report.live.top1.right, report.live.top1.n) == (1, 2)
    assert (report.frames_right.right, report.frames_right.n) == (1, 8)
    assert [picture.frames for picture in report.pictures] == [3, 5]
    assert report.pictures[0].top[0] == right
    assert (report.frames.total, report.frames.scored) == (8, 8)


def test_frames_around_a_change_are_left_out_and_counted(small_bundle, dataset, truth):
    right, wrong = label_of(dataset, 0), (label_of(dataset, 0) + 1) % 10
    for since in range(10):
        near = since < 2 or since > 7
        truth.add(
            seen(dataset, 0, since=since, until=9 - since),
            answer(small_bundle, wrong if near else right),
        )
    report = truth.report(None)
    assert (report.frames.guarded, report.frames.scored) == (4, 6)
    assert (report.frames_right.right, report.frames_right.n) == (6, 6)


def test_what_was_only_seen_near_a_change_is_not_scored(small_bundle, dataset, truth):
    truth.add(seen(dataset, 0, since=0), answer(small_bundle, 0))
    truth.add(seen(dataset, 1, until=1), answer(small_bundle, 0))
    report = truth.report(None)
    assert report.live is None
    assert report.pictures == ()
    assert report.frames.guarded == 2


def test_what_is_not_labelled_is_never_wrong(small_bundle, dataset, truth):
    truth.add(seen(dataset, 0), answer(small_bundle, label_of(dataset, 0)))
    before = truth.report(None)
    wrong = answer(small_bundle, (label_of(dataset, 0) + 1) % 10)
    truth.add(None, wrong)
    truth.add(seen(dataset, 12), wrong)  # a place that the data set does not have
    truth.add(seen(dataset, 0, playlist=playlist_of(dataset).identity ^ 1), wrong)
    truth.add(seen(dataset, NO_PICTURE), wrong)
    report = truth.report(None)
    assert (report.live, report.frames_right) == (before.live, before.frames_right)
    frames = report.frames
    assert (frames.unlabelled, frames.other_playlist, frames.without_picture) == (2, 1, 1)
    assert frames.total == 5 == sum(vars(frames).values()) - frames.total


def test_a_contradicting_marker_on_real_pixels_is_unlabelled(small_bundle, dataset, truth):
    canvas = Canvas(Layout(width=640, height=480))
    frame, width, height = canvas.lay(dataset.samples[0].read())
    canvas.mark(frame, replace(seen(dataset, 0).marker, width=width, height=height))
    reader = StripReader()
    truth.add(reader.read(frame), answer(small_bundle, label_of(dataset, 0)))
    frame[200:220, 8:20] = 255 - frame[200:220, 8:20]  # one module of it
    reading = reader.read(frame)
    assert reading is None
    truth.add(reading, answer(small_bundle, (label_of(dataset, 0) + 1) % 10))
    report = truth.report(None)
    assert (report.frames.scored, report.frames.unlabelled) == (1, 1)
    assert (report.live.top1.right, report.live.top1.n) == (1, 1)


def test_a_second_showing_does_not_count_again(small_bundle, dataset, truth):
    right = label_of(dataset, 0)
    for index in (0, 1, 0):
        chosen = right if truth.running() is None else (right + 1) % 10
        truth.add(seen(dataset, index), answer(small_bundle, chosen))
    report = truth.report(None)
    assert [picture.sample_id for picture in report.pictures] == [0, 1]
    assert report.pictures[0].top[0] == right
    assert report.frames.scored == 3


def test_the_window_slides_and_the_rest_goes_on(small_bundle, dataset):
    truth = Truth(playlist_of(dataset), small_bundle, window=4)
    assert truth.running() is None
    for index in range(12):
        offset = 0 if index < 6 else 1
        truth.add(
            seen(dataset, index), answer(small_bundle, (label_of(dataset, index) + offset) % 10)
        )
    running = truth.running()
    assert (running.top1.right, running.top1.n) == (6, 11)  # the last one is still on
    assert (running.window_top1.right, running.window_top1.n) == (0, 4)
    report = truth.report(None)
    assert (report.live.top1.right, report.live.top1.n) == (6, 12)
    assert (report.window.top1.right, report.window.top1.n) == (0, 4)
    assert report.live.top1.interval == pytest.approx((25.4, 74.6), abs=0.1)


def test_the_end_is_noticed(small_bundle, dataset, truth):
    truth.add(seen(dataset, NO_PICTURE), answer(small_bundle, 0))
    assert not truth.over
    truth.add(seen(dataset, OVER, playlist=1), answer(small_bundle, 0))
    assert not truth.over  # another playlist's end
    truth.add(seen(dataset, OVER), answer(small_bundle, 0))
    assert truth.over


def directly(dataset, tops, reference_tops, artifact, reference):
    return Direct(
        artifact=artifact,
        reference=reference,
        answers={
            index: DirectAnswer(
                image_sha256=pixels_sha256(dataset.samples[index].read()),
                top=(top,),
                reference_top=None if reference_tops is None else (reference_tops[index],),
            )
            for index, top in enumerate(tops)
        },
    )


def test_the_losses_come_apart(small_bundle, dataset, truth):
    """Of 12 pictures the reference has all, INT8 loses 2 of them, and the camera 3 others."""
    labels = [label_of(dataset, index) for index in range(12)]
    wrong = [(label + 1) % 10 for label in labels]
    int8 = wrong[:2] + labels[2:]
    live = wrong[:2] + wrong[2:5] + labels[5:11] + labels[11:]
    for index in range(12):
        truth.add(seen(dataset, index), answer(small_bundle, live[index]))
    artifact, reference = (
        small_bundle.select(("onnxruntime",), (precision,))[0]
        for precision in (Precision.INT8, Precision.FLOAT32)
    )
    report = truth.report(directly(dataset, int8, labels, artifact, reference))
    losses = report.losses
    assert (losses.camera.n, losses.camera.lost, losses.camera.gained) == (12, 3, 0)
    assert (losses.quantisation.lost, losses.quantisation.gained) == (2, 0)
    assert (losses.both.lost, losses.both.gained) == (5, 0)
    assert losses.camera.points + losses.quantisation.points == pytest.approx(losses.both.points)
    low, high = losses.camera.interval
    assert low < -25 < high
    assert report.direct.top1.right == 10
    assert report.reference.top1.right == 12
    classes = {found.label: found for found in report.classes}
    assert sum(found.n for found in classes.values()) == 12
    assert sum(found.right for found in classes.values()) == 7
    assert sum(found.direct_right for found in classes.values()) == 10
    same = truth.report(directly(dataset, labels, labels, reference, reference))
    assert same.losses.quantisation is None
    assert same.losses.quantisation_reason == IS_REFERENCE
    assert truth.report(None).losses is None
    assert truth.report(None).losses_reason == NOT_FED


def test_other_pixels_than_here_are_in_no_figure(small_bundle, dataset, truth):
    for index in range(3):
        pixels = {"pixels": 0x123} if index == 1 else {}
        truth.add(seen(dataset, index, **pixels), answer(small_bundle, label_of(dataset, index)))
    labels = [label_of(dataset, index) for index in range(2)]  # the third cannot be read here
    artifact = small_bundle.artifacts[0]
    report = truth.report(directly(dataset, labels, None, artifact, None))
    assert (report.other_pixels, report.unreadable, report.live.top1.n) == (1, 1, 1)
    assert report.losses.camera.n == 1
    assert report.losses.both is None


def test_draw_to_label(small_bundle, dataset, truth):
    for index in range(12):
        for age in (38, 40, 42, 44):
            reading = seen(dataset, index, clock_ms=NOW_NS // 1_000_000 - age)
            truth.add(reading, answer(small_bundle, 0))
    found = truth.report(None).draw_to_label
    assert found.n == 48
    assert (found.min, found.max) == (38, 44)
    assert found.p50 == 41


@pytest.mark.parametrize(
    ("machine", "offset_ms", "expected"),
    [
        (None, None, 40.0),
        (None, 15.0, 55.0),
        (1, None, OTHER_MACHINE),
        (1, 15.0, 55.0),
        (1, -100.0, "1 of 1 labels came before their frame was drawn"),
        (0, None, DRAWN_FOR_LATER),
        (0, 15.0, DRAWN_FOR_LATER),
    ],
)
def test_whose_clock_it_is(small_bundle, dataset, machine, offset_ms, expected):
    machine = {None: this_machine(), 1: this_machine() % 4095 + 1, 0: 0}[machine]
    truth = Truth(playlist_of(dataset), small_bundle, clock_offset_ms=offset_ms)
    assert truth.report(None).draw_to_label_reason == NO_CLOCK
    truth.add(seen(dataset, 0, machine=machine), answer(small_bundle, 0))
    report = truth.report(None)
    if isinstance(expected, str):
        assert report.draw_to_label is None
        assert report.draw_to_label_reason.startswith(expected)
    else:
        assert report.draw_to_label.max == expected
        assert report.draw_to_label_reason is None


def test_labels_that_the_bundle_does_not_know(small_bundle, tmp_path):
    table = tmp_path / "pictures.csv"
    table.write_text("file,label\na.jpg,Coat\nb.jpg,zebra\n")
    playlist = playlist_of(open_dataset(str(table), labelled=True))
    with pytest.raises(BadData, match=r"pictures\.csv line 3: label 'zebra' is not one of the"):
        Truth(playlist, small_bundle)
    other = playlist_of(
        Dataset(
            name="photographs",
            classes=1001,
            samples=(Sample(name="a", read=lambda: None, labels=("1",), origin="a"),),
        )
    )
    with pytest.raises(BadData, match="photographs has 1001 classes and this bundle 10"):
        Truth(other, small_bundle)


def test_random_weights_have_no_accuracy(small_bundle, dataset):
    untrained = replace(small_bundle, model=replace(small_bundle.model, trained=False))
    with pytest.raises(BadData, match="its weights are random"):
        Truth(playlist_of(dataset), untrained)


def test_real_frames_through_a_real_session(small_bundle, dataset):
    """Through markers, JPEG and INT8; the direct answers are those of the runtime itself."""
    playlist, canvas = playlist_of(dataset), Canvas(Layout(width=640, height=480))
    (artifact,) = small_bundle.select(("litert",), (Precision.INT8,))
    (reference,) = small_bundle.select(("onnxruntime",), (Precision.FLOAT32,))
    truth, reader = Truth(playlist, small_bundle), StripReader()
    with closing(runtimes.load("litert", small_bundle.path(artifact))) as session:
        expected = []
        for index, sample in enumerate(dataset.samples):
            pixels = sample.read()
            image = prepare(pixels, small_bundle.preprocessing)
            expected.append(int(session.run(image)["logits"][0].argmax()))
            frame, width, height = canvas.lay(pixels)
            canvas.mark(frame, replace(seen(dataset, index).marker, width=width, height=height))
            reading = reader.read(frame)
            live = prepare(reading.picture, small_bundle.preprocessing)[..., ::-1]
            logits = session.run(np.ascontiguousarray(live))["logits"][0]
            truth.add(reading, said(logits, small_bundle.labels))
        assert truth.seen() == tuple(range(12))
        direct = truth.feed_directly(artifact, session)
    assert [direct.answers[index].top[0] for index in range(12)] == expected
    assert direct.reference == reference
    report = truth.report(direct, reading_ns=reader.times_ns)
    assert (report.live.top1.n, report.other_pixels, report.unreadable) == (12, 0, 0)
    assert report.live.top1.right >= 9
    assert abs(report.losses.camera.points) <= 25
    assert report.losses.both is not None
    assert report.reading.max > 0
    assert report.calibrated_on == 0


def test_pictures_that_int8_was_calibrated_on_are_told(small_bundle):
    found = fashion_mnist.calibration_set()
    samples = tuple(replace(sample, labels=("0",)) for sample in found.samples)
    dataset = replace(found, samples=samples)
    hashes = {index: pixels_sha256(sample.read()) for index, sample in enumerate(dataset.samples)}
    used = [index for index, sha in hashes.items() if sha in small_bundle.calibration.images][:3]
    truth = Truth(playlist_of(dataset), small_bundle)
    for index in used:
        truth.add(seen(dataset, index), answer(small_bundle, 0))
    answers = {
        index: DirectAnswer(image_sha256=hashes[index], top=(0,), reference_top=None)
        for index in used
    }
    direct = Direct(artifact=small_bundle.artifacts[0], reference=None, answers=answers)
    assert truth.report(direct).calibrated_on == len(used) == 3


def test_what_is_right_on_a_frame_is_told_only_where_it_is_sure(dataset, truth):
    assert truth.accepted(seen(dataset, 3)) == {label_of(dataset, 3)}
    for reading in (
        None,
        seen(dataset, 3, since=0),
        seen(dataset, 3, until=1),
        seen(dataset, 3, playlist=1),
        seen(dataset, len(dataset.samples)),
        seen(dataset, NO_PICTURE),
        seen(dataset, OVER),
    ):
        assert truth.accepted(reading) is None
