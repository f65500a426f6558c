"""This machine's peaks, measured twice: they have to repeat."""

import pytest

from edgenet.measure.peaks import COPIED_BYTES, ENDINGS, PRECISIONS, Peaks, Rate, measure_peaks


@pytest.fixture(scope="module")
def twice():
    return measure_peaks(1), measure_peaks(1)


def test_there_is_a_rate_for_each_precision(twice):
    for peaks in twice:
        assert set(peaks.rates) == set(PRECISIONS)
        assert all(rate.runtime in ENDINGS for rate in peaks.rates.values())
        assert all(rate.mult_adds_per_second > 1e8 for rate in peaks.rates.values())


def test_peaks_repeat(twice):
    """Within a third, generously: on a quiet machine it is a hundredth."""
    first, second = twice
    for precision in PRECISIONS:
        rates = [peaks.rates[precision].mult_adds_per_second for peaks in (first, second)]
        assert max(rates) < 1.5 * min(rates)


def test_a_larger_array_is_never_credited_with_more(twice):
    for peaks in twice:
        assert [size for size, _ in peaks.bandwidth] == [2 * size for size in COPIED_BYTES]
        rates = [rate for _, rate in peaks.bandwidth]
        assert rates == sorted(rates, reverse=True)


def test_the_better_of_two():
    slow, fast = (Rate(mult_adds_per_second=rate, runtime="litert") for rate in (1e9, 2e9))
    one = Peaks(threads=2, rates={"float32": slow}, bandwidth=((1, 5.0), (2, 1.0)))
    other = Peaks(threads=2, rates={"float32": fast, "int8": slow}, bandwidth=((1, 4.0), (2, 3.0)))
    best = one.or_better(other)
    assert best == other.or_better(one)
    assert best.rates == {"float32": fast, "int8": slow}
    assert best.bandwidth == ((1, 5.0), (2, 3.0))
