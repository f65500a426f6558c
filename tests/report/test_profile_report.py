"""What a profile says beside its figures: of soaks, of neighbours, of answers nobody can judge."""

import json
from dataclasses import replace
from importlib.resources import files

import fastjsonschema
import numpy as np
import pytest

from edgenet.board.detect import detect
from edgenet.board.machine import Machine
from edgenet.board.sampling import Energy
from edgenet.board.state import READINGS, State
from edgenet.bundle import Precision
from edgenet.measure.evaluate import ArtifactResult, Evaluation, Picture
from edgenet.measure.launch import Opened
from edgenet.measure.profile import NO_LAYERS, InferenceEnergy, Measured, Memory, Plan, Profile
from edgenet.measure.timing import Paced, WarmUp
from edgenet.report.profile import profile_text
from edgenet.report.profile_record import profile_document

RATE = 30.0


def paced(ms, *, seconds=60.0, missed=0):
    """Return runs at 30 frames a second."""
    count = round(RATE * seconds) - missed
    return Paced(
        samples_ns=np.full(count, round(ms * 1e6)).tolist(),
        frames_per_second=RATE,
        missed=missed,
        reachable_per_second=900 / ms,
    )


def measured(bundle, **changes):
    state = State(unknown=dict.fromkeys(READINGS, "no sensor"))
    (artifact,) = (
        each
        for each in bundle.artifacts
        if (each.runtime, each.precision) == ("litert", Precision.INT8)
    )
    usual = Measured(
        artifact=artifact,
        threads=1,
        opened=Opened(
            device="CPU",
            version="ai-edge-litert 2",
            load_ns=1,
            first_inference_ns=1,
            before_load_bytes=1,
            affinity=(0,),
        ),
        warm_up=WarmUp(runs=10, seconds=1.0, stable=True),
        memory=Memory(before_load_bytes=1, peak_bytes=2),
        back_to_back_ns=[4_000_000] * 1000,
        waited_share=0.0,
        paced=paced(4.4, seconds=10),
        soak=(),
        before=state,
        during=(),
        after=state,
        sensor_problems=(),
        energy="no sensor",
        layers=NO_LAYERS,
        complete=True,
    )
    return replace(usual, **changes)


@pytest.fixture(scope="module")
def shown(small_bundle):
    """Returns text and JSON of one measured artefact, the JSON checked against the schema."""
    schema = (files("edgenet.schemas") / "record.schema.json").read_bytes()
    valid = fastjsonschema.compile(json.loads(schema))

    def show(*, soak_minutes=0, evaluation="not asked", **changes):
        found = measured(small_bundle, **changes)
        profile = Profile(
            plan=Plan(soak_minutes=soak_minutes, layers=False),
            pictures="golden pictures",
            measured=(found,),
            not_run=(),
            peaks=(),
            idle_w=None,
            complete=found.complete,
        )
        board, command = detect(Machine(), None), ["edgenet", "profile", "bundle"]
        made = profile_document(small_bundle, profile, evaluation, board=board, command=command)
        text = profile_text(
            small_bundle, profile, evaluation, board=board, command=command, every_layer=False
        )
        document = json.loads(json.dumps(made))
        valid(document)
        return text, document["records"][0]

    return show


def test_a_whole_soak(shown):
    text, record = shown(soak_minutes=2, soak=(paced(4.4), paced(6.6, missed=30)))
    assert "soak of 2 minutes: p50 4.4 ms in the first, 6.6 ms in the last (1.500 times)" in text
    assert "0 and 30 frames missed" in text
    assert record["soak"]["minutes"] == record["soak"]["asked_minutes"] == 2
    assert record["soak"]["p50_ratio"] == pytest.approx(1.5)
    assert [minute["missed"] for minute in record["soak"]["by_minute"]] == [0, 30]
    for name, field in (("soak_first_minute", "first_minute"), ("soak_last_minute", "last_minute")):
        samples = record["samples_ns"][name]
        assert len(samples) == record["soak"][field]["n"]
        assert np.median(samples) / 1e6 == record["soak"][field]["p50"]


def test_a_soak_that_was_cut_short_in_its_second_minute(shown):
    minutes = paced(4.4), paced(4.8, seconds=12)
    text, record = shown(soak_minutes=3, soak=minutes, complete=False)
    assert (
        "soak stopped after 1.2 of 3 minutes: p50 4.4 ms in the first, 4.8 ms in the last" in text
    )
    assert (record["soak"]["minutes"], record["soak"]["asked_minutes"]) == (1, 3)
    assert len(record["samples_ns"]["soak_last_minute"]) == 360


