"""A file system of 1 MB: one line, exit code 1, nothing half written."""

import subprocess
import sys

import pytest


@pytest.fixture
def small_disk(tmp_path):
    """Mount it; where that is not allowed these tests fail, they do not skip."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def edgenet(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "edgenet", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_convert(small_disk, runtime):
    done = edgenet(
        *("convert", "--weights", "fashion-mnist", "-o", str(small_disk / "bundle")),
        *("--runtime", runtime, "--precision", "float32"),
    )
    assert done.returncode == 1, done.stderr
    complaints = [line for line in done.stderr.splitlines() if line.startswith("edgenet: ")]
    assert len(complaints) == 1
    assert "No space left" in complaints[0] or "the disk may be full" in complaints[0]
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "evaluate BUNDLE --limit 2000 --runtime litert",
        "profile BUNDLE --runtime null --duration 2 --layers off",
    ],
)
def test_record(small_disk, small_bundle, line):
    (small_disk / "filler").write_bytes(bytes(1_040_000))
    words = [str(small_bundle.root) if word == "BUNDLE" else word for word in line.split()]
    done = edgenet(*words, "-o", str(small_disk / "record.json"))
    assert done.returncode == 1, done.stderr
    assert "No space left" in done.stderr.splitlines()[-1]
    assert small_bundle.artifacts[0].precision.value in done.stdout, "what was measured is shown"
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("name", ["board.tar.gz", "board"])
def test_a_record_of_this_machine_where_nothing_may_be_written(small_disk, name):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = edgenet("doctor", "--record", str(small_disk / name))
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"edgenet: {small_disk / name}: cannot be written (Read-only")
    assert line.endswith("choose another --record")
