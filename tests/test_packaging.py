"""The wheel holds what the tree holds, and installs without anything heavy."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = ("calibration", "targets")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build from a copy of what git knows, so that nothing left in the tree gets in."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", target, source],
        check=True,
    )
    (built,) = target.glob("*.whl")
    return built


def tree():
    """What must be installed: the package, and the data folders as packages of data."""
    expected = set()
    for folder in ("edgenet", *DATA):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                inside = path.relative_to(ROOT).as_posix()
                expected.add(f"edgenet/{inside}" if folder in DATA else inside)
    return expected


def test_the_wheel_is_the_tree(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        information = {name.partition(".dist-info/")[2] for name in archive.namelist()}
    assert packed == tree()
    assert {"licenses/LICENSE", "licenses/NOTICE"} <= information


def test_a_base_install_starts(wheel, tmp_path):
    """numpy, typer and the validator are all that the base install asks for."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def edgenet(*arguments):
        return subprocess.run(
            [python, "-m", "edgenet", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
        )

    listed = subprocess.run(
        [python, "-m", "pip", "list"], capture_output=True, text=True, check=True
    ).stdout.lower()
    for heavy in ("torch", "onnx", "openvino", "opencv", "litert", "tflite"):
        assert heavy not in listed
    assert edgenet("summary", "--all").returncode == 0
    examined = json.loads(edgenet("doctor", "--json").stdout)
    assert {check["installed"] for check in examined["runtimes"]} == {False}
    assert examined["verdict"]["fit"] == "no"
    assert "no runtime works yet; the first choice here: pip install" in examined["advice"][0]
    assert "Cortex-A76" in edgenet("doctor", "--tree", "pi_5").stdout
    refused = edgenet("convert", "-o", "bundle")
    assert refused.returncode == 1
    assert "pip install 'edgenet[convert]'" in refused.stderr
