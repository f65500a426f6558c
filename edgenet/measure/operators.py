"""What each artefact's operators compute in, as the runtimes report it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edgenet import runtimes
from edgenet.bundle import Artifact, Bundle
from edgenet.errors import MissingExtra
from edgenet.runtimes import OperatorReport


@dataclass(frozen=True, kw_only=True)
class ArtifactOperators:
    """The operators of one artefact, in the order in which they run."""

    artifact: Artifact
    operators: tuple[OperatorReport, ...] | None
    """None where the runtime is not installed."""
    reason: str | None
    """Why there are none."""

    @property
    def by_precision(self) -> Counter[str]:
        """Return how many operators compute in each precision."""
        return Counter(report.precision for report in self.operators or ())


def report_operators(bundle: Bundle) -> tuple[ArtifactOperators, ...]:
    """Return the operators of every artefact whose runtime is installed here."""
    return tuple(_report(bundle, artifact) for artifact in bundle.artifacts)


def _report(bundle: Bundle, artifact: Artifact) -> ArtifactOperators:
    try:
        found = runtimes.operators(artifact.runtime, bundle.path(artifact))
    except MissingExtra as error:
        return ArtifactOperators(artifact=artifact, operators=None, reason=str(error))
    return ArtifactOperators(artifact=artifact, operators=found, reason=None)
