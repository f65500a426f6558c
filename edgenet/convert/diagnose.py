"""Diagnosis of a bundle: its INT8 form is made again and looked at layer by layer, step by step."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgenet.bundle import Bundle
from edgenet.convert.calibration import Progress, labelled_images
from edgenet.convert.remake import Remade, remake
from edgenet.data.hygiene import check_disjoint
from edgenet.data.labels import accepted_in
from edgenet.data.sample import Dataset
from edgenet.measure.accuracy import Accuracy
from edgenet.quantize.diagnosis import (
    LayerDiagnosis,
    Step,
    diagnose_layers,
    diagnose_steps,
    reference_accuracy,
)
from edgenet.quantize.findings import Finding, find
from edgenet.quantize.form import Jury, jury

NO_LABELS = "no labelled pictures were given"
UNTRAINED = "the weights are random"
NO_CLASSIFIER = "the network is no classifier"
HELD_OUT = "held-out calibration images"
CALIBRATING = "the calibration images themselves (too few to hold any out)"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All that is found out about one INT8 form."""

    form: str
    """The quantised model's name in the manifest."""
    recipe: str
    float_layers: tuple[str, ...]
    layers: tuple[LayerDiagnosis, ...]
    """The lowest SQNR first."""
    findings: tuple[Finding, ...]
    layers_judged_on: str
    layers_images: int
    calibration_images: int
    steps: tuple[Step, ...]
    """From one weight scale a tensor to the form itself."""
    steps_judged_on: str
    steps_images: int
    reference_accuracy: Accuracy | None
    """Of the float network on the steps' pictures."""
    no_accuracy: str | None
    """Why there is none."""
    notes: tuple[str, ...]
    """In what the form made again differs from the bundle's, if in anything that may differ."""


def diagnose(
    bundle: Bundle,
    *,
    form_name: str | None = None,
    calibration: Dataset | None = None,
    labelled: Dataset | None = None,
    progress: Progress,
) -> Diagnosis:
    """Return where a bundle's INT8 form loses what, and what each correction bought.

    `form_name` is a quantised model's name in the manifest, None for the first. `calibration` is
    needed where the bundle was calibrated on no embedded set. On `labelled`, pictures with labels,
    the steps are judged; without it on the held-out quarter of the calibration images. Raises
    `BadData` for a bundle that cannot be diagnosed and for pictures that were calibrated on,
    `ConversionFailed` when another form comes out than the bundle has.
    """
    if labelled is not None:
        bundle.require_classifier("--data")
    remade = remake(bundle, form_name=form_name, calibration=calibration, progress=progress)
    form, images = remade.form, remade.images
    assert bundle.calibration is not None
    seed = bundle.calibration.seed
    pictures = HELD_OUT if images.held_out else CALIBRATING
    kept = images.held_out or images.inputs
    judges = jury(pictures, remade.source.graph, kept)
    if labelled is not None:
        judges = _labelled_jury(bundle, remade, labelled, progress)
    started = time.perf_counter()
    done = progress.step("measure noise")
    noise = form.calibrated.noise
    done()
    ranking_seconds = time.perf_counter() - started if form.float_layers else 0.0
    layers = diagnose_layers(form, kept, noise, seed=seed, progress=progress)
    return Diagnosis(
        form=form_name or bundle.quantizations[0].name,
        recipe=form.calibrated.recipe.summary(),
        float_layers=form.float_layers,
        layers=layers,
        findings=find(layers, form.quantized.graph.outputs, pictures=pictures),
        layers_judged_on=pictures,
        layers_images=len(kept),
        calibration_images=len(images.calibrating),
        steps=diagnose_steps(
            form,
            judges,
            form_seconds=remade.seconds + ranking_seconds,
            progress=progress,
        ),
        steps_judged_on=judges.on,
        steps_images=len(judges.images),
        reference_accuracy=reference_accuracy(judges),
        no_accuracy=_no_accuracy(bundle, labelled),
        notes=remade.notes,
    )


def _no_accuracy(bundle: Bundle, labelled: Dataset | None) -> str | None:
    if not bundle.is_classifier:
        return NO_CLASSIFIER
    if labelled is None:
        return NO_LABELS
    return None if bundle.model.trained else UNTRAINED


def _labelled_jury(bundle: Bundle, remade: Remade, dataset: Dataset, progress: Progress) -> Jury:
    accepted = accepted_in(dataset, bundle.labels)
    inputs, labels, named = labelled_images(dataset, remade.source, accepted, progress)
    check_disjoint(remade.images.sha256, named)
    return jury(
        dataset.name,
        remade.source.graph,
        inputs,
        labels if bundle.model.trained else None,
    )
