"""An examination as text and as JSON, by the published schema."""

import json
import os
from importlib.resources import files
from pathlib import Path

import fastjsonschema
import pytest

from edgenet.board.doctor import examine
from edgenet.board.machine import Machine
from edgenet.board.target import load_target, parse_target
from edgenet.board.tree import documented, open_tree
from edgenet.report.doctor import doctor_document, doctor_text

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def valid():
    schema = (files("edgenet.schemas") / "doctor.schema.json").read_bytes()
    return fastjsonschema.compile(json.loads(schema))


def document(found):
    made = doctor_document(found, source="a test", command=["edgenet", "doctor"])
    return json.loads(json.dumps(made))


def nulls_without_reason(entry):
    if isinstance(entry, list):
        return [found for item in entry for found in nulls_without_reason(item)]
    if not isinstance(entry, dict):
        return []
    here = [
        name
        for name, value in entry.items()
        if value is None and name != "failure" and not entry.get(f"{name}_reason")
    ]
    return here + [found for value in entry.values() for found in nulls_without_reason(value)]


@pytest.mark.parametrize("name", documented())
def test_documented_boards(valid, name):
    with open_tree(name) as machine:
        made = document(examine(machine))
    assert valid(made)
    assert nulls_without_reason(made) == []
    assert made["board"]["target_verified_on_hardware"] is False


RK3588 = """
title = "my board"
verified_on_hardware = false
[recognised]
model = "RK3588"
files = ["/etc/orangepi-release"]
[[runtimes]]
name = "litert"
install = "pip install 'edgenet[litert]'"
why = "small"
[[sensors]]
kind = "load"
[threads]
cores = "all"
advice = "all"
"""


def test_a_target_that_is_not_this_machine_is_used_and_says_so(valid):
    mine = parse_target(RK3588, name="mine", origin="mine.toml")
    with open_tree("laptop") as machine:
        found = examine(machine, mine)
    told = "mine recognises RK3588 or /etc/orangepi-release; this is Example laptop (x86_64)"
    lines = doctor_text(found, source="a test").splitlines()
    assert lines[1:3] == ["target      mine (not verified on hardware)", f"            {told}"]
    made = document(found)
    assert valid(made)
    assert (made["board"]["target"], made["board"]["target_mismatch"]) == ("mine", told)


@pytest.mark.parametrize("target", ["x86", "linux", None])
def test_a_target_that_recognises_the_machine_is_no_mismatch(target):
    with open_tree("laptop") as machine:
        found = examine(machine, target and load_target(target))
    assert "recognises" not in doctor_text(found, source="a test")
    assert "target_mismatch" not in document(found)["board"]


def test_this_machine(valid):
    made = document(examine(Machine()))
    assert valid(made)
    assert nulls_without_reason(made) == []


def test_the_least_there_can_be(valid, tmp_path):
    made = document(examine(Machine(tmp_path)))
    assert valid(made)
    assert nulls_without_reason(made) == []


@pytest.mark.parametrize("name", documented())
def test_the_text_is_as_published(name):
    """Golden files: run with EDGENET_UPDATE_GOLDEN=1 to accept a change, and read the diff."""
    with open_tree(name) as machine:
        text = doctor_text(examine(machine), source="a documented tree, no machine") + "\n"
    golden = GOLDEN / f"doctor_{name}.txt"
    if os.environ.get("EDGENET_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def test_the_schema_refuses(valid):
    with open_tree("pi_4") as machine:
        made = document(examine(machine))
    del made["verdict"]["fit"]
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        valid(made)
