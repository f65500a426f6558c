"""What INT8 cost and which limits it kept: in the manifest, in words, and in older bundles."""

import json
from dataclasses import replace

import pytest
from conftest import Silent, convert_quietly

from edgenet.bundle import DECIBEL, MANIFEST, POINTS, LimitResult
from edgenet.convert.limits import Int8Options
from edgenet.convert.pipeline import select_targets
from edgenet.data import fashion_mnist
from edgenet.manifest import load_bundle
from edgenet.quantize.recipe import load_recipe
from edgenet.report.inspection import bundle_text, quantization_text

LAYERS = 28


def limited(fashion, folder, progress, **limits):
    return convert_quietly(
        fashion,
        folder / "bundle",
        targets=select_targets(("litert",), ()),
        int8=Int8Options(
            recipe=load_recipe("minmax"),
            labelled=fashion_mnist.test_set().draw(50, seed=3),
            **limits,
        ),
        progress=progress,
    )


@pytest.fixture(scope="module")
def strict(fashion, tmp_path_factory):
    """A bundle that had to put most layers back, and what its conversion said."""
    progress = Silent()
    folder = tmp_path_factory.mktemp("strict")
    bundle = limited(fashion, folder, progress, min_sqnr_db=55, max_drop_points=1)
    return bundle, progress


def test_limits_and_what_was_reached_are_recorded(strict):
    bundle, _ = strict
    (int8,) = bundle.quantizations
    nearness, accuracy = int8.limits
    assert (nearness.option, nearness.unit, nearness.asked) == ("--min-sqnr", DECIBEL, 55)
    assert nearness.reached == int8.sqnr_db >= 55
    assert (nearness.judged_on, nearness.images) == (int8.judged_on, int8.images)
    assert (accuracy.option, accuracy.unit, accuracy.asked) == ("--max-drop", POINTS, 1)
    assert accuracy.reached <= 1
    assert (accuracy.judged_on, accuracy.images) == ("fashion-mnist", 50)
    assert nearness.holds and accuracy.holds
    assert int8.weighted_layers == LAYERS
    entry = json.loads((bundle.root / MANIFEST).read_text("utf-8"))["quantizations"][0]
    assert [limit["option"] for limit in entry["limits"]] == ["--min-sqnr", "--max-drop"]


def test_they_are_told(strict):
    bundle, _ = strict
    (int8,) = bundle.quantizations
    first, judged, nearness, accuracy = quantization_text(bundle).splitlines()
    assert first.startswith(f"int8: {len(int8.float_layers)} of 28 layers in float: ")
    assert judged.strip().startswith(f"logits {int8.sqnr_db:.1f} dB, top-1 agrees on ")
    assert nearness == (
        f"  --min-sqnr 55: {int8.sqnr_db:.2f} dB on held-out calibration images (n = 32)"
    )
    assert accuracy.startswith("  --max-drop 1: top-1 ")
    assert accuracy.endswith(" points on fashion-mnist (n = 50)")
    assert nearness.strip() in bundle_text(bundle)


def test_mostly_float_is_warned_of(strict, fashion, tmp_path):
    bundle, progress = strict
    count = len(bundle.quantizations[0].float_layers)
    assert count > LAYERS / 2
    (warning,) = (text for text in progress.warnings if "mostly" in text)
    assert warning.startswith(
        f"int8 is mostly float: --min-sqnr 55 and --max-drop 1 put {count} of 28 layers back"
    )
    easy = Silent()
    limited(fashion, tmp_path, easy, min_sqnr_db=20)
    assert not [text for text in easy.warnings if "mostly" in text]


def test_a_miss_and_a_gain_have_their_words(strict):
    bundle, _ = strict
    (int8,) = bundle.quantizations
    drop = LimitResult(
        option="--max-drop", unit=POINTS, asked=1, reached=-0.5, judged_on="set", images=9
    )
    for limit, text in (
        (drop, "--max-drop 1: top-1 rises by 0.50 points on set (n = 9)"),
        (
            replace(drop, reached=2.0),
            "--max-drop 1: top-1 falls by 2.00 points on set (n = 9), MISSED",
        ),
        (
            replace(drop, option="--min-sqnr", unit=DECIBEL, asked=30, reached=29.5),
            "--min-sqnr 30: 29.50 dB on set (n = 9), MISSED",
        ),
        (
            replace(drop, option="--min-sqnr", unit=DECIBEL, asked=30, reached=None),
            "--min-sqnr 30: the same logits on set (n = 9)",
        ),
    ):
        told = quantization_text(replace(bundle, quantizations=(replace(int8, limits=(limit,)),)))
        assert told.splitlines()[-1].strip() == text


def test_without_limits_nothing_is_said_of_them(small_bundle):
    text = quantization_text(small_bundle)
    assert [line.partition(":")[0] for line in text.splitlines() if line[0] != " "] == [
        "int8",
        "int8-tensorrt",
    ]
    assert "--" not in text
    assert "int8: integer throughout" in text


def test_a_manifest_of_1_1_loads_and_is_told(strict, tmp_path):
    bundle, _ = strict
    path = bundle.root / MANIFEST
    before = path.read_bytes()
    manifest = json.loads(before)
    manifest["schema_version"] = "1.1"
    for entry in manifest["quantizations"]:
        del entry["limits"], entry["weighted_layers"]
    try:
        path.write_text(json.dumps(manifest))
        (int8,) = load_bundle(bundle.root).quantizations
        assert (int8.limits, int8.weighted_layers, int8.is_mostly_float) == ((), None, False)
        assert quantization_text(load_bundle(bundle.root)).startswith("int8: in float: ")
    finally:
        path.write_bytes(before)
