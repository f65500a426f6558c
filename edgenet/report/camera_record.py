"""A live run as a measurement document: one record, with what the camera did beside it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from edgenet.board.detect import Board
from edgenet.bundle import Bundle, artifact_fields
from edgenet.measure.evaluate import NO_REFERENCE
from edgenet.measure.profile import NO_STATE, NULL
from edgenet.measure.statistics import summarise
from edgenet.report.camera import CLOCKS
from edgenet.report.doctor import board_document, state_document
from edgenet.report.fields import proportion_fields, summary_fields, unknown
from edgenet.report.record import SCHEMA_VERSION, no_answer_fields
from edgenet.report.shadow import shadow_fields
from edgenet.report.truth import truth_fields
from edgenet.stream.latency import STAGES
from edgenet.stream.run import CameraRun, Replayed, Way, Written
from edgenet.stream.truth import NOTHING_SCORED, TruthReport

NOTHING_LABELLED = "no frame was labelled"
DECODED_OUT_OF_SIGHT = "the source decodes where it cannot be timed"
NO_ONLOOKER = "nobody could look on; --view opens a page"
NO_LABELS = "the frames have no labels; --truth reads them off a playlist"
NOT_TOLD = "the source does not tell"
WHOLE_PICTURE = "the whole picture; --crop watches a region"
NOT_PACED = "the camera has its own rate; see camera"
NOBODY_ASKED = "nobody asked; --events, --on and --mqtt do"
NOT_RECORDED = "not asked for; --record FILE does it"
NO_SHADOW = "not asked for; --shadow holds frames against the float reference"
ALL_BESIDE = "every frame ran beside the shadow"
NO_ENERGY = "not measured on a stream; edgenet profile does"


def camera_document(
    bundle: Bundle, run: CameraRun, *, board: Board, command: Sequence[str]
) -> dict[str, Any]:
    """Return the JSON document of a live run; what is unknown is null with a reason."""
    shared = {
        "schema_version": SCHEMA_VERSION,
        "command": list(command),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "bundle_sha256": bundle.sha256,
    }
    return {
        **shared,
        "kind": "camera",
        "preprocessing_sha256": run.preprocessing.sha256(),
        "machine": platform.machine(),
        "board": board_document(board),
        "complete": run.complete,
        "shown": run.source.name,
        **_data(run.truth),
        "records": [{**shared, **_record(run), **_shadow(bundle, run)}],
        "not_run": [
            {"artifact": artifact_fields(artifact), "reason": reason}
            for artifact, reason in run.not_run
        ],
    }


def _record(run: CameraRun) -> dict[str, Any]:
    states = run.states or (NO_STATE,)
    null = run.artifact.runtime == NULL
    return {
        "artifact": artifact_fields(run.artifact),
        "size_bytes": 0 if null else run.artifact.size_bytes,
        "device": run.device,
        "runtime_version": run.runtime_version,
        "threads": run.threads,
        "affinity": list(run.affinity),
        "quick": run.quick,
        "complete": run.complete,
        "warmup": asdict(run.warm_up),
        "latency": _latency(run),
        "samples_ns": {
            "load": [run.load_ns],
            "first_inference": [run.first_inference_ns],
            **{stage: list(samples) for stage, samples in run.samples_ns.items()},
        },
        **unknown("paced", NOT_PACED),
        **_memory(run),
        **_answers(run.truth),
        "state": {
            "before": state_document(states[0]),
            "during": [state_document(state) for state in states[1:-1]],
            "after": state_document(states[-1]),
            "problems": list(run.sensor_problems),
        },
        **(
            unknown("throttled", states[0].unknown.get("throttled", "no sensor told"))
            if run.throttled is None
            else {"throttled": run.throttled}
        ),
        **unknown("energy_mj", NO_ENERGY),
        "camera": _camera(run),
    }


def _shadow(bundle: Bundle, run: CameraRun) -> dict[str, Any]:
    if run.shadow is None:
        return unknown("shadow", NO_SHADOW)
    return {"shadow": shadow_fields(run.shadow, run.beside_ns, bundle.labels)}


def _data(truth: TruthReport | None) -> dict[str, Any]:
    if truth is None or not truth.pictures:
        reason = NO_LABELS if truth is None else NOTHING_SCORED
        return {**unknown("data", reason), **unknown("reference", reason)}
    data = {"name": truth.playlist, "n": len(truth.pictures), "unreadable": []}
    reference = truth.reference_artifact
    return {
        "data": data,
        **_told("reference", reference and artifact_fields(reference), NO_REFERENCE),
    }


def _answers(truth: TruthReport | None) -> dict[str, Any]:
    """Return accuracy and predictions as `evaluate` has them, of what the camera saw."""
    if truth is None:
        return {**no_answer_fields(NO_LABELS), **unknown("truth", NO_LABELS)}
    fields = {"truth": truth_fields(truth)}
    if truth.live is None:
        return {**no_answer_fields(NOTHING_SCORED), **fields}
    return {
        "accuracy": {
            "top1": proportion_fields(truth.live.top1),
            "top5": proportion_fields(truth.live.top5),
            "n": truth.live.top1.n,
        },
        **unknown("agreement", "in truth: losses holds it against the reference"),
        "predictions": [
            {
                "image_sha256": picture.direct.image_sha256,
                "label": sorted(picture.accepted),
                "top5": list(picture.top),
            }
            for picture in truth.pictures
            if picture.direct is not None
        ],
        **fields,
    }


def _latency(run: CameraRun) -> dict[str, Any]:
    latency: dict[str, Any] = {
        "load_ms": summary_fields(summarise([run.load_ns])),
        "first_inference_ms": summary_fields(summarise([run.first_inference_ns])),
    }
    for stage in STAGES:
        samples = run.samples_ns.get(stage)
        if samples is not None:
            latency[f"{stage}_ms"] = summary_fields(summarise(samples))
        else:
            reason = DECODED_OUT_OF_SIGHT if run.kept else _nothing_timed(run)
            latency |= unknown(f"{stage}_ms", reason)
    if run.clock is not None:
        # An age means nothing without whose clock it begins at.
        latency["frame_to_label_ms"]["clock"] = run.clock.value
        latency["frame_to_label_ms"]["begins"] = CLOCKS[run.clock.value]
    for stage in ("draw", "encode"):
        samples = run.samples_ns.get(stage)
        if samples is not None:
            latency[f"{stage}_ms"] = summary_fields(summarise(samples))
        else:
            reason = "nobody looked" if run.looked_on else NO_ONLOOKER
            latency |= unknown(f"{stage}_ms", reason)
    return latency


def _nothing_timed(run: CameraRun) -> str:
    return ALL_BESIDE if run.labelled else NOTHING_LABELLED


def _memory(run: CameraRun) -> dict[str, Any]:
    none = "the system does not tell"
    return {
        "memory": {
            **_told("peak_rss_bytes", run.peak_bytes, none),
            **_told("before_load_bytes", run.before_load_bytes, none),
        }
    }


def _camera(run: CameraRun) -> dict[str, Any]:
    delivered, crop = run.source.delivered, run.preprocessing.crop
    return {
        "source": run.source.name,
        "live": run.source.live,
        "delivered": {
            "width": delivered.width,
            "height": delivered.height,
            **_told("frames_per_second", delivered.frames_per_second, NOT_TOLD),
            **_told("format", delivered.format, NOT_TOLD),
        },
        **_told("clock", run.clock and run.clock.value, _nothing_timed(run)),
        "clocks": {clock.value: count for clock, count in run.clocks.items()},
        **_told("crop", crop and list(crop), WHOLE_PICTURE),
        "seconds": run.seconds,
        "ending": run.ending,
        "labelled": run.labelled,
        "timed": run.kept,
        "unfit": run.unfit,
        "counts": asdict(run.counts),
        "faults": [
            {
                "kind": fault.kind.value,
                "at_s": round(at_s, 3),
                "seconds": round(fault.seconds, 3),
                "message": fault.message,
            }
            for at_s, fault in run.faults
        ],
        "labels": [{"label": label, "frames": frames} for label, frames in run.labels],
        **_told("events", run.events, NOBODY_ASKED),
        "ways": [_with_fault(way) for way in run.ways],
        **_told("recording", run.written and _with_fault(run.written), NOT_RECORDED),
        **_told("replay", run.replayed and _replay(run.replayed), "not of a recording"),
    }


def _with_fault(found: Way | Written) -> dict[str, Any]:
    return {**asdict(found), **_told("fault", found.fault, "nothing failed")}


def _replay(replayed: Replayed) -> dict[str, Any]:
    return {**asdict(replayed), "recorded_by": dict(replayed.recorded_by)}


def _told(name: str, value: Any, reason: str) -> dict[str, Any]:
    return unknown(name, reason) if value is None else {name: value}
