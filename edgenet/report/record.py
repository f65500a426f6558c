"""The record: what a measurement found, as versioned JSON that other commands and people read.

One record describes one artefact. What is unknown is null with a reason beside it, under the same
name with `_reason` behind. The schema is `edgenet/schemas/record.schema.json`.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgenet.bundle import Artifact, Bundle, artifact_fields, write_whole, writing
from edgenet.errors import NotWritable, UsageError
from edgenet.measure.accuracy import Proportion
from edgenet.measure.agreement import Agreement
from edgenet.measure.evaluate import NO_REFERENCE, ArtifactResult, Evaluation
from edgenet.measure.statistics import BEYOND, PairedDifference, Summary

SCHEMA_VERSION = "1.3"
NO_NAME = re.compile(r"[^\w.@-]")
"""What of a host's name does not go into that of a file."""
NOT_TIMED = "evaluate does not time; edgenet profile does"
TOO_FEW_BEYOND = f"fewer than {BEYOND} samples beyond it"


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


def save_document(document: dict[str, Any], path: Path) -> None:
    """Write a document as JSON, whole or not at all; folders above it are made."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(document, ensure_ascii=False) + "\n").encode())


def check_writable(path: Path) -> None:
    """Raise before the work what `save_document` would raise after it, as far as can be known."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give -o the name of a file")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{above}: is a file, so nothing fits into it; choose another -o")
    if not os.access(above, os.W_OK):
        raise NotWritable(f"{path}: cannot be written; choose another place with -o")


def record_path(bundle: Bundle, kind: str, *, host: str | None = None) -> Path:
    """Return where a measurement of now goes: `records/` beside the bundle, keyed by it.

    `host` is where it was taken, if not here; the name of the file tells it.
    """
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%S.%fZ")
    where = "" if host is None else f"_{NO_NAME.sub('-', host)}"
    name = f"{bundle.sha256[:12]}_{kind}{where}_{now}.json"
    return bundle.root.absolute().parent / "records" / name


def summary_fields(summary: Summary) -> dict[str, Any]:
    """Return a latency as every document has it, in ms; a percentile not known is null."""
    fields = asdict(summary)
    reasons = {f"{name}_reason": TOO_FEW_BEYOND for name in fields if fields[name] is None}
    return {**fields, **reasons}


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


def proportion_fields(found: Proportion) -> dict[str, Any]:
    """Return a share in percent, as every document has it."""
    low, high = found.interval
    return {"percent": found.percent, "right": found.right, "interval": [low, high]}


def difference_fields(found: PairedDifference) -> dict[str, Any]:
    """Return a difference of pairs in percentage points, as every document has it."""
    return {
        "n": found.n,
        "lost": found.lost,
        "gained": found.gained,
        "points": found.points,
        "interval": list(found.interval),
        "p_value": found.p_value,
        "verdict": found.verdict.value,
    }


def unknown(name: str, reason: str) -> dict[str, Any]:
    """Return a field that is null, and its reason."""
    return {name: None, f"{name}_reason": reason}
