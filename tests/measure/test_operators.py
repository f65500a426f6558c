"""What is counted as computing, and in what."""

import pytest
from conftest import convert_quietly

from edgenet.bundle import Precision
from edgenet.convert.limits import Int8Options
from edgenet.convert.pipeline import select_targets
from edgenet.measure.operators import ArtifactOperators, report_operators
from edgenet.quantize.recipe import Recipe, load_recipe
from edgenet.report.inspection import operator_document, operator_text
from edgenet.runtimes import OperatorReport

LAYERS = 29
"""28 with weights, and the mean."""


@pytest.fixture(scope="module")
def full_integer(fashion, tmp_path_factory):
    return convert_quietly(
        fashion,
        tmp_path_factory.mktemp("full") / "bundle",
        targets=select_targets((), (Precision.INT8,)),
        int8=Int8Options(recipe=load_recipe("minmax"), full_integer=True),
    )


def by_label(bundle):
    return {report.artifact.label: report for report in report_operators(bundle)}


def test_a_float_model_computes_in_float(small_bundle):
    """Neither the cast of the input counts nor weights that are expanded."""
    reports = by_label(small_bundle)
    for label in ("onnxruntime float32", "openvino float32", "litert float32"):
        assert set(reports[label].by_precision) == {"float32"}, label
    assert set(reports["litert float16"].by_precision) == {"float32"}
    assert set(reports["openvino float16"].by_precision) == {"float32"}


def test_full_integer_computes_in_int8(full_integer):
    """But for LiteRT's logits, which are the sum of several rows; that one is named."""
    reports = by_label(full_integer)
    assert dict(reports["onnxruntime int8"].by_precision) == {"int8": LAYERS}
    assert dict(reports["openvino int8"].by_precision) == {"int8": LAYERS}
    assert dict(reports["litert int8"].by_precision) == {"int8": LAYERS, "float32": 1}
    rows = operator_text(report_operators(full_integer), every=False).splitlines()
    (row,) = (row for row in rows if row.startswith("litert"))
    assert row.endswith("float32 1, int8 29; not in int8: SUM logits")
    assert sum("not in int8" in row for row in rows if "tensorrt" not in row) == 1


def test_the_layers_in_float_are_named_and_many_are_counted(fashion, tmp_path):
    recipe = Recipe(ranges="minmax", learned_rounding=False)  # leaves noise to take away
    bundle = convert_quietly(fashion, tmp_path / "b", int8=Int8Options(recipe=recipe))
    (layer,) = bundle.quantizations[0].float_layers
    reports = by_label(bundle)
    rows = operator_text(list(reports.values()), every=False).splitlines()
    (row,) = (row for row in rows if row.startswith("onnxruntime  int8 ") and "tensorrt" not in row)
    assert f"not in int8: Conv {layer}" in row
    (row,) = (row for row in rows if "tensorrt" in row)
    others = reports["onnxruntime int8 tensorrt"].by_precision["float32"]
    assert row.endswith(f", {others - 4} more")


def test_what_a_runtime_has_no_integers_for_is_named(full_integer):
    """ONNX Runtime computes hard-swish in float, between what turns bytes to float and back."""
    (artifact,) = (a for a in full_integer.artifacts if a.label == "onnxruntime int8")
    kinds = {"QLinearConv": "int8", "DequantizeLinear": "int8", "HardSwish": "float32"}
    report = ArtifactOperators(
        artifact=artifact,
        operators=tuple(
            OperatorReport(name=f"act_{place}", kind=kind, precision=precision)
            for place, (kind, precision) in enumerate(kinds.items())
        ),
        reason=None,
    )
    text = operator_text([report], every=False)
    assert text.endswith("float32 1, int8 1; not in int8: HardSwish act_2")


def test_json_tells_which_compute(full_integer):
    entries = operator_document(report_operators(full_integer))
    for entry in entries:
        counted = [op for op in entry["operators"] if op["computes"]]
        assert sum(entry["by_precision"].values()) == len(counted) < len(entry["operators"])
