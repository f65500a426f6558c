"""The INT8 form of a bundle made again, from what the bundle itself holds.

The reference comes from its float32 ONNX file, the recipe from `quantization.json`, the images from
their hashes in the manifest. What comes out must be what the bundle has; otherwise whatever is said
of it would be said of another form.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import numpy_helper

from edgenet.bundle import AGAIN, QUANTIZATION, Artifact, Bundle, Precision, Quantization
from edgenet.convert.calibration import CalibrationImages, Progress
from edgenet.convert.reference_file import read_reference
from edgenet.convert.source import Source
from edgenet.data import fashion_mnist, photographs
from edgenet.data.sample import Dataset, Sample
from edgenet.errors import BadData, BadImage, BrokenBundle, ConversionFailed, UsageError
from edgenet.graph import LOGITS
from edgenet.models.onnx_nodes import load_model
from edgenet.preprocess import UInt8Array, pixels_sha256, prepare
from edgenet.quantize import execute
from edgenet.quantize.document import document
from edgenet.quantize.form import Form, calibrate, make_form
from edgenet.quantize.recipe import parse_recipe

EMBEDDED = (photographs.calibration_set, fashion_mnist.calibration_set)
"""The calibration sets that need not be given."""
SCALE_TOLERANCE = 1e-5
"""Scales are the same to six digits on every machine."""
TURNED_SHARE = 0.01
"""Integers that may be rounded otherwise, as on another processor."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Remade:
    """A bundle's INT8 form with all that it was made from."""

    source: Source
    images: CalibrationImages
    form: Form
    seconds: float
    """That making the form took, calibration left out."""
    notes: tuple[str, ...]
    """In what it differs from the bundle's, if in anything that may differ."""


def remake(
    bundle: Bundle, *, form_name: str | None, calibration: Dataset | None, progress: Progress
) -> Remade:
    """Return the INT8 form called `form_name` of a bundle; None for the first that there is.

    `calibration` holds the calibration images where they are no embedded set. Raises `BadData`
    when images are missing or nothing is in 8 bits, `ConversionFailed` when another form comes out.
    """
    quantization = _quantization(bundle, form_name)
    written = _written(bundle)
    wanted = written["forms"][quantization.name]
    source = reference_of(bundle, last=_last_tensor(wanted))
    known = {"spare_channels": False, **written["recipe"]}  # bundles are older than they
    recipe = parse_recipe(json.dumps(known), origin=str(bundle.root / QUANTIZATION))
    images = find_images(bundle, calibration, progress)
    assert bundle.calibration is not None
    calibrated = calibrate(
        source.graph, images.calibrating, recipe, seed=bundle.calibration.seed, progress=progress
    )
    started = time.perf_counter()
    form = make_form(
        calibrated,
        tuple(wanted["float_layers"]),
        symmetric=wanted["symmetric"],
        progress=progress,
    )
    seconds = time.perf_counter() - started
    made = document({quantization.name: form}, calibrated, {})["forms"][quantization.name]
    turned = _turned(bundle, quantization, form)
    different = [
        *_differences(made, wanted),
        *(
            f"{layer.count} of the {layer.weights} 8-bit weights of {layer.layer} differ, by up to "
            f"{layer.steps} steps"
            for layer in turned
            if layer.is_too_much
        ),
    ]
    if different:
        raise ConversionFailed(
            f"{bundle.root}: its INT8 form does not come out again: {different[0]}"
            + (f" (and {len(different) - 1} more)" if len(different) > 1 else "")
            + f"; it was made by {_tools(bundle)}. Diagnose with those, or convert again"
        )
    return Remade(
        source=source,
        images=images,
        form=form,
        seconds=seconds,
        notes=(
            f"{sum(layer.count for layer in turned)} weights are rounded otherwise than in the "
            "bundle, by one step: it was made on another machine or by other versions",
        )
        if turned
        else (),
    )


