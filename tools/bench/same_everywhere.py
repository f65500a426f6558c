"""x86 against Arm, from the bytes of JPEG files on: do the INT8 files of a bundle answer alike?

Each picture is decoded, prepared and run twice by the same program: by this machine, and under
QEMU's user mode emulation in the arm64 system of tools/virtual_board, as a Pi 4's or Pi 5's.
Compared are the prepared pixels, the logits and the best class. Where logits differ in a form of
integers throughout, the first layer that does is named, on the picture that they differ most on.

    python tools/bench/same_everywhere.py BUNDLE
    python tools/bench/same_everywhere.py BUNDLE --profile pi4 --runtime litert --images 20

The pictures are the calibration photographs, then the lower right three quarters of each, written
as JPEG files here. Needs `qemu-aarch64` (Debian's qemu-user).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from edgenet import runtimes
from edgenet.bundle import Artifact, Bundle, Precision
from edgenet.data import photographs
from edgenet.golden import read_golden
from edgenet.manifest import load_bundle
from edgenet.preprocess import read_picture
from edgenet.report.table import render
from edgenet.runtimes import Float32Array

BOARD = Path(__file__).parents[1] / "virtual_board/board"
PROCESSORS = {"pi4": "cortex-a72", "pi5": "cortex-a76"}
"""QEMU's name of the processor by the board that has it."""
PYTHON = "/opt/checkout/bin/python"
IMAGES = 200
CROP = 4
"""What is cut off for further pictures: a quarter of each side, at the top and on the left."""
ANSWER = """
import json, os, sys
from pathlib import Path
# OpenCV looks for its files where links lead to, and those of an emulated root leave it.
os.path.realpath = os.path.abspath
import numpy as np
from edgenet import runtimes
from edgenet.preprocess import pixels_sha256, prepare, preprocessing_from_spec, read_picture

order = json.loads(Path(sys.argv[1]).read_text())
form = preprocessing_from_spec(order["preprocessing"])
images = [prepare(read_picture(Path(path)), form) for path in order["pictures"]]
model, runtime = Path(order["model"]), order["runtime"]
if order["tensors"]:
    (found,) = runtimes.trace(runtime, model, images, order["tensors"])
    answers = {str(n): found[name] for n, name in enumerate(order["tensors"])}
else:
    session = runtimes.load(runtime, model, threads=1)
    logits = [runtimes.answer(session, image, order["outputs"]) for image in images]
    answers = {"logits": np.stack(logits), "device": session.device}
np.savez(sys.argv[2], pixels=[pixels_sha256(image) for image in images], **answers)
"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One artefact here and on an Arm processor."""

    artifact: str
    sha256: str
    integers_throughout: bool
    profile: str
    processor: str
    pictures: int
    same_pixels: int
    same_top1: int
    other_top1: tuple[tuple[str, float], ...]
    """The pictures with another best class, and by how much it leads here."""
    largest_difference: float
    """Of a logit."""
    different_pictures: int
    """On which any logit differs."""
    first_layer: str | None
    """The first whose values differ, on the picture with the largest difference; None if none."""
    devices: tuple[str, str]
    """Here and there."""


