"""`edgenet compare` from the command line: what it prints, what it ends with, what it refuses."""

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import fastjsonschema
import pytest
from stored_profiles import profile_document, profile_record, write_document

from edgenet.cli import run

FIVE = (5.0, 5.05, 4.95, 5.02, 4.98)
EVALUATE = "evaluate bundle --runtime litert,onnxruntime --precision float32,int8"


@pytest.fixture(scope="module")
def valid():
    schema = (files("edgenet.schemas") / "comparison.schema.json").read_bytes()
    return fastjsonschema.compile(json.loads(schema))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with records of one launch and of five."""
    monkeypatch.chdir(tmp_path)
    sides = {
        "base": profile_record(),
        "new": profile_record(launches_ms=[5.3], wrong=[1]),
        "base5": profile_record(launches_ms=FIVE),
        "same5": profile_record(launches_ms=[ms * 1.001 for ms in FIVE]),
        "slow5": profile_record(launches_ms=[ms * 1.2 for ms in FIVE], wrong=range(30)),
        "threads": profile_record(threads=2),
        "hot": profile_record(throttled=True),
        "litert": profile_record(runtime="litert"),
    }
    for name, record in sides.items():
        write_document(Path(f"{name}.json"), profile_document(record))
    whole = Path("base.json").read_text()
    Path("cut.json").write_text(whole[: len(whole) // 2])
    Path("text.json").write_text("hello")
    Path("list.json").write_text("[]")
    write_document(Path("old.json"), profile_document(schema_version="0.9"))
    write_document(Path("future.json"), profile_document(schema_version="2.0"))
    Path("bundle").mkdir()
    Path("bundle/manifest.json").write_text("{}")
    return tmp_path


def output(capsys, line, code=0):
    assert run(line.split()) == code
    return capsys.readouterr()


def test_without_limits_it_reports(folder, capsys):
    out = output(capsys, "compare base.json new.json").out
    assert "BASE base.json: profile of" in out
    assert re.search(r"inference p50, ms +5\.\d\d \(5\.\d\d-5\.\d\d\) .*cannot tell", out)
    assert re.search(r"top-1, % +100\.00 \(57/57\) +98\.25 \(56/57\) +-1\.75 points", out)
    assert "edgenet profile NEW --against BASE" in out
    assert "top-1 lost on 1 and gained on 0 of 57 images; McNemar p = 1" in out


HOLDS = "compare base5.json same5.json --max-slowdown 5% --max-drop 7"


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        (HOLDS, 0, None),
        (HOLDS.replace("5%", "5"), 0, None),
        ("compare base5.json slow5.json --max-slowdown 5%", 1, "gates: 2 failed"),
        ("compare base5.json slow5.json --max-drop 10", 1, "gates: 1 failed"),
        ("compare base5.json slow5.json --max-drop 10 --allow-undecided", 1, "gates: 1 failed"),
        ("compare base.json new.json --max-slowdown 5%", 1, "gates: 2 undecided"),
        ("compare base.json new.json --max-slowdown 5% --allow-undecided", 0, None),
        (HOLDS.replace("drop 7", "drop 0.5"), 1, "gates: 1 undecided, 2 held"),
    ],
)
def test_a_gate_decides_how_it_ends(folder, capsys, line, code, told):
    out, err = output(capsys, line, code)
    assert err == (
        "" if told is None else f"edgenet: {' against '.join(line.split()[2:0:-1])}: {told}\n"
    )
    assert "slowdown at most 5 %" in out or "drop at most" in out


def test_an_undecided_gate_says_what_it_needs(folder, capsys):
    out = output(capsys, "compare base.json base.json --max-drop 0.5", 1).out
    assert "about 765 images, to show that it holds; these are 57" in out


def test_unlike_conditions_are_refused_unless_allowed(folder, capsys):
    out, err = output(capsys, "compare base.json hot.json --max-drop 7", 1)
    assert out == ""
    assert "were not measured alike: throttled no against yes (onnxruntime int8)." in err
    out = output(capsys, "compare base.json hot.json --max-drop 7 --allow-unlike").out
    assert "UNLIKE: throttled no against yes (onnxruntime int8)" in out
    document = json.loads(output(capsys, "compare base.json hot.json --allow-unlike --json").out)
    assert [found["condition"] for found in document["unlike"]] == ["throttled"]


@pytest.mark.parametrize(
    "line",
    [
        "compare base.json new.json",
        "compare base5.json slow5.json --max-slowdown 5% --max-drop 1",
        "compare base.json threads.json --allow-unlike --max-slowdown 3",
    ],
)
def test_json_follows_the_published_schema(folder, capsys, valid, line):
    run([*line.split(), "--json", "-o", "deep/found.json"])
    printed = json.loads(capsys.readouterr().out)
    assert valid(printed)
    assert printed == json.loads(Path("deep/found.json").read_text("utf-8"))
    assert printed["command"][0] == "edgenet"
    (pair,) = printed["pairs"]
    assert {change["verdict"] for change in pair["latency"]} <= {"cannot tell", "slower"}


def test_markdown_is_tables_that_names_cannot_break(folder, capsys):
    shutil.copy("base.json", "a|b_c*.json")
    out = output(capsys, "compare base.json a|b_c*.json --max-slowdown 5 --markdown", 1).out
    lines = out.splitlines()
    assert lines[0] == "### edgenet compare: gates: 2 undecided"
    assert r"a\|b\_c\*.json" in out
    tables = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {7, 8}
    assert "<details>" in out
    bare = output(capsys, "compare base5.json slow5.json --markdown").out
    assert bare.startswith("### edgenet compare: slower 4, worse 1\n")


BAD = [
    ("none.json base.json", 2, "none.json: no such file; give a record"),
    ("bundle base.json", 2, "bundle: is a bundle; give the record of a measurement, .*records/"),
    (". base.json", 2, "is a folder; give the record"),
    ("base.json", 2, r"base.json: is one record alone \(profile\); give NEW too"),
    (
        "base.json new.json --max-slowdown fast",
        2,
        "--max-slowdown 'fast' is no limit; give percent",
    ),
    ("base.json new.json --max-slowdown -1", 2, "--max-slowdown '-1' is no limit"),
    ("base.json new.json --max-slowdown nan", 2, "--max-slowdown 'nan' is no limit"),
    (
        "base.json new.json --max-drop inf",
        2,
        "--max-drop 'inf' is no limit; give percentage points",
    ),
    ("base.json new.json --max-drop 101", 2, "--max-drop '101' is no limit; give .* up to 100"),
    ("base.json new.json --markdown --json", 2, "--markdown and --json exclude each other"),
    ("base.json new.json -o bundle", 2, "bundle: is a folder; give -o"),
    ("text.json base.json", 1, "text.json: is no whole JSON document"),
    ("list.json base.json", 1, "list.json: is JSON, but no record"),
    ("base.json cut.json", 1, "cut.json: is no whole JSON document"),
    ("old.json base.json", 1, r"old.json: schema 0.9 is not the 1.x that this edgenet reads; mea"),
    ("base.json future.json", 1, "future.json: schema 2.0 is not the 1.x .*; upgrade edgenet"),
    ("base.json litert.json", 1, "nothing in common: base.json has onnx.*; litert.json has litert"),
    ("base.json threads.json", 1, r"threads 1 against 2 \(onnxruntime int8\).*--allow-unlike"),
]


@pytest.mark.parametrize(("line", "code", "message"), BAD, ids=[line for line, *_ in BAD])
def test_bad_input_is_one_line(folder, capsys, line, code, message):
    before = sorted(folder.rglob("*"))
    out, err = output(capsys, f"compare {line}", code)
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "bug in" not in err
    assert re.search(message, err)
    assert sorted(folder.rglob("*")) == before


def test_a_record_may_come_through_a_pipe(folder):
    """As the shell's <(git show main:base.json) does."""
    with subprocess.Popen(["cat", folder / "base.json"], stdout=subprocess.PIPE) as child:
        assert run(["compare", f"/dev/fd/{child.stdout.fileno()}", "base.json"]) == 0


