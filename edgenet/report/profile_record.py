"""A profile as a measurement document: a record for each artefact and number of threads."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from edgenet.board.detect import Board
from edgenet.bundle import Bundle, artifact_fields
from edgenet.measure.evaluate import NO_REFERENCE, Evaluation
from edgenet.measure.layer_profile import Layers
from edgenet.measure.layers import LayerTime
from edgenet.measure.peaks import Peaks
from edgenet.measure.profile import (
    INTERRUPTED_BEFORE,
    NOTHING_COMPUTED,
    NULL,
    InferenceEnergy,
    Measured,
    Plan,
    Profile,
)
from edgenet.measure.roofline import Bound, Limits
from edgenet.measure.statistics import summarise
from edgenet.measure.timing import Paced
from edgenet.report.doctor import board_document, state_document
from edgenet.report.fields import TOO_FEW_BEYOND, summary_fields, unknown
from edgenet.report.record import SCHEMA_VERSION, answer_fields, data_fields, no_answer_fields

NO_SOAK = "not asked for; --soak MINUTES does it"
NO_TIME = "does not stand out of the noise of its measurement"
NO_BOUND = "it lies between the layers, or no peak is known"


def profile_document(
    bundle: Bundle,
    profile: Profile,
    evaluation: Evaluation | str,
    *,
    board: Board,
    command: Sequence[str],
) -> dict[str, Any]:
    """Return the JSON document of a profile; `evaluation` is of the same artefacts, or the reason.

    There is none where it was interrupted or nothing can answer.
    """
    shared = {
        "schema_version": SCHEMA_VERSION,
        "command": list(command),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "bundle_sha256": bundle.sha256,
    }
    return {
        **shared,
        "kind": "profile",
        "preprocessing_sha256": bundle.preprocessing.sha256(),
        "machine": platform.machine(),
        "board": board_document(board),
        "complete": profile.complete,
        "shown": profile.pictures,
        **_shown(evaluation),
        "peaks": [_peaks(peaks) for peaks in profile.peaks],
        "records": [
            {**shared, **_record(profile, measured), **_answers(bundle, measured, evaluation)}
            for measured in profile.measured
        ],
        "not_run": [
            {"artifact": artifact_fields(artifact), "reason": reason}
            for artifact, reason in profile.not_run
        ],
    }


def _shown(evaluation: Evaluation | str) -> dict[str, Any]:
    """Return which pictures the artefacts answered, and which artefact's answers are the norm."""
    if isinstance(evaluation, str):
        return {**unknown("data", evaluation), **unknown("reference", evaluation)}
    data = {"data": data_fields(evaluation)}
    if evaluation.reference is None:
        return {**data, **unknown("reference", NO_REFERENCE)}
    return {**data, "reference": artifact_fields(evaluation.reference)}


def _record(profile: Profile, measured: Measured) -> dict[str, Any]:
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
            **_soak_samples(measured.soak),
        },
        **_waited(measured.waited_share),
        "paced": None if paced is None else _paced(paced),
        **({} if paced else {"paced_reason": INTERRUPTED_BEFORE}),
        **_soak(measured, profile.plan),
        "memory": {
            "peak_rss_bytes": measured.memory.peak_bytes,
            "before_load_bytes": measured.memory.before_load_bytes,
        },
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


def _answers(bundle: Bundle, measured: Measured, evaluation: Evaluation | str) -> dict[str, Any]:
    if measured.artifact.runtime == NULL:
        return no_answer_fields(NOTHING_COMPUTED)
    if isinstance(evaluation, str):
        return no_answer_fields(evaluation)
    (result,) = (each for each in evaluation.results if each.artifact == measured.artifact)
    return answer_fields(result, evaluation, trained=bundle.model.trained)


def _latency(measured: Measured) -> dict[str, Any]:
    paced = measured.paced
    latency = {
        "load_ms": summary_fields(summarise([measured.opened.load_ns])),
        "first_inference_ms": summary_fields(summarise([measured.opened.first_inference_ns])),
    }
    if measured.back_to_back_ns:
        latency["inference_ms"] = summary_fields(summarise(measured.back_to_back_ns))
    else:
        latency |= unknown("inference_ms", INTERRUPTED_BEFORE)
    if paced is None or not paced.samples_ns:
        return latency | unknown("paced_inference_ms", INTERRUPTED_BEFORE)
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
        "reachable_fps": paced.reachable_per_second,
        **({} if paced.samples_ns else {"reachable_fps_reason": INTERRUPTED_BEFORE}),
    }


