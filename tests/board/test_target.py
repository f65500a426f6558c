"""One suite for every target, and what is said about files that are wrong."""

import json
import re
from importlib.resources import files

import pytest

from edgenet import runtimes
from edgenet.board.sensors import KINDS, power_sensors
from edgenet.board.target import load_target, parse_target, targets
from edgenet.errors import BadTarget, UsageError

MINE = """
title = "my board"
verified_on_hardware = true
[recognised]
model = "^My Board"
[[runtimes]]
name = "litert"
install = "pip install 'edgenet[litert]'"
why = "small"
[[sensors]]
kind = "thermal_zones"
soc = "soc"
[threads]
cores = "fastest"
advice = "two big ones"
"""


@pytest.fixture(params=targets())
def target(request):
    return load_target(request.param)


def test_targets():
    assert targets() == ("jetson", "linux", "raspberry_pi", "x86")


def test_what_a_target_promises(target):
    assert target.title
    assert target.threads.cores in ("fastest", "all")
    assert not target.verified_on_hardware
    kinds = [sensor.kind for sensor in target.sensors]
    assert {"load", "cpufreq", "thermal_zones"} <= set(kinds)
    assert len(power_sensors(target)) <= 1


def test_installs_are_extras_that_exist(target):
    pyproject = (files("edgenet.targets") / "../pyproject.toml").read_text("utf-8")
    for choice in target.runtimes:
        for extra in re.findall(r"edgenet\[([\w,-]+)\]", choice.install):
            assert all(f"\n{name} = [" in pyproject for name in extra.split(","))


def test_bands_say_who_published_them(target):
    for band in target.latency_bands:
        assert 0 < band.low_ms <= band.high_ms
        assert "edgenet" not in band.published_by
        assert re.search("ncnn|XNNPACK", band.published_by)


def test_each_has_its_readme(target):
    readme = (files("edgenet.targets") / target.name / "README.md").read_text("utf-8")
    assert "verified on" in readme
    assert "hardware" in readme


def test_the_schema_knows_the_kinds_and_the_runtimes():
    schema = json.loads((files("edgenet.schemas") / "target.schema.json").read_bytes())
    assert schema["definitions"]["kind"]["enum"] == list(KINDS)
    known = schema["properties"]["runtimes"]["items"]["properties"]["name"]["enum"]
    assert set(runtimes.names()) - {"null"} <= set(known)


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "mine.toml").write_text(MINE)
    mine = load_target(str(tmp_path / "mine.toml"))
    assert (mine.name, mine.title, mine.camera) == ("mine", "my board", None)
    assert mine.sensors[0].soc == "soc"


def test_facts_and_bands_go_by_the_models_name():
    target = load_target("raspberry_pi")
    facts = target.facts_of("Raspberry Pi 5 Model B Rev 1.0")
    assert facts and facts.chip == "BCM2712"
    assert target.facts_of("Another Board") is None
    bands = target.bands_of("Raspberry Pi 4 Model B Rev 1.5")
    assert {(band.precision, band.threads, band.low_ms) for band in bands} >= {("int8", 4, 24.0)}


WRONG = [
    (
        'title = "my board"',
        'title = "a"\nfrob = 1',
        "unknown key 'frob': choose from title, verified",
    ),
    ('title = "my board"', "", "lacks 'title': it needs title, verified_on_hardware"),
    ('title = "my board"', "title = 3", "title is 3, expected a text in quotes"),
    ("= true", '= "yes"', 'verified_on_hardware is "yes", expected true or false'),
    ('model = "^My Board"', 'model = "("', r'recognised.model is "\(", expected a regular expr'),
    ('model = "^My Board"', 'modle = "x"', "unknown key 'modle' in recognised: choose from model"),
    ('"litert"', '"tflite"', r'runtimes\[0\].name is "tflite", expected one of onnxruntime, open'),
    (
        '"thermal_zones"',
        '"thermometer"',
        r'sensors\[0\].kind is "thermometer", expected one of load',
    ),
    ('soc = "soc"', "", r"lacks 'soc' in sensors\[0\]: it needs soc"),
    (
        'soc = "soc"',
        'sock = "soc"',
        r"lacks 'soc' in sensors\[0\], has the unknown key 'sock': it needs soc",
    ),
    ('title = "my board"', 'titel = "a"', "lacks 'title', has the unknown key 'titel': it needs"),
    ('soc = "soc"', "soc = 3", r"sensors\[0\].soc is 3, expected a text in quotes"),
    ('soc = "soc"', 'soc = "soc"\nchips = []', r"unknown key 'chips' in sensors\[0\]: choose from"),
    ('"fastest"', '"big"', 'threads.cores is "big", expected one of fastest, all'),
    ("[threads]", "[threads", r"is not TOML \(.*line"),
    (
        "[threads]",
        '[camera]\nuri = "csi://0"\nwidth = 0\nheight = 1\nfps = 1\n[threads]',
        "camera.width is 0, expected at least 1",
    ),
    ("[[runtimes]]", "[runtimes]", r"runtimes is \{.*\}, expected a list in brackets"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_bad_files(right, wrong, message):
    text = MINE.replace(right, wrong, 1)
    assert text != MINE
    with pytest.raises(BadTarget, match=f"^mine.toml: {message}") as caught:
        parse_target(text, name="mine", origin="mine.toml")
    assert len(str(caught.value).splitlines()) == 1


def test_no_such_target(tmp_path):
    with pytest.raises(UsageError, match=r"no target 'pi': choose from jetson, linux, rasp.*TOML"):
        load_target("pi")
    (tmp_path / "mine.toml").write_bytes(b"\xff")
    with pytest.raises(BadTarget, match="is not UTF-8 text"):
        load_target(str(tmp_path / "mine.toml"))
