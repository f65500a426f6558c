"""Verification: does every artefact of a bundle answer here as it did on the host?

The golden pictures go the whole way, from the JPEG file through the preprocessing to the outputs.
Needs no labels and no reference; what the answers are worth is `evaluate`'s question.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from edgenet import runtimes
from edgenet.bundle import Artifact, Bundle, Output
from edgenet.errors import BrokenBundle, MissingExtra, RuntimeRefused
from edgenet.golden import (
    Expected,
    GoldenVectors,
    Tolerance,
    prepare_pictures,
    read_golden,
    split,
)
from edgenet.measure.accuracy import Proportion
from edgenet.measure.first_layer import FirstLayer, first_layer, same_weights
from edgenet.preprocess import UInt8Array, pixels_sha256
from edgenet.runtimes import Float32Array

HOLDS = "it answers as on the host"
NOT_LOOKED_FOR = "it was not looked for"
OTHER_PIXELS = "the pixels differ already"


@dataclass(frozen=True, kw_only=True)
class GoldenPicture:
    """One golden picture as this machine prepared it."""

    file: str
    same_pixels: bool
    """Whether the network sees the same bytes as on the host."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One artefact here against itself on the host."""

    artifact: Artifact
    output: str
    """The one that comes nearest to its tolerance, or passes it by most."""
    tolerance: Tolerance
    """Of that output."""
    device: str | None
    """None, as the version, the top-1 and the difference, where it did not load."""
    version: str | None
    top1: Proportion | None
    """Pictures with the host's best class; None for what is no classifier."""
    max_difference: float | None
    """Largest absolute difference of the output's values; None where no number can tell."""
    failure: str | None
    """What is wrong; None when it holds."""
    first_layer: FirstLayer | str
    """Where that begins, or why it is not known."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The artefacts of one bundle on this machine."""

    pictures: tuple[GoldenPicture, ...]
    verdicts: tuple[Verdict, ...]
    not_run: tuple[tuple[Artifact, str], ...]
    """Artefacts that could not be held against the host, each with the reason."""

    @property
    def other_pixels(self) -> tuple[str, ...]:
        """Return the pictures of which this machine's preprocessing makes other pixels."""
        return tuple(picture.file for picture in self.pictures if not picture.same_pixels)

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """Return the artefacts that do not answer as on the host."""
        return tuple(verdict for verdict in self.verdicts if verdict.failure is not None)

    @property
    def holds(self) -> bool:
        """Tell whether the pixels and every artefact that ran are as on the host."""
        return not self.other_pixels and not self.failed


def verify(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    *,
    required: Collection[str] = (),
    threads: int = 1,
    on_artifact: Callable[[], None] = lambda: None,
) -> Verification:
    """Return how `artifacts` answer the golden pictures, one loaded at a time.

    Raises `BrokenBundle` when the bundle has no golden vectors, or none of an artefact whose
    runtime is `required`; `MissingExtra` when such a runtime, or every runtime, is not installed.
    """
    golden = read_golden(bundle)
    images = prepare_pictures(bundle.root, golden.files, bundle.preprocessing)
    same_pixels = [
        pixels_sha256(image) == sha256
        for image, sha256 in zip(images, golden.prepared_sha256, strict=True)
    ]
    verdicts: list[Verdict] = []
    not_run: list[tuple[Artifact, str]] = []
    missing: MissingExtra | BrokenBundle | None = None
    for artifact in artifacts:
        try:
            expected = _expected(bundle, golden, artifact)
            verdict = _judge(bundle, artifact, expected, images, threads)
            if verdict.first_layer == NOT_LOOKED_FOR and verdict.version is not None:
                verdict = replace(
                    verdict,
                    first_layer=first_layer(
                        bundle, golden, artifact, images, version=verdict.version, threads=threads
                    )
                    if all(same_pixels)
                    else OTHER_PIXELS,
                )
            verdicts.append(verdict)
        except (MissingExtra, BrokenBundle) as error:
            if artifact.asked_for_as in required:
                raise
            not_run.append((artifact, str(error)))
            missing = missing or error
        on_artifact()
    if not verdicts and missing is not None:
        raise missing
    return Verification(
        pictures=tuple(
            GoldenPicture(file=file, same_pixels=same)
            for file, same in zip(golden.files, same_pixels, strict=True)
        ),
        verdicts=tuple(verdicts),
        not_run=tuple(not_run),
    )


