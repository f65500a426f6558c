"""From a source to a bundle: calibrate once, write every artefact, check each, seal the folder.

    source -> (calibrate -> quantise) -> writers -> checks -> golden vectors -> manifest

Which artefacts exist is the table `WRITERS`; adding a format is one module and its rows here.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import edgenet
from edgenet.bundle import (
    LABELS,
    QUANTIZATION,
    Artifact,
    Bundle,
    GoldenFiles,
    Precision,
    Quantization,
    describe_artifact,
    describe_file,
)
from edgenet.convert.calibration import (
    Calibration,
    CalibrationImages,
    Progress,
    identity,
    look_over,
    read_images,
)
from edgenet.convert.checks import check_artifacts
from edgenet.convert.description import Description
from edgenet.convert.destination import new_bundle
from edgenet.convert.golden import choose_pictures, spread_pictures, write_golden
from edgenet.convert.golden_layers import LayersInFile, float_weights, stored_weights
from edgenet.convert.limits import (
    Int8Options,
    JudgedLimit,
    check_held_out,
    check_labelled,
    make_limits,
)
from edgenet.convert.source import Source
from edgenet.convert.work import less_work_in, work_of
from edgenet.errors import BadData, UsageError, needs_extra
from edgenet.manifest import read_labels, write_manifest
from edgenet.measure.agreement import Agreement
from edgenet.quantize import execute
from edgenet.quantize.document import document
from edgenet.quantize.form import (
    Calibrated,
    Form,
    Jury,
    Limit,
    calibrate,
    hold_limits,
    jury,
    make_form,
)
from edgenet.quantize.recipe import Recipe

TENSORRT = "tensorrt"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of artefact: which runtime loads it, in which precision, and its files' endings."""

    runtime: str
    precision: Precision
    writer: str
    """Module in `edgenet.convert`, with a function `write_<precision>`."""
    endings: tuple[str, ...]
    variant: str | None = None
    """Of the quantised model, where it is another than the one for all."""

    @property
    def asked_for_as(self) -> str:
        """Return the name that `--runtime` takes for it."""
        return self.variant or self.runtime


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
    Target(
        runtime="onnxruntime",
        precision=Precision.INT8,
        writer="onnx",
        endings=(".onnx",),
        variant=TENSORRT,
    ),
)
"""Every artefact that `convert` can write, in the order of the manifest."""

TOOLS = ("torch", "onnx", "openvino", "ai-edge-litert", "opencv-python", "opencv-python-headless")
"""The distributions whose versions the manifest names."""


def select_targets(
    requested_runtimes: Sequence[str], precisions: Sequence[Precision]
) -> tuple[Target, ...]:
    """Return the artefacts to write; every one where nothing is named.

    Raises `UsageError` for a runtime that none is written for, and for a pair that does not exist.
    """
    known = tuple(dict.fromkeys(target.asked_for_as for target in WRITERS))
    for name in requested_runtimes:
        if name not in known:
            raise UsageError(f"unknown runtime {name!r}: choose from {', '.join(known)}")
    chosen = tuple(
        target
        for target in WRITERS
        if (not requested_runtimes or target.asked_for_as in requested_runtimes)
        and (not precisions or target.precision in precisions)
    )
    if not chosen:
        there = ", ".join(f"{t.asked_for_as} {t.precision.value}" for t in WRITERS)
        wanted = " ".join([*requested_runtimes, *(p.value for p in precisions)])
        raise UsageError(f"nothing is written for {wanted}: choose from {there}")
    return chosen


