"""`edgenet profile` end to end: real artefacts, real processes, real interrupts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from edgenet.bundle import MANIFEST
from edgenet.cli import run
from edgenet.manifest import load_bundle
from edgenet.report.reading import read_document
from tests.board_python import HOST_ONLY, RUNTIMES, make_python

QUICK = ["--quick", "--duration", "0.3"]


@pytest.fixture(scope="module")
def whole(small_bundle, tmp_path_factory):
    """A quick profile of every artefact: its report, and its record."""
    record = tmp_path_factory.mktemp("profile") / "record.json"
    done = edgenet("profile", small_bundle.root, *QUICK, "-o", record)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(record.read_text()), record


def edgenet(*arguments, python=sys.executable):
    return subprocess.run(
        [python, "-m", "edgenet", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def test_a_row_for_each_artefact(whole, small_bundle):
    text, document, _ = whole
    table = text.split("\n\n")[0].splitlines()[2:]
    assert len(table) == len(document["records"]) == len(small_bundle.artifacts)
    assert any(line.startswith("*") for line in table)
    assert "quick: too few runs for figures that are published" in text
    assert "this machine's peak, 1 thread:" in text
    assert "as it is made for tensorrt: all 28 layers" in text
    assert text.rstrip().splitlines()[-1].startswith("record: ")


def test_the_table_is_sorted(whole):
    _, document, _ = whole
    text = whole[0].split("\n\n")[0].splitlines()[2:]
    named = [tuple(line.lstrip("* ").split()[:2]) for line in text]
    by_median = sorted(
        document["records"], key=lambda record: sorted_median(record["samples_ns"]["inference"])
    )
    expected = [
        (record["artifact"]["runtime"], record["artifact"]["precision"]) for record in by_median
    ]
    assert named == expected


def sorted_median(samples):
    return sorted(samples)[len(samples) // 2]


def test_the_record_has_every_sample_and_every_reason(whole):
    _, document, _ = whole
    assert document["kind"] == "profile"
    assert document["complete"] is True
    assert document["command"][:2] == ["edgenet", "profile"]
    for record in document["records"]:
        assert record["quick"] is record["complete"] is True
        assert record["latency"]["inference_ms"]["n"] == len(record["samples_ns"]["inference"])
        assert record["accuracy"]["n"] == len(record["predictions"]) == 100
        assert record["layers_by"] in ("profiler", "prefix")
        names = [layer["layer"] for layer in record["layers"]]
        assert sum(name.startswith(("stem", "conv", "fc")) for name in names) == 28
    assert list(nulls_without_a_reason(document)) == []


def nulls_without_a_reason(value, at="document"):
    if isinstance(value, list):
        for index, entry in enumerate(value):
            yield from nulls_without_a_reason(entry, f"{at}[{index}]")
    elif isinstance(value, dict):
        for name, entry in value.items():
            if entry is None and name != "variant" and not value.get(f"{name}_reason"):
                yield f"{at}.{name}"
            yield from nulls_without_a_reason(entry, f"{at}.{name}")


def test_the_record_is_of_the_published_schema_and_compares_with_itself(whole, capsys):
    _, document, record = whole
    assert len(read_document(record).records) == len(document["records"])
    assert run(["compare", str(record), str(record), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "comparison"


def test_two_profiles_compare(whole, small_bundle, tmp_path, capsys):
    line = ["profile", str(small_bundle.root), "--runtime", "litert", "--precision", "int8"]
    other = tmp_path / "other.json"
    assert run([*line, *QUICK, "--layers", "off", "-o", str(other)]) == 0
    capsys.readouterr()
    assert run(["compare", str(whole[2]), str(other), "--allow-unlike"]) == 0
    text = capsys.readouterr().out
    assert "litert int8, 1 thread" in text
    assert "inference p50, ms" in text


def test_json_is_one_document_and_all_else_goes_elsewhere(small_bundle, tmp_path):
    record = tmp_path / "deep" / "record.json"
    done = edgenet(
        *("profile", small_bundle.root, "--runtime", "null", "--runtime", "litert"),
        *("--precision", "float32", *QUICK, "--json", "-o", record, "--layers", "all"),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads(record.read_text())
    assert [each["artifact"]["runtime"] for each in document["records"]] == ["litert", "null"]
    assert "litert float32, 1 thread:" in done.stderr


def test_a_table_of_all_layers(small_bundle, tmp_path, capsys):
    line = ["profile", str(small_bundle.root), "--runtime", "onnxruntime", "--precision", "int8"]
    assert run([*line, *QUICK, "--layers", "all", "-o", str(tmp_path / "record.json")]) == 0
    text = capsys.readouterr().out
    names = [layer.name for layer in small_bundle.layers]
    rows = [row.split()[0] for row in text.splitlines() if row.split(" ")[0] in names]
    assert rows == names
    assert "(between layers)" in text


def test_null_shows_the_floor(small_bundle, tmp_path, capsys):
    record = tmp_path / "record.json"
    line = ["profile", str(small_bundle.root), "--runtime", "null", *QUICK, "-o", str(record)]
    assert run(line) == 0
    text = capsys.readouterr().out
    assert "nothing is computed" in text
    assert "this machine's peak" not in text
    (found,) = json.loads(record.read_text())["records"]
    assert found["latency"]["inference_ms"]["p50"] < 0.02
    assert found["accuracy"] is found["layers"] is None
    assert found["size_bytes"] == 0


def test_a_rate_that_cannot_be_met(small_bundle, tmp_path, capsys):
    """The TensorRT form takes longer than a millisecond in ONNX Runtime."""
    record = tmp_path / "record.json"
    line = ["profile", str(small_bundle.root), "--runtime", "tensorrt", "--paced", "1000", *QUICK]
    assert run([*line, "--layers", "off", "-o", str(record)]) == 0
    text = capsys.readouterr().out
    assert "saturated: 1000 frames/s were asked for, it can meet" in text
    (found,) = json.loads(record.read_text())["records"]
    assert found["paced"]["saturated"]
    assert 0 < found["paced"]["reachable_fps"] < 1000
    assert found["latency"]["paced_inference_ms"] is None
    assert found["latency"]["paced_inference_ms_reason"].startswith("saturated")
    assert found["samples_ns"]["paced_inference"]


CORES = len(os.sched_getaffinity(0))
CASES = [
    (["--threads", str(CORES + 1)], 2, f"--threads '{CORES + 1}': give whole numbers from 1 to"),
    (["--threads", "0"], 2, "--threads '0'"),
    (["--threads", "two"], 2, "--threads 'two'"),
    (["--threads", ""], 2, "--threads '': give whole numbers"),
    (["--threads", "1,,2"], 2, "--threads '1,,2': give whole numbers"),
    (["--paced", "0"], 2, "--paced"),
    (["--soak", "1"], 2, "--soak"),
    (["--duration", "0"], 2, "--duration"),
    (["--duration", "inf"], 2, "--duration"),
    (["--duration", "nan"], 2, "--duration"),
    (["--paced", "nan"], 2, "--paced"),
    (["--runtime", "tensorflow"], 2, "unknown runtime 'tensorflow'"),
    (["--runtime", "openvino", "--precision", "int4"], 2, "unknown precision 'int4'"),
    (["--data", "nowhere"], 2, "no data at 'nowhere'"),
    (["--target", "nowhere.toml"], 2, "nowhere.toml"),
    (["-o", "/tmp"], 2, "/tmp: is a folder"),
]


@pytest.mark.parametrize(("options", "code", "message"), CASES, ids=[" ".join(c[0]) for c in CASES])
def test_a_wrong_command_line_is_one_line_before_anything_runs(
    small_bundle, capsys, options, code, message
):
    found = run(["profile", str(small_bundle.root), *options])
    out, err = capsys.readouterr()
    assert found == code
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "edgenet", "profile", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_keeps_what_was_measured(small_bundle, tmp_path):
    """Interrupted while it runs back to back: warming up takes no more than five seconds."""
    record = tmp_path / "record.json"
    child = start(
        *(small_bundle.root, "--runtime", "litert", "--precision", "float32", "-o", record),
        *("--layers", "off", "--quick", "--duration", "120"),
    )
    threading.Timer(12, child.send_signal, [signal.SIGINT]).start()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "edgenet: interrupted" in err
    assert "Traceback" not in err
    assert "interrupted: what is here is right, but not all that was asked for" in out
    document = json.loads(record.read_text())
    assert document["complete"] is False
    (found,) = document["records"]
    assert found["complete"] is False
    assert len(found["samples_ns"]["inference"]) > 100
    assert found["latency"]["paced_inference_ms"] is None
    assert list(nulls_without_a_reason(document)) == []
    assert read_document(record).records[0].complete is False


def test_ctrl_c_in_a_soak_keeps_the_minute_begun(small_bundle, tmp_path):
    record = tmp_path / "record.json"
    child = start(
        *(small_bundle.root, "--runtime", "litert", "--precision", "float32", "-o", record),
        *("--layers", "off", *QUICK, "--paced", "100", "--soak", "2"),
    )
    threading.Timer(15, child.send_signal, [signal.SIGINT]).start()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "litert float32, 1 thread: soak stopped after 0." in out
    document = json.loads(record.read_text())
    (found,) = document["records"]
    assert found["complete"] is False
    assert found["soak"]["minutes"] == 0
    assert found["soak"]["first_minute"]["n"] == len(found["samples_ns"]["soak_first_minute"]) > 100
    assert list(nulls_without_a_reason(document)) == []
    assert read_document(record).records[0].complete is False


def test_ctrl_c_keeps_the_artefacts_that_were_done(small_bundle, tmp_path):
    record = tmp_path / "record.json"
    child = start(
        *(small_bundle.root, "--runtime", "onnxruntime", *QUICK, "--layers", "off"),
        *("--json", "-o", record),
    )
    assert child.stderr.readline().startswith("onnxruntime float32, 1 thread:")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    document = json.loads(out)
    assert document == json.loads(record.read_text())
    assert document["complete"] is False
    assert document["records"][0]["complete"] is True
    assert {each["reason"] for each in document["not_run"]} == {"interrupted before"}
    begun = [record["artifact"] for record in document["records"]]
    assert not any(each["artifact"] in begun for each in document["not_run"])
    assert document["records"][0]["accuracy"] is None
    assert "interrupted" in document["records"][0]["accuracy_reason"]


def test_ctrl_c_before_anything_was_measured_writes_nothing(small_bundle, tmp_path):
    record = tmp_path / "record.json"
    child = start(small_bundle.root, "--runtime", "null", "-o", record)
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert out == ""
    assert not record.exists()


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """No runtime at all, no torch, no onnx."""
    return make_python(tmp_path_factory.mktemp("bare") / "venv", without=(*HOST_ONLY, *RUNTIMES))


@pytest.fixture(scope="module")
def litert_python(tmp_path_factory):
    """A board with LiteRT only."""
    left_out = {*HOST_ONLY, *RUNTIMES} - {"ai_edge_litert"}
    return make_python(tmp_path_factory.mktemp("litert") / "venv", without=left_out)


def test_a_bundle_with_nothing_that_runs_here(bare_python, small_bundle, tmp_path):
    record = tmp_path / "record.json"
    done = edgenet("profile", small_bundle.root, "--quick", "-o", record, python=bare_python)
    assert done.returncode == 1
    assert done.stdout == ""
    complaint = done.stderr.splitlines()[-1]
    for extra in ("onnxruntime", "openvino", "litert"):
        assert f"pip install 'edgenet[{extra}]'" in complaint
    assert not record.exists()


def test_null_needs_no_runtime(bare_python, small_bundle, tmp_path):
    record = tmp_path / "record.json"
    line = ("profile", small_bundle.root, "--runtime", "null", *QUICK, "-o", record)
    done = edgenet(*line, python=bare_python)
    assert done.returncode == 0, done.stderr


def test_a_board_with_one_runtime(litert_python, small_bundle, tmp_path):
    """What is not installed is named; asked for, it is a failure after the rest was measured."""
    record = tmp_path / "record.json"
    line = ["profile", small_bundle.root, "--precision", "int8", *QUICK, "-o", record]
    done = edgenet(*line, python=litert_python)
    assert done.returncode == 0, done.stderr
    document = json.loads(record.read_text())
    assert [each["artifact"]["runtime"] for each in document["records"]] == ["litert"]
    assert {each["artifact"]["runtime"] for each in document["not_run"]} == {
        "onnxruntime",
        "openvino",
    }
    assert document["peaks"][0]["mult_adds_per_second"]["int8"]["runtime"] == "litert"
    assert document["reference"]["runtime"] == "litert"
    line += ["--runtime", "litert,openvino", "--layers", "off"]
    done = edgenet(*line, python=litert_python)
    assert done.returncode == 1
    assert "openvino int8: asked for, and did not run" in done.stderr.splitlines()[-1]
    assert len(json.loads(record.read_text())["records"]) == 1


def test_torch_and_onnx_stay_where_they_are(small_bundle, tmp_path):
    """Neither is imported, and none of the runtimes into the process that reads sensors."""
    line = ["profile", str(small_bundle.root), "--runtime", "null", *QUICK]
    code = (
        "import sys\nfrom edgenet.cli import run\n"
        f"assert run({[*line, '-o', str(tmp_path / 'record.json')]!r}) == 0\n"
        f"print(sorted({{*{(*HOST_ONLY, *RUNTIMES)!r}}} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_older_bundle_says_that_its_layers_are_unknown(small_bundle, tmp_path, capsys):
    """Manifests before 1.2 do not name the layers."""
    shutil.copytree(small_bundle.root, tmp_path / "old")
    path = tmp_path / "old" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["schema_version"] = "1.1"
    del manifest["layers"]
    path.write_text(json.dumps(manifest))
    assert load_bundle(tmp_path / "old").layers == ()
    record = tmp_path / "record.json"
    line = ["profile", str(tmp_path / "old"), "--runtime", "litert", "--precision", "int8"]
    assert run([*line, *QUICK, "-o", str(record)]) == 0
    assert "the manifest, older than 1.2, does not name the layers" in capsys.readouterr().out
    document = json.loads(record.read_text())
    assert document["records"][0]["layers"] is None
    assert document["peaks"] == []


def test_records_go_beside_the_bundle(small_bundle, tmp_path, capsys):
    shutil.copytree(small_bundle.root, tmp_path / "bundle")
    assert run(["profile", str(tmp_path / "bundle"), "--runtime", "null", *QUICK]) == 0
    (record,) = (tmp_path / "records").iterdir()
    assert capsys.readouterr().out.endswith(f"record: {record}\n")