def _expected(bundle: Bundle, golden: GoldenVectors, artifact: Artifact) -> Expected:
    try:
        return golden.expected[artifact.label]
    except KeyError:
        raise BrokenBundle(
            f"{bundle.root}: has no golden vectors of {artifact.label}; convert again where its "
            "runtime is installed"
        ) from None


def _judge(
    bundle: Bundle,
    artifact: Artifact,
    expected: Expected,
    images: Sequence[UInt8Array],
    threads: int,
) -> Verdict:
    """Run one artefact; one that its runtime refuses fails, one without a runtime raises."""
    names = [output.name for output in bundle.outputs]
    try:
        session = runtimes.load(artifact.runtime, bundle.path(artifact), threads=threads)
        with closing(session):
            found = np.stack([runtimes.answer(session, image, names) for image in images])
    except (RuntimeRefused, ValueError) as error:  # ValueError: it takes or makes something else
        return Verdict(
            artifact=artifact,
            output=names[0],
            tolerance=expected.tolerances[0],
            device=None,
            version=None,
            top1=None,
            max_difference=None,
            failure=str(error),
            first_layer="it gives no answer",
        )
    return compare(
        bundle, artifact, expected, found, device=session.device, version=session.version
    )


def compare(
    bundle: Bundle,
    artifact: Artifact,
    expected: Expected,
    found: Float32Array,
    *,
    device: str,
    version: str,
) -> Verdict:
    """Return the verdict on (pictures, values) found here; it does not look for the first layer."""
    differences = _differences(bundle.outputs, expected, found, expected.allowed(version))
    worst = max(differences, key=_share)
    comparable = found.shape == expected.values.shape
    top1 = _top1(expected.values, found) if bundle.is_classifier and comparable else None
    failure = (
        _failure(worst, top1)
        if comparable
        else f"gives values of shape {found.shape}, the host's were {expected.values.shape}"
    )
    if failure is None:
        failure = _other_file(bundle, artifact, expected)
    return Verdict(
        artifact=artifact,
        output=worst.output,
        tolerance=worst.tolerance,
        device=device,
        version=version,
        top1=top1,
        max_difference=worst.largest if np.isfinite(worst.largest) else None,
        failure=failure,
        first_layer=HOLDS if failure is None else NOT_LOOKED_FOR,
    )


def _other_file(bundle: Bundle, artifact: Artifact, expected: Expected) -> str | None:
    """Return what is wrong with an artefact that answers as the host's did."""
    if artifact.sha256 != expected.sha256:
        return "is not the file that the host ran, though it answers alike"
    weights = same_weights(bundle, artifact, expected)
    changed = ", ".join(layer for layer, same in weights.items() if not same)
    return f"has not the host's weights in {changed}, though it answers alike" if changed else None


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """How far one output is from the host's."""

    output: str
    tolerance: Tolerance
    largest: float
    """Infinite where no number can tell."""


def _differences(
    outputs: Sequence[Output],
    expected: Expected,
    found: Float32Array,
    tolerances: Sequence[Tolerance],
) -> tuple[_Difference, ...]:
    if found.shape == expected.values.shape:
        apart = split(np.abs(found.astype(np.float64) - expected.values), outputs)
    else:
        apart = [np.full(1, np.inf) for _ in outputs]
    return tuple(
        _Difference(
            output=output.name,
            tolerance=tolerance,
            largest=float(np.nan_to_num(part, nan=np.inf).max()),
        )
        for output, tolerance, part in zip(outputs, tolerances, apart, strict=True)
    )


def _share(difference: _Difference) -> float:
    """Return a difference as a share of what is allowed; where nothing is, any is infinite."""
    if difference.tolerance.largest:
        return difference.largest / difference.tolerance.largest
    return np.inf if difference.largest else 0.0


def _top1(expected: Float32Array, found: Float32Array) -> Proportion:
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    return Proportion(right=int(same.sum()), n=len(same))


def _failure(worst: _Difference, top1: Proportion | None) -> str | None:
    """Return what is wrong with an artefact's values, the plainest first."""
    if not np.isfinite(worst.largest):
        return f"gives {worst.output} that are not finite"
    limit = worst.tolerance
    if worst.largest > limit.largest:
        return (
            f"a value of {worst.output} differs by {worst.largest:.3g}, allowed are "
            f"{limit.largest:.3g} ({limit.reason})"
        )
    if top1 is not None and top1.right < top1.n:
        return f"another best class on {top1.n - top1.right} of {top1.n} pictures"
    return None
