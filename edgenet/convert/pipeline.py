"""From a source to a bundle: calibrate once, write every artefact, check each, seal the folder.

    source -> (calibrate -> quantise) -> writers -> checks -> golden vectors -> manifest

Which artefacts exist is the table `WRITERS`; adding a format is one module and its rows here.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import edgenet
from edgenet import runtimes
from edgenet.bundle import (
    DECIBEL,
    LABELS,
    POINTS,
    QUANTIZATION,
    Artifact,
    Bundle,
    GoldenFiles,
    LimitResult,
    Output,
    Precision,
    Quantization,
    describe_artifact,
    describe_file,
    new_bundle,
    read_labels,
    write_manifest,
)
from edgenet.convert.calibration import (
    FEWEST_TO_HOLD_OUT,
    Calibration,
    CalibrationImages,
    Progress,
    identity,
    labelled_images,
    look_over,
    read_images,
)
from edgenet.convert.description import Description
from edgenet.convert.golden import choose_pictures, spread_pictures, write_golden
from edgenet.convert.golden_layers import LayersInFile, float_weights, stored_weights
from edgenet.convert.source import Source
from edgenet.convert.work import work_of
from edgenet.data.hygiene import check_disjoint
from edgenet.data.labels import accepted_in
from edgenet.data.sample import Dataset
from edgenet.errors import BadData, ConversionFailed, MissingExtra, UsageError, needs_extra
from edgenet.golden import split
from edgenet.graph import Float32Array, QuantizedGraph
from edgenet.measure.agreement import Agreement, closeness
from edgenet.quantize import execute, simulate
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
from edgenet.wording import counted

FLOAT32_TOLERANCE = 1e-4
"""Largest difference that a float32 artefact's output may have, in parts of its largest value."""
CHECKED_IMAGES = 4
"""How many calibration images each artefact is run on before it may leave."""
STRAY_DB = 6.0
"""By how much an INT8 artefact's SQNR may be below that of its form simulated: runtimes round
differently, and a network that multiplies small errors shows it."""
NEAR_DB = 30.0
"""An SQNR from which on it is rounding that differs and nothing else."""
TENSORRT = "tensorrt"
MEASURES_KEPT = 4
"""How many forms' measures are remembered: of those that are made last, one is kept."""


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


@dataclass(frozen=True, kw_only=True)
class Int8Options:
    """What is asked of the INT8 form."""

    recipe: Recipe
    full_integer: bool = False
    """Nothing in float, for accelerators that have no other arithmetic."""
    min_sqnr_db: float | None = None
    """Least SQNR of the outputs on the held-out quarter of the calibration set."""
    max_drop_points: float | None = None
    """Most points of top-1 accuracy lost on `labelled`."""
    labelled: Dataset | None = None


@dataclass(frozen=True, kw_only=True)
class _JudgedLimit(Limit):
    """A limit with whom it is judged by, so that the manifest can tell what came of it."""

    judges: Jury

    def result_of(self, form: Form) -> LimitResult:
        """Return what `form` reached."""
        reached = self.measure(form.quantized)
        # A limit counts up towards the better: points that may be lost are below 0 there.
        sign = 1 if self.unit == DECIBEL else -1
        return LimitResult(
            option=self.name,
            unit=self.unit,
            asked=abs(self.allowed),
            reached=sign * reached + 0.0 if np.isfinite(reached) else None,
            judged_on=self.judges.on,
            images=len(self.judges.images),
        )


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
    _check_labelled(source, int8)
    for note in source.notes:
        progress.warn(note)
    with new_bundle(destination, replace=replace) as folder:
        integer = any(target.precision is Precision.INT8 for target in targets)
        images = read_images(calibration, source, progress, strict=integer)
        _check_held_out(images, int8)
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
        _check(folder, artifacts, source, images, forms, progress)
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
                outputs=_outputs(source),
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


def _outputs(source: Source) -> tuple[Output, ...]:
    shapes = source.graph.output_shapes
    return tuple(
        Output(name=name, shape=shapes[name], layer=layer)
        for layer, name in source.graph.outputs.items()
    )


