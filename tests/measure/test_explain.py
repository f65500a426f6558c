"""The worst layers in words."""

from edgenet.bundle import LayerWork
from edgenet.measure.explain import worst
from edgenet.measure.layers import BETWEEN, LayerTime, LayerTimes
from edgenet.measure.roofline import NOT_TIMED, PASSED, Bound
from edgenet.runtimes import OperatorReport, OperatorTime


def work(name, kind, *, mult_adds=0, weights=0, values=1000):
    return LayerWork(
        name=name, kind=kind, mult_adds=mult_adds, weights=weights, read=values, written=values
    )


LAYERS = (
    work("stem", "convolution", mult_adds=10_000),
    work("dw", "depthwise convolution", mult_adds=9000),
    work("pw", "pointwise convolution", mult_adds=1_000_000),
    work("late", "pointwise convolution", mult_adds=49_000_000, weights=1_000_000, values=50_000),
    work("pool", "global average pool"),
    work("fc", "fully connected", mult_adds=5120, weights=5120),
)


def layer_time(name, duration_ms, *kinds, precision="int8"):
    """One layer; of several kinds the first takes nearly all of the time."""
    shares = [0.99] + [0.01] * (len(kinds) - 1)
    operators = tuple(
        OperatorTime(
            operator=OperatorReport(name=name, kind=kind, precision=precision),
            duration_ns=None if duration_ms is None else share * duration_ms * 1e6,
        )
        for kind, share in zip(kinds or ("Conv",), shares, strict=True)
    )
    return LayerTime(layer=name, duration_ms=duration_ms, precision=precision, operators=operators)


def words(*times, bounds=(), fallbacks=(), by="profiler"):
    found = worst(LayerTimes(by=by, layers=times, resolution_ms=0.001), bounds, LAYERS, fallbacks)
    return {loss.layer: loss.words for loss in found}


def bound(layer, bound_ms, fraction=0.5):
    return Bound(layer=layer, bound_ms=bound_ms, by="compute", fraction=fraction)


def test_the_worst_three_by_what_they_lost():
    times = [layer_time("stem", 1.0), layer_time("dw", 2.0), layer_time("pw", 5.0)]
    times += [layer_time("pool", 0.2), layer_time("fc", 0.3)]
    found = words(*times, bounds=[bound("pw", 4.9), bound("dw", 0.1), bound("stem", 0.1)])
    assert list(found) == ["dw", "stem", "fc"]


def test_figures_come_first():
    found = words(layer_time("pw", 5.0), bounds=[bound("pw", 1.25)])
    assert found["pw"].startswith("5 ms, compute allows 1.2 (25%); ")
    found = words(layer_time("pw", 5.0), bounds=[bound("pw", 0.01)])
    assert found["pw"].startswith("5 ms, compute allows 0.01 (below 1%); ")


def test_why():
    found = words(layer_time("stem", 1.0), layer_time("dw", 1.0), layer_time("fc", 1.0))
    assert "thin: 5.0 mult-adds for each value" in found["stem"]
    assert "depthwise: 4.5 mult-adds for each value moved" in found["dw"]
    assert "each of its 5,120 weights is read for one mult-add" in found["fc"]
    found = words(
        layer_time("pool", 0.01, "Mean", "Cast", "Cast"), layer_time(BETWEEN, 1.0, "Reorder")
    )
    assert "moves 2,000 values and multiplies nothing" in found["pool"]
    assert "so short that calling it counts" in found["pool"]
    assert found["pool"].endswith("with Cast")
    assert found[BETWEEN] == "1 ms; what the runtime puts between layers: Reorder"


def test_a_layer_of_products_says_what_it_is_bound_by_and_that_no_more_is_known():
    found = words(layer_time("pw", 5.0), bounds=[bound("pw", 1.25)])
    assert found["pw"].endswith(
        "(25%); compute-bound: 500 mult-adds a byte; nothing else is known of it"
    )
    found = words(layer_time("pw", 5.0, precision="float32"), bounds=[bound("pw", 1.25)])
    assert "compute-bound: 125 mult-adds a byte; nothing" in found["pw"]
    found = words(layer_time("pw", 5.0))
    assert found["pw"] == "5 ms; 500 mult-adds a byte; nothing else is known of it"


def test_a_small_map_has_many_weights_for_few_positions():
    found = words(layer_time("late", 5.0), bounds=[bound("late", 1.25)])
    assert found["late"].endswith(
        "compute-bound: 44.5 mult-adds a byte; "
        "small map: its 1,000,000 weights are read for 49 positions"
    )


def test_float_between_layers_in_int8():
    times = [layer_time("pw", 5.0, precision="float32"), layer_time("dw", 1.0)]
    found = words(*times, layer_time("late", 1.0))
    assert found["pw"].endswith(
        "computed in float32, most other layers in int8; 125 mult-adds a byte"
    )
    assert "float" not in found["dw"]
    found = words(*(layer_time(name, 1.0, precision="float32") for name in ("pw", "dw", "late")))
    assert "computed in" not in " ".join(found.values())


def test_by_prefix_the_neighbours_that_came_out_too_short_are_named():
    times = [layer_time("dw", 0.01), layer_time("pw", 5.0), layer_time("late", None)]
    bounds = [bound("dw", 0.1, PASSED), bound("pw", 1.0), bound("late", 1.0, NOT_TIMED)]
    found = words(*times, bounds=bounds, by="prefix")
    assert found["pw"].endswith("by prefix, what dw and late took may be counted here")
    assert "by prefix" not in words(*times, bounds=bounds)["pw"]
    bounds = [bound("dw", 0.001), bound("pw", 1.0), bound("late", 1.0)]
    assert "by prefix" not in words(*times, bounds=bounds, by="prefix")["pw"]


def test_what_fell_back():
    found = words(layer_time("pw", 1.0, precision="float32"), fallbacks=["pw"])
    assert "is in 8 bits but was computed in float32" in found["pw"]


def test_a_layer_that_passed_its_bound_or_has_no_time_lost_nothing():
    times = [layer_time("pw", 1.0), layer_time("dw", None)]
    assert words(*times, bounds=[bound("pw", 1.1, PASSED)]) == {}
