"""`edgenet doctor` from the command line."""

import json
import re

import pytest

from edgenet.cli import run


def test_ends_with_0_whatever_it_finds(capsys):
    assert run(["doctor", "--tree", "pi_4"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Raspberry Pi 4 Model B Rev 1.5: a documented tree, no machine\n")
    assert "not verified on hardware" in out
    assert "fit to measure on: with care" in out


def test_json_is_one_document(capsys):
    assert run(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["source"] == "this machine"


def test_record_and_look_at_it_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["doctor", "--record", "mine.tar.gz", "--json"]) == 0
    here, err = capsys.readouterr()
    assert "recorded: mine.tar.gz" in err
    assert run(["doctor", "--tree", "mine.tar.gz", "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    differ = {"source", "created", "command"}
    here = json.loads(here)
    assert {name for name in here if here[name] != there[name]} <= differ
    assert there["source"] == "a recorded tree, no machine"


def test_a_target_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(
        'title = "mine"\nverified_on_hardware = true\n[recognised]\n'
        '[[runtimes]]\nname = "litert"\ninstall = "make install"\nwhy = "it is there"\n'
        '[[sensors]]\nkind = "load"\n[threads]\ncores = "all"\nadvice = "all of them"\n'
    )
    assert run(["doctor", "--target", "mine.toml", "--tree", "orin_nano", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["board"]["target"] == "mine"
    assert [check["name"] for check in document["runtimes"]] == ["litert"]
    assert document["state"]["load_1min"] == 0.31
    assert document["state"]["power_w"] is None


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("doctor --tree nowhere", 2, "no tree 'nowhere': give what doctor --record wrote, or one"),
        ("doctor --target nothing", 2, "no target 'nothing': choose from jetson, linux"),
        ("doctor --tree pi_4 --record x.tar.gz", 2, "--record is for this machine"),
        ("doctor --record there", 2, "there: is there already; give --record another name"),
        ("doctor --record no/where.tar.gz", 2, "/no: is no folder"),
        ("doctor --target bad.toml", 1, r"bad\.toml: title is 3, expected a text in quotes"),
        ("doctor --tree there", 1, r"there: has no tree\.json"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, line, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "bad.toml").write_text(
        'title = 3\nverified_on_hardware = true\n[recognised]\n[threads]\ncores = "all"\n'
        'advice = "x"\n[[runtimes]]\nname = "litert"\ninstall = "x"\nwhy = "x"\n[[sensors]]\n'
        'kind = "load"\n'
    )
    assert run(line.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert re.search(message, err)
