"""Bounds and fractions of layers whose times and peaks are given."""

import pytest

from edgenet.bundle import LayerWork
from edgenet.measure.layers import BETWEEN, LayerTime, LayerTimes
from edgenet.measure.peaks import Peaks, Rate
from edgenet.measure.roofline import NOT_TIMED, PASSED, limits
from edgenet.runtimes import OperatorReport, OperatorTime

PEAKS = Peaks(
    threads=1,
    rates={
        "float32": Rate(mult_adds_per_second=10e9, runtime="litert"),
        "int8": Rate(mult_adds_per_second=40e9, runtime="openvino"),
    },
    bandwidth=((100_000, 100e9), (2_000_000, 25e9), (10_000_000, 10e9)),
)
HEAVY = LayerWork(
    name="heavy", kind="convolution", mult_adds=10_000_000, weights=10_000, read=1000, written=1000
)
WIDE = LayerWork(
    name="wide",
    kind="fully connected",
    mult_adds=1_000_000,
    weights=1_000_000,
    read=1000,
    written=1000,
)


def layer_time(name, duration_ms, precision="int8"):
    report = OperatorReport(name=name, kind="Conv", precision=precision)
    duration_ns = None if duration_ms is None else duration_ms * 1e6
    operator = OperatorTime(operator=report, duration_ns=duration_ns)
    return LayerTime(
        layer=name, duration_ms=duration_ms, precision=precision, operators=(operator,)
    )


def found(*layers, inference_ms=1.0, peaks=PEAKS, resolution_ms=0.001, by="profiler"):
    times = LayerTimes(by=by, layers=layers, resolution_ms=resolution_ms)
    return limits(times, inference_ms, (HEAVY, WIDE), peaks)


def test_compute_is_the_bound_of_a_layer_with_many_mult_adds():
    (bound,) = found(layer_time("heavy", 0.5)).bounds
    assert bound.by == "compute"
    assert bound.bound_ms == pytest.approx(0.25)
    assert bound.fraction == pytest.approx(0.5)


def test_memory_is_the_bound_of_a_layer_with_many_weights():
    (bound,) = found(layer_time("wide", 0.1)).bounds
    assert bound.by == "memory"
    # A million weights of a byte within two million, and two thousand values.
    assert bound.bound_ms == pytest.approx(1e3 * (1_000_000 / 25e9 + 2_000 / 100e9))


def test_float_has_a_peak_of_its_own_and_wider_values():
    heavy, wide = found(
        layer_time("heavy", 2.0, "float32"), layer_time("wide", 1.0, "float32")
    ).bounds
    assert heavy.bound_ms == pytest.approx(1.0)
    assert wide.bound_ms == pytest.approx(1e3 * (4_000_000 / 10e9 + 8_000 / 100e9))


def test_a_precision_that_no_runtime_has_a_peak_of_is_held_against_float():
    peaks = Peaks(threads=1, rates={"float32": PEAKS.rates["float32"]}, bandwidth=PEAKS.bandwidth)
    (bound,) = found(layer_time("heavy", 2.0), peaks=peaks).bounds
    assert bound.bound_ms == pytest.approx(1.0)


def test_a_layer_that_passes_its_bound_gets_no_fraction():
    (bound,) = found(layer_time("heavy", 0.25 / 1.04)).bounds
    assert bound.fraction == pytest.approx(1.04)
    limit = found(layer_time("heavy", 0.25 / 1.06))
    assert limit.bounds[0].fraction == PASSED
    assert limit.passed == ("heavy",)


def test_a_time_within_the_noise_gets_no_fraction():
    (bound,) = found(layer_time("heavy", None)).bounds
    assert bound.fraction == NOT_TIMED


def test_few_counts_of_a_coarse_profiler_get_no_fraction():
    (bound,) = found(layer_time("heavy", 0.3), resolution_ms=0.1).bounds
    assert bound.fraction == "takes fewer than 10 counts of the profiler's 0.1 ms"


def test_in_all():
    limit = found(layer_time("heavy", 0.5), layer_time("wide", 0.1), inference_ms=0.6)
    assert limit.fraction == pytest.approx((0.25 + 0.04002) / 0.6)


def test_what_lies_between_layers_has_no_bound():
    assert [b.layer for b in found(layer_time("heavy", 0.5), layer_time(BETWEEN, 1.0)).bounds] == [
        "heavy"
    ]


def test_in_all_is_refused_when_much_of_the_time_passed_its_bound():
    limit = found(layer_time("heavy", 0.1), layer_time("wide", 0.1), inference_ms=0.6)
    assert limit.passed == ("heavy",)
    assert limit.fraction.startswith("heavy took 50% of the time and each passes its bound")
    assert "Winograd" in limit.fraction


def test_by_prefix_time_that_is_counted_with_the_neighbour_refuses_nothing():
    """heavy takes 0.25 at the least: here 0.05 of what it took was counted with wide."""
    layers = [layer_time("heavy", 0.2), layer_time("wide", 0.12)]
    limit = found(*layers, inference_ms=0.32, by="prefix")
    assert limit.passed == ("heavy",)
    assert limit.bounds[0].fraction == PASSED
    assert limit.fraction == pytest.approx((0.25 + 0.04002) / 0.32)
    assert isinstance(found(*layers, inference_ms=0.32).fraction, str)


def test_by_prefix_what_passes_with_its_neighbours_too_refuses_the_share_in_all():
    limit = found(layer_time("heavy", 0.1), layer_time("wide", 0.1), inference_ms=0.6, by="prefix")
    assert limit.fraction.startswith(
        "heavy took 50% of the time and each together with its neighbours passes its bound"
    )


def test_by_prefix_a_neighbour_without_a_time_of_its_own_has_no_say():
    limit = found(layer_time("heavy", 0.2), layer_time("wide", None), by="prefix")
    assert isinstance(limit.fraction, str)


def test_by_prefix_in_all_is_refused_when_the_whole_is_faster_than_its_bounds():
    layers = [layer_time("heavy", 0.2), layer_time("wide", 0.12)]
    limit = found(*layers, inference_ms=0.2, by="prefix")
    assert limit.fraction == "the layers' bounds take 1.45 times the inference: a peak is too low"


def test_a_little_that_passed_counts_with_its_own_time():
    limit = found(layer_time("heavy", 2.0), layer_time("wide", 0.01), inference_ms=2.0)
    assert limit.passed == ("wide",)
    assert limit.fraction == pytest.approx((0.25 + 0.01) / 2.0)


def test_in_all_is_refused_when_the_whole_is_faster_than_its_bounds():
    limit = found(layer_time("heavy", 0.5), inference_ms=0.2)
    assert limit.fraction == "the layers' bounds take 1.25 times the inference: a peak is too low"


def test_no_peak_no_limits():
    peaks = Peaks(threads=1, rates={}, bandwidth=PEAKS.bandwidth)
    limit = found(layer_time("heavy", 0.5), peaks=peaks)
    assert limit.bounds == ()
    assert "no installed runtime" in limit.fraction


def test_bytes_beyond_the_largest_array_move_at_its_rate():
    assert PEAKS.seconds_for_bytes(1e9, 1e9) == pytest.approx(0.1)
    assert PEAKS.seconds_for_bytes(1e9, 100_000) == pytest.approx(0.01)
