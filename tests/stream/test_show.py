"""The order and the pace of a playlist, on a clock that is driven by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from edgenet.data import fashion_mnist
from edgenet.data.dataset import open_dataset
from edgenet.data.sample import Dataset, Sample
from edgenet.errors import BadData, UsageError
from edgenet.preprocess import pixels_sha256, read_picture
from edgenet.stream.marker import LONGEST_COUNT, MOST_PICTURES, Layout, pixels_check, this_machine
from edgenet.stream.playlist import LEAD_S, Pace, Show, play, playlist_of
from edgenet.stream.strip_reader import StripReader

LAYOUT = Layout(width=320, height=240)
PACE = Pace(seconds=1.0, frames_per_second=10)
LEAD = round(LEAD_S * 10)


class Collector:
    """An outlet that reads every frame and takes `cost_ns` of the clock for it."""

    def __init__(self, *, live=True, cost_ns=0, enough=None):
        self.live, self.cost_ns, self.enough = live, cost_ns, enough
        self.now_ns = 10**15
        self.readings, self.taken_ns = [], []
        self.reader = StripReader(now=lambda: self.now_ns / 1e9)

    def wait(self):
        self.now_ns += 3_000_000_000

    def show(self, frame):
        if self.enough is not None and len(self.readings) >= self.enough:
            return False
        self.taken_ns.append(self.now_ns)
        self.readings.append(self.reader.read(frame.copy()))
        self.now_ns += self.cost_ns(len(self.readings)) if callable(self.cost_ns) else self.cost_ns
        return True

    def now(self):
        return self.now_ns

    def sleep(self, seconds):
        self.now_ns += max(1, round(seconds * 1e9))


@pytest.fixture
def dataset():
    return fashion_mnist.test_set()


def shown(dataset, outlet, chosen=(3, 0, 8), *, pace=PACE, loop=False):
    warnings = []
    show = Show(playlist=playlist_of(dataset), chosen=chosen, pace=pace, layout=LAYOUT, loop=loop)
    played = play(show, outlet, warn=warnings.append, now=outlet.now, sleep=outlet.sleep)
    return played, warnings


def test_every_picture_for_its_time_and_in_order(dataset):
    outlet = Collector()
    played, warnings = shown(dataset, outlet)
    assert (played.frames, played.skipped, warnings) == (2 * LEAD + 30, 0, [])
    ids = [reading.sample_id for reading in outlet.readings]
    assert ids == [None] * LEAD + [3] * 10 + [0] * 10 + [8] * 10 + [None] * LEAD
    assert [reading.over for reading in outlet.readings] == [False] * (LEAD + 30) + [True] * LEAD
    middle = [reading.marker for reading in outlet.readings[LEAD : LEAD + 10]]
    assert [marker.since for marker in middle] == list(range(10))
    assert [marker.until for marker in middle] == list(range(9, -1, -1))
    # The clock of each frame is that of its drawing, and it was drawn when it was due.
    for number, (reading, taken_ns) in enumerate(
        zip(outlet.readings, outlet.taken_ns, strict=True)
    ):
        assert reading.drawn_ns == taken_ns // 1_000_000 * 1_000_000
        assert taken_ns - outlet.taken_ns[0] == pytest.approx(number * 1e8, abs=2)
        assert reading.marker.machine == this_machine()


def test_the_marker_says_which_pixels_they_are(dataset):
    outlet = Collector()
    shown(dataset, outlet)
    for reading in outlet.readings[LEAD : LEAD + 30]:
        pixels = dataset.samples[reading.sample_id].read()
        assert reading.marker.pixels == pixels_check(pixels_sha256(pixels))
        assert reading.marker.playlist == playlist_of(dataset).identity


def test_late_frames_are_left_out_and_the_pictures_keep_their_time(dataset):
    """Every frame takes two and a half intervals."""
    outlet = Collector(cost_ns=250_000_000)
    played, _ = shown(dataset, outlet)
    assert played.frames + played.skipped == 2 * LEAD + 30
    assert played.skipped > played.frames
    for reading, taken_ns in zip(outlet.readings, outlet.taken_ns, strict=True):
        since_s = (taken_ns - outlet.taken_ns[0]) / 1e9 - LEAD_S
        if reading.sample_id is not None:
            assert reading.sample_id == (3, 0, 8)[int(since_s + 1e-6)]
            assert reading.marker.since == int((since_s + 1e-6) % 1 * 10)


def test_a_whole_picture_may_be_skipped(dataset):
    outlet = Collector(cost_ns=lambda count: 1_500_000_000 if count == LEAD + 5 else 0)
    shown(dataset, outlet)
    ids = [reading.sample_id for reading in outlet.readings[LEAD:-LEAD]]
    assert ids == [3] * 5 + [0] * 1 + [8] * 10 or ids == [3] * 5 + [8] * 10


def test_a_file_gets_every_frame_and_no_clock(dataset):
    outlet = Collector(live=False, cost_ns=10**10)
    played, _ = shown(dataset, outlet)
    assert (played.frames, played.skipped) == (2 * LEAD + 30, 0)
    assert {reading.drawn_ns for reading in outlet.readings} == {0}
    assert {reading.marker.machine for reading in outlet.readings} == {0}


def test_a_loop_goes_on_until_nobody_wants_more(dataset):
    outlet = Collector(enough=LEAD + 75)
    played, _ = shown(dataset, outlet, loop=True)
    assert played.frames == LEAD + 75
    ids = [reading.sample_id for reading in outlet.readings[LEAD:]]
    assert (
        ids == [3] * 10 + [0] * 10 + [8] * 10 + [3] * 10 + [0] * 10 + [8] * 10 + [3] * 10 + [0] * 5
    )


def test_long_pictures_count_no_further(dataset):
    outlet = Collector()
    shown(dataset, outlet, chosen=(0,), pace=replace(PACE, seconds=4))
    since = [reading.marker.since for reading in outlet.readings[LEAD : LEAD + 40]]
    assert since == [min(number, LONGEST_COUNT) for number in range(40)]


def test_a_picture_that_cannot_be_read_leaves_its_place_empty(tmp_path, dataset):
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8 and no more")
    broken = Sample(
        name="cut.jpg", read=partial(read_picture, tmp_path / "cut.jpg"), labels=("0",), origin="x"
    )
    mixed = replace(dataset, samples=(*dataset.samples[:2], broken))
    outlet = Collector(enough=LEAD + 60)
    _, warnings = shown(mixed, outlet, chosen=(0, 2, 1), loop=True)
    assert len(warnings) == 1
    assert "cut.jpg: is cut off" in warnings[0]
    ids = [reading.sample_id for reading in outlet.readings[LEAD:]]
    assert ids == ([0] * 10 + [None] * 10 + [1] * 10) * 2
    assert not any(reading.over for reading in outlet.readings)


def test_no_thread_is_left(dataset):
    import threading

    before = threading.active_count()
    shown(dataset, Collector(enough=3))
    assert threading.active_count() == before


def test_the_identity_is_of_names_labels_and_order():
    def sample(name, *labels):
        return Sample(
            name=name, read=lambda: np.zeros((4, 4, 3), np.uint8), labels=labels, origin=name
        )

    sets = [
        (sample("a", "1"), sample("b", "2")),
        (sample("b", "2"), sample("a", "1")),
        (sample("a", "2"), sample("b", "2")),
        (sample("a", "1", "2"), sample("b", "2")),
        (sample("a", "1"),),
        (sample("a1"), sample("b", "2")),
    ]
    identities = [playlist_of(Dataset(name="x", samples=samples)).identity for samples in sets]
    assert len(set(identities)) == len(sets)
    again = playlist_of(Dataset(name="another name", samples=sets[0])).identity
    assert again == identities[0]


def test_the_same_folder_is_the_same_playlist_wherever_it_lies(tmp_path, dataset):
    import cv2

    for root in ("here", "there"):
        for label in ("Coat", "Bag"):
            (tmp_path / root / label).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / root / label / "1.png"), np.zeros((9, 9, 3), np.uint8))
    found = [
        playlist_of(open_dataset(str(tmp_path / root), labelled=True)).identity
        for root in ("here", "there")
    ]
    assert found[0] == found[1]


def test_what_is_drawn_is_what_evaluate_draws(dataset):
    chosen = dataset.drawn(20, seed=7)
    assert tuple(dataset.samples[index] for index in chosen) == dataset.draw(20, seed=7).samples
    assert dataset.drawn(10**6, seed=0) == tuple(range(len(dataset.samples)))


def test_too_many_pictures(dataset):
    many = replace(dataset, samples=dataset.samples[:1] * (MOST_PICTURES + 1))
    with pytest.raises(BadData, match=f"has {MOST_PICTURES + 1} pictures"):
        playlist_of(many)


def test_too_short_a_time():
    with pytest.raises(
        UsageError, match=r"0\.1 s at 30 frames a second are 3 frames.*--seconds 0\.17"
    ):
        Pace(seconds=0.1, frames_per_second=30)