def convert(
    source: Source,
    destination: Path,
    *,
    targets: Sequence[Target],
    calibration: Calibration,
    int8: Int8Options,
    progress: Progress,
    replace: bool = False,
) -> Path:
    """Write the bundle of `source` to `destination` and return its path.

    The same inputs give the same bytes. Raises `ConversionFailed` when an artefact does not answer
    as the original does or INT8 loses more than it may, `BadData` for a limit that the network
    cannot be held to; nothing is left behind then.
    """
    _check_packages(targets)
    check_labelled(source, int8)
    for note in source.notes:
        progress.warn(note)
    with new_bundle(destination, replace=replace) as folder:
        integer = any(target.precision is Precision.INT8 for target in targets)
        images = read_images(calibration, source, progress, strict=integer)
        check_held_out(images, int8)
        forms: dict[str, Form] = {}
        quantizations: tuple[Quantization, ...] = ()
        if integer:
            forms, quantizations = _quantize(
                folder, source, images, targets, int8, progress, seed=calibration.seed
            )
        _warn_of_float(quantizations, progress)
        if source.labels:
            _write_labels(source.labels, folder / LABELS)
        artifacts = [_write(target, folder, source, forms, progress) for target in targets]
        check_artifacts(folder, artifacts, source, images, forms, progress)
        layers = _layers_in_files(folder, source, targets, artifacts, forms)
        golden = _write_golden(
            folder, source, images, artifacts, forms, quantizations, layers, progress
        )
        paths = [
            *((LABELS,) if source.labels else ()),
            *((QUANTIZATION,) if integer else ()),
            *(golden.paths if golden else ()),
            *(path for artifact in artifacts for path in artifact.files),
        ]
        write_manifest(
            Bundle(
                root=folder,
                name=source.name,
                licence=source.licence,
                model=source.model,
                mean=source.mean,
                std=source.std,
                preprocessing=source.preprocessing,
                outputs=source.outputs,
                labels=source.labels,
                files=tuple(describe_file(folder, path) for path in paths),
                artifacts=tuple(artifacts),
                calibration=identity(calibration, images, int8.recipe.summary())
                if integer
                else None,
                tools=_tool_versions(),
                golden=golden,
                quantizations=quantizations,
                layers=work_of(source.graph),
            )
        )
    return destination


def _check_packages(targets: Sequence[Target]) -> None:
    """Import every writer before the work begins, so that a missing package shows at once."""
    for writer in dict.fromkeys(target.writer for target in targets):
        with needs_extra("convert"):
            importlib.import_module(f"edgenet.convert.{writer}")


def _warn_of_float(quantizations: Sequence[Quantization], progress: Progress) -> None:
    for found in quantizations:
        if found.limits and found.is_mostly_float:
            asked = " and ".join(f"{limit.option} {limit.asked:g}" for limit in found.limits)
            progress.warn(
                f"{found.name} is mostly float: {asked} put {len(found.float_layers)} of "
                f"{found.weighted_layers} layers back; allow more loss, or see whether it is "
                "still worth its size and speed"
            )


def _write_labels(labels: tuple[str, ...], path: Path) -> None:
    """Write one name a line; raises `BadData` for a name that would not come back as it was."""
    path.write_text("\n".join(labels) + "\n", encoding="utf-8")
    if read_labels(path) != labels:
        raise BadData("a label of this model holds a line break; give --labels, one name a line")


def _quantize(
    folder: Path,
    source: Source,
    images: CalibrationImages,
    targets: Sequence[Target],
    int8: Int8Options,
    progress: Progress,
    *,
    seed: int,
) -> tuple[dict[str, Form], tuple[Quantization, ...]]:
    """Return the INT8 forms that the targets need, by name, after writing `quantization.json`."""
    calibrated = calibrate(
        source.graph, images.calibrating, int8.recipe, seed=seed, progress=progress
    )
    hygiene = look_over(images, source, calibrated.halves, progress)
    judges = jury(
        "held-out calibration images" if images.held_out else "calibration images",
        source.graph,
        images.held_out or images.inputs,
    )
    limits = make_limits(source, images, int8, judges, progress)
    forms = _make_forms(calibrated, limits, targets, int8, progress)
    done = progress.step("judge INT8", total=len(forms))
    quantizations = tuple(
        _judged(name, form, judges, limits, int8.recipe, done) for name, form in forms.items()
    )
    text = json.dumps(document(forms, calibrated, hygiene), indent=1) + "\n"
    (folder / QUANTIZATION).write_text(text, "utf-8")
    return forms, quantizations


def _make_forms(
    calibrated: Calibrated,
    limits: Sequence[Limit],
    targets: Sequence[Target],
    int8: Int8Options,
    progress: Progress,
) -> dict[str, Form]:
    """Return the forms that the targets need, by name.

    TensorRT's keeps the limits where it is made alone. Beside the form for all runtimes it keeps
    the same layers in float, and a limit that it misses is told.
    """
    hold = partial(
        hold_limits, calibrated, limits, full_integer=int8.full_integer, progress=progress
    )
    wanted = [target for target in targets if target.precision is Precision.INT8]
    if all(target.variant for target in wanted):
        return {f"int8-{TENSORRT}": hold(symmetric=True)}
    forms = {"int8": hold()}
    if any(target.variant for target in wanted):
        layers = forms["int8"].float_layers
        second = make_form(calibrated, layers, symmetric=True, progress=progress)
        forms[f"int8-{TENSORRT}"] = second
        for limit in limits:
            reached = limit.measure(second.quantized)
            if reached < limit.allowed:
                progress.warn(
                    f"TensorRT's second INT8 model misses {limit.name} {abs(limit.allowed):g} by "
                    f"{limit.allowed - reached:.2f} {limit.unit}; --runtime {TENSORRT} alone holds "
                    "it to the limit"
                )
    return forms


