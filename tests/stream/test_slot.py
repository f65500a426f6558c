"""One frame between two threads: the newest wins, or each is kept until it is taken."""

import threading

import numpy as np
import pytest

from edgenet.stream.frame import Clock, Frame
from edgenet.stream.slot import Slot


def frame(sequence):
    return Frame(
        bgr=np.zeros((1, 1, 3), np.uint8),
        sequence=sequence,
        captured_ns=0,
        clock=Clock.ARRIVAL,
        arrived_ns=0,
        decode_ns=None,
    )


def test_the_newest_wins_and_comes_once():
    slot = Slot(keep=False)
    for number in range(3):
        assert slot.put(frame(number))
    assert slot.take(0).sequence == 2
    assert slot.take(0.01) is None


def test_a_kept_frame_makes_the_next_one_wait():
    slot = Slot(keep=True)
    put = []

    def fill():
        put.extend(slot.put(frame(number)) for number in range(3))

    thread = threading.Thread(target=fill)
    thread.start()
    assert [slot.take(5).sequence for _ in range(3)] == [0, 1, 2]
    thread.join(5)
    assert put == [True, True, True]


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_in_a_closed_slot_can_be_taken(keep):
    slot = Slot(keep=keep)
    slot.put(frame(0))
    slot.close()
    assert not slot.put(frame(1))
    assert not slot.ended
    assert slot.take(5).sequence == 0
    assert slot.ended
    assert slot.take(5) is None


def test_closing_frees_who_waits():
    slot = Slot(keep=True)
    slot.put(frame(0))
    waiting = threading.Thread(target=slot.put, args=(frame(1),))
    waiting.start()
    slot.close()
    waiting.join(5)
    assert not waiting.is_alive()