def reference_of(bundle: Bundle, *, last: str = LOGITS) -> Source:
    """Return what a bundle was converted from, as far as its float32 ONNX file holds it.

    `last` names the last operator where an older file does not. Raises `BadData` without that file.
    """
    artifact = next((a for a in bundle.artifacts if _is_onnx(a, Precision.FLOAT32)), None)
    if artifact is None:
        raise BadData(
            f"{bundle.root}: has no float32 ONNX file, which is the reference; convert again with "
            "--runtime onnxruntime among the runtimes and float32 among the precisions"
        )
    graph = read_reference(bundle.path(artifact), bundle.mean, bundle.std, last=last)
    return Source(
        name=bundle.name,
        graph=graph,
        answers=lambda pictures: execute.answers(graph, [picture[None] for picture in pictures]),
        original="the float32 ONNX file",
        mean=bundle.mean,
        std=bundle.std,
        preprocessing=bundle.preprocessing,
        labels=bundle.labels,
        licence=bundle.licence,
        model=bundle.model,
    )


def find_images(
    bundle: Bundle, calibration: Dataset | None, progress: Progress
) -> CalibrationImages:
    """Return the images that the manifest names by their hashes, in its order.

    `calibration` is where to look; without it, the embedded set of that name. Raises `BadData`
    naming the set when it is needed or does not hold them all.
    """
    identity = bundle.calibration
    if identity is None or not identity.images:
        raise BadData(
            f"{bundle.root}: does not say which images it was calibrated on (an older edgenet made "
            "it); convert again"
        )
    embedded = (make() for make in EMBEDDED)
    dataset = calibration or next((d for d in embedded if d.name == identity.name), None)
    if dataset is None:
        raise BadData(
            f"{bundle.root}: was calibrated on {identity.name!r} ({identity.count} images), which "
            "does not come with edgenet; give it with --calibration DIR or CSV"
        )
    found: dict[str, tuple[Sample, UInt8Array]] = {}
    # The draw of then is all that must be read, unless a picture could not be read then.
    drawn = dataset.draw(identity.count, seed=identity.seed)
    done = progress.step("read calibration images", total=identity.count)
    for samples in (drawn.samples, dataset.samples):
        for sample in samples:
            if found.keys() >= set(identity.images):
                break
            try:
                picture = sample.read()
            except BadImage:
                continue
            sha256 = pixels_sha256(picture)
            if sha256 in identity.images and sha256 not in found:
                found[sha256] = (sample, prepare(picture, bundle.preprocessing))
                done()
    missing = [sha256 for sha256 in identity.images if sha256 not in found]
    if missing:
        raise BadData(
            f"{dataset.name}: lacks {len(missing)} of the {identity.count} images that "
            f"{bundle.root} was calibrated on; give with --calibration the set "
            f"{identity.name!r} as it was then"
        )
    return CalibrationImages(
        samples=tuple(found[sha256][0] for sha256 in identity.images),
        inputs=tuple(found[sha256][1] for sha256 in identity.images),
        sha256=identity.images,
    )


def _quantization(bundle: Bundle, name: str | None) -> Quantization:
    if not bundle.quantizations or not (bundle.root / QUANTIZATION).is_file():
        raise BadData(
            f"{bundle.root}: has no INT8 form to diagnose; convert again with int8 among the "
            "precisions"
        )
    there = {found.name: found for found in bundle.quantizations}
    if name is None:
        return bundle.quantizations[0]
    if name not in there:
        raise UsageError(f"{bundle.root}: has no INT8 form {name!r}; it has {', '.join(there)}")
    return there[name]


def _written(bundle: Bundle) -> Any:
    path = bundle.root / QUANTIZATION
    try:
        written = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BrokenBundle(f"{path}: is not JSON ({error}); {AGAIN}") from None
    forms = written.get("forms", {}) if isinstance(written, dict) else {}
    for quantization in bundle.quantizations:
        if quantization.name not in forms:
            raise BrokenBundle(f"{path}: lacks the form {quantization.name}; {AGAIN}")
    return written


