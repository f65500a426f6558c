"""Bad input gets one line that says what is wrong, the right exit code, and leaves nothing."""

import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from safetensors.torch import save_file

from edgenet.bundle import MANIFEST
from edgenet.cli import run
from edgenet.models.mobilenet_v1 import MobileNetV1


@pytest.fixture
def place(small_bundle, tmp_path, monkeypatch):
    """A folder with a bundle and files of every kind; the working folder of the test."""
    shutil.copytree(small_bundle.root, tmp_path / "bundle")
    picture = np.full((40, 50, 3), 120, np.uint8)
    cv2.imwrite(str(tmp_path / "good.jpg"), picture)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:300])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "set.csv").write_text("file,label\ngood.jpg,Zeppelin\n")
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    save_file(MobileNetV1(0.25, 64, 3).state_dict(), tmp_path / "quarter.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(
        (tmp_path / "quarter.safetensors").read_bytes()[:99_999]
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


CASES = [
    ("classify bundle none.jpg", 2, "none.jpg: no such file"),
    ("classify bundle empty", 2, "empty: is a folder; give pictures"),
    ("classify bundle cut.jpg", 1, "cut.jpg: is cut off"),
    ("classify bundle text.jpg", 1, "text.jpg: is not a picture"),
    ("classify bundle good.jpg --top 0", 2, "--top"),
    ("classify bundle", 2, "Missing argument"),
    ("classify nowhere good.jpg", 2, "no such folder"),
    ("classify empty good.jpg", 1, "is not a bundle"),
    ("classify bundle good.jpg --runtime tensorflow", 2, "unknown runtime 'tensorflow'"),
    ("classify bundle good.jpg --precision int4", 2, "unknown precision 'int4'"),
    ("evaluate bundle --data set.csv", 1, "set.csv line 2: label 'Zeppelin'"),
    ("evaluate bundle --data nowhere", 2, "no data at 'nowhere'"),
    ("evaluate bundle --data empty", 1, "no sub-folders"),
    ("evaluate bundle --data=", 2, "no data at ''"),
    ("evaluate bundle --limit 0", 2, "--limit"),
    ("convert -o out --width-multiplier 0", 2, "width multiplier 0 is out of range"),
    ("convert -o out --width-multiplier 2", 2, "width multiplier 2 is out of range"),
    ("convert -o out --width-multiplier nan", 2, "width multiplier"),
    ("convert -o out --width-multiplier 0.5", 2, "no imagenet weights"),
    ("convert -o out --resolution 17", 2, "resolution 17 is out of range"),
    ("convert -o out --resolution abc", 2, "--resolution"),
    ("convert -o out --runtime tensorflow", 2, "unknown runtime"),
    ("convert -o out --precision half", 2, "unknown precision"),
    ("convert -o out --weights nothing", 2, "no weights called 'nothing'"),
    ("convert nothing.safetensors -o out", 2, "nothing.safetensors"),
    ("convert damaged.safetensors -o out", 1, "should end at byte"),
    ("convert quarter.safetensors -o out", 1, "--activation relu6|relu"),
    ("convert -o out --weights quarter.safetensors --width-multiplier 0.5", 1, "not 0.5"),
    ("convert -o out --labels none.txt", 2, "none.txt"),
    ("convert -o out --labels labels.txt", 1, "1001"),
    ("convert -o out --calibration nowhere", 2, "nowhere"),
    ("convert -o out --calibration empty", 1, "holds no pictures"),
    ("convert -o out --samples 0", 2, "--samples"),
    ("convert -o bundle", 2, "exists"),
    ("convert -o empty --force", 2, "empty"),
    ("convert -o good.jpg --force", 2, "good.jpg"),
    ("convert -o good.jpg/out", None, "good.jpg"),
    ("convert -o /proc/out", None, "/proc"),
    ("convert", 2, "--output"),
    ("inspect", 2, "BUNDLE"),
    ("inspect bundle --nonsense", 2, "--nonsense"),
    ("fly", 2, "fly"),
    ("summary --resolution 1", 2, "resolution 1 is out of range"),
    ("summary --classes 0", 2, "class"),
]


@pytest.mark.parametrize(("line", "code", "message"), CASES, ids=[case[0] for case in CASES])
def test_one_line_and_the_right_code(place, capsys, line, code, message):
    before = sorted(path.name for path in place.rglob("*"))
    found = run(line.split())
    out, err = capsys.readouterr()
    complaints = [row for row in err.splitlines() if row.startswith("edgenet: ")]
    assert found == code if code is not None else found in (1, 2)
    assert out == ""
    assert len(complaints) == 1
    assert message in complaints[0]
    assert "Traceback" not in err
    assert "bug in edgenet" not in err
    assert sorted(path.name for path in place.rglob("*")) == before


@pytest.mark.parametrize(
    "command", ["inspect bundle", "classify bundle good.jpg", "evaluate bundle"]
)
@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda b: (b / "labels.txt").unlink(), "labels.txt: is missing"),
        (lambda b: next(b.glob("*.bin")).unlink(), "is missing"),
        (lambda b: next(b.glob("*.onnx")).write_bytes(b"x"), "was changed"),
        (lambda b: (b / MANIFEST).write_text('{"schema_version": "7.0"}'), "upgrade edgenet"),
        (lambda b: (b / MANIFEST).unlink(), "is not a bundle"),
    ],
)
def test_broken_bundles(place, capsys, command, breakage, message):
    breakage(place / "bundle")
    assert run(command.split()) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err


def test_debug_shows_the_traceback(place, capsys):
    assert run(["inspect", "empty", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("torch", "convert -o out"),
        ("safetensors", "convert -o out"),
        ("onnx", "convert -o out"),
        ("cv2", "classify bundle good.jpg"),
        ("onnxruntime", "classify bundle good.jpg --runtime onnxruntime"),
        ("openvino", "evaluate bundle --runtime openvino"),
    ],
)
def test_a_missing_extra_names_the_install(place, package, line):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from edgenet.cli import run; sys.exit(run({line.split()!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    complaints = [row for row in done.stderr.splitlines() if row.startswith("edgenet: ")]
    assert done.returncode == 1, done.stderr
    assert len(complaints) == 1
    assert "pip install 'edgenet[" in complaints[0]
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    "line",
    [
        ["inspect", ""],
        ["classify", "", "good.jpg"],
        ["evaluate", ""],
        ["verify", ""],
        ["diagnose", ""],
        ["profile", ""],
        ["profile", "bundle", "--against", ""],
        ["camera", ""],
        ["deploy", "", "--host", "nowhere"],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_no_bundle(place, monkeypatch, capsys, line):
    """A variable of a script that is not set; the folder one is in may well be a bundle."""
    monkeypatch.chdir(place / "bundle")
    assert run(line) == 2
    assert "is empty; give a bundle" in capsys.readouterr().err
