"""The record: what a measurement found, as versioned JSON that other commands and people read.

One record describes one artefact. What is unknown is null with a reason beside it, under the same
name with `_reason` behind. The schema is `edgenet/schemas/record.schema.json`.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from edgenet.bundle import Artifact, Bundle, artifact_fields
from edgenet.measure.agreement import Agreement
from edgenet.measure.evaluate import NO_REFERENCE, ArtifactResult, Evaluation
from edgenet.report.fields import proportion_fields, unknown

SCHEMA_VERSION = "1.3"
NOT_TIMED = "evaluate does not time; edgenet profile does"


def evaluation_document(
    bundle: Bundle, evaluation: Evaluation, *, command: Sequence[str], threads: int
) -> dict[str, Any]:
    """Return the JSON document of one evaluation: a record for each artefact that ran."""
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "evaluation",
        "command": list(command),
        "created": created,
        "bundle_sha256": bundle.sha256,
        "preprocessing_sha256": bundle.preprocessing.sha256(),
        "machine": platform.machine(),
        "data": data_fields(evaluation),
        "reference": evaluation.reference and artifact_fields(evaluation.reference),
        "records": [
            _record(bundle, evaluation, result, command, created, threads)
            for result in evaluation.results
        ],
        "not_run": [
            {"artifact": artifact_fields(artifact), "reason": reason}
            for artifact, reason in evaluation.not_run
        ],
    }


def _record(
    bundle: Bundle,
    evaluation: Evaluation,
    result: ArtifactResult,
    command: Sequence[str],
    created: str,
    threads: int,
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "command": list(command),
        "created": created,
        "bundle_sha256": bundle.sha256,
        "artifact": artifact_fields(result.artifact),
        "size_bytes": result.artifact.size_bytes,
        "device": result.device,
        "runtime_version": result.version,
        "threads": threads,
        **unknown("warmup", NOT_TIMED),
        **unknown("latency", NOT_TIMED),
        **unknown("samples_ns", NOT_TIMED),
        **unknown("memory", NOT_TIMED),
        **answer_fields(result, evaluation, trained=bundle.model.trained),
        **unknown("state", NOT_TIMED),
        **unknown("throttled", NOT_TIMED),
        **unknown("energy_mj", NOT_TIMED),
    }


def data_fields(evaluation: Evaluation) -> dict[str, Any]:
    """Return which pictures an evaluation was over."""
    return {
        "name": evaluation.dataset,
        "n": len(evaluation.pictures),
        "unreadable": list(evaluation.unreadable),
    }


def answer_fields(
    result: ArtifactResult, evaluation: Evaluation, *, trained: bool
) -> dict[str, Any]:
    """Return what an artefact's answers are worth, and the answers."""
    return {
        **_accuracy(result, trained=trained),
        **_agreement(result.agreement, evaluation.reference),
        "predictions": [
            {
                "image_sha256": picture.image_sha256,
                "label": sorted(picture.accepted),
                "top5": list(top),
            }
            for picture, top in zip(evaluation.pictures, result.tops, strict=True)
        ],
    }


def no_answer_fields(reason: str) -> dict[str, Any]:
    """Return the same fields for an artefact that was asked nothing."""
    return {
        name: value
        for field in ("accuracy", "agreement", "predictions")
        for name, value in unknown(field, reason).items()
    }


def _accuracy(result: ArtifactResult, *, trained: bool) -> dict[str, Any]:
    if result.accuracy is None:
        return unknown("accuracy", no_accuracy(trained=trained))
    return {
        "accuracy": {
            "top1": proportion_fields(result.accuracy.top1),
            "top5": proportion_fields(result.accuracy.top5),
            "n": result.accuracy.top1.n,
        }
    }


def no_accuracy(*, trained: bool) -> str:
    """Return why there is no accuracy."""
    return "the pictures have no labels" if trained else "the weights are random"


def _agreement(found: Agreement | None, reference: Artifact | None) -> dict[str, Any]:
    if found is None or reference is None:
        return unknown("agreement", NO_REFERENCE)
    agreement: dict[str, Any] = {
        "with": artifact_fields(reference),
        "top1": proportion_fields(found.top1),
        "n": found.top1.n,
        "max_difference": found.max_difference,
        "rms_difference": found.rms_difference,
        "sqnr_db": found.sqnr_db,
    }
    if found.sqnr_db is None:
        agreement["sqnr_db_reason"] = "bit-identical to the reference"
    return {"agreement": agreement}