def _last_tensor(wanted: Mapping[str, Any]) -> str:
    """Return the last tensor of a form: a classifier's output, where an older file keeps it."""
    return next(reversed(wanted["tensors"]), LOGITS)


# Is it the same form?


def _differences(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield where two forms of `quantization.json` differ; what moved is told by the integers."""
    for part in ("tensors", "layers"):
        if made[part].keys() != wanted[part].keys():
            names = sorted(made[part].keys() ^ wanted[part].keys())
            yield f"{part} in 8 bits differ at {', '.join(names)}"
    for name in made["tensors"].keys() & wanted["tensors"].keys():
        ours, theirs = made["tensors"][name], wanted["tensors"][name]
        if ours["zero_point"] != theirs["zero_point"] or not _same(ours["scale"], theirs["scale"]):
            yield (
                f"tensor {name} has scale {ours['scale']:.6g}, zero point {ours['zero_point']}, "
                f"in the bundle {theirs['scale']:.6g} and {theirs['zero_point']}"
            )
    for name in made["layers"].keys() & wanted["layers"].keys():
        ours, theirs = (form["layers"][name]["weight"]["scale"] for form in (made, wanted))
        if len(ours) != len(theirs) or not _same(ours, theirs):
            yield f"the weight scales of {name} are others"


def _same(ours: Any, theirs: Any) -> bool:
    return bool(np.allclose(ours, theirs, rtol=SCALE_TOLERANCE, atol=0))


@dataclass(frozen=True, kw_only=True)
class _Turned:
    """8-bit weights of one layer that are others than in the bundle."""

    layer: str
    count: int
    weights: int
    """All that the layer has."""
    steps: int
    """By how many, at most."""

    @property
    def is_too_much(self) -> bool:
        """Tell whether another processor's last bits cannot be the cause."""
        return self.count > max(1.0, TURNED_SHARE * self.weights) or self.steps > 1


def _turned(bundle: Bundle, quantization: Quantization, form: Form) -> tuple[_Turned, ...]:
    """Return every layer with such weights; none where no ONNX file of the form is there to read.

    Scales and zero points of `quantization.json` are then all there is to compare.
    """
    artifact = next(
        (
            found
            for found in bundle.artifacts
            if found.quantization == quantization.name and _is_onnx(found, Precision.INT8)
        ),
        None,
    )
    if artifact is None:
        return ()
    written = _integers(bundle.path(artifact))
    turned = []
    for op in form.quantized.graph.weighted():
        name, weights = op.name, form.quantized.layers.get(op.name)
        if weights is None or form.quantized.gives_sums(op):  # floats in this file
            continue
        steps = np.abs(weights.values - written.get(name, 0))  # 0: in float there
        if steps.any():
            count, most = int((steps > 0).sum()), int(steps.max())
            turned.append(_Turned(layer=name, count=count, weights=steps.size, steps=most))
    return tuple(turned)


def _integers(path: Path) -> dict[str, npt.NDArray[np.int64]]:
    """Return a file's 8-bit weights by layer, (out, ...).

    TensorRT's file holds them as integers times their scale.
    """
    model, _ = load_model(path)
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    integers = {}
    for name, values in arrays.items():
        if name.endswith(".weight.quantized"):
            integers[name.removesuffix(".weight.quantized")] = values.astype(np.int64)
        elif name.endswith(".weight.float"):
            scale = arrays[f"{name.removesuffix('.float')}.scale"]
            real = values / scale.reshape(-1, *[1] * (values.ndim - 1))
            integers[name.removesuffix(".weight.float")] = np.rint(real).astype(np.int64)
    return integers


def _is_onnx(artifact: Artifact, precision: Precision) -> bool:
    return artifact.precision is precision and artifact.files[0].endswith(".onnx")


def _tools(bundle: Bundle) -> str:
    return ", ".join(f"{name} {version}" for name, version in bundle.tools.items())
