"""Every command: its help, its JSON, and that starting costs nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenet.cli import app, run

COMMANDS = [command.name for command in app.registered_commands]
GOLDEN = Path(__file__).parent / "golden"


def test_commands():
    assert COMMANDS == [
        "summary",
        "convert",
        "classify",
        "inspect",
        "evaluate",
        "diagnose",
        "verify",
        "profile",
        "compare",
        "doctor",
        "camera",
        "playlist",
        "deploy",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_as_published(command):
    """Golden files: run with EDGENET_UPDATE_GOLDEN=1 to accept a change, and read the diff."""
    done = subprocess.run(
        [sys.executable, "-m", "edgenet", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb"},
    )
    assert "Examples:" in done.stdout
    golden = GOLDEN / f"{command}.txt"
    if os.environ.get("EDGENET_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(done.stdout)
    assert done.stdout == golden.read_text()


def one_document(capsys, line):
    assert run(line) == 0
    return json.loads(capsys.readouterr().out)


def test_summary_json(capsys):
    document = one_document(capsys, ["summary", "--json"])
    assert document["mult_adds"] == 568_740_352
    assert len(document["layers"]) == 28
    assert sum(row["mult_adds"] for row in document["layers"]) == document["mult_adds"]
    models = one_document(capsys, ["summary", "--all", "--json"])["models"]
    assert len(models) == 16
    assert models[0]["paper"]["mult_adds_millions"] == 569


def test_summary_text(capsys):
    assert run(["summary", "--width-multiplier", "0.5", "--resolution", "160"]) == 0
    assert "76,524,800" in capsys.readouterr().out


def test_convert_classify_inspect_evaluate(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("boot.png", np.full((28, 28, 3), 30, np.uint8))
    line = ["convert", "--weights", "fashion-mnist", "-o", "b", "--runtime", "litert,onnxruntime"]
    made = one_document(capsys, [*line, "--precision", "float32", "--precision", "int8", "--json"])
    assert len(made["manifest"]["artifacts"]) == 4
    inspected = one_document(capsys, ["inspect", "b", "--json"])
    operators = inspected.pop("operators")
    assert inspected == made
    assert [entry["artifact"]["sha256"] for entry in operators] == [
        artifact["sha256"] for artifact in made["manifest"]["artifacts"]
    ]
    assert all({op["precision"] for op in entry["operators"]} for entry in operators)
    document = one_document(capsys, ["classify", "b", "boot.png", "--top", "2", "--json"])
    (image,) = document["images"]
    assert image["artifact"]["precision"] == "float32"
    assert len(image["labels"]) == 2
    Path("text.jpg").write_text("no picture")
    assert run(["classify", "b", "text.jpg", "boot.png", "--json"]) == 1
    shown = capsys.readouterr()
    assert len(json.loads(shown.out)["images"]) == len(json.loads(shown.out)["unreadable"]) == 1
    assert "text.jpg: is not a picture" in shown.err
    line = ["evaluate", "b", "--limit", "50", "--json"]
    evaluated = one_document(capsys, line)
    assert evaluated["data"] == {"name": "fashion-mnist", "n": 50, "unreadable": []}
    for record in evaluated["records"]:
        assert record["bundle_sha256"] == made["bundle_sha256"]
        assert record["accuracy"]["n"] == len(record["predictions"]) == 50
        assert record["latency"] is None
        assert record["latency_reason"]
    (saved,) = Path("records").iterdir()
    assert json.loads(saved.read_text())["records"] == evaluated["records"]
    assert run(["convert", "--weights", "fashion-mnist", "-o", "b", "--force"]) == 0


def test_starting_loads_nothing_heavy():
    code = (
        "import sys\nfrom edgenet.cli import run\nrun(sys.argv[1:])\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'ai_edge_litert', 'cv2', 'numpy'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    for line in (["--help"], ["convert", "--help"], ["--version"], ["summary"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *line], capture_output=True, text=True, check=True
        )
        assert done.stderr.strip() == "[]"


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("edgenet 0.")


def test_a_closed_pipe_is_no_bug():
    done = subprocess.run(
        f"{sys.executable} -m edgenet summary | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