class Machines:
    """This machine and the emulated ones, and the folder in which they work."""

    def __init__(self, folder: Path, profiles: Sequence[str]) -> None:
        if not shutil.which("qemu-aarch64"):
            raise SystemExit("qemu-aarch64 is missing: tools/install_system_packages.sh tests")
        self._folder = folder
        self._roots = {each: _run([str(BOARD), "user-root", each]).strip() for each in profiles}
        self._script = folder / "answer.py"
        self._script.write_text(ANSWER)

    def ask(
        self,
        bundle: Bundle,
        artifact: Artifact,
        pictures: Sequence[Path],
        profile: str | None,
        tensors: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Return what an artefact makes of pictures, here or with a profile; of all, in order."""
        order = {
            "preprocessing": bundle.preprocessing.spec(),
            "pictures": [str(path.absolute()) for path in pictures],
            "model": str(bundle.path(artifact).absolute()),
            "runtime": artifact.runtime,
            "outputs": [output.name for output in bundle.outputs],
            "tensors": list(tensors),
        }
        paper, found = self._folder / "order.json", self._folder / "found.npz"
        paper.write_text(json.dumps(order))
        _run([*self._python(profile), str(self._script), str(paper), str(found)])
        with np.load(found) as answers:
            return dict(answers)

    def _python(self, profile: str | None) -> list[str]:
        if profile is None:
            return [sys.executable]
        root = self._roots[profile]
        emulator = ["qemu-aarch64", "-L", root, "-cpu", PROCESSORS[profile], "-0", PYTHON]
        return [*emulator, f"{root}/usr/bin/python3"]


def write_pictures(count: int, folder: Path) -> list[Path]:
    """Return `count` JPEG files: the calibration photographs, then crops of them in `folder`."""
    originals = [Path(sample.origin) for sample in photographs.calibration_set().samples]
    found = originals[:count]
    for original in originals[: count - len(found)]:
        pixels = read_picture(original)
        height, width = pixels.shape[:2]
        cut = pixels[height // CROP :, width // CROP :]
        path = folder / f"crop_{original.name}"
        cv2.imwrite(str(path), cv2.cvtColor(cut, cv2.COLOR_RGB2BGR))
        found.append(path)
    if len(found) < count:
        raise SystemExit(f"there are {len(found)} pictures and no more: --images {len(found)}")
    return found


def compare(
    machines: Machines,
    bundle: Bundle,
    artifact: Artifact,
    pictures: Sequence[Path],
    profile: str,
) -> Comparison:
    """Return how an artefact answers the pictures here and on an emulated processor."""
    here, there = (machines.ask(bundle, artifact, pictures, each) for each in (None, profile))
    apart = np.abs(here["logits"].astype(np.float64) - there["logits"]).max(axis=1)
    worst = int(apart.argmax())
    return Comparison(
        artifact=artifact.label,
        sha256=artifact.sha256,
        integers_throughout=_integers_throughout(bundle, artifact),
        profile=profile,
        processor=PROCESSORS[profile],
        pictures=len(pictures),
        same_pixels=int((here["pixels"] == there["pixels"]).sum()),
        same_top1=int(np.sum(_best(here["logits"]) == _best(there["logits"]))),
        other_top1=tuple(
            (pictures[int(index)].name, _lead(here["logits"][index]))
            for index in np.flatnonzero(_best(here["logits"]) != _best(there["logits"]))
        ),
        largest_difference=float(apart[worst]),
        different_pictures=int((apart > 0).sum()),
        first_layer=_first_layer(machines, bundle, artifact, pictures[worst], profile)
        if apart[worst]
        else None,
        devices=(str(here["device"]), str(there["device"])),
    )


def _best(logits: Float32Array) -> np.ndarray:
    return np.asarray(logits.argmax(axis=1))


def _lead(logits: Float32Array) -> float:
    """Return by how much the best of (classes,) leads."""
    second, first = np.partition(logits, -2)[-2:]
    return float(first - second)


def _integers_throughout(bundle: Bundle, artifact: Artifact) -> bool:
    (form,) = (each for each in bundle.quantizations if each.name == artifact.quantization)
    return not form.float_layers


def _first_layer(
    machines: Machines, bundle: Bundle, artifact: Artifact, picture: Path, profile: str
) -> str | None:
    """Return the first layer of which any value differs on a picture."""
    layers = read_golden(bundle).expected[artifact.label].layers
    if isinstance(layers, str):
        return f"unknown: {layers}"
    tensors = [layer.tensor for layer in layers]
    here, there = (
        machines.ask(bundle, artifact, [picture], each, tensors) for each in (None, profile)
    )
    different = (
        layer.layer
        for number, layer in enumerate(layers)
        if not np.array_equal(here[str(number)], there[str(number)])
    )
    return next(different, None)


def table(found: Sequence[Comparison]) -> str:
    """Return one row an artefact and processor."""
    headers = (
        *("artefact", "integers", "processor", "same pixels", "same top-1", "largest difference"),
        *("pictures that differ", "first layer"),
    )
    return render(
        headers,
        [
            (
                each.artifact,
                "throughout" if each.integers_throughout else "mostly",
                each.processor,
                f"{each.same_pixels}/{each.pictures}",
                f"{each.same_top1}/{each.pictures}",
                f"{each.largest_difference:.3g}",
                str(each.different_pictures),
                each.first_layer or "-",
            )
            for each in found
        ],
    )


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"{command[0]} failed ({done.returncode})"
        raise SystemExit(said)
    return done.stdout


def main() -> None:
    """Compare, and print the table; the exit code is 1 where what must be equal is not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--profile", nargs="+", choices=PROCESSORS, default=list(PROCESSORS))
    parser.add_argument("--runtime", nargs="+", choices=runtimes.names(), default=[])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--json", type=Path, help="also write what was found here")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    artifacts = bundle.select(tuple(options.runtime), (Precision.INT8,))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = write_pictures(options.images, folder)
        machines = Machines(folder, options.profile)
        found = [
            compare(machines, bundle, artifact, pictures, profile)
            for artifact in artifacts
            for profile in options.profile
        ]
    print(table(found))
    for each in found:
        for picture, lead in each.other_top1:
            print(f"{each.artifact}: another best class on {picture}, which leads by {lead:.3g}")
    if options.json:
        document = {
            "bundle_sha256": bundle.sha256,
            "comparisons": [asdict(each) for each in found],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    exact = ("onnxruntime", "litert")
    broken = [
        each
        for each in found
        if each.same_pixels < each.pictures
        or each.same_top1 < each.pictures
        or (
            each.integers_throughout
            and each.artifact.partition(" ")[0] in exact
            and each.largest_difference > 0
        )
    ]
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