def _check_labelled(source: Source, int8: Int8Options) -> None:
    """Raise before the work what a limit for accuracy could not be judged by."""
    if int8.max_drop_points is None:
        return
    if not source.graph.is_classifier:
        names = ", ".join(source.graph.outputs.values())
        raise BadData(
            f"{source.name}: is no classifier (its outputs are {names}), and --max-drop needs one; "
            "use --min-sqnr"
        )
    if not source.model.trained:
        raise UsageError(
            "--max-drop: the weights are random, so their accuracy means nothing; use --min-sqnr, "
            "or give trained weights"
        )
    accepted_in(_labelled(int8), source.labels)


def _check_held_out(images: CalibrationImages, int8: Int8Options) -> None:
    if int8.min_sqnr_db is not None and not images.held_out:
        raise BadData(
            "--min-sqnr judges on a quarter of the calibration set, which has "
            f"{counted(len(images.inputs), 'image')}; give {FEWEST_TO_HOLD_OUT} images or more"
        )


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
    limits = _limits(source, images, int8, judges, progress)
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


def _limits(
    source: Source,
    images: CalibrationImages,
    int8: Int8Options,
    judges: Jury,
    progress: Progress,
) -> list[_JudgedLimit]:
    """Return the limits; what they measure of a form is remembered, as it is asked repeatedly."""
    limits = []
    if int8.min_sqnr_db is not None:

        @lru_cache(MEASURES_KEPT)
        def sqnr_db(form: QuantizedGraph) -> float:
            return _decibel(judges.agreement(form).sqnr_db)

        limits.append(
            _JudgedLimit(
                name="--min-sqnr",
                unit=DECIBEL,
                allowed=int8.min_sqnr_db,
                measure=sqnr_db,
                judges=judges,
            )
        )
    if int8.max_drop_points is not None:
        labelled = _labelled_jury(source, images, int8, progress)

        @lru_cache(MEASURES_KEPT)
        def gain(form: QuantizedGraph) -> float:
            return -labelled.drop(form)

        limits.append(
            _JudgedLimit(
                name="--max-drop",
                unit=POINTS,
                allowed=-int8.max_drop_points,
                measure=gain,
                judges=labelled,
            )
        )
    return limits


def _labelled_jury(
    source: Source, images: CalibrationImages, int8: Int8Options, progress: Progress
) -> Jury:
    dataset = _labelled(int8)
    accepted = accepted_in(dataset, source.labels)
    inputs, labels, named = labelled_images(dataset, source, accepted, progress)
    check_disjoint(images.sha256, named)
    return jury(dataset.name, source.graph, inputs, labels)


def _labelled(int8: Int8Options) -> Dataset:
    if int8.labelled is None:
        raise UsageError("--max-drop needs labelled pictures: give --data, or use --min-sqnr")
    return int8.labelled


