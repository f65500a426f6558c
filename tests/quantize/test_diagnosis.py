"""The doctor: a healthy network is told from a damaged one, and the damage by its layer's name."""

import copy
import json
import shutil
from dataclasses import replace
from importlib.resources import files

import fastjsonschema
import pytest
import torch
from conftest import Silent

from edgenet.bundle import QUANTIZATION, Precision
from edgenet.cli import run
from edgenet.convert.diagnose import diagnose
from edgenet.convert.limits import Int8Options
from edgenet.convert.pipeline import select_targets
from edgenet.data import fashion_mnist, photographs
from edgenet.errors import BadData, ConversionFailed
from edgenet.quantize.recipe import Recipe
from edgenet.report.diagnosis import diagnosis_text

ONNX = select_targets(("onnxruntime",), (Precision.FLOAT32, Precision.INT8))


@pytest.fixture(scope="module")
def healthy(small_bundle):
    return diagnose(small_bundle, progress=Silent())


def test_the_last_step_is_the_bundle(healthy, small_bundle):
    judged = small_bundle.quantizations[0]
    last = healthy.steps[-1].agreement
    assert (healthy.form, healthy.notes) == ("int8", ())
    assert last.sqnr_db == pytest.approx(judged.sqnr_db, abs=1e-6)
    assert (last.top1.right, last.top1.n) == (judged.agreement_right, judged.images)


def test_what_corrections_bought(healthy):
    sqnr = {step.name: step.agreement.sqnr_db for step in healthy.steps}
    assert sqnr["plain, one weight scale a tensor"] < sqnr["plain, one weight scale a channel"] - 6
    assert sqnr["+ bias correction"] > sqnr["+ equalisation"]
    assert all(step.accuracy is None for step in healthy.steps)
    assert healthy.no_accuracy is not None


def test_layers_of_a_healthy_network(healthy, fashion):
    values = [layer.sqnr_db for layer in healthy.layers]
    assert values == sorted(values)
    assert {layer.name for layer in healthy.layers} >= {
        layer.name for layer in fashion.module.layers
    }
    assert sum(layer.noise_share for layer in healthy.layers) == pytest.approx(1, abs=0.05)
    for layer in healthy.layers:
        assert layer.own_sqnr_db > layer.sqnr_db - 3, layer.name
        assert layer.cosine > 0.99
        assert (layer.precision == "float32") == (layer.name in healthy.float_layers)
    assert not [finding for finding in healthy.findings if finding.kind == "poor"]


def damaged(reference):
    """Return the same function with half of conv_dw_5's channels a thousand times larger."""
    module = copy.deepcopy(reference.module)
    norm, reader = module.conv_dw_5.bn, module.conv_pw_5.conv
    with torch.no_grad():
        norm.weight[::2] *= 1000
        norm.bias[::2] *= 1000
        reader.weight[:, ::2] /= 1000
    return replace(reference, module=module)


def test_a_damaged_layer_is_named(make_bundle, fashion, progress):
    recipe = Recipe(ranges="minmax", equalise=False)
    bundle = make_bundle(damaged(fashion), targets=ONNX, int8=Int8Options(recipe=recipe))
    found = diagnose(bundle, progress=progress)
    worst = min(found.layers, key=lambda layer: layer.own_sqnr_db)
    assert worst.name == "conv_pw_5"
    assert worst.own_sqnr_db < 20
    (maker,) = (layer for layer in found.layers if layer.name == "conv_dw_5")
    assert maker.output_ratio > 500
    assert maker.weight_ratio > 500
    assert maker.channels_sqnr_db < maker.sqnr_db - 20
    text = diagnosis_text(found)
    assert "conv_pw_5: alone in 8 bits, on exact inputs, it keeps only" in text
    assert "share a scale" in text
    assert "conv_dw_5: channel ranges of its weights differ" in text
    assert [step.name for step in found.steps if "equalisation" in step.name] == []


