"""The command line's harder cases: odd destinations, label files, missing runtimes, bugs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgenet.cli import app, run

COMMANDS = [command.name for command in app.registered_commands]
PICTURES = Path(__file__).parents[2] / "calibration/images"
SMALL = ["--weights", "random", "--width-multiplier", "0.25", "--resolution", "32"]
SMALL += ["--runtime", "onnxruntime", "--samples", "2"]


@pytest.fixture
def folder(tmp_path, monkeypatch, small_bundle):
    """A folder to work in: a bundle, pictures whole and broken, data sets, label files."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_bundle.root, "bundle")
    picture = sorted(PICTURES.glob("*.jpg"))[0].read_bytes()
    files = {
        "whole.jpg": picture,
        "cut.jpg": picture[:3000],
        "text.jpg": b"hello",
        "empty.jpg": b"",
        "texts/a.txt": b"hello",
        "empty.txt": b"",
        "binary.txt": b"\xff\xfe",
        "gap.txt": b"a\n\nb\n",
        "two.txt": b"a\nb\n",
        "outside.csv": b"file,label\nwhole.jpg,10\n",
        "unknown.csv": b"file,label\nwhole.jpg,T-shirt\n",
        "good.csv": b"file,label\nwhole.jpg,0\ncut.jpg,Coat\n",
    }
    for name, data in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(data)
    Path("nothing").mkdir()
    return tmp_path


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("edgenet: ")]
    assert "Traceback" not in err
    assert lines == err.splitlines()[-1:]
    assert "bug in" not in err
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_name_real_options(command, capsys):
    run([command, "--help"])
    text = capsys.readouterr().out
    options, _, examples = text.partition("Examples:")
    examples = re.sub(r" -- .*", "", examples)  # what comes then is another command's
    assert set(re.findall(r"--[a-z-]+", examples)) <= set(re.findall(r"--[a-z-]+", options))
    assert f"edgenet {command}" in examples


def test_no_command_is_help(capsys):
    assert run([]) == 0
    bare = capsys.readouterr().out
    assert run(["--help"]) == 0
    assert bare == capsys.readouterr().out
    assert all(command in bare for command in COMMANDS)


CONVERT = f"convert {' '.join(SMALL)}"
BAD = [
    # The command line alone.
    ("frobnicate", 2, "No such command 'frobnicate'. See edgenet --help."),
    ("convert --frob -o x", 2, "No such option: --frob.*See edgenet convert --help"),
    ("convert --resolution 224.5 -o x", 2, r"Invalid value for '--resolution':.*\. See"),
    ("convert --runtime , -o x", 2, "unknown runtime '': choose from"),
    ("convert --runtime onnxruntime --precision float16 -o x", 2, "nothing is written for"),
    ("convert --activation gelu -o x", 2, "unknown activation 'gelu': choose from"),
    ("convert --seed -1 -o x", 2, r"'--seed':.*\. See edgenet convert"),
    ("convert --seed 99999999999999999999 -o x", 2, r"'--seed':.*\. See edgenet convert"),
    (f"{CONVERT} -o whole.jpg", 2, "exists and is no bundle.*choose another -o"),
    (f"{CONVERT} -o whole.jpg/x", 2, "is a file.*choose another -o"),
    (f"{CONVERT} -o nothing --force", 2, "exists and is no bundle.*choose another -o"),
    (f"{CONVERT} -o . --force", 2, "exists and is no bundle"),
    ("evaluate bundle --data good.csv -o nothing", 2, "nothing: is a folder; give -o"),
    ("evaluate bundle --data good.csv -o whole.jpg/x", 2, "whole.jpg: is a file"),
    ("summary extra", 2, r"extra.*\. See edgenet summary --help\."),
    # Found after the command line was understood.
    ("convert text.jpg -o x", 1, "text.jpg: ends at byte"),
    (f"{CONVERT} --labels empty.txt -o x", 1, "empty.txt: is empty; write one class name a line"),
    (f"{CONVERT} --labels binary.txt -o x", 1, "binary.txt: is not UTF-8 text"),
    (f"{CONVERT} --labels gap.txt -o x", 1, "gap.txt: line 2 is empty"),
    ("convert --weights fashion-mnist --labels two.txt -o x", 1, "10 classes, but 2 labels"),
    (f"{CONVERT} -o /proc/x", 1, "/proc/x: cannot be written .*choose another place"),
    ("classify bundle empty.jpg --json", 1, "empty.jpg: is empty"),
    ("evaluate bundle --data outside.csv", 1, "line 2: label '10' is not one of the bundle's 10"),
    ("evaluate bundle --data unknown.csv", 1, "label 'T-shirt'.*did you mean 'T-shirt/top'"),
]


