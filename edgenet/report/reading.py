"""Stored documents of measurements and comparisons, read back and checked against their schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from edgenet.bundle import MANIFEST, artifact_label
from edgenet.errors import BadRecord, UsageError
from edgenet.measure.accuracy import Proportion
from edgenet.measure.comparison import AccuracyChange, Comparison, Pair, interleaved_changes
from edgenet.measure.conditions import Conditions, Difference
from edgenet.measure.interleaved import InterleavedLaunch, Interleaving
from edgenet.measure.process_memory import added_bytes
from edgenet.measure.statistics import PairedDifference, Summary
from edgenet.measure.stored import Camera, Document, Prediction, Record, unmeasured

MAJOR = 1
"""Of the schema that is read; what a newer minor version adds is left alone."""
KINDS = ("evaluation", "profile", "camera")
COMPARISON = "comparison"
SCHEMAS = {
    **dict.fromkeys(KINDS, "record"),
    COMPARISON: "comparison",
    "verification": "verification",
    "examination": "doctor",
    "cameras": "cameras",
}
"""Of each kind of document."""
LATENCIES = (
    *("load_ms", "first_inference_ms", "inference_ms", "paced_inference_ms"),
    *("wait_ms", "decode_ms", "preprocess_ms", "frame_to_label_ms"),
)
NULL = {"type": "null"}
EITHER = ("oneOf", "anyOf")
"""Rules of a schema by which a value may have one of several forms."""
AGAIN = "measure again with edgenet evaluate, profile or camera"


def read_document(path: Path) -> Document:
    """Return the measurement stored in a file.

    Raises `UsageError` when there is no such file, `BadRecord` when it is cut off, is something
    else, or is of a schema that this edgenet does not read.
    """
    data = _versioned(path)
    if data["kind"] == COMPARISON:
        raise BadRecord(f"{path}: is a comparison of two bundles; give it alone")
    if data["kind"] not in KINDS:
        raise BadRecord(f"{path}: is of kind {data['kind']!r}; compare reads {', '.join(KINDS)}")
    _check_schema(str(path), data, "record")
    records = tuple(_record(entry) for entry in data["records"])
    labels = [record.label for record in records]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        raise BadRecord(f"{path}: has two records of {twice}; {AGAIN}")
    return Document(
        source=str(path),
        kind=data["kind"],
        created=data["created"],
        bundle_sha256=data["bundle_sha256"],
        machine=data.get("machine"),
        board=_board_name(data.get("board") or {}),
        preprocessing_sha256=data.get("preprocessing_sha256"),
        records=records,
        emulated=bool((data.get("board") or {}).get("emulated")),
        not_run=tuple(_not_run(entry) for entry in data.get("not_run", ())),
    )


def parse_document(text: bytes, *, origin: str) -> dict[str, Any]:
    """Return a document of any kind that a command printed, checked against its schema.

    Raises `BadRecord`, with `origin` in front, where it is cut off, is something else or is of a
    schema that this edgenet does not read.
    """
    data = _parsed(text, origin)
    _check_version(origin, data)
    if data["kind"] not in SCHEMAS:
        raise BadRecord(f"{origin}: is of kind {data['kind']!r}, which this edgenet does not know")
    _check_schema(origin, data, SCHEMAS[data["kind"]])
    return data


def read_comparison(path: Path) -> Comparison:
    """Return the comparison in a file that `profile --against` wrote.

    Raises `UsageError` when there is no such file or one record alone, `BadRecord` when it is cut
    off, is something else, holds no interleaved launches or is of a schema that is not read.
    """
    data = _versioned(path)
    if data["kind"] in KINDS:
        raise UsageError(
            f"{path}: is one record alone ({data['kind']}); give NEW too, the record to hold "
            "against it"
        )
    if data["kind"] != COMPARISON:
        raise BadRecord(f"{path}: is of kind {data['kind']!r}; give a record, or a comparison")
    _check_schema(str(path), data, COMPARISON)
    turns = data.get("interleaving")
    if turns is None:
        raise BadRecord(
            f"{path}: is a comparison of stored records; compare these again: "
            f"{data['base']['path']} {data['new']['path']}"
        )
    return Comparison(
        base=_side(data["base"]),
        new=_side(data["new"]),
        pairs=tuple(_pair(entry) for entry in data["pairs"]),
        only_base=tuple(_identity(entry) for entry in data["only_in_base"]),
        only_new=tuple(_identity(entry) for entry in data["only_in_new"]),
        conditions=Conditions(
            differences=tuple(Difference(**entry) for entry in data["unlike"]),
            unknown=tuple(data["unknown_conditions"]),
        ),
        interleaving=Interleaving(
            command=tuple(turns["command"]),
            launches=turns["launches"],
            rounds=turns["rounds"],
            block_seconds=turns["block_seconds"],
            pictures=turns["pictures"],
            complete=turns["complete"],
            not_run=tuple((entry["artifact"], entry["reason"]) for entry in turns["not_run"]),
        ),
    )


def _not_run(entry: Mapping[str, Any]) -> str:
    return f"{artifact_label(entry['artifact'])} not run: {entry['reason']}"


def _board_name(board: Mapping[str, Any]) -> str | None:
    """Return what a board is called; a PC tells no model, and is called by its processor."""
    name: str | None = board.get("name") or board.get("model")
    return name


def _versioned(path: Path) -> dict[str, Any]:
    """Return what is in a file of a kind and version that is read, not yet checked further."""
    if path.is_dir():
        what = "is a bundle" if (path / MANIFEST).exists() else "is a folder"
        raise UsageError(f"{path}: {what}; give the record of a measurement, a file in records/")
    if not path.exists():  # a pipe is as good as a file: <(git show main:base.json)
        raise UsageError(
            f"{path}: no such file; give a record that evaluate, profile or camera wrote"
        )
    data = _parsed(path.read_bytes(), str(path))
    _check_version(str(path), data)
    return data


def _parsed(text: bytes, origin: str) -> dict[str, Any]:
    try:
        data = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadRecord(
            f"{origin}: is no whole JSON document ({error}); copy it again or {AGAIN}"
        ) from None
    if not isinstance(data, dict):
        raise BadRecord(f"{origin}: is JSON, but no record; {AGAIN}")
    return data


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _check_version(origin: str, data: Mapping[str, Any]) -> None:
    version, kind = data.get("schema_version"), data.get("kind")
    major = version.partition(".")[0] if isinstance(version, str) else ""
    if not (major.isascii() and major.isdecimal() and isinstance(kind, str)):
        raise BadRecord(f"{origin}: is not a record (no schema_version and kind); {AGAIN}")
    if int(major) != MAJOR:
        advice = "upgrade edgenet" if int(major) > MAJOR else AGAIN
        raise BadRecord(
            f"{origin}: schema {version} is not the {MAJOR}.x that this edgenet reads; {advice}"
        )


def _check_schema(origin: str, data: Mapping[str, Any], schema: str) -> None:
    import fastjsonschema

    try:
        _validator(schema)(data)
    except fastjsonschema.JsonSchemaValueException as error:
        told = _complaint(error, schema).replace("data", "record", 1)
        raise BadRecord(f"{origin}: is damaged: {told}; {AGAIN}") from None


def _complaint(error: Any, schema: str) -> str:
    """Return what is wrong with a document, and where.

    Of a value that may be null or something, the library tells only that it is neither: this tells
    what keeps it from being something.
    """
    import fastjsonschema

    forms = [form for form in error.rule_definition if form != NULL] if error.rule in EITHER else []
    if len(forms) != 1:
        return str(error.message)
    shared = {"definitions": _schema(schema).get("definitions", {})}
    try:
        fastjsonschema.compile({"allOf": forms, **shared})(error.value)
    except fastjsonschema.JsonSchemaValueException as inner:
        or_null = " or null" if inner.name == "data" and inner.rule == "type" else ""
        return f"{error.name}{_complaint(inner, schema).removeprefix('data')}{or_null}"
    return str(error.message)


@cache
def _schema(name: str) -> dict[str, Any]:
    text = (files("edgenet.schemas") / f"{name}.schema.json").read_bytes()
    content: dict[str, Any] = json.loads(text)
    return content


@cache
def _validator(schema: str) -> Any:
    import fastjsonschema

    return fastjsonschema.compile(_schema(schema))


def _record(entry: Mapping[str, Any]) -> Record:
    artifact, accuracy, agreement = entry["artifact"], entry["accuracy"], entry["agreement"]
    before = (entry["state"] or {}).get("before") or {}
    affinity, memory = entry.get("affinity"), entry["memory"] or {}
    return Record(
        runtime=artifact["runtime"],
        precision=artifact["precision"],
        variant=artifact.get("variant"),
        threads=entry["threads"],
        device=entry["device"],
        runtime_version=entry.get("runtime_version"),
        size_bytes=entry.get("size_bytes"),
        quick=entry.get("quick"),
        complete=entry.get("complete"),
        throttled=entry["throttled"],
        affinity=None if affinity is None else tuple(affinity),
        paced_fps=(entry.get("paced") or {}).get("fps"),
        governor=before.get("governor"),
        power_mode=before.get("power_mode"),
        latency=_latency(entry["latency"] or {}),
        launches=tuple(_latency(launch["latency"]) for launch in entry.get("launches", ())),
        peak_rss_bytes=memory.get("peak_rss_bytes"),
        added_bytes=added_bytes(memory.get("peak_rss_bytes"), memory.get("before_load_bytes")),
        top1=accuracy and _proportion(accuracy["top1"], accuracy["n"]),
        agreement=agreement and _proportion(agreement["top1"], agreement["n"]),
        predictions=tuple(
            Prediction(
                image_sha256=prediction["image_sha256"],
                accepted=frozenset(prediction["label"]),
                top=prediction["top5"][0],
            )
            for prediction in entry["predictions"] or ()
        ),
        camera=_camera(entry.get("camera"), shadowed=entry.get("shadow") is not None),
    )


def _camera(entry: Mapping[str, Any] | None, *, shadowed: bool) -> Camera | None:
    if entry is None:
        return None
    delivered = entry["delivered"]
    return Camera(
        clock=entry["clock"],
        live=entry["live"],
        frames_per_second=delivered["frames_per_second"],
        size=(delivered["width"], delivered["height"]),
        format=delivered["format"],
        recorded=entry.get("recording") is not None,
        shadowed=shadowed,
    )


def _latency(entries: Mapping[str, Any]) -> dict[str, Summary]:
    return {
        name: _summary(fields)
        for name, fields in entries.items()
        if name in LATENCIES and fields is not None
    }


def _summary(fields: Mapping[str, Any]) -> Summary:
    interval, p95_interval = fields["interval"], fields["p95_interval"]
    return Summary(
        n=fields["n"],
        min=fields["min"],
        p50=fields["p50"],
        p90=fields["p90"],
        p95=fields["p95"],
        p99=fields["p99"],
        max=fields["max"],
        interval=interval and (interval[0], interval[1]),
        p95_interval=p95_interval and (p95_interval[0], p95_interval[1]),
    )


def _proportion(fields: Mapping[str, Any], n: int) -> Proportion:
    return Proportion(right=fields["right"], n=n)


def _side(entry: Mapping[str, Any]) -> Document:
    return Document(
        source=entry["path"],
        kind=entry["kind"],
        created=entry["created"],
        bundle_sha256=entry["bundle_sha256"],
        machine=entry["machine"],
        board=entry["board"],
        preprocessing_sha256=entry["preprocessing_sha256"],
        records=(),
    )


def _identity(entry: Mapping[str, Any]) -> Record:
    artifact = entry["artifact"]
    identity = (artifact["runtime"], artifact["precision"], artifact["variant"])
    return unmeasured(identity, threads=entry["threads"])


def _pair(entry: Mapping[str, Any]) -> Pair:
    """Return a pair; ratios are taken anew from its launches."""
    base, new = (_pair_side(entry, side) for side in ("base", "new"))
    launches = tuple(_launch(launch) for launch in entry.get("launches", ()))
    return Pair(
        base=base,
        new=new,
        latencies=tuple(interleaved_changes(launches)),
        accuracy=entry["accuracy"] and _accuracy_change(entry["accuracy"]),
        accuracy_reason=entry.get("accuracy_reason"),
        same_answers=entry["same_answers"] and Proportion(**entry["same_answers"]),
        launches=launches,
    )


def _pair_side(entry: Mapping[str, Any], side: str) -> Record:
    agreement = entry["agreement"][side]
    return replace(
        _identity(entry),
        device=entry.get("device", {}).get(side),
        runtime_version=entry.get("runtime_version", {}).get(side),
        size_bytes=entry["size_bytes"][side],
        peak_rss_bytes=entry["peak_rss_bytes"][side],
        added_bytes=entry.get("added_bytes", {}).get(side),
        agreement=agreement and Proportion(**agreement),
    )


def _launch(entry: Mapping[str, Any]) -> InterleavedLaunch:
    own, p95 = entry["rounds_own_ms"], entry["p95"]
    return InterleavedLaunch(
        rounds_own_ms=None if own is None else tuple((base, new) for base, new in own),
        rounds_p50_ms=tuple((base, new) for base, new in entry["rounds_p50_ms"]),
        p95_ms=None if p95 is None else (p95["base_ms"], p95["new_ms"]),
        waited=entry["waited"],
    )


def _accuracy_change(entry: Mapping[str, Any]) -> AccuracyChange:
    n = entry["n"]
    return AccuracyChange(
        base=Proportion(right=entry["base_right"], n=n),
        new=Proportion(right=entry["new_right"], n=n),
        difference=PairedDifference(n=n, lost=entry["lost"], gained=entry["gained"]),
    )
