"""doctor, detection and a quick profile on real aarch64, as a user would run them there.

What is timed there says nothing about a board, and both commands must say so themselves.
"""

import json

import pytest
from conftest import convert_quietly

from edgenet.bundle import Precision
from edgenet.convert.pipeline import WRITERS

FOLDER = "/tmp/test-on-the-board"


@pytest.fixture(scope="module")
def bundle(fashion, tmp_path_factory):
    """INT8 for each runtime, small enough to be copied in a second."""
    int8 = [each for each in WRITERS if each.precision is Precision.INT8 and not each.variant]
    return convert_quietly(fashion, tmp_path_factory.mktemp("board") / "int8", targets=int8)


@pytest.fixture(scope="module")
def diagnosis(pi5):
    return json.loads(pi5.run("edgenet doctor --json"))


def test_the_board_is_recognised(diagnosis):
    board = diagnosis["board"]
    assert board["target"] == "raspberry_pi"
    assert board["model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert board["architecture"] == "aarch64"
    assert board["processors"] == ["Cortex-A76", "Cortex-A76"]
    assert "asimddp" in board["features"]


def test_every_runtime_really_loads_there(diagnosis):
    loads = {each["name"]: each["works"] for each in diagnosis["runtimes"]}
    assert {name for name, does in loads.items() if does} >= {"onnxruntime", "openvino", "litert"}


def test_it_is_not_fit_to_measure_on(diagnosis):
    """It has no throttle bits and no clocks, and an emulator's time is no board's."""
    assert diagnosis["verdict"]["fit"] == "no"
    assert any("emulat" in reason for reason in diagnosis["verdict"]["reasons"])
    assert diagnosis["state"]["throttled"] is None
    assert diagnosis["state"]["throttled_reason"]


def test_a_quick_profile_of_each_runtime(pi5, bundle):
    pi5.copy(bundle.root, FOLDER)
    found = json.loads(
        pi5.run(f"edgenet profile {FOLDER} --quick --duration 1 --layers off --json -o /tmp/p.json")
    )
    assert found["kind"] == "profile"
    assert found["machine"] == "aarch64"
    assert found["board"]["emulated"] is True
    assert found["not_run"] == []
    records = {record["artifact"]["runtime"]: record for record in found["records"]}
    assert records.keys() == {"onnxruntime", "openvino", "litert"}
    for record in records.values():
        assert record["quick"] is True
        assert record["complete"] is True
        assert record["latency"]["inference_ms"]["p50"] > 0
        assert len(record["samples_ns"]["inference"]) >= 50
        assert record["memory"]["peak_rss_bytes"] > record["memory"]["before_load_bytes"]
        assert record["throttled"] is None
        assert record["throttled_reason"]
        assert record["energy_mj"] is None
        assert record["predictions"]
    assert "EMULATED" in pi5.run(f"edgenet profile {FOLDER} --runtime null --quick --layers off")
