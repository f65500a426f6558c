"""From a reference to a bundle: calibrate once, write every artefact, check each, seal the folder.

    reference -> fold -> (calibrate -> quantise) -> writers -> checks -> manifest

Which artefacts exist is the table `WRITERS`; adding a format is one module and its rows here.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import numpy as np

import edgenet
from edgenet import runtimes
from edgenet.bundle import (
    LABELS,
    Artifact,
    Bundle,
    CalibrationIdentity,
    Model,
    Precision,
    describe_artifact,
    describe_file,
    new_bundle,
    read_labels,
    write_manifest,
)
from edgenet.convert.description import Description
from edgenet.data.sample import Dataset
from edgenet.errors import (
    BadData,
    BadImage,
    ConversionFailed,
    MissingExtra,
    UsageError,
    needs_extra,
)
from edgenet.graph import Graph, QuantizedGraph
from edgenet.models.fold import fold
from edgenet.models.weights import ARCHITECTURE, Reference
from edgenet.preprocess import UInt8Array, pixels_sha256, prepare
from edgenet.quantize.correct import correct
from edgenet.quantize.encode import encode
from edgenet.quantize.equalise import equalise
from edgenet.quantize.statistics import collect
from edgenet.runtimes.torch import TorchSession

FLOAT32_TOLERANCE = 1e-3
"""Largest difference of a logit that a float32 artefact may have from torch."""
METHOD = "min-max, equalised, learned rounding, bias correction"
"""How the INT8 numbers are found, for the manifest."""
CHECKED_IMAGES = 4
"""How many calibration images each artefact is run on before it may leave."""


class Progress(Protocol):
    """Where the pipeline says what it is doing."""

    def step(self, description: str, *, total: int = 1) -> Callable[[], None]:
        """Begin a step of `total` parts; the function returned marks one as done."""

    def warn(self, message: str) -> None:
        """Show a message that does not stop the conversion."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of artefact: which runtime loads it, in which precision, and its files' endings."""

    runtime: str
    precision: Precision
    writer: str
    """Module in `edgenet.convert`, with a function `write_<precision>`."""
    endings: tuple[str, ...]


WRITERS = (
    Target(runtime="onnxruntime", precision=Precision.FLOAT32, writer="onnx", endings=(".onnx",)),
    Target(runtime="onnxruntime", precision=Precision.INT8, writer="onnx", endings=(".onnx",)),
    *(
        Target(runtime="openvino", precision=kind, writer="openvino", endings=(".xml", ".bin"))
        for kind in Precision
    ),
    *(
        Target(runtime="litert", precision=kind, writer="tflite", endings=(".tflite",))
        for kind in Precision
    ),
)
"""Every artefact that `convert` can write, in the order of the manifest."""

TOOLS = ("torch", "onnx", "openvino", "ai-edge-litert")
"""The distributions whose versions the manifest names."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Which images to take the INT8 ranges from."""

    dataset: Dataset
    samples: int
    seed: int


def select_targets(
    requested_runtimes: Sequence[str], precisions: Sequence[Precision]
) -> tuple[Target, ...]:
    """Return the artefacts to write; every one where nothing is named.

    Raises `UsageError` for a runtime that none is written for, and for a pair that does not exist.
    """
    known = tuple(dict.fromkeys(target.runtime for target in WRITERS))
    for name in requested_runtimes:
        if name not in known:
            raise UsageError(f"unknown runtime {name!r}: choose from {', '.join(known)}")
    chosen = tuple(
        target
        for target in WRITERS
        if (not requested_runtimes or target.runtime in requested_runtimes)
        and (not precisions or target.precision in precisions)
    )
    if not chosen:
        there = ", ".join(f"{t.runtime} {t.precision.value}" for t in WRITERS)
        wanted = " ".join([*requested_runtimes, *(p.value for p in precisions)])
        raise UsageError(f"nothing is written for {wanted}: choose from {there}")
    return chosen


def convert(
    reference: Reference,
    destination: Path,
    *,
    targets: Sequence[Target],
    calibration: Calibration,
    progress: Progress,
    replace: bool = False,
) -> Path:
    """Write the bundle of `reference` to `destination` and return its path.

    The same inputs give the same bytes. Raises `ConversionFailed` when an artefact does not answer
    as the reference does; nothing is left behind then.
    """
    _check_packages(targets)
    with new_bundle(destination, replace=replace) as folder:
        done = progress.step("fold BatchNorm")
        graph = fold(reference.module, name=reference.name, mean=reference.mean, std=reference.std)
        done()
        images = _read_images(calibration, reference, progress)
        integer = any(target.precision is Precision.INT8 for target in targets)
        quantized = _quantize(graph, images.inputs, progress) if integer else None
        _write_labels(reference.labels, folder / LABELS)
        artifacts = [
            _write(target, folder, graph, quantized, reference, progress) for target in targets
        ]
        _check(folder, artifacts, reference, images.inputs[:CHECKED_IMAGES], progress)
        paths = [LABELS, *(path for artifact in artifacts for path in artifact.files)]
        write_manifest(
            Bundle(
                root=folder,
                name=reference.name,
                licence=reference.licence,
                model=_model(reference),
                mean=reference.mean,
                std=reference.std,
                preprocessing=reference.preprocessing,
                labels=reference.labels,
                files=tuple(describe_file(folder, path) for path in paths),
                artifacts=tuple(artifacts),
                calibration=_identity(calibration, images) if integer else None,
                tools=_tool_versions(),
            )
        )
    return destination


