"""`edgenet profile NEW --against BASE`, and `edgenet compare` on what it wrote."""

import json
import re
import shutil
from importlib.resources import files
from pathlib import Path

import fastjsonschema
import pytest
from stored_profiles import profile_document, write_document

from edgenet.cli import run

NULL = "profile new --against base --runtime null"


@pytest.fixture(scope="module")
def folder(small_bundle, tmp_path_factory):
    """Two bundles of one content, and what one comparison of them wrote."""
    root = tmp_path_factory.mktemp("against")
    for name in ("base", "new"):
        shutil.copytree(small_bundle.root, root / name)
    return root


@pytest.fixture(scope="module")
def compared(folder):
    """What a comparison in turns prints, and its record in `found.json`."""
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    try:
        assert run([*NULL.split(), "--launches", "5", "-o", "found.json"]) == 0
    finally:
        patch.undo()
    return json.loads((folder / "found.json").read_bytes())


@pytest.fixture
def here(folder, compared, monkeypatch):
    """Work in the folder with the comparison."""
    monkeypatch.chdir(folder)
    return compared


def test_the_record_is_as_published(here):
    schema = json.loads((files("edgenet.schemas") / "comparison.schema.json").read_bytes())
    fastjsonschema.compile(schema)(here)
    (pair,) = here["pairs"]
    assert len(pair["launches"]) == 5
    assert [here[name]["path"] for name in ("base", "new")] == ["base", "new"]
    assert pair["latency"][0]["ratio"]["launches"] == 5
    assert pair["accuracy_reason"] == "nothing is computed"
    assert here["command"][0] == "edgenet"


def test_compare_judges_it_alone(here, capsys):
    assert run(["compare", "found.json"]) == 0
    assert "took turns: 5 launches of 20 rounds" in capsys.readouterr().out
    line = "compare found.json --max-slowdown 1000% --markdown -o again.json"
    assert run(line.split()) == 0
    assert capsys.readouterr().out.startswith("### edgenet compare: gates: 1 ")
    (gate,) = json.loads(Path("again.json").read_bytes())["gates"]
    assert gate["figure"] in ("inference_ms own", "inference_ms p50")
    assert run(["compare", "again.json", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["pairs"] == here["pairs"]
    assert again["interleaving"] == here["interleaving"]


def scaled(document, factor):
    """The document as it would be if NEW took so many times as long."""
    (pair,) = document["pairs"]
    launches = [
        {
            **launch,
            "rounds_own_ms": None,
            "rounds_p50_ms": [[base, factor * base] for base, _ in launch["rounds_p50_ms"]],
        }
        for launch in pair["launches"]
    ]
    return {**document, "pairs": [{**pair, "launches": launches}]}


@pytest.mark.parametrize(
    ("factor", "options", "code", "told"),
    [
        (1.01, "--max-slowdown 5%", 0, None),
        (1.10, "--max-slowdown 5%", 1, "new against base: gates: 1 failed"),
        (1.01, "--max-drop 1", 1, "new against base: gates: 1 undecided"),
        (1.01, "--max-drop 1 --allow-undecided", 0, None),
    ],
)
def test_gates_decide_how_it_ends(here, capsys, factor, options, code, told):
    write_document(Path("scaled.json"), scaled(here, factor))
    assert run(["compare", "scaled.json", *options.split()]) == code
    assert capsys.readouterr().err == ("" if told is None else f"edgenet: {told}\n")


def test_what_was_throttled_is_refused_unless_allowed(here, capsys):
    unlike = {"condition": "throttled", "base": "yes", "new": "yes", "artifact": None}
    write_document(Path("hot.json"), {**here, "unlike": [unlike]})
    assert run(["compare", "hot.json"]) == 1
    assert "base and new were not measured alike: throttled yes" in capsys.readouterr().err
    assert run(["compare", "hot.json", "--allow-unlike"]) == 0
    assert "UNLIKE: throttled yes against yes" in capsys.readouterr().out


BAD = [
    ("profile new --against none", 2, "none: no such folder"),
    ("profile new --launches 9", 2, "--launches is of a comparison: give --against"),
    (f"{NULL} --launches 4", 2, "Invalid value for .--launches.: .*5"),
    (f"{NULL} --soak 5", 2, "--soak does not go with --against: profile each bundle by itself"),
    (
        f"{NULL} --quick",
        2,
        "--quick does not go with --against: it has its own rules, .*--launches",
    ),
    (f"{NULL} --layers all", 2, "--layers does not go with --against"),
    (f"{NULL} --threads 4096", 2, "--threads '4096': give whole numbers"),
    (f"{NULL} -o new", 2, "new: is a folder; give -o"),
    (f"{NULL} --data none", 2, "none"),
    ("compare profile.json", 2, r"profile.json: is one record alone \(profile\)"),
    ("compare found.json profile.json", 1, "found.json: is a comparison of two bundles"),
    ("compare stored.json", 1, "is a comparison of stored records; compare these again: base new"),
    ("compare damaged.json", 1, "damaged.json: is damaged"),
]


@pytest.mark.parametrize(("line", "code", "message"), BAD, ids=[line for line, *_ in BAD])
def test_bad_input_is_one_line(here, capsys, line, code, message):
    write_document(Path("profile.json"), profile_document())
    write_document(Path("stored.json"), {**here, "interleaving": None})
    write_document(Path("damaged.json"), {**here, "pairs": [{}]})
    assert run(line.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "bug in" not in err
    assert re.search(message, err)
