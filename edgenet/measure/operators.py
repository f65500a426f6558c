"""What each artefact's operators compute in, as the runtimes report it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edgenet import runtimes
from edgenet.bundle import Artifact, Bundle
from edgenet.errors import MissingExtra
from edgenet.runtimes import OperatorReport

MOVING = frozenset(
    [
        # ONNX Runtime
        *("Cast", "Concat", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity"),
        *("Pad", "QuantizeLinear", "ReorderInput", "ReorderOutput", "Reshape", "Shape", "Slice"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze"),
        # OpenVINO
        *("Broadcast", "Concatenation", "Convert", "FakeQuantize", "Reorder", "ShapeOf"),
        "StridedSlice",
        # LiteRT
        *("CAST", "CONCATENATION", "DEQUANTIZE", "EXPAND_DIMS", "PAD", "QUANTIZE", "RESHAPE"),
        *("SHAPE", "SLICE", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE"),
    ]
)
"""Operators that move values or hold them otherwise, in each runtime's own word: none computes."""


def computes(report: OperatorReport) -> bool:
    """Tell whether an operator makes new values, in whose precision a model is then computed."""
    return report.kind.partition(" ")[0] not in MOVING  # LiteRT's kinds say XNNPACK behind


@dataclass(frozen=True, kw_only=True)
class ArtifactOperators:
    """The operators of one artefact, in the order in which they run."""

    artifact: Artifact
    operators: tuple[OperatorReport, ...] | None
    """None where the runtime is not installed."""
    reason: str | None
    """Why there are none."""

    @property
    def computing(self) -> tuple[OperatorReport, ...]:
        """Return those that compute, and do not only move values."""
        return tuple(filter(computes, self.operators or ()))

    @property
    def by_precision(self) -> Counter[str]:
        """Return how many operators compute in each precision."""
        return Counter(report.precision for report in self.computing)


def report_operators(bundle: Bundle) -> tuple[ArtifactOperators, ...]:
    """Return the operators of every artefact whose runtime is installed here."""
    return tuple(_report(bundle, artifact) for artifact in bundle.artifacts)


def _report(bundle: Bundle, artifact: Artifact) -> ArtifactOperators:
    try:
        found = runtimes.operators(artifact.runtime, bundle.path(artifact))
    except MissingExtra as error:
        return ArtifactOperators(artifact=artifact, operators=None, reason=str(error))
    return ArtifactOperators(artifact=artifact, operators=found, reason=None)
