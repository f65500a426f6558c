"""The artefact that a stream runs: the first one, in the board's order, that loads here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgenet import runtimes
from edgenet.board.target import Target
from edgenet.bundle import Artifact, Bundle, Precision
from edgenet.errors import MissingExtra, RuntimeRefused
from edgenet.measure.timing import Rules, WarmUp, warm_up
from edgenet.runtimes import Session

PRECISIONS = (Precision.INT8, Precision.FLOAT16, Precision.FLOAT32)
"""Preferred in this order where none is asked for: INT8 is what a bundle is made for."""
WARM_UP = Rules(give_up_seconds=5.0)
"""Shorter than a profile's: a camera is waiting."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An artefact that runs, warmed up."""

    artifact: Artifact
    session: Session
    threads: int
    load_ns: int
    """From the request to a session; importing the runtime's package is part of it."""
    first_inference_ns: int
    warm_up: WarmUp
    not_run: tuple[tuple[Artifact, str], ...]
    """Those that stand before it in the order and do not run here, each with the reason."""


def in_order(artifacts: Sequence[Artifact], target: Target) -> tuple[Artifact, ...]:
    """Return artefacts in the order in which a target would use them, INT8 first of each runtime.

    What the target does not name comes last, as the bundle has it.
    """
    names = [choice.name for choice in target.runtimes]

    def rank(artifact: Artifact) -> tuple[int, int]:
        place = names.index(artifact.runtime) if artifact.runtime in names else len(names)
        return place, PRECISIONS.index(artifact.precision)

    return tuple(sorted(artifacts, key=rank))


def load_first(bundle: Bundle, artifacts: Sequence[Artifact], *, threads: int) -> Loaded:
    """Return the first of `artifacts` that loads and answers here, warmed up.

    Raises what the first of them failed with, `MissingExtra` or `RuntimeRefused`, if none does.
    """
    failures: list[tuple[Artifact, MissingExtra | RuntimeRefused]] = []
    for artifact in artifacts:
        try:
            return _load(bundle, artifact, threads, failures)
        except (MissingExtra, RuntimeRefused) as error:
            failures.append((artifact, error))
    raise failures[0][1]


def _load(
    bundle: Bundle,
    artifact: Artifact,
    threads: int,
    failures: Sequence[tuple[Artifact, Exception]],
) -> Loaded:
    side = bundle.model.resolution
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    began = time.perf_counter_ns()
    session = runtimes.load(artifact.runtime, bundle.path(artifact), threads=threads)
    loaded = time.perf_counter_ns()
    try:
        session.run(image)
        answered = time.perf_counter_ns()
        warmed = warm_up(lambda: session.run(image), WARM_UP)
    except BaseException:
        session.close()
        raise
    return Loaded(
        artifact=artifact,
        session=session,
        threads=threads,
        load_ns=loaded - began,
        first_inference_ns=answered - loaded,
        warm_up=warmed,
        not_run=tuple((each, str(error)) for each, error in failures),
    )
