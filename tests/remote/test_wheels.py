"""What is installed on a board: edgenet's own wheel, and what else it asks for."""

import base64
import csv
import hashlib
import io
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from edgenet import runtimes
from edgenet.errors import DeployRefused
from edgenet.manifest import load_bundle
from edgenet.remote import wheels
from edgenet.remote.wheels import (
    BOARD_EXTRAS,
    NoWheel,
    Platform,
    fetch,
    requirements,
    runner_wheel,
    runtime_extras,
    why_pip_failed,
)

PI = Platform(python="3.11", architecture="aarch64", glibc=(2, 36))


@pytest.fixture(scope="module")
def litert():
    return runner_wheel(("litert",))


def names_in(wheel):
    with zipfile.ZipFile(io.BytesIO(wheel.data)) as archive:
        return set(archive.namelist())


def test_the_same_package_is_the_same_wheel(litert):
    assert runner_wheel(("litert",)).data == litert.data
    assert runner_wheel(("onnxruntime",)).data != litert.data


def test_it_is_light(litert):
    names = names_in(litert)
    for kept in ("edgenet/cli/camera.py", "edgenet/targets/raspberry_pi/target.toml"):
        assert kept in names
    assert not [name for name in names if "__pycache__" in name or ".safetensors" in name]
    assert not [name for name in names if "/trees/" in name or "calibration/images/" in name]
    assert sum(litert.left_out.values()) > 5 * len(litert.data)


def test_its_record_is_right(litert):
    with zipfile.ZipFile(io.BytesIO(litert.data)) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        assert {row[0] for row in rows} == set(archive.namelist())
        for name, digest, size in rows:
            if name != record:
                data = archive.read(name)
                raw = hashlib.sha256(data).digest()
                assert digest == "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
                assert int(size) == len(data)


def test_its_built_in_bundle_is_whole_for_its_runtimes(litert, tmp_path):
    with zipfile.ZipFile(io.BytesIO(litert.data)) as archive:
        archive.extractall(tmp_path)
    (folder,) = (tmp_path / "edgenet/shipped").iterdir()
    bundle = load_bundle(folder)
    assert [artifact.runtime for artifact in bundle.artifacts] == ["litert"]
    assert [artifact.runtime for artifact in bundle.left_out] == ["onnxruntime"]


def test_from_an_installed_wheel_it_is_the_same(litert, tmp_path):
    """A wheel that pip has installed gives byte for byte what the checkout gives."""
    root = Path(__file__).parents[2]
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, root]
    subprocess.run(words, check=True)
    (built,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False, system_site_packages=False)
    (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(packages)
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in others))
    code = (
        "import pathlib, sys, edgenet; from edgenet.remote.wheels import runner_wheel\n"
        "print(edgenet.__file__)\n"
        "pathlib.Path(sys.argv[1]).write_bytes(runner_wheel(('litert',)).data)"
    )
    words = [tmp_path / "venv/bin/python", "-I", "-c", code, tmp_path / "runner.whl"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(packages))
    assert contents(tmp_path / "runner.whl") == contents(io.BytesIO(litert.data))


def contents(wheel):
    """Return the files of a wheel; what the metadata of a checkout says may be of yesterday."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith(("METADATA", "RECORD"))]
        return {name: archive.read(name) for name in names}


def test_its_licences_go_with_it(litert):
    names = {name.rpartition("/")[2] for name in names_in(litert) if "/licenses/" in name}
    assert names == {"LICENSE", "NOTICE"}


def test_every_condition_in_the_metadata_is_understood():
    for python in ("3.10", "3.11", "3.12", "3.13"):
        everything = requirements(wheels.known_extras(), python)
        assert not [line for line in everything if ";" in line]
    assert len(metadata.requires("edgenet")) > 5


def test_requirements_are_those_of_the_boards_python():
    extras = (*BOARD_EXTRAS, "litert")
    assert any(line.startswith("tomli") for line in requirements(extras, "3.10"))
    new = requirements(extras, "3.13")
    assert not any(line.startswith("tomli") for line in new)
    for name in ("ai-edge-litert", "opencv-python-headless", "starlette", "paho-mqtt"):
        assert any(line.startswith(name) for line in new)
    assert not any(line.startswith(name) for line in new for name in ("torch", "onnx", "openvino"))


def test_tflite_runtime_is_for_old_pythons():
    assert any(line.startswith("tflite") for line in requirements(("tflite-runtime",), "3.11"))
    assert not any(line.startswith("tflite") for line in requirements(("tflite-runtime",), "3.13"))


def test_every_runtime_that_pip_can_bring_has_an_extra():
    without = [name for name in runtimes.names() if not runtime_extras(name)]
    assert without == ["null"]
    assert runtime_extras("litert") == ("litert", "tflite-runtime")


def test_platform_tags():
    assert PI.tags[0] == "manylinux_2_36_aarch64"
    assert {"manylinux_2_17_aarch64", "manylinux2014_aarch64"} < set(PI.tags)
    old = Platform(python="3.10", architecture="aarch64", glibc=(2, 31))
    assert "manylinux_2_35_aarch64" not in old.tags


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/edgenet/wheels"


def test_wheels_are_fetched_for_the_board_and_kept(cache, monkeypatch):
    (wheel,) = fetch(["fastjsonschema>=2.19"], PI)
    assert wheel.name.startswith("fastjsonschema-")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert fetch(["fastjsonschema>=2.19"], PI) == (wheel,)


def test_a_package_without_a_wheel_is_named(cache):
    odd = Platform(python="3.11", architecture="s390x", glibc=(2, 36))
    with pytest.raises(NoWheel) as error:
        fetch(["ai-edge-litert>=2.1"], odd)
    assert error.value.package == "ai-edge-litert>=2.1"
    assert list(cache.iterdir()) == []


def test_no_network_is_no_missing_wheel(cache, monkeypatch):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(DeployRefused) as error:
        fetch(["fastjsonschema>=2.19"], PI)
    assert "pip on this machine reaches no index" in str(error.value)
    assert list(cache.iterdir()) == []


def test_what_else_pip_says_is_told():
    said = "WARNING: x\nERROR: Could not install: [Errno 28] No space left on device\n\n"
    why = why_pip_failed(said, "pip on the board")
    assert isinstance(why, DeployRefused)
    assert (
        str(why)
        == "pip on the board failed: ERROR: Could not install: [Errno 28] No space left on device"
    )
    assert str(why_pip_failed("", "pip")) == "pip failed: it says nothing"
