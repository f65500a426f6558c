"""The Python side of the board: edgenet from this checkout, the runtimes, tflite-runtime.

The host's pip chooses and unpacks wheels for aarch64; nothing is built for or on the board, and a
package without such a wheel is an error. It does not know which packages edgenet needs: the
project's own wheel says so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

from commands import BoardError, run
from debian import PYTHON, compile_python
from image import ROOT, pack
from workshop import Workshop, sources_of

CHECKOUT = Path(__file__).resolve().parents[2]
IN_WHEEL = (
    *("edgenet", "calibration", "targets"),
    *("pyproject.toml", "README.md", "LICENSE", "NOTICE"),
)
"""What of the checkout the wheel is built from."""
PLATFORMS = ("2014", "_2_17", "_2_27", "_2_28", "_2_34", "_2_35")
"""The manylinux names that bookworm's C library can serve."""
ENVIRONMENTS = {
    "checkout": ("board", "onnxruntime", "openvino", "litert", "viewer"),
    "tflite-runtime": ("board", "tflite-runtime"),
}
"""Extras of edgenet by the environment in /opt that has them; numpy 1 and 2 need one each."""
PROJECT = "opt/project"
NEVER_ON_A_BOARD = ("torch", "onnx")


def project_layer(workshop: Workshop) -> Path:
    """Return the layer with edgenet in /opt/project, and the wheel that it comes from beside it."""

    def fill(into: Path) -> None:
        _build_project(into, workshop.log)
        compile_python(into / ROOT, PROJECT, workshop.log)
        pack(into, workshop.log)

    sources = sources_of(*(CHECKOUT / name for name in IN_WHEEL), Path(__file__))
    return workshop.make("project", (sources,), fill)


def environment_layer(workshop: Workshop, name: str, project: Path) -> Path:
    """Return the layer with the virtual environment /opt/`name`, without edgenet itself."""
    wheel, constraints = _the_wheel(project), CHECKOUT / "constraints.txt"

    def fill(into: Path) -> None:
        _fill_environment(into / ROOT, name, wheel, constraints, workshop.log)
        pack(into, workshop.log)

    return workshop.make(
        name,
        (*_requirements(wheel), ENVIRONMENTS[name], sources_of(constraints, Path(__file__))),
        fill,
    )


def _build_project(into: Path, log: Path) -> None:
    clean = into / "source"  # a build in the checkout would pick up what older builds left there
    clean.mkdir()
    for name in IN_WHEEL:
        source, target = CHECKOUT / name, clean / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    run([*_pip(), "wheel", "--no-deps", "--wheel-dir", into, clean], log=log)
    shutil.rmtree(clean)
    with zipfile.ZipFile(_the_wheel(into)) as wheel:
        wheel.extractall(into / ROOT / PROJECT)


def _the_wheel(project: Path) -> Path:
    (wheel,) = project.glob("*.whl")
    return wheel


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    return [str(line) for line in metadata.get_all("Requires-Dist", [])]


def _fill_environment(root: Path, name: str, wheel: Path, constraints: Path, log: Path) -> None:
    home = root / "opt" / name
    packages = home / "lib" / f"python{PYTHON}" / "site-packages"
    packages.mkdir(parents=True)
    pinned = ("--constraint", constraints) if name == "checkout" else ()
    wanted = f"edgenet[{','.join(ENVIRONMENTS[name])}] @ {wheel.as_uri()}"
    platforms = [f"--platform=manylinux{version}_aarch64" for version in PLATFORMS]
    only = ("--only-binary=:all:", "--python-version", PYTHON, *platforms)
    run((*_pip(), "install", "--target", packages, *only, *pinned, wanted), log=log)
    for own in (*packages.glob("edgenet*"), packages / "bin"):
        shutil.rmtree(own)  # edgenet changes more often; programs begin with the host's Python
    found = [each for each in NEVER_ON_A_BOARD if (packages / each).exists()]
    if found:
        raise BoardError(f"{', '.join(found)} would be installed on the board: see pyproject.toml")
    (packages / "project.pth").write_text(f"/{PROJECT}\n")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (home / "bin").mkdir()
    (home / "bin/python").symlink_to("/usr/bin/python3")


def _pip() -> tuple[str, ...]:
    pip = (sys.executable, "-m", "pip")
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
        raise BoardError(
            f"{sys.executable} has no pip: apt-get install python3-pip, or `make setup`"
        )
    return (*pip, "--quiet", "--disable-pip-version-check")
