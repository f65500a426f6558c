"""A profile as a measurement document: a record for each artefact and number of threads."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from edgenet.board.detect import Board
from edgenet.bundle import Artifact, Bundle
from edgenet.measure.evaluate import ArtifactResult, Evaluation
from edgenet.measure.profile import NULL, InferenceEnergy, Layers, Measured, Profile
from edgenet.measure.roofline import Bound, Peaks
from edgenet.measure.statistics import summarise
from edgenet.measure.timing import Paced
from edgenet.report.doctor import board_document, state_document
from edgenet.report.record import (
    SCHEMA_VERSION,
    answer_fields,
    artifact_fields,
    data_fields,
    no_answer_fields,
    summary_fields,
    unknown,
)

NOT_EVALUATED = "interrupted before the pictures were shown"
INTERRUPTED = "interrupted before"
PASSED = "the bound was passed, so the peak is wrong or fewer mult-adds were needed"


def profile_document(
    bundle: Bundle,
    profile: Profile,
    evaluation: Evaluation | None,
    *,
    board: Board,
    command: Sequence[str],
) -> dict[str, Any]:
    """Return the JSON document of a profile; `evaluation` is of the same artefacts."""
    shared = {
        "schema_version": SCHEMA_VERSION,
        "command": list(command),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "bundle_sha256": bundle.sha256,
    }
    answers = {result.artifact: result for result in evaluation.results} if evaluation else {}
    return {
        **shared,
        "kind": "profile",
        "preprocessing_sha256": bundle.preprocessing.sha256(),
        "machine": platform.machine(),
        "board": board_document(board),
        "complete": profile.complete,
        "shown": profile.pictures,
        **({"data": data_fields(evaluation)} if evaluation else {}),
        "reference": evaluation and evaluation.reference and artifact_fields(evaluation.reference),
        "peaks": [_peaks(peaks) for peaks in profile.peaks],
        "records": [
            {**shared, **_record(bundle, profile, measured, answers, evaluation)}
            for measured in profile.measured
        ],
        "not_run": [
            {"artifact": artifact_fields(artifact), "reason": reason}
            for artifact, reason in profile.not_run
        ],
    }


def _record(
    bundle: Bundle,
    profile: Profile,
    measured: Measured,
    answers: Mapping[Artifact, ArtifactResult],
    evaluation: Evaluation | None,
) -> dict[str, Any]:
    paced = measured.paced
    return {
        "artifact": artifact_fields(measured.artifact),
        "size_bytes": 0 if measured.artifact.runtime == NULL else measured.artifact.size_bytes,
        "device": measured.opened.device,
        "runtime_version": measured.opened.version,
        "threads": measured.threads,
        "affinity": list(measured.opened.affinity),
        "quick": profile.plan.quick,
        "complete": measured.complete,
        "warmup": asdict(measured.warm_up),
        "latency": _latency(measured),
        "samples_ns": {
            "load": [measured.opened.load_ns],
            "first_inference": [measured.opened.first_inference_ns],
            "inference": list(measured.back_to_back_ns),
            **({"paced_inference": list(paced.samples_ns)} if paced and paced.samples_ns else {}),
        },
        "paced": None if paced is None else _paced(paced),
        **({} if paced else {"paced_reason": INTERRUPTED}),
        **_soak(measured.soak),
        "memory": {
            "peak_rss_bytes": measured.memory.peak_bytes,
            "before_load_bytes": measured.memory.before_load_bytes,
        },
        **_answers(bundle, measured, answers, evaluation),
        "state": {
            "before": state_document(measured.before),
            "during": [state_document(state) for state in measured.during],
            "after": state_document(measured.after),
            "problems": list(measured.sensor_problems),
        },
        **_throttled(measured),
        **_energy(measured.energy),
        **_layers(measured.layers),
    }


def _answers(
    bundle: Bundle,
    measured: Measured,
    answers: Mapping[Artifact, ArtifactResult],
    evaluation: Evaluation | None,
) -> dict[str, Any]:
    if evaluation and measured.artifact in answers:
        return answer_fields(answers[measured.artifact], evaluation, trained=bundle.model.trained)
    return no_answer_fields(
        "nothing is computed" if measured.artifact.runtime == NULL else NOT_EVALUATED
    )


def _latency(measured: Measured) -> dict[str, Any]:
    paced = measured.paced
    latency = {
        "load_ms": summary_fields(summarise([measured.opened.load_ns])),
        "first_inference_ms": summary_fields(summarise([measured.opened.first_inference_ns])),
    }
    if measured.back_to_back_ns:
        latency["inference_ms"] = summary_fields(summarise(measured.back_to_back_ns))
    else:
        latency |= unknown("inference_ms", INTERRUPTED)
    if paced is None or not paced.samples_ns:
        return latency | unknown("paced_inference_ms", INTERRUPTED)
    if paced.saturated:
        return latency | unknown("paced_inference_ms", saturation(paced))
    return latency | {"paced_inference_ms": summary_fields(summarise(paced.samples_ns))}


def saturation(paced: Paced) -> str:
    """Return in words that a model cannot keep up, and what it can."""
    return (
        f"saturated: {paced.frames_per_second:g} frames/s were asked for, "
        f"it can meet {paced.reachable_per_second:.3g}"
    )


def _paced(paced: Paced) -> dict[str, Any]:
    return {
        "fps": paced.frames_per_second,
        "missed": paced.missed,
        "saturated": paced.saturated,
        "reachable_fps": paced.reachable_per_second if paced.samples_ns else None,
    }


def _soak(soak: Sequence[Paced]) -> dict[str, Any]:
    if len(soak) < 2:
        return unknown("soak", "not asked for; --soak MINUTES does it")
    first, last = (summarise(minute.samples_ns) for minute in (soak[0], soak[-1]))
    return {
        "soak": {
            "minutes": len(soak),
            "first_minute": summary_fields(first),
            "last_minute": summary_fields(last),
            "p50_ratio": last.p50 / first.p50 if last.p50 and first.p50 else None,
            "p95_ratio": last.p95 / first.p95 if last.p95 and first.p95 else None,
        }
    }


def _throttled(measured: Measured) -> dict[str, Any]:
    if measured.throttled is None:
        return unknown("throttled", measured.before.unknown.get("throttled", "no sensor told"))
    return {"throttled": measured.throttled}


def _energy(found: InferenceEnergy | str) -> dict[str, Any]:
    if isinstance(found, str):
        return unknown("energy_mj", found)
    window, runs = found.window, found.runs
    above = window.above_idle_mj
    return {
        "energy_mj": {
            "gross": window.gross_mj / runs,
            "above_idle": None if above is None else above / runs,
            "idle_w": found.idle_w,
            "mean_w": window.gross_mj / 1000 / window.seconds,
            "source": found.source,
            "readings": window.readings,
        }
    }


def _layers(found: Layers | str) -> dict[str, Any]:
    if isinstance(found, str):
        return unknown("layers", found)
    bounds = {bound.layer: bound for bound in found.bounds}
    return {
        "layers": [
            {
                "layer": layer.layer,
                "duration_ms": layer.duration_ms,
                "precision": layer.precision,
                **_bound(bounds.get(layer.layer)),
                "operators": [
                    {**asdict(time.operator), "duration_ms": time.duration_ns / 1e6}
                    for time in layer.operators
                ],
            }
            for layer in found.times.layers
        ],
        "layers_by": found.times.by,
        "fallbacks": list(found.fallbacks),
    }


def _bound(bound: Bound | None) -> dict[str, Any]:
    if bound is None:
        return {}
    fields = {"bound_ms": bound.bound_ms, "bound_by": bound.by, "fraction": bound.fraction}
    return fields if bound.fraction is not None else {**fields, "fraction_reason": PASSED}


def _peaks(peaks: Peaks) -> dict[str, Any]:
    return {
        "threads": peaks.threads,
        "mult_adds_per_second": {name: asdict(rate) for name, rate in peaks.rates.items()},
        "bandwidth": [
            {"working_set_bytes": size, "bytes_per_second": rate} for size, rate in peaks.bandwidth
        ],
    }