@pytest.mark.parametrize(("line", "code", "message"), BAD, ids=[line for line, _, _ in BAD])
def test_bad_input(folder, capsys, line, code, message):
    before = sorted(folder.rglob("*"))
    assert run(line.split()) == code
    assert re.search(message, one_line(capsys))
    assert sorted(folder.rglob("*")) == before


def test_texts_are_no_calibration(folder, capsys):
    assert run([*CONVERT.split(), "--calibration", "texts", "-o", "x"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "edgenet: texts: no calibration image can be read"
    assert not Path("x").exists()


def test_no_data_fit_random_weights(folder, capsys):
    assert run([*CONVERT.split(), "-o", "random"]) == 0
    capsys.readouterr()
    assert run(["evaluate", "random"]) == 2
    assert "no built-in data fit the weights 'random'" in one_line(capsys)


def test_a_changed_byte_stops_every_command(folder, capsys):
    path = next(Path("bundle").glob("*int8.tflite"))
    path.write_bytes(b"x" + path.read_bytes()[1:])
    for line in ("inspect bundle", "classify bundle whole.jpg", "evaluate bundle --data good.csv"):
        assert run(line.split()) == 1
        assert re.search(r"int8\.tflite: was changed.*convert again", one_line(capsys))


def test_a_bug_says_so_and_shows_where_with_debug(folder):
    """A missing base dependency is no extra: a real failure that no error class covers."""
    code = (
        "import sys; sys.modules['fastjsonschema'] = None\n"
        "from edgenet.cli import run; sys.exit(run(sys.argv[1:]))"
    )

    def inspect(*options):
        return subprocess.run(
            [sys.executable, "-c", code, "inspect", "bundle", *options],
            capture_output=True,
            text=True,
            check=False,
        )

    plain, debug = inspect(), inspect("--debug")
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert plain.stderr.startswith("edgenet: bug in edgenet: ModuleNotFoundError")
    assert len(plain.stderr.splitlines()) == 1
    assert "Traceback" in debug.stderr


@pytest.mark.parametrize(
    "line",
    [
        "inspect bundle --json",
        "classify bundle whole.jpg --json",
        "evaluate bundle --data good.csv --json",
        f"{CONVERT} -o new --json",
    ],
)
def test_json_is_one_document(folder, capfd, line):
    assert run(line.split()) == 0
    assert isinstance(json.loads(capfd.readouterr().out), dict)


def test_evaluate_names_what_it_could_not_read(folder, capfd):
    assert (
        run(["evaluate", "bundle", "--data", "good.csv", "--limit", "5", "-o", "deep/record.json"])
        == 0
    )
    out, err = capfd.readouterr()
    assert "good.csv: n = 1, 1 unreadable" in out
    assert "warning: not counted: cut.jpg: is cut off" in err
    record = json.loads(Path("deep/record.json").read_text("utf-8"))
    assert record["data"]["n"] == 1


def test_each_evaluation_keeps_its_record(folder, capsys):
    for _ in range(2):
        run(
            [
                "evaluate",
                "bundle",
                "--data",
                "good.csv",
                "--runtime",
                "litert",
                "--precision",
                "int8",
            ]
        )
    assert len(list(Path("records").iterdir())) == 2


def test_force_replaces(folder, capsys):
    before = Path("bundle/manifest.json").read_bytes()
    assert run([*CONVERT.split(), "-o", "bundle/", "--force"]) == 0
    assert Path("bundle/manifest.json").read_bytes() != before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from edgenet.cli import run
sys.exit(run({arguments!r}))
"""


def without(package, line):
    code = BLOCKED.format(package=package, arguments=line.split())
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_runtime_asked_for_by_name_must_be_there(folder):
    done = without("openvino", "evaluate bundle --data good.csv --runtime openvino,litert")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "edgenet: openvino is not installed; install it with: pip install 'edgenet[openvino]'\n"
    )


def test_a_runtime_that_nobody_named_is_listed_as_not_run(folder):
    done = without("openvino", "evaluate bundle --data good.csv --json -o record.json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert {entry["artifact"]["runtime"] for entry in document["not_run"]} == {"openvino"}
    assert {entry["artifact"]["runtime"] for entry in document["records"]} == {
        "onnxruntime",
        "litert",
    }


def test_a_reader_that_leaves_is_no_failure_with_a_traceback(folder):
    edgenet = [sys.executable, "-m", "edgenet", "summary", "--all", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(edgenet, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
