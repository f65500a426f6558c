"""Classification of single pictures with one artefact of a bundle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenet import runtimes
from edgenet.bundle import Artifact, Bundle
from edgenet.errors import BadImage, MissingExtra
from edgenet.measure.accuracy import top_indices
from edgenet.preprocess import prepare, read_picture
from edgenet.runtimes import Float32Array, Session


@dataclass(frozen=True, kw_only=True)
class Guess:
    """One label and how sure the network is of it."""

    index: int
    label: str
    probability: float
    """Softmax of the logits; not calibrated."""


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The best guesses for one picture, best first."""

    file: Path
    guesses: tuple[Guess, ...]
    artifact: Artifact
    device: str


def classify(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    files: Iterable[Path],
    *,
    count: int,
    threads: int = 1,
) -> Iterator[Classification | BadImage]:
    """Yield the `count` best labels of each picture, by the first artefact whose runtime is there.

    A picture that cannot be read yields its error, so that the others are still labelled. Raises
    `BadData` for a bundle that is no classifier, `MissingExtra` when no runtime is installed.
    """
    bundle.require_classifier("classify")
    artifact, session = _load_first(bundle, artifacts, threads)
    with closing(session):
        for file in files:
            try:
                image = prepare(read_picture(file), bundle.preprocessing)
            except BadImage as error:
                yield error
                continue
            logits = session.run(image)["logits"][0]
            yield Classification(
                file=file,
                guesses=best_guesses(logits, bundle.labels, count=count),
                artifact=artifact,
                device=session.device,
            )


def best_guesses(logits: Float32Array, labels: Sequence[str], *, count: int) -> tuple[Guess, ...]:
    """Return the `count` best labels of (classes,) logits, best first."""
    indices = top_indices(logits, count)
    best = float(logits[indices[0]])
    total = float(np.exp(logits - np.float32(best)).sum(dtype=np.float64))
    return tuple(
        Guess(
            index=index,
            label=labels[index],
            probability=math.exp(float(logits[index]) - best) / total,
        )
        for index in indices
    )


def _load_first(
    bundle: Bundle, artifacts: Sequence[Artifact], threads: int
) -> tuple[Artifact, Session]:
    missing: list[MissingExtra] = []
    for artifact in artifacts:
        try:
            session = runtimes.load(artifact.runtime, bundle.path(artifact), threads=threads)
        except MissingExtra as error:
            missing.append(error)
            continue
        return artifact, session
    raise missing[0]