def _judged(
    name: str,
    form: Form,
    judges: Jury,
    limits: Sequence[_JudgedLimit],
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


def _check(
    folder: Path,
    artifacts: Sequence[Artifact],
    source: Source,
    images: CalibrationImages,
    forms: Mapping[str, Form],
    progress: Progress,
) -> None:
    """Run every artefact against the original; raises `ConversionFailed` for one that must stay.

    A float32 file must answer as the original does; one in INT8 may be off by what its own form is
    off by when it is simulated, and by `STRAY_DB` more.

    An artefact whose runtime is not installed here is named and stays unchecked.
    """
    done = progress.step(f"check against {source.original}", total=len(artifacts))
    inputs = images.inputs[:CHECKED_IMAGES]
    outputs = _outputs(source)
    names = [output.name for output in outputs]
    original = [
        _Original(name=name, values=values, of=source.original)
        for name, values in zip(
            names, split(source.answers(np.concatenate(inputs)), outputs), strict=True
        )
    ]
    _check_reading(source, original, split(execute.answers(source.graph, inputs), outputs))
    simulated = {
        name: split(simulate.answers(form.quantized, inputs), outputs)
        for name, form in forms.items()
    }
    for artifact in artifacts:
        try:
            session = runtimes.load(artifact.runtime, folder / artifact.files[0])
        except MissingExtra as error:
            progress.warn(f"{artifact.label} is not checked: {error}")
            continue
        with closing(session):
            found = np.stack([runtimes.answer(session, image, names) for image in inputs])
        meant = simulated.get(artifact.quantization or "", [None] * len(outputs))
        for part in zip(original, split(found, outputs), meant, strict=True):
            _check_output(artifact, *part)
        done()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Original:
    """What one output is to be."""

    name: str
    values: Float32Array
    """(pictures, values)."""
    of: str
    """What gives these answers."""


def _check_output(
    artifact: Artifact, original: _Original, found: Float32Array, meant: Float32Array | None
) -> None:
    """Hold one output of an artefact, (pictures, values), against what it is to be.

    `meant` is what the artefact's INT8 form makes of the pictures when it is simulated.
    """
    name, expected = original.name, original.values
    if _is_dead(found, expected) or not np.isfinite(found).all():
        raise ConversionFailed(
            f"{artifact.label}: its {name} are constant or not finite on real images, so it is "
            "not written; check the weights and the calibration images"
        )
    worst, allowed = float(np.abs(found - expected).max()), _allowed(expected)
    if artifact.precision is Precision.FLOAT32 and worst > allowed:
        raise ConversionFailed(
            f"{artifact.label}: a value of {name} differs from {original.of} by {worst:.2g}, "
            f"allowed are {allowed:.2g}"
        )
    if meant is None:
        return
    wanted, reached = (closeness(values, expected).sqnr_db for values in (meant, found))
    if wanted is not None and reached is not None and reached < min(wanted, NEAR_DB) - STRAY_DB:
        raise ConversionFailed(
            f"{artifact.label}: its {name} are {reached:.1f} dB from {original.of}'s where "
            f"its numbers mean {wanted:.1f} dB, so {artifact.runtime} does not compute what the "
            "file says; leave it out with --runtime and --precision, and report the network"
        )


def _is_dead(found: Float32Array, expected: Float32Array) -> bool:
    """Tell whether an output is one value throughout where the original's is not, or always."""
    still, meant = (np.ptp(values, axis=1) == 0 for values in (found, expected))
    return found.shape[1] > 1 and bool((still & ~meant).any() or still.all())


def _check_reading(
    source: Source, original: Sequence[_Original], read: Sequence[Float32Array]
) -> None:
    """Refuse a graph that is not the original: an INT8 file alone would hide it in its noise."""
    for output, values in zip(original, read, strict=True):
        worst, allowed = float(np.abs(values - output.values).max()), _allowed(output.values)
        if worst > allowed:
            raise ConversionFailed(
                f"{source.name}: edgenet's own reading of it differs from {output.of} by "
                f"{worst:.2g} in {output.name}, allowed are {allowed:.2g}; report the network"
            )


def _allowed(expected: Float32Array) -> float:
    return FLOAT32_TOLERANCE * max(float(np.abs(expected).max()), 1.0)


def _layers_in_files(
    folder: Path,
    source: Source,
    targets: Sequence[Target],
    artifacts: Sequence[Artifact],
    forms: Mapping[str, Form],
) -> dict[str, LayersInFile]:
    """Return, by each artefact's label, what its file has of each layer."""
    layers, outputs = work_of(source.graph), _outputs(source)
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
        outputs=_outputs(source),
        quantizations=quantizations,
        output_steps={name: form.output_steps for name, form in forms.items()},
        layers=layers,
        reference=partial(execute.answers, source.graph),
        on_artifact=progress.step("golden vectors", total=len(artifacts)),
    )


def _decibel(sqnr_db: float | None) -> float:
    """Return an SQNR as a number: bit-identical outputs have no noise."""
    return float("inf") if sqnr_db is None else sqnr_db


def _tool_versions() -> dict[str, str]:
    return {"edgenet": edgenet.__version__, **dict(_installed(TOOLS))}


def _installed(distributions: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in distributions:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
