"""Ways out of the program that are slow, full, gone or good."""

import json
import os
import threading
import time

import pytest

from edgenet.errors import NotWritable, UsageError
from edgenet.stream.delivery import WAITING, Delivery, EventLines
from edgenet.stream.events import LabelChanges, Smoothing
from tests.stream.results import make_frame, make_result


def make_event(label="cat", sequence=0):
    changes = LabelChanges(Smoothing(needed=1, of=1))
    return changes.add(make_result(label, frame=make_frame(sequence)))


def settle(condition, timeout_s=5.0):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_lines_are_appended_in_order(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"before": true}\n')
    with Delivery(EventLines(str(path))) as way:
        for number in range(20):
            way.offer(make_event("Äpfel", number))
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert lines[0] == {"before": True}
    assert [line["sequence"] for line in lines[1:]] == list(range(20))
    assert lines[1] == make_event("Äpfel").fields() | {"time": lines[1]["time"]}
    assert (way.delivered, way.lost, way.fault) == (20, 0, None)


def test_a_reader_that_does_not_read_holds_nothing_up(tmp_path):
    """A pipe takes 64 KB; then writing blocks for ever, and the run must not."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with Delivery(EventLines(str(pipe))) as way:
            started = time.monotonic()
            for number in range(2000):
                way.offer(make_event("x" * 200, number))
            assert time.monotonic() - started < 1
            settle(lambda: way.lost > 0)
            assert str(WAITING) in way.fault
        assert time.monotonic() - started < 4
    finally:
        os.close(reader)


def test_a_pipe_that_was_closed_is_noticed(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with Delivery(EventLines(str(pipe))) as way:
        os.close(reader)
        way.offer(make_event())
        settle(lambda: way.reader_gone)
    assert (way.delivered, way.lost) == (0, 1)


def test_a_full_disk_is_told_and_tried_again():
    with Delivery(EventLines("/dev/full")) as way:
        for _ in range(3):
            way.offer(make_event())
        settle(lambda: way.lost == 3)
    assert "No space left" in way.fault
    assert not way.reader_gone


@pytest.mark.parametrize(
    ("place", "error", "words"),
    [
        (".", UsageError, "--events .: is a folder"),
        ("/nowhere/events", NotWritable, "No such file"),
        ("pipe", NotWritable, "nobody reads this pipe"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(place, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")  # that nobody reads
    with pytest.raises(error, match=words):
        EventLines(place)


class Stuck:
    """A sink that takes nothing before it is allowed to."""

    name = "stuck"

    def __init__(self):
        self.allowed = threading.Event()
        self.closed = False

    def deliver(self, event):
        self.allowed.wait()

    def close(self):
        self.closed = True
        self.allowed.set()


def test_a_failure_on_the_way_out_waits_for_nobody():
    sink, started = Stuck(), time.monotonic()
    way = Delivery(sink)
    way.__enter__()
    way.offer(make_event())
    way.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert sink.closed
    assert time.monotonic() - started < 0.5