def _waited(share: float | None) -> dict[str, Any]:
    if share is None:
        return unknown("waited_share", "the kernel does not count it")
    return {"waited_share": share}


def _soak(measured: Measured, plan: Plan) -> dict[str, Any]:
    minutes = measured.soak
    if not minutes:
        return unknown("soak", INTERRUPTED_BEFORE if plan.soak_minutes else NO_SOAK)
    first, last = (summarise(minute.samples_ns) for minute in (minutes[0], minutes[-1]))
    return {
        "soak": {
            "minutes": whole_minutes(measured, plan),
            "asked_minutes": plan.soak_minutes,
            "first_minute": summary_fields(first),
            "last_minute": summary_fields(last),
            **_ratio("p50_ratio", minutes, last.p50, first.p50),
            **_ratio("p95_ratio", minutes, last.p95, first.p95),
            "by_minute": [
                {
                    **summary_fields(summarise(minute.samples_ns)),
                    "missed": minute.missed,
                    "saturated": minute.saturated,
                }
                for minute in minutes
            ],
        }
    }


def whole_minutes(measured: Measured, plan: Plan) -> int:
    """Return how many minutes of a soak went to their end."""
    begun = len(measured.soak)
    return begun if measured.complete or not begun else min(begun, plan.soak_minutes) - 1


def _ratio(
    name: str, minutes: Sequence[Paced], last: float | None, first: float | None
) -> dict[str, Any]:
    if len(minutes) < 2:
        return unknown(name, "there is no second minute")
    return {name: last / first} if last and first else unknown(name, TOO_FEW_BEYOND)


def _soak_samples(soak: Sequence[Paced]) -> dict[str, Any]:
    """Return the samples of the minutes that are set against each other."""
    ends = {"soak_first_minute": soak[:1], "soak_last_minute": soak[1:][-1:]}
    return {name: list(minute.samples_ns) for name, found in ends.items() for minute in found}


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
    bounds: dict[str, Bound] = {}
    if isinstance(found.limits, Limits):
        bounds = {bound.layer: bound for bound in found.limits.bounds}
    return {
        "layers": [_layer(layer, bounds.get(layer.layer)) for layer in found.times.layers],
        "layers_by": found.times.by,
        "layers_resolution_ms": found.times.resolution_ms,
        "fallbacks": list(found.fallbacks),
        **_limit(found.limits),
    }


def _layer(layer: LayerTime, bound: Bound | None) -> dict[str, Any]:
    return {
        "layer": layer.layer,
        **_duration(layer.duration_ms),
        "precision": layer.precision,
        **_bound(bound),
        "operators": [
            {
                **asdict(time.operator),
                **_duration(None if time.duration_ns is None else time.duration_ns / 1e6),
            }
            for time in layer.operators
        ],
    }


def _duration(duration_ms: float | None) -> dict[str, Any]:
    return unknown("duration_ms", NO_TIME) if duration_ms is None else {"duration_ms": duration_ms}


def _bound(bound: Bound | None) -> dict[str, Any]:
    if bound is None:
        return unknown("bound_ms", NO_BOUND)
    return {"bound_ms": bound.bound_ms, "bound_by": bound.by, **_fraction(bound.fraction)}


def _limit(found: Limits | str) -> dict[str, Any]:
    """Return the share of the machine's limit that an inference reached in all."""
    if isinstance(found, str):
        return unknown("limit", found)
    if isinstance(found.fraction, str):
        return unknown("limit", found.fraction)
    return {"limit": {"fraction": found.fraction, "passed": list(found.passed)}}


def _fraction(found: float | str) -> dict[str, Any]:
    return unknown("fraction", found) if isinstance(found, str) else {"fraction": found}


def _peaks(peaks: Peaks) -> dict[str, Any]:
    return {
        "threads": peaks.threads,
        "mult_adds_per_second": {name: asdict(rate) for name, rate in peaks.rates.items()},
        "bandwidth": [
            {"working_set_bytes": size, "bytes_per_second": rate} for size, rate in peaks.bandwidth
        ],
    }
