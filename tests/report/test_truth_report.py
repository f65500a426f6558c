"""Live accuracy as text and as JSON that follows its published schema, whatever is known."""

import json
from dataclasses import replace
from importlib.resources import files

import fastjsonschema
import pytest

from edgenet.bundle import Artifact, Precision
from edgenet.measure.accuracy import Accuracy, Proportion
from edgenet.measure.statistics import PairedDifference, summarise
from edgenet.report.truth import running_line, truth_fields, truth_text
from edgenet.stream.truth import (
    IS_REFERENCE,
    NOT_FED,
    NOTHING_SCORED,
    OTHER_MACHINE,
    ClassScore,
    DirectAnswer,
    FrameCounts,
    Losses,
    PictureScore,
    Running,
    TruthReport,
)

FLOAT = Artifact(
    runtime="onnxruntime",
    precision=Precision.FLOAT32,
    files=("float32.onnx",),
    size_bytes=1,
    sha256="a" * 64,
)


def accuracy(right, right5, n):
    return Accuracy(top1=Proportion(right=right, n=n), top5=Proportion(right=right5, n=n))


NOTHING = TruthReport(
    playlist="photographs",
    pictures_in_playlist=57,
    frames=FrameCounts(total=30, unlabelled=30),
    guard=2,
    frames_right=None,
    live=None,
    window=None,
    window_length=50,
    classes=(),
    pictures=(),
    other_pixels=0,
    unreadable=0,
    calibrated_on=0,
    direct=None,
    reference=None,
    reference_artifact=None,
    losses=None,
    losses_reason=NOT_FED,
    draw_to_label=None,
    draw_to_label_reason=OTHER_MACHINE,
    clock_offset_ms=None,
    reading=None,
)
WHOLE = replace(
    NOTHING,
    frames=FrameCounts(total=2000, scored=1500, guarded=300, unlabelled=80, without_picture=120),
    frames_right=Proportion(right=1000, n=1500),
    live=accuracy(36, 48, 57),
    window=accuracy(31, 42, 50),
    classes=(
        ClassScore(label="orange", n=2, right=0, direct_right=1),
        ClassScore(
            label="killer whale, killer, orca | grey whale, devilfish", n=1, right=0, direct_right=1
        ),
        ClassScore(label="bee", n=1, right=1, direct_right=1),
    ),
    pictures=(
        PictureScore(
            sample_id=3,
            name="bee.png",
            accepted=frozenset({310}),
            frames=26,
            top=(310, 309, 1, 2, 3),
            direct=DirectAnswer(
                image_sha256="b" * 64, top=(310, 309, 1, 2, 3), reference_top=(310, 2, 3, 4, 5)
            ),
        ),
    ),
    other_pixels=1,
    calibrated_on=2,
    direct=accuracy(40, 50, 57),
    reference=accuracy(41, 50, 57),
    reference_artifact=FLOAT,
    losses=Losses(
        camera=PairedDifference(n=57, lost=5, gained=1),
        quantisation=PairedDifference(n=57, lost=1, gained=0),
        both=PairedDifference(n=57, lost=6, gained=1),
        quantisation_reason=None,
    ),
    losses_reason=None,
    draw_to_label=summarise([40_000_000 + 10_000 * step for step in range(300)]),
    draw_to_label_reason=None,
    clock_offset_ms=12.5,
    reading=summarise([200_000] * 300),
)


@pytest.fixture(scope="module")
def valid():
    schema = (files("edgenet.schemas") / "truth.schema.json").read_bytes()
    return fastjsonschema.compile(json.loads(schema))


def as_json(report):
    return json.loads(json.dumps(truth_fields(report), allow_nan=False))


def every_null_has_its_reason(fields):
    for name, value in fields.items():
        if value is None and name not in ("reference_artifact", "clock_offset_ms", "variant"):
            assert fields[f"{name}_reason"]
        elif isinstance(value, dict):
            every_null_has_its_reason(value)


def test_all_that_is_known(valid):
    fields = as_json(WHOLE)
    assert valid(fields)
    every_null_has_its_reason(fields)
    assert fields["live"]["n"] == 57
    assert fields["losses"]["camera"]["points"] == pytest.approx(-400 / 57)
    assert fields["pictures"][0]["reference_top5"] == [310, 2, 3, 4, 5]


def test_nothing_that_is_known(valid):
    fields = as_json(NOTHING)
    assert valid(fields)
    every_null_has_its_reason(fields)
    assert (fields["live"], fields["live_reason"]) == (None, NOTHING_SCORED)
    assert fields["draw_to_label_ms_reason"] == OTHER_MACHINE


def test_the_reference_itself(valid):
    losses = replace(WHOLE.losses, quantisation=None, both=None, quantisation_reason=IS_REFERENCE)
    report = replace(WHOLE, losses=losses)
    fields = as_json(report)
    assert valid(fields)
    assert fields["losses"]["both_reason"] == IS_REFERENCE
    text = truth_text(report)
    assert "no loss to quantisation: the artefact is the reference" in text
    assert "directly  " not in text.split("top-1 lost to")[0].replace("fed directly", "")


def test_the_schema_refuses(valid):
    fields = as_json(WHOLE)
    fields["losses"]["camera"]["lost"] = -1
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        valid(fields)


def test_text():
    text = truth_text(WHOLE)
    for words in (
        "live                           57    63.16  50.2-74.5    84.21",
        "live, the last 50              50    62.00",
        "the same, fed directly         57    70.18",
        "onnxruntime float32, directly  57    71.93",
        "camera (live - direct)              -7.02  -17.56 to +1.88     5       1  no difference",
        "quantisation (direct - reference)   -1.75   -9.29 to +4.67     1       0  no difference",
        "orange                     2           0               1",
        "killer whale | grey whale  1",
        "frames: 2000, of which 1500 scored, 300 within 2 of a change, 80 without a marker",
        "left out: 1 picture, stored otherwise here than where it was shown",
        "INT8 was calibrated on 2 of these pictures",
        "draw to label: p50 41.5 ms, p95 42.8 ms of 300 frames, from the drawing, not from the "
        "light of a screen, with a stated offset of 12.5 ms between the clocks",
        "reading a marker: p50 0.20 ms",
    ):
        assert words in text
    assert "bee" not in text


def test_text_without_anything():
    text = truth_text(NOTHING)
    assert f"no accuracy: {NOTHING_SCORED}" in text
    assert f"draw to label: not known; {OTHER_MACHINE}" in text
    assert "top-1 lost to" not in text


def test_other_data_are_pointed_out():
    frames = FrameCounts(total=30, other_playlist=30)
    text = truth_text(replace(NOTHING, frames=frames))
    assert "30 frames had the marker of other data; give --truth the DATA" in text


def test_a_line_while_it_runs():
    running = Running(
        top1=Proportion(right=36, n=57),
        top5=Proportion(right=48, n=57),
        window_top1=Proportion(right=31, n=50),
    )
    assert running_line(running) == (
        "top-1 63.2 % (50.2-74.5) of 57 pictures, 62.0 % of the last 50"
    )