def test_a_soak_that_was_cut_short_in_its_first_minute(shown):
    text, record = shown(soak_minutes=2, soak=(paced(4.4, seconds=30),), complete=False)
    assert "soak stopped after 0.5 of 2 minutes: p50 4.4 ms" in text
    assert "no second to compare" in text
    assert record["soak"]["minutes"] == 0
    assert record["soak"]["p50_ratio"] is None
    assert record["soak"]["p50_ratio_reason"] == "there is no second minute"
    assert "soak_last_minute" not in record["samples_ns"]


def test_no_soak(shown):
    text, record = shown()
    assert "soak" not in text
    assert record["soak_reason"] == "not asked for; --soak MINUTES does it"
    text, record = shown(soak_minutes=2, complete=False)
    assert record["soak_reason"] == "interrupted before"


def test_a_quiet_machine_is_not_remarked(shown):
    text, record = shown(waited_share=0.01)
    assert "others" not in text
    assert record["waited_share"] == 0.01


def test_neighbours_are_remarked(shown):
    text, record = shown(waited_share=0.31)
    assert "litert int8, 1 thread: others had the processor for 31% of the time" in text
    assert record["waited_share"] == 0.31
    _, record = shown(waited_share=None)
    assert record["waited_share_reason"] == "the kernel does not count it"


@pytest.mark.parametrize(
    ("alone_ms", "paced_ms", "words"),
    [
        (23.8, 12.4, "p50 23.8 ms back to back and 12.4 ms at 30/s: others were at work, or it"),
        (4.1, 7.6, "p50 4.1 ms back to back and 7.6 ms at 30/s: clocks fall between frames"),
        (4.1, 5.3, None),
        (0.1, 0.3, None),
    ],
)
def test_two_medians_that_do_not_fit_together(shown, alone_ms, paced_ms, words):
    text, _ = shown(back_to_back_ns=[round(alone_ms * 1e6)] * 1000, paced=paced(paced_ms))
    assert words in text if words else "back to back and" not in text


def answers(bundle, *, accepted=frozenset(), agreement=None):
    found = measured(bundle).artifact
    return Evaluation(
        dataset="golden pictures",
        pictures=(Picture(image_sha256="0" * 64, accepted=accepted),),
        unreadable=(),
        reference=None,
        results=(
            ArtifactResult(
                artifact=found,
                device="CPU",
                version="ai-edge-litert 2",
                accuracy=None,
                agreement=agreement,
                tops=((0, 1, 2, 3, 4),),
            ),
        ),
        not_run=(),
    )


def test_answers_that_nobody_can_judge_are_not_called_right(shown, small_bundle):
    """As on a board without labelled pictures, of a bundle without a float artefact."""
    text, _ = shown(evaluation=answers(small_bundle))
    assert "*" not in text
    assert "no accuracy: the pictures have no labels; give labelled ones with --data" in text
    assert "no agreement: no float artefact could run beside it" in text
    assert "int8 when it was converted: top-1 agreed with float on " in text


@pytest.mark.parametrize(
    ("gross_mj", "above_mj", "told"),
    [
        (20.5, -4.05e-15, "20.5 mJ an inference, 0.0 mJ above idle (2.5 W)"),
        (20.5, 3.14159, "20.5 mJ an inference, 3.1 mJ above idle (2.5 W)"),
        (0.0512, -0.00004, "0.0512 mJ an inference, 0.0000 mJ above idle (2.5 W)"),
        (4321.0, 1234.0, "4.32e+03 mJ an inference, 1230 mJ above idle (2.5 W)"),
        (0.0, 0.0, "0 mJ an inference, 0.00 mJ above idle (2.5 W)"),
    ],
)
def test_energy_above_idle_is_no_finer_than_what_was_measured(shown, gross_mj, above_mj, told):
    window = Energy(seconds=4.0, gross_mj=gross_mj, above_idle_mj=above_mj, readings=40)
    text, _ = shown(energy=InferenceEnergy(window=window, runs=1, idle_w=2.5, source="VDD_IN"))
    assert f"{told}; of VDD_IN" in text
