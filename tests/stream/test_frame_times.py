"""When a frame was taken: a stamp is believed where it can be true."""

import pytest

from edgenet.stream.frame import Clock
from edgenet.stream.sources.capture import capture_time

NOW = 1000 * 10**9


@pytest.mark.parametrize("before_ns", [0, 1, 20_000_000, 4_999_999_999])
def test_a_stamp_that_can_be_true(before_ns):
    assert capture_time(NOW - before_ns, NOW, Clock.DRIVER) == (NOW - before_ns, Clock.DRIVER)


@pytest.mark.parametrize("stamp_ns", [0, -1, NOW + 1, NOW - 5 * 10**9, 1_700_000_000 * 10**9])
def test_a_stamp_of_another_clock(stamp_ns):
    assert capture_time(stamp_ns, NOW, Clock.DRIVER) == (NOW, Clock.ARRIVAL)
