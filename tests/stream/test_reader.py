"""The reader: what it delivers, what it counts, and what it does when a source fails.

Sources here are scripts of what `read` does next; the clock and the pauses are driven by hand.
"""

import threading
import time
from itertools import count

import cv2
import numpy as np
import pytest

from edgenet.errors import BadData, BadImage, DeviceUnavailable, UsageError
from edgenet.stream.frame import Clock, Delivered, Frame
from edgenet.stream.reader import FaultKind, Reader
from edgenet.stream.sources import SourceEnded, Stalled
from edgenet.stream.stamp import read_stamp

SECOND = 10**9


class HandClock:
    """A time that only the test moves."""

    def __init__(self):
        self.ns = 1000 * SECOND

    def __call__(self):
        return self.ns


class Script:
    """A source that does what a list says: an exception is raised, a number is a picture of it."""

    still = False
    name = "script"
    delivered = Delivered(width=8, height=8, frames_per_second=None, format=None)

    def __init__(self, clock, steps, *, live=True, interval_s=0.1):
        self.clock, self.steps, self.live, self.interval_s = clock, iter(steps), live, interval_s
        self.sequence = count()
        self.closed = threading.Event()
        self.stopped = False

    def read(self):
        self.clock.ns += round(self.interval_s * SECOND)
        step = next(self.steps, SourceEnded())
        if isinstance(step, Exception):
            raise step
        bgr = np.full((step[1], 8, 3) if isinstance(step, tuple) else (8, 8, 3), 0, np.uint8)
        bgr[0, 0] = step[0] if isinstance(step, tuple) else step
        return Frame(
            bgr=bgr,
            sequence=next(self.sequence),
            captured_ns=self.clock.ns,
            clock=Clock.ARRIVAL,
            arrived_ns=self.clock.ns,
            decode_ns=None,
        )

    def close(self):
        self.closed.set()


def run(*scripts, pauses=None, **options):
    """Read scripts, one opening each, to their end; return the reader and what it paused for."""
    clock = HandClock()
    opened = []
    waiting = list(scripts)

    def open_next():
        step = waiting.pop(0) if waiting else [SourceEnded()]
        if isinstance(step, Exception):
            raise step
        opened.append(Script(clock, step, **options))
        return opened[-1]

    pauses = [] if pauses is None else pauses

    def pause(stop, seconds):
        pauses.append(seconds)
        clock.ns += round(seconds * SECOND)
        return stop.is_set()

    with Reader(open_next, now=clock, pause=pause) as reader:
        frames = []
        while not reader.ended:
            frame = reader.take(5)
            if frame is not None:
                frames.append(frame)
    assert all(source.closed.is_set() for source in opened)
    return reader, frames, pauses


def kinds(reader):
    return [fault.kind for fault in reader.faults]


def test_of_files_every_frame_comes_once_and_in_order():
    reader, frames, _ = run(range(50), live=False)
    assert [frame.sequence for frame in frames] == list(range(50))
    counts = reader.counts
    assert (counts.delivered, counts.taken, counts.dropped, counts.waiting) == (50, 50, 0, 0)


def test_of_a_live_source_the_newest_wins_and_every_frame_is_counted():
    with Reader("synthetic://?fps=200&frames=100") as reader:
        taken = []
        while not reader.ended:
            frame = reader.take(1)
            if frame is not None:
                taken.append(frame.sequence)
            time.sleep(0.03)
        counts = reader.counts
    assert taken == sorted(set(taken))
    assert taken[-1] == 99
    assert counts.delivered == 100
    assert counts.taken == len(taken) < 50
    assert counts.dropped == 100 - len(taken)


def test_a_slow_consumer_gets_young_pictures():
    with Reader("synthetic://?size=320x240&fps=60") as reader:
        ages = []
        for _ in range(10):
            time.sleep(0.1)
            frame = reader.take(1)
            assert read_stamp(frame.bgr) == frame.captured_ns
            ages.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
    assert np.median(ages) < 30
    assert reader.counts.stale == 0


def test_after_a_stall_it_is_opened_again_and_counts_on():
    reader, frames, pauses = run([1, 2, 3, Stalled("s: nothing for 2 s")], [4, 5])
    assert kinds(reader) == [FaultKind.STALL, FaultKind.RECONNECTED]
    stall, back = reader.faults
    assert stall.message == "s: nothing for 2 s"
    assert back.seconds > stall.seconds > 0
    assert frames[-1].sequence == 4
    assert reader.counts.delivered == 5
    assert reader.counts.reconnects == 1
    assert len(pauses) == 1


def test_pauses_double_up_to_the_longest():
    refused = DeviceUnavailable("s: refused")
    _, _, pauses = run([1, refused], *[refused] * 7, [2])
    limits = [0.25, 0.5, 1, 2, 4, 5, 5, 5]
    assert len(pauses) == 8
    for pause, limit in zip(pauses, limits, strict=True):
        assert 0.75 * limit <= pause <= limit


def test_a_steady_source_starts_over_with_short_pauses():
    lost = DeviceUnavailable("s: lost")
    _, _, pauses = run([1, lost], lost, lost, [*range(30), lost], [2])
    assert pauses[-2] > 0.7  # the third in a row
    assert pauses[-1] <= 0.25  # three seconds of pictures lay between


