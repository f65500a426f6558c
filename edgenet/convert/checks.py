"""Before a bundle is sealed: does each file answer as the original does, as far as it can?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenet import runtimes
from edgenet.bundle import Artifact, Precision
from edgenet.convert.calibration import CalibrationImages, Progress
from edgenet.convert.source import Source
from edgenet.errors import ConversionFailed, MissingExtra
from edgenet.golden import split
from edgenet.graph import Float32Array
from edgenet.measure.agreement import closeness
from edgenet.quantize import execute, simulate
from edgenet.quantize.form import Form

FLOAT32_TOLERANCE = 1e-4
"""Largest difference that a float32 artefact's output may have, in parts of its largest value."""
CHECKED_IMAGES = 4
"""How many calibration images each artefact is run on before it may leave."""
STRAY_DB = 6.0
"""By how much an INT8 artefact's SQNR may be below that of its form simulated: runtimes round
differently, and a network that multiplies small errors shows it."""
NEAR_DB = 30.0
"""An SQNR from which on it is rounding that differs and nothing else."""


def check_artifacts(
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
    outputs = source.outputs
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