def test_equalisation_undoes_the_damage(make_bundle, fashion, healthy, progress):
    found = diagnose(make_bundle(damaged(fashion), targets=ONNX), progress=progress)
    (maker,) = (layer for layer in found.layers if layer.name == "conv_dw_5")
    assert maker.equalised_ratio < maker.output_ratio / 50
    assert found.steps[-1].agreement.sqnr_db > healthy.steps[-1].agreement.sqnr_db - 3
    sqnr = {step.name: step.agreement.sqnr_db for step in found.steps}
    assert sqnr["+ equalisation"] > sqnr["plain, one weight scale a channel"] + 10


def test_another_form_is_refused(small_bundle, tmp_path, progress):
    shutil.copytree(small_bundle.root, tmp_path / "b")
    path = tmp_path / "b" / QUANTIZATION
    written = json.loads(path.read_text())
    written["forms"]["int8"]["tensors"]["conv_pw_3"]["scale"] *= 1.001
    path.write_text(json.dumps(written))
    with pytest.raises(ConversionFailed, match="does not come out again: tensor conv_pw_3 has"):
        diagnose(replace(small_bundle, root=tmp_path / "b"), progress=progress)


def test_other_weights_are_refused(small_bundle, make_bundle, fashion, tmp_path, progress):
    """Integers that no rounding explains, under the same scales."""
    recipe = Recipe(ranges="minmax", learned_rounding=False)
    other = make_bundle(fashion, targets=ONNX, int8=Int8Options(recipe=recipe))
    shutil.copytree(small_bundle.root, tmp_path / "b")
    (artifact,) = small_bundle.select(("onnxruntime",), (Precision.INT8,))
    (theirs,) = other.select(("onnxruntime",), (Precision.INT8,))
    shutil.copy(other.path(theirs), tmp_path / "b" / artifact.files[0])
    with pytest.raises(ConversionFailed, match=r"8-bit weights of .* differ"):
        diagnose(replace(small_bundle, root=tmp_path / "b"), progress=progress)


def test_other_images_are_refused(small_bundle, progress):
    with pytest.raises(BadData, match=r"lacks 128 of the 128 images .* 'fashion-mnist training"):
        diagnose(small_bundle, calibration=photographs.calibration_set(), progress=progress)
    identity = replace(small_bundle.calibration, name="mine")
    with pytest.raises(BadData, match=r"'mine' .* give it with --calibration"):
        diagnose(replace(small_bundle, calibration=identity), progress=progress)


def test_images_are_found_in_any_order(small_bundle, progress, healthy):
    dataset = fashion_mnist.calibration_set()
    turned = replace(dataset, samples=dataset.samples[::-1])
    assert diagnose(small_bundle, calibration=turned, progress=progress).layers == healthy.layers


def test_what_a_bundle_needs(make_bundle, fashion, capsys):
    integer = make_bundle(fashion, "i", targets=select_targets(("litert",), (Precision.INT8,)))
    real = make_bundle(fashion, "f", targets=select_targets(("litert",), (Precision.FLOAT32,)))
    for bundle, message in (
        (integer, "has no float32 ONNX file"),
        (real, "has no INT8 form to diagnose"),
    ):
        assert run(["diagnose", str(bundle.root)]) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        assert message in line
        assert "convert again with" in line
    assert run(["diagnose", str(integer.root), "--limit", "3"]) == 2


def test_json(small_bundle, capsys):
    schema = json.loads((files("edgenet.schemas") / "diagnosis.schema.json").read_bytes())
    valid = fastjsonschema.compile(schema)
    line = ["diagnose", str(small_bundle.root), "--form", "int8-tensorrt", "--json"]
    assert run([*line, "--data", "fashion-mnist", "--limit", "40"]) == 0
    made = valid(json.loads(capsys.readouterr().out))
    assert (made["form"], made["steps_judged"]["n"]) == ("int8-tensorrt", 40)
    assert made["reference"]["accuracy"]["n"] == 40
    assert all(step["accuracy"]["n"] == 40 for step in made["steps"])
    made["layers"][0]["precision"] = "int4"
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        valid(made)