def test_a_source_that_opens_and_gives_nothing_is_no_reconnection():
    stalled = Stalled("s: nothing")
    reader, _, pauses = run([1, stalled], [stalled], [stalled], [2])
    assert kinds(reader) == [FaultKind.STALL, FaultKind.RECONNECTED]
    assert len(pauses) == 3


def test_frozen_and_thawed():
    reader, _, _ = run([1, 2, *[3] * 30, 4, 5])
    assert kinds(reader) == [FaultKind.FROZEN, FaultKind.THAWED]
    frozen, thawed = reader.faults
    assert 2 <= frozen.seconds < 2.2
    assert 2.8 < thawed.seconds < 3.2
    assert reader.counts.repeated == 29
    assert reader.counts.delivered == 34


def test_few_pictures_alike_are_not_frozen():
    """One picture a second, twice the same: that happens."""
    reader, _, _ = run([1, 1, 1, 2], interval_s=1.0)
    assert reader.faults == ()
    assert reader.counts.repeated == 2


def test_a_change_between_the_samples_of_the_checksum_is_seen():
    class Large(Script):
        def read(self):
            frame = super().read()
            bgr = np.zeros((640, 640, 3), np.uint8)
            bgr[333, 333] = frame.sequence  # the checksum looks at every 20th row
            return Frame(**{**frame.__dict__, "bgr": bgr})

    clock = HandClock()
    with Reader(lambda: Large(clock, range(40)), now=clock) as reader:
        while not reader.ended:
            reader.take(5)
    assert reader.counts.repeated == 0


def test_still_sources_repeat_without_fault(monkeypatch):
    monkeypatch.setattr(Script, "still", True)
    reader, _, _ = run([3] * 40)
    assert reader.faults == ()
    assert reader.counts.repeated == 0


def test_a_change_of_size_is_noted_and_the_run_goes_on():
    reader, frames, _ = run([(1, 8), (2, 8), (3, 16), (4, 16)], live=False)
    (fault,) = reader.faults
    assert fault.kind is FaultKind.CHANGED_SIZE
    assert fault.message == "pictures are 8 x 16 now, they were 8 x 8"
    assert [frame.bgr.shape[0] for frame in frames] == [8, 8, 16, 16]


def test_corrupt_pictures_are_counted_and_noted_once_a_burst():
    bad = BadImage("s: does not decode")
    reader, _, _ = run([1, bad, bad, 2, bad, 3])
    assert kinds(reader) == [FaultKind.CORRUPT, FaultKind.CORRUPT]
    assert reader.counts.corrupt == 3
    assert reader.counts.delivered == 3


@pytest.mark.parametrize(
    "error", [DeviceUnavailable("no such device"), UsageError("wrong"), BadData("empty")]
)
def test_what_does_not_open_is_said_at_once(error):
    with pytest.raises(type(error), match=str(error)):
        run(error)


def test_what_opens_and_never_delivers_is_said():
    """After some attempts: who joins a stream waits for its next whole picture."""
    pauses = []
    with pytest.raises(DeviceUnavailable, match="nothing came"):
        run(*[[Stalled("nothing came")]] * 100, pauses=pauses, interval_s=2.0)
    assert 3 <= len(pauses) <= 5


def test_a_first_picture_that_takes_its_time_is_no_fault():
    reader, frames, _ = run([Stalled("not yet")], [Stalled("not yet")], [1, 2])
    assert reader.faults == ()
    assert frames[-1].sequence == 1
    assert reader.counts.reconnects == 0


def test_what_is_lost_before_its_first_picture_is_said_at_once():
    pauses = []
    with pytest.raises(DeviceUnavailable, match="closed"):
        run([DeviceUnavailable("closed")], [1], pauses=pauses)
    assert pauses == []


def test_pictures_of_which_none_decodes_are_an_error():
    with pytest.raises(DeviceUnavailable, match=r"no picture decodes \(bad\)"):
        run([BadImage("bad")] * 1000)
    with pytest.raises(BadImage, match="bad"):
        run([BadImage("bad")] * 3, live=False)


def test_a_file_that_fails_half_way_raises_where_frames_are_taken():
    with pytest.raises(BadData, match="cut off"):
        run([1, 2, BadData("cut off")], live=False)


def test_a_bug_in_a_source_reaches_the_consumer():
    with pytest.raises(ZeroDivisionError):
        run([1, ZeroDivisionError("bug")])


def test_trouble_is_in_words_while_it_lasts():
    clock = HandClock()
    paused, go_on = threading.Event(), threading.Event()

    def pause(stop, seconds):
        clock.ns += 3 * SECOND
        paused.set()
        return go_on.wait(10)

    scripts = [Script(clock, [1, DeviceUnavailable("s: lost")]), Script(clock, [2] * 3)]
    with Reader(lambda: scripts.pop(0), now=clock, pause=pause) as reader:
        assert paused.wait(10)
        assert reader.trouble == "no picture for 3.1 s: s: lost"
        assert reader.source.name == "script"
        go_on.set()
        while not reader.ended:
            reader.take(5)
        assert reader.trouble is None


def test_leaving_the_block_ends_the_thread_and_frees_the_source():
    before = threading.active_count()
    with Reader("synthetic://?fps=100") as reader:
        assert reader.take(5) is not None
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_leaving_early_from_files(tmp_path):
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    before = threading.active_count()
    with Reader(str(tmp_path)) as reader:
        assert reader.take(5).name == "0.png"
    assert threading.active_count() == before
