"""Operators' times on the network's layers, whatever runtimes call them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.bundle import LayerWork, Output
from edgenet.measure.layers import BETWEEN, fallbacks, fold, owner
from edgenet.runtimes import OperatorReport, OperatorTime, OperatorTimes

NAMES = ("stem", "conv_pw_1", "conv_pw_10", "conv_pw", "pool", "fc")


def work(name, **changes):
    fields = {"kind": "convolution", "mult_adds": 1, "weights": 1, "read": 1, "written": 1}
    return LayerWork(name=name, **{**fields, **changes})


LAYERS = tuple(work(name) for name in NAMES)


def operator_time(name, duration_ns=1000.0, *, kind="Conv", precision="int8"):
    report = OperatorReport(name=name, kind=kind, precision=precision)
    return OperatorTime(operator=report, duration_ns=duration_ns)


def folded(*times, layers=LAYERS, by="profiler"):
    return fold(OperatorTimes(by=by, resolution_ns=1000.0, times=times), layers)


@pytest.mark.parametrize(
    ("operator", "layer"),
    [
        ("stem", "stem"),
        ("stem.float/WithoutBiases", "stem"),
        ("stem_quant", "stem"),
        ("stems", BETWEEN),
        ("conv_pw_1", "conv_pw_1"),
        ("conv_pw_10", "conv_pw_10"),
        ("conv_pw_1_0", "conv_pw_1"),
        ("conv_pw_100", "conv_pw"),  # no layer of that number: the name before its mark
        ("conv_pw_10.linear_f32_u8_pool", "conv_pw_10"),
        ("fused fc.linear", "fc"),
        ("logits", "fc"),
        ("logits/softmax", "fc"),
        ("logits2", BETWEEN),
        ("Transpose_3", BETWEEN),
        ("", BETWEEN),
    ],
)
def test_owner(operator, layer):
    assert owner(operator, NAMES) == layer


def test_a_layer_that_is_called_like_the_output():
    assert owner("logits.bias", ["stem", "logits"]) == "logits"


def test_an_output_belongs_to_the_layer_that_makes_it():
    made_by = {"scores": "pool", "stem": "fc", "boxes_1": "conv_pw"}
    assert owner("scores", NAMES, made_by) == "pool"
    assert owner("scores/Transpose", NAMES, made_by) == "pool"
    assert owner("boxes_1_0", NAMES, made_by) == "conv_pw"
    assert owner("stem", NAMES, made_by) == "stem"  # a layer's own name comes first
    assert owner("logits", NAMES, made_by) == BETWEEN


def test_an_output_of_a_layer_that_the_manifest_does_not_list():
    outputs = (Output(name="scores", shape=(1, 3), layer="gone"), Output(name="map", shape=(1, 3)))
    times = (operator_time("scores"), operator_time("map"))
    found = fold(OperatorTimes(by="profiler", resolution_ns=1.0, times=times), LAYERS, outputs)
    assert [layer.layer for layer in found.layers] == [BETWEEN]


def test_nothing_has_an_owner_without_layers():
    assert owner("stem", []) == BETWEEN
    assert owner("logits", []) == BETWEEN


names = st.text("ab_./1", min_size=1, max_size=6)


@given(layers=st.lists(names, min_size=1, max_size=6, unique=True), operator=names)
def test_an_owner_is_the_longest_that_fits(layers, operator):
    found = owner(operator, layers)
    fitting = [
        name
        for name in layers
        if operator == name or any(operator.startswith(name + mark) for mark in "./_")
    ]
    assert found == (max(fitting, key=len) if fitting else BETWEEN)


@given(
    layers=st.lists(names, min_size=1, max_size=6, unique=True),
    operators=st.lists(st.tuples(names, st.floats(0, 1e9)), max_size=12),
)
def test_no_time_is_lost_and_none_counts_twice(layers, operators):
    times = folded(
        *(operator_time(name, ns) for name, ns in operators), layers=[work(n) for n in layers]
    )
    assert times.total_ms == pytest.approx(sum(ns for _, ns in operators) / 1e6)
    assert sum(len(layer.operators) for layer in times.layers) == len(operators)


def test_fold_keeps_the_networks_order_and_what_lies_between_last():
    times = folded(
        operator_time("Reorder", 500),
        operator_time("fc", 2000),
        operator_time("stem.scale", 100, kind="Mul", precision="float32"),
        operator_time("stem", 3000),
        operator_time("stem.weight", 4000, kind="DequantizeLinear", precision="int32"),
    )
    assert [layer.layer for layer in times.layers] == ["stem", "fc", BETWEEN]
    stem = times.layers[0]
    assert stem.duration_ms == pytest.approx(0.0071)
    assert stem.precision == "int8"  # of what computes longest
    kinds = [time.operator.kind for time in stem.operators]
    assert kinds == ["Mul", "Conv", "DequantizeLinear"]
    assert times.resolution_ms == 0.001


def test_a_time_within_the_noise_is_unknown_and_not_nothing():
    times = folded(
        operator_time("stem", None),
        operator_time("fc", 2000),
        operator_time("fc.bias", None),
        by="prefix",
    )
    stem, fc = times.layers
    assert stem.duration_ms is None
    assert fc.duration_ms == 0.002
    assert times.total_ms == 0.002


def test_fallbacks():
    times = folded(
        operator_time("stem", precision="float32"),
        operator_time("conv_pw_1", precision="float32"),
        operator_time("conv_pw_10"),
        operator_time("pool", precision="float32"),
        operator_time("Cast", precision="float32"),
    )
    assert fallbacks(times, ("conv_pw_1", "conv_pw_10", "fc")) == ("conv_pw_1",)
    assert fallbacks(times, ()) == ()
