"""Evaluation: every artefact of a bundle over one data set, against the labels and the reference.

Each picture is decoded and prepared once and shown to all artefacts. The reference is the bundle's
float32 ONNX file, which was checked against torch when it was written; where ONNX Runtime is not
installed the first float artefact that runs stands in and is named. Where none runs, the answers
that torch gave when the bundle was made stand in, if the pictures bring them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np

from edgenet import runtimes
from edgenet.bundle import Artifact, Bundle, Precision
from edgenet.data.hygiene import check_disjoint
from edgenet.data.labels import accepted_in
from edgenet.data.sample import Dataset
from edgenet.errors import BadData, BadImage, MissingExtra
from edgenet.measure.accuracy import Accuracy, score, top_indices
from edgenet.measure.agreement import Agreement, agreement
from edgenet.preprocess import pixels_sha256, prepare
from edgenet.runtimes import Float32Array, Session

FLOAT_FIRST = (Precision.FLOAT32, Precision.FLOAT16)
REFERENCE_RUNTIME = "onnxruntime"
NO_REFERENCE = "no float artefact could run beside it"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture that was evaluated."""

    image_sha256: str
    """Of its decoded RGB pixels."""
    accepted: frozenset[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class ArtifactResult:
    """What one artefact answered."""

    artifact: Artifact
    device: str
    version: str
    accuracy: Accuracy | None
    """None for random weights, of which an accuracy would mean nothing, and without labels."""
    agreement: Agreement | None
    """None when no float artefact could run beside it."""
    tops: tuple[tuple[int, ...], ...]
    """The five best classes of each picture, best first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The artefacts of one bundle over one data set."""

    dataset: str
    pictures: tuple[Picture, ...]
    unreadable: tuple[str, ...]
    """One message for each file that is no whole picture; it counts in no figure."""
    reference: Artifact | None
    results: tuple[ArtifactResult, ...]
    not_run: tuple[tuple[Artifact, str], ...]
    """Artefacts whose runtime is not installed, each with the reason."""


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    artifacts: Sequence[Artifact],
    *,
    required: Collection[str] = (),
    threads: int = 1,
    on_sample: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Return accuracy and agreement of `artifacts` over `dataset`; without labels, agreement.

    Raises `BadData` when the bundle is no classifier, a label is not the bundle's, a picture is one
    that INT8 was calibrated on, or no picture can be read; `MissingExtra` when a runtime of
    `required`, or every runtime, is not installed.
    """
    bundle.require_classifier("evaluate")
    accepted = accepted_in(dataset, bundle.labels)
    _check_disjoint(bundle, dataset)
    with ExitStack() as stack:
        sessions, not_run = _open(bundle, artifacts, required, threads, stack)
        reference, reference_session = open_reference(bundle, sessions, threads, stack)
        running = [*sessions.values(), *([reference_session] if reference_session else [])]
        logits: dict[int, list[Float32Array]] = {id(session): [] for session in running}
        pictures, unreadable, known = [], [], []
        for sample, right in zip(dataset.samples, accepted, strict=True):
            on_sample()
            try:
                pixels = sample.read()
                image = prepare(pixels, bundle.preprocessing)
            except BadImage as error:
                unreadable.append(str(error))
                continue
            pictures.append(Picture(image_sha256=pixels_sha256(pixels), accepted=right))
            known.append(sample.reference)
            for key, session in {id(session): session for session in running}.items():
                logits[key].append(session.run(image)["logits"][0])
        if not pictures:
            raise BadData(f"{dataset.name}: none of its {len(unreadable)} files is a picture")
        stacked = {key: np.stack(rows) for key, rows in logits.items()}
        expected = stacked.get(id(reference_session))
        if reference is None and (stored := _stored(known)) is not None:
            reference, expected = stored_reference(bundle), stored
        return Evaluation(
            dataset=dataset.name,
            pictures=tuple(pictures),
            unreadable=tuple(unreadable),
            reference=reference,
            results=tuple(
                _result(
                    artifact,
                    session,
                    stacked[id(session)],
                    expected,
                    [picture.accepted for picture in pictures]
                    if bundle.model.trained and all(accepted)
                    else None,
                )
                for artifact, session in sessions.items()
            ),
            not_run=tuple(not_run),
        )


def _check_disjoint(bundle: Bundle, dataset: Dataset) -> None:
    """Read every picture once before anything runs; what cannot be read is reported later."""
    if bundle.calibration is None or not bundle.calibration.images:
        return
    found = []
    for sample in dataset.samples:
        try:
            found.append((sample.name, pixels_sha256(sample.read())))
        except BadImage:
            continue
    check_disjoint(bundle.calibration.images, found)


def _open(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    required: Collection[str],
    threads: int,
    stack: ExitStack,
) -> tuple[dict[Artifact, Session], list[tuple[Artifact, str]]]:
    """Return a session for each artefact whose runtime is there, and why others have none."""
    sessions: dict[Artifact, Session] = {}
    not_run: list[tuple[Artifact, str]] = []
    for artifact in artifacts:
        try:
            session = runtimes.load(artifact.runtime, bundle.path(artifact), threads=threads)
        except MissingExtra as error:
            if artifact.asked_for_as in required:
                raise
            not_run.append((artifact, str(error)))
            missing = error
            continue
        sessions[artifact] = stack.enter_context(closing(session))
    if not sessions:
        raise missing
    return sessions, not_run


def open_reference(
    bundle: Bundle, sessions: dict[Artifact, Session], threads: int, stack: ExitStack
) -> tuple[Artifact | None, Session | None]:
    """Return the reference artefact and its session; one already open serves.

    None for both where no float artefact can run. What is opened here is closed by `stack`.
    """
    for artifact in references(bundle):
        if artifact in sessions:
            return artifact, sessions[artifact]
        try:
            session = runtimes.load(artifact.runtime, bundle.path(artifact), threads=threads)
        except MissingExtra:
            continue
        return artifact, stack.enter_context(closing(session))
    return None, None


def _stored(known: Sequence[Float32Array | None]) -> Float32Array | None:
    """Return the answers that pictures brought, (pictures, classes), if all did."""
    rows = [row for row in known if row is not None]
    return np.stack(rows) if rows and len(rows) == len(known) else None


def stored_reference(bundle: Bundle) -> Artifact:
    """Return how the answers that travel with the golden pictures are named: torch gave them."""
    assert bundle.golden is not None and bundle.golden.reference is not None
    (file,) = (each for each in bundle.files if each.path == bundle.golden.reference)
    return Artifact(
        runtime="torch",
        precision=Precision.FLOAT32,
        files=(file.path,),
        sha256=file.sha256,
        size_bytes=file.size_bytes,
    )


def references(bundle: Bundle) -> tuple[Artifact, ...]:
    """Return the float artefacts that can be the reference, the best first."""
    found = [artifact for artifact in bundle.artifacts if artifact.precision in FLOAT_FIRST]
    return tuple(sorted(found, key=_reference_rank))


def _reference_rank(artifact: Artifact) -> tuple[bool, bool]:
    return artifact.precision is not Precision.FLOAT32, artifact.runtime != REFERENCE_RUNTIME


def _result(
    artifact: Artifact,
    session: Session,
    logits: Float32Array,
    reference: Float32Array | None,
    accepted: list[frozenset[int]] | None,
) -> ArtifactResult:
    tops = tuple(top_indices(row, 5) for row in logits)
    return ArtifactResult(
        artifact=artifact,
        device=session.device,
        version=session.version,
        accuracy=None if accepted is None else score(tops, accepted),
        agreement=None if reference is None else agreement(logits, reference),
        tops=tops,
    )
