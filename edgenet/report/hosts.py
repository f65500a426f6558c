"""What several boards found, in one table with a column for the host, and as one JSON document.

Reads the documents that came home; the schema is `edgenet/schemas/hosts.schema.json`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgenet import interruption
from edgenet.bundle import artifact_label
from edgenet.measure.statistics import Summary
from edgenet.measure.stored import Document, Prediction, Record
from edgenet.report.evaluation import percent_cells
from edgenet.report.reading import parse_document, read_document
from edgenet.report.table import render, size
from edgenet.wording import counted

SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, kw_only=True)
class HostResult:
    """One host's end of a command."""

    host: str
    status: int | None = None
    """The exit code there; None where there was none that counts."""
    failure: str | None = None
    """Why there was none."""
    document: bytes | None = None
    """The JSON document that it gave; None where the command came to none."""
    record: Path | None = None
    """Where the same document is kept here; None for what is no measurement."""


def hosts_text(results: Sequence[HostResult]) -> str:
    """Return one table of all hosts, and what must be known to read it.

    Raises `BadRecord` for a document of a form that this edgenet does not read.
    """
    measured = {
        result.host: read_document(result.record) for result in results if result.record is not None
    }
    told = {
        result.host: parse_document(result.document, origin=result.host)
        for result in results
        if result.document is not None and result.record is None
    }
    parts = [
        *_measurements(measured),
        *_verifications({host: data for host, data in told.items() if _is(data, "verification")}),
        *_examinations({host: data for host, data in told.items() if _is(data, "examination")}),
        "\n".join(_endings(results)),
    ]
    return "\n\n".join(filter(None, parts))


