"""The worst layers in words."""

from edgenet.bundle import LayerWork
from edgenet.measure.explain import worst
from edgenet.measure.layers import BETWEEN, LayerTime, LayerTimes
from edgenet.measure.roofline import PASSED, Bound
from edgenet.runtimes import OperatorReport, OperatorTime


def work(name, kind, *, mult_adds=0, weights=0, values=1000):
    return LayerWork(
        name=name, kind=kind, mult_adds=mult_adds, weights=weights, read=values, written=values
    )


LAYERS = (
    work("stem", "convolution", mult_adds=10_000),
    work("dw", "depthwise convolution", mult_adds=9000),
    work("pw", "pointwise convolution", mult_adds=1_000_000),
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


def words(*times, bounds=(), fallbacks=()):
    found = worst(
        LayerTimes(by="profiler", layers=times, resolution_ms=0.001), bounds, LAYERS, fallbacks
    )
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
    assert found["pw"] == "5 ms, compute allows 1.2 (25%)"
    found = words(layer_time("pw", 5.0), bounds=[bound("pw", 0.01)])
    assert found["pw"] == "5 ms, compute allows 0.01 (below 1%)"


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


def test_what_fell_back():
    found = words(layer_time("pw", 1.0, precision="float32"), fallbacks=["pw"])
    assert "is in 8 bits but was computed in float32" in found["pw"]


def test_a_layer_that_passed_its_bound_or_has_no_time_lost_nothing():
    times = [layer_time("pw", 1.0), layer_time("dw", None)]
    assert words(*times, bounds=[bound("pw", 1.1, PASSED)]) == {}