def memory(peak, before):
    return profile_record(memory={"peak_rss_bytes": peak, "before_load_bytes": before})


def test_memory_is_what_the_artefact_adds(folder, capsys, valid):
    """Two environments with the same versions: other libraries are in the page cache."""
    write_document(Path("one.json"), profile_document(memory(109_700_000, 77_900_000)))
    write_document(Path("other.json"), profile_document(memory(82_300_000, 50_900_000)))
    out = output(capsys, "compare one.json other.json").out
    assert re.search(r"added memory +31.80 MB +31.40 MB +-1.3 %", out)
    assert "peak memory" not in out
    document = json.loads(output(capsys, "compare one.json other.json --json").out)
    valid(document)
    assert document["pairs"][0]["added_bytes"] == {"base": 31_800_000, "new": 31_400_000}
    assert "added_bytes_reason" not in document["pairs"][0]


def test_memory_is_the_peak_where_that_is_all_there_is(folder, capsys, valid):
    write_document(Path("one.json"), profile_document(memory(109_700_000, None)))
    out = output(capsys, "compare one.json base.json").out
    assert re.search(r"peak memory +109.7\d* MB +91.00 MB", out)
    assert "peak memory in place of what the artefact adds, because one side does not tell" in out
    document = json.loads(output(capsys, "compare one.json base.json --json").out)
    valid(document)
    assert document["pairs"][0]["added_bytes"] == {"base": None, "new": 57_000_000}
    assert "before loading" in document["pairs"][0]["added_bytes_reason"]


BEYOND_BASE = (
    *("cv2", "PIL", "torch", "onnx", "safetensors", "flatbuffers"),
    *("onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime"),
    *("starlette", "uvicorn", "segno", "prometheus_client", "paho"),
)


@pytest.mark.parametrize(
    "line",
    [
        "compare base5.json same5.json --max-slowdown 5% -o out.json",
        "compare base5.json same5.json --markdown",
        "compare base5.json same5.json --json",
    ],
)
def test_the_base_install_is_enough(folder, line):
    """A CI machine that only judges records has neither OpenCV nor a runtime."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({BEYOND_BASE!r}))\n"
        f"from edgenet.cli import run; sys.exit(run({line.split()!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "same5.json" in done.stdout


def test_records_of_evaluate(small_bundle, tmp_path, monkeypatch, capsys):
    """Real ones: the same images again, then fewer of them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_bundle.root, "bundle")
    for name, limit in (("base", 60), ("again", 60), ("fewer", 40)):
        assert run([*EVALUATE.split(), "--limit", str(limit), "-o", f"{name}.json"]) == 0
    capsys.readouterr()
    out = output(capsys, "compare base.json again.json --max-drop 10").out
    assert out.count("no difference") == 4
    assert out.count("60 of 60") == 4
    err = output(capsys, "compare base.json fewer.json", 1).err
    assert "images 60 against 40" in err
    err = output(capsys, "compare base.json again.json --max-drop 10 --max-slowdown 5", 1).err
    assert "gates: 4 undecided, 4 held" in err
    allowed = output(capsys, "compare base.json fewer.json --allow-unlike --json").out
    shared = {pair["accuracy"]["n"] for pair in json.loads(allowed)["pairs"]}
    assert len(shared) == 1
    assert shared.pop() <= 40