def hosts_document(results: Sequence[HostResult], *, command: Sequence[str]) -> dict[str, Any]:
    """Return the JSON document: each host's own one as it came, and what became of the host.

    Raises `BadRecord` for a document of a form that this edgenet does not read.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "hosts",
        "command": list(command),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "hosts": [_host(result) for result in results],
    }


def _host(result: HostResult) -> dict[str, Any]:
    document = result.document and parse_document(result.document, origin=result.host)
    entry = {
        "host": result.host,
        "exit_code": result.status,
        "document": document,
        "record": None if result.record is None else str(result.record),
    }
    why = result.failure or f"the command ended with {result.status}"
    reasons = {
        "exit_code": why,
        "document": why,
        "record": why if document is None else "it is no measurement",
    }
    return {
        **entry,
        **{f"{name}_reason": reasons[name] for name, value in entry.items() if value is None},
    }


def _is(data: Mapping[str, Any], kind: str) -> bool:
    return bool(data["kind"] == kind)


def _endings(results: Sequence[HostResult]) -> Iterator[str]:
    for result in results:
        if result.failure is not None:
            yield f"{result.host}: FAILED: {result.failure}"
        elif result.status == interruption.EXIT_CODE:
            yield f"{result.host}: interrupted"
        elif result.status:
            yield f"{result.host}: FAILED with exit code {result.status}; see above"


def _measurements(documents: Mapping[str, Document]) -> Iterator[str]:
    kinds = {"evaluation": _evaluations, "profile": _profiles, "camera": _cameras}
    for kind, table in kinds.items():
        found = {host: each for host, each in documents.items() if each.kind == kind}
        if found:
            yield table(found)
            yield "\n".join((*_same_answers(found), *_notes(found)))


def _rows(documents: Mapping[str, Document]) -> list[tuple[str, Record]]:
    """Return every record with its host, one artefact beside itself on the others."""
    rows = [(host, record) for host, document in documents.items() for record in document.records]
    order = list(dict.fromkeys((record.artifact, record.threads) for _, record in rows))
    return sorted(rows, key=lambda row: order.index((row[1].artifact, row[1].threads)))


def _evaluations(documents: Mapping[str, Document]) -> str:
    return render(
        ("host", "runtime", "precision", "size", "top-1 %", "95 %", "agreement %", "95 %"),
        [
            (
                *_name(host, record),
                "-" if record.size_bytes is None else size(record.size_bytes),
                *percent_cells(record.top1),
                *percent_cells(record.agreement),
            )
            for host, record in _rows(documents)
        ],
    )


def _profiles(documents: Mapping[str, Document]) -> str:
    return render(
        (
            *("host", "runtime", "precision", "threads", "p50 ms", "95 %", "p95", "p99"),
            *("paced p50", "p95", "first ms", "load ms", "peak memory", "top-1 %", "agreement %"),
        ),
        [
            (
                *_name(host, record),
                str(record.threads),
                *_spread(record.latency.get("inference_ms")),
                *_ms(record.latency.get("paced_inference_ms"), "p50", "p95"),
                *_ms(record.latency.get("first_inference_ms"), "max"),
                *_ms(record.latency.get("load_ms"), "max"),
                "-" if record.peak_rss_bytes is None else size(record.peak_rss_bytes),
                percent_cells(record.top1)[0],
                percent_cells(record.agreement)[0],
            )
            for host, record in _rows(documents)
        ],
    )


def _cameras(documents: Mapping[str, Document]) -> str:
    return render(
        (
            *("host", "runtime", "precision", "n", "frame to label p50 ms", "p95", "p99"),
            *("begins at", "preprocess p50", "infer p50", "live top-1 %", "95 %"),
        ),
        [
            (
                *_name(host, record),
                str(record.latency["frame_to_label_ms"].n)
                if "frame_to_label_ms" in record.latency
                else "0",
                *_ms(record.latency.get("frame_to_label_ms"), "p50", "p95", "p99"),
                (record.camera and record.camera.clock) or "-",
                *_ms(record.latency.get("preprocess_ms"), "p50"),
                *_ms(record.latency.get("inference_ms"), "p50"),
                *percent_cells(record.top1),
            )
            for host, record in _rows(documents)
        ],
    )


def _name(host: str, record: Record) -> tuple[str, str, str]:
    form = " ".join(filter(None, (record.precision, record.variant)))
    return host, record.runtime, form


def _spread(found: Summary | None) -> tuple[str, ...]:
    if found is None:
        return "-", "-", "-", "-"
    interval = "-" if found.interval is None else "{:.4g}-{:.4g}".format(*found.interval)
    p50, p95, p99 = _ms(found, "p50", "p95", "p99")
    return p50, interval, p95, p99


def _ms(found: Summary | None, *names: str) -> tuple[str, ...]:
    values = (None if found is None else getattr(found, name) for name in names)
    return tuple("-" if value is None else f"{value:.4g}" for value in values)


def _same_answers(documents: Mapping[str, Document]) -> Iterator[str]:
    """Tell of each artefact on how many images all hosts that saw them found the same class."""
    together: dict[str, list[tuple[Prediction, ...]]] = defaultdict(list)
    for _, record in _rows(documents):
        if record.predictions:
            together[record.artifact_label].append(record.predictions)
    for label, sides in together.items():
        if len(sides) < 2:
            continue
        tops = [{each.image_sha256: each.top for each in side} for side in sides]
        shared = set.intersection(*(set(each) for each in tops))
        if shared:
            same = sum(len({each[image] for each in tops}) == 1 for image in shared)
            yield f"{label}: the same best class on {same} of {counted(len(shared), 'image')}"


def _notes(documents: Mapping[str, Document]) -> Iterator[str]:
    for host, document in documents.items():
        where = document.board or document.machine or "unknown"
        emulated = ": EMULATED, so no time here is that of any board" if document.emulated else ""
        yield f"{host}: {where}{emulated}"
        yield from dict.fromkeys(
            f"{host}: {record.runtime}: {record.runtime_version or 'unknown'} on {record.device}"
            for record in document.records
        )
        yield from _remarks(host, document)
        yield f"{host}: record: {document.source}"


def _remarks(host: str, document: Document) -> Iterator[str]:
    records = document.records
    if any(record.throttled for record in records):
        yield f"{host}: the board was throttled; not comparable"
    if any(record.quick for record in records):
        yield f"{host}: quick: too few runs for figures that are published"
    if any(record.complete is False for record in records):
        yield f"{host}: not complete: what is here is right, but not all that was asked for"
    for reason in document.not_run:
        yield f"{host}: {reason}"


def _verifications(documents: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not documents:
        return
    yield render(
        ("host", "artefact", "same top-1", "max diff", "allowed", "verdict"),
        [
            (host, *_verdict(entry))
            for host, data in documents.items()
            for entry in data["artifacts"]
        ],
    )
    yield "\n".join(
        line for host, data in documents.items() for line in _verification_notes(host, data)
    )


def _verdict(entry: Mapping[str, Any]) -> tuple[str, ...]:
    top1, worst = entry["top1"], entry["max_difference"]
    return (
        artifact_label(entry["artifact"]),
        "-" if top1 is None else f"{top1['right']}/{top1['n']}",
        "-" if worst is None else f"{worst:.3g}",
        f"{entry['tolerance']['largest']:.3g}",
        "holds" if entry["holds"] else "FAILS",
    )


def _verification_notes(host: str, data: Mapping[str, Any]) -> Iterator[str]:
    pixels = data["pixels"]
    yield f"{host}: {pixels['same']} of {pixels['n']} golden pictures are prepared as on the host"
    for entry in data["artifacts"]:
        label = artifact_label(entry["artifact"])
        if entry["failure"]:
            yield f"{host}: {label} FAILS: {entry['failure']}"
        if first := entry.get("first_layer"):
            yield f"{host}: {label}: it begins at layer {first['layer']}"
    yield from dict.fromkeys(
        f"{host}: {entry['artifact']['runtime']}: {entry['runtime_version']} on {entry['device']}"
        for entry in data["artifacts"]
        if entry["runtime_version"]
    )
    for entry in data["not_run"]:
        yield f"{host}: {artifact_label(entry['artifact'])} not run: {entry['reason']}"


def _examinations(documents: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not documents:
        return
    yield render(
        ("host", "board", "architecture", "runtimes that work", "temperature", "fit to measure"),
        [(host, *_examination(data)) for host, data in documents.items()],
    )
    yield "\n".join(
        f"{host}: {line}"
        for host, data in documents.items()
        for line in (*data["clashes"], *data["advice"], *data["verdict"]["reasons"])
    )


def _examination(data: Mapping[str, Any]) -> tuple[str, ...]:
    board, temperature = data["board"], data["state"]["soc_temperature_c"]
    works = [each["name"] for each in data["runtimes"] if each["works"]]
    return (
        board.get("name") or board["model"] or board["target"],
        board["architecture"] or "unknown",
        ", ".join(works) or "none",
        "-" if temperature is None else f"{temperature:.1f} C",
        data["verdict"]["fit"],
    )