def _judged(
    name: str,
    form: Form,
    judges: Jury,
    limits: Sequence[JudgedLimit],
    recipe: Recipe,
    done: Callable[[], None],
) -> Quantization:
    found = judges.agreement(form.quantized)
    done()
    return Quantization(
        name=name,
        float_layers=form.float_layers,
        method=recipe.summary(),
        sqnr_db=found.sqnr_db,
        agreement_right=found.top1.right if isinstance(found, Agreement) else None,
        images=len(judges.images),
        judged_on=judges.on,
        weighted_layers=len(form.calibrated.reference.weighted()),
        limits=tuple(limit.result_of(form) for limit in limits),
        cosine=found.cosine,
        layers=less_work_in(form.filled),
    )


def _write(
    target: Target, folder: Path, source: Source, forms: Mapping[str, Form], progress: Progress
) -> Artifact:
    """Write one artefact through its writer module."""
    done = progress.step(f"write {target.asked_for_as} {target.precision.value}")
    writer = importlib.import_module(f"edgenet.convert.{target.writer}")
    variant = f"-{target.variant}" if target.variant else ""
    stem = f"{source.name}_{target.precision.value}{variant.replace('-', '_')}"
    integer = target.precision is Precision.INT8
    getattr(writer, f"write_{target.precision.value}")(
        forms[f"int8{variant}"].quantized if integer else source.graph,
        folder / f"{stem}{target.endings[0]}",
        description=Description(
            name=source.name,
            version=edgenet.__version__,
            licence=source.licence,
            labels=source.labels,
            preprocessing=source.preprocessing,
        ),
    )
    done()
    return describe_artifact(
        target.runtime,
        target.precision,
        tuple(describe_file(folder, f"{stem}{ending}") for ending in target.endings),
        variant=target.variant,
    )


def _layers_in_files(
    folder: Path,
    source: Source,
    targets: Sequence[Target],
    artifacts: Sequence[Artifact],
    forms: Mapping[str, Form],
) -> dict[str, LayersInFile]:
    """Return, by each artefact's label, what its file has of each layer."""
    layers, outputs = work_of(source.graph), source.outputs
    found = {}
    for target, artifact in zip(targets, artifacts, strict=True):
        writer = importlib.import_module(f"edgenet.convert.{target.writer}")
        form = forms.get(artifact.quantization or "")
        found[artifact.label] = LayersInFile(
            tensors=writer.layer_tensors(folder / artifact.files[0], layers, outputs),
            weights=stored_weights(form.quantized)
            if form
            else float_weights(source.graph, artifact.precision),
        )
    return found


def _write_golden(
    folder: Path,
    source: Source,
    images: CalibrationImages,
    artifacts: Sequence[Artifact],
    forms: Mapping[str, Form],
    quantizations: Sequence[Quantization],
    layers: Mapping[str, LayersInFile],
    progress: Progress,
) -> GoldenFiles | None:
    """Write a few pictures with every artefact's answers, for `edgenet verify`."""
    candidates = images.not_calibrated_on()
    picks = spread_pictures(len(candidates))
    if source.graph.is_classifier:
        logits = execute.answers(source.graph, [images.inputs[index] for index in candidates])
        picks = choose_pictures(logits)
    chosen = [images.samples[candidates[pick]] for pick in picks]
    return write_golden(
        folder,
        [(sample.name, sample.read()) for sample in chosen],
        source.preprocessing,
        artifacts,
        outputs=source.outputs,
        quantizations=quantizations,
        output_steps={name: form.output_steps for name, form in forms.items()},
        layers=layers,
        reference=partial(execute.answers, source.graph),
        on_artifact=progress.step("golden vectors", total=len(artifacts)),
    )


def _tool_versions() -> dict[str, str]:
    return {"edgenet": edgenet.__version__, **dict(_installed(TOOLS))}


def _installed(distributions: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in distributions:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