def _check_packages(targets: Sequence[Target]) -> None:
    """Import every writer before the work begins, so that a missing package shows at once."""
    for writer in dict.fromkeys(target.writer for target in targets):
        with needs_extra("convert"):
            importlib.import_module(f"edgenet.convert.{writer}")


def _write_labels(labels: tuple[str, ...], path: Path) -> None:
    """Write one name a line; raises `BadData` for a name that would not come back as it was."""
    path.write_text("\n".join(labels) + "\n", encoding="utf-8")
    if read_labels(path) != labels:
        raise BadData("a label of this model holds a line break; give --labels, one name a line")


@dataclass(frozen=True, kw_only=True)
class _CalibrationImages:
    inputs: tuple[UInt8Array, ...]
    """What the network sees of each image, (1, H, W, 3) uint8 RGB."""
    sha256: str
    """Over the hashes of the pictures as decoded, in order."""


def _read_images(
    calibration: Calibration, reference: Reference, progress: Progress
) -> _CalibrationImages:
    """Read the images that were drawn; one that is no picture is left out with a warning."""
    drawn = calibration.dataset.draw(calibration.samples, seed=calibration.seed)
    done = progress.step("read calibration images", total=len(drawn.samples))
    inputs, hashes = [], []
    for sample in drawn.samples:
        try:
            picture = sample.read()
            inputs.append(prepare(picture, reference.preprocessing))
            hashes.append(pixels_sha256(picture))
        except BadImage as error:
            progress.warn(f"left out of the calibration: {error}")
        done()
    if not inputs:
        raise BadData(f"{calibration.dataset.name}: no calibration image can be read")
    return _CalibrationImages(
        inputs=tuple(inputs), sha256=hashlib.sha256("".join(hashes).encode()).hexdigest()
    )


def _quantize(graph: Graph, images: Sequence[UInt8Array], progress: Progress) -> QuantizedGraph:
    """Return the INT8 form that every runtime gets."""
    seen = collect(graph, images, on_image=progress.step("calibrate", total=len(images)))
    equalised, seen = equalise(graph, seen)
    done = progress.step("correct layers", total=len(graph.weighted()))
    return correct(encode(equalised, seen), seen, images, on_layer=done)


def _write(
    target: Target,
    folder: Path,
    graph: Graph,
    quantized: QuantizedGraph | None,
    reference: Reference,
    progress: Progress,
) -> Artifact:
    """Write one artefact through its writer module."""
    done = progress.step(f"write {target.runtime} {target.precision.value}")
    writer = importlib.import_module(f"edgenet.convert.{target.writer}")
    stem = f"{reference.name}_{target.precision.value}"
    write = getattr(writer, f"write_{target.precision.value}")
    write(
        quantized if target.precision is Precision.INT8 else graph,
        folder / f"{stem}{target.endings[0]}",
        description=Description(
            name=reference.name,
            version=edgenet.__version__,
            licence=reference.licence,
            labels=reference.labels,
            preprocessing=reference.preprocessing,
        ),
    )
    done()
    return describe_artifact(
        target.runtime,
        target.precision,
        tuple(describe_file(folder, f"{stem}{ending}") for ending in target.endings),
    )


def _check(
    folder: Path,
    artifacts: Sequence[Artifact],
    reference: Reference,
    images: Sequence[UInt8Array],
    progress: Progress,
) -> None:
    """Run every artefact against torch; raises `ConversionFailed` for one that must not leave.

    An artefact whose runtime is not installed here is named and stays unchecked.
    """
    done = progress.step("check against torch", total=len(artifacts))
    torch_session = TorchSession(
        reference.module,
        resolution=reference.module.resolution,
        mean=reference.mean,
        std=reference.std,
    )
    expected = np.stack([torch_session.run(image)["logits"][0] for image in images])
    for artifact in artifacts:
        name = f"{artifact.runtime} {artifact.precision.value}"
        try:
            session = runtimes.load(artifact.runtime, folder / artifact.files[0])
        except MissingExtra as error:
            progress.warn(f"{name} is not checked: {error}")
            continue
        with closing(session):
            found = np.stack([session.run(image)["logits"][0] for image in images])
        flat = found.shape[1] > 1 and (np.ptp(found, axis=1) == 0).any()
        if flat or not np.isfinite(found).all():
            raise ConversionFailed(
                f"{name}: its logits are constant or not finite on real images, so it is not "
                "written; check the weights and the calibration images"
            )
        worst = float(np.abs(found - expected).max())
        if artifact.precision is Precision.FLOAT32 and worst > FLOAT32_TOLERANCE:
            raise ConversionFailed(
                f"{name}: a logit differs from torch by {worst:.2g}, allowed are "
                f"{FLOAT32_TOLERANCE:g}"
            )
        done()


def _model(reference: Reference) -> Model:
    module = reference.module
    return Model(
        architecture=ARCHITECTURE,
        width_multiplier=module.width_multiplier,
        resolution=module.resolution,
        num_classes=module.num_classes,
        activation=module.activation.value,
        padding=module.padding.value,
        weights=reference.weights,
        weights_sha256=reference.weights_sha256,
        trained=reference.trained,
    )


def _identity(calibration: Calibration, images: _CalibrationImages) -> CalibrationIdentity:
    return CalibrationIdentity(
        name=calibration.dataset.name,
        count=len(images.inputs),
        seed=calibration.seed,
        sha256=images.sha256,
        method=METHOD,
    )


def _tool_versions() -> dict[str, str]:
    return {"edgenet": edgenet.__version__, **dict(_installed(TOOLS))}


def _installed(distributions: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in distributions:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
