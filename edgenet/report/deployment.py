"""Deployments as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from edgenet import __version__
from edgenet.bundle import Bundle, artifact_fields, artifact_label
from edgenet.remote.deploy import Deployment
from edgenet.remote.service import Service
from edgenet.report.table import render, size

SCHEMA_VERSION = "1.0"


def deployment_text(deployed: Deployment) -> str:
    """Return what one board is, what was put there, how long each step took, and the verdict."""
    board, survey = deployed.survey.board, deployed.survey
    systems = ", ".join(board.systems) or "an unknown system"
    packages = sorted(deployed.packages, key=lambda it: -it.size_bytes)
    total = sum(it.size_bytes for it in packages)
    rows = [(it.name, it.version, f"{it.size_bytes / 1e6:.1f}") for it in packages]
    left_out = ", ".join(f"{what} ({size(many)})" for what, many in deployed.left_out.items())
    artifacts = ", ".join(artifact.label for artifact in deployed.artifacts)
    return "\n".join(
        [
            f"{deployed.host}: {board.name}, {systems}, {board.architecture}, Python "
            f"{deployed.python.short}, {size(survey.free_bytes)} free before",
            "",
            render(("package", "version", "MB"), [*rows, ("in all", "", f"{total / 1e6:.1f}")]),
            f"packages: {deployed.way}",
            *([f"not on the board: {left_out}"] if left_out else []),
            "",
            render(
                ("step", "s"),
                [
                    *((step.name, f"{step.seconds:.1f}") for step in deployed.steps),
                    ("in all", f"{sum(step.seconds for step in deployed.steps):.1f}"),
                ],
            ),
            f"sent: {size(deployed.sent_bytes)}",
            *(f"note: {note}" for note in deployed.notes),
            "",
            f"{deployed.root}/current/bin/edgenet: {__version__} with "
            f"{', '.join(deployed.runtimes)}",
            f"{deployed.folder}: {artifacts}",
            *_verdicts(deployed),
            *_service_lines(deployed.service),
        ]
    )


def failure_line(deployments: Sequence[Deployment]) -> str:
    """Return in one line where a bundle does not answer as on the host; for what does not hold."""
    hosts = [deployed.host for deployed in deployments if not deployed.holds]
    return (
        f"{', '.join(hosts)}: does not answer there as on the host that converted; what was "
        "deployed stays there, choose other artefacts with --runtime and --precision"
    )


def deployments_document(
    bundle: Bundle,
    deployments: Sequence[Deployment],
    failures: Mapping[str, str],
    *,
    command: Sequence[str],
) -> dict[str, Any]:
    """Return the JSON document of a deployment to one board or several; sizes in bytes."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "deployment",
        "command": list(command),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "edgenet": __version__,
        "bundle_sha256": bundle.sha256,
        "boards": [_entry(deployed) for deployed in deployments],
        "failed": [{"host": host, "failure": why} for host, why in failures.items()],
    }


def _entry(deployed: Deployment) -> dict[str, Any]:
    survey, board = deployed.survey, deployed.survey.board
    return {
        "host": deployed.host,
        "board": {
            "target": board.target.name,
            "model": board.model,
            "architecture": board.architecture,
            "systems": list(board.systems),
            "python": ".".join(map(str, deployed.python.version)),
            "free_bytes": survey.free_bytes,
            "clock_ahead_s": round(survey.clock_ahead_s),
            "systemd": survey.systemd,
        },
        "root": deployed.root,
        "environment": deployed.environment,
        "runtimes": list(deployed.runtimes),
        "packages_from": deployed.way,
        "packages": [
            {"name": it.name, "version": it.version, "size_bytes": it.size_bytes}
            for it in deployed.packages
        ],
        "installed_bytes": sum(it.size_bytes for it in deployed.packages),
        "not_installed_bytes": dict(deployed.left_out),
        "bundle_folder": deployed.folder,
        "artifacts": [artifact_fields(artifact) for artifact in deployed.artifacts],
        "sent_bytes": deployed.sent_bytes,
        "steps": [{"name": it.name, "seconds": round(it.seconds, 3)} for it in deployed.steps],
        "seconds": round(sum(step.seconds for step in deployed.steps), 3),
        "notes": list(deployed.notes),
        "holds": deployed.holds,
        "verification": deployed.verification,
        "service": _service_fields(deployed),
        **({} if deployed.service else {"service_reason": _why_no_service(deployed)}),
    }


def _service_fields(deployed: Deployment) -> dict[str, Any] | None:
    service = deployed.service
    if service is None:
        return None
    return {
        "unit": service.unit,
        "command": list(service.command),
        "status": service.status,
        "url": service.url,
        "tunnel": service.tunnel,
    }


def _why_no_service(deployed: Deployment) -> str:
    return "--service was not given" if deployed.holds else "the verification does not hold"


def _service_lines(service: Service | None) -> list[str]:
    if service is None:
        return []
    way = [] if service.tunnel is None else [f"  reached through a tunnel: {service.tunnel}"]
    return ["", f"{service.unit}: running; {service.status}", f"page: {service.url}", *way]


def _verdicts(deployed: Deployment) -> list[str]:
    pixels = deployed.verification["pixels"]
    lines = [f"pixels: {pixels['same']} of {pixels['n']} golden pictures are prepared as here"]
    for entry in deployed.verification["artifacts"]:
        label = artifact_label(entry["artifact"])
        worst, allowed = entry["max_difference"], entry["tolerance"]["largest"]
        told = "" if worst is None else f" (largest difference {worst:.3g}, allowed {allowed:.3g})"
        verdict = "holds" if entry["holds"] else f"FAILS: {entry['failure']}"
        lines.append(f"{label}: {verdict}{told}")
        if first := entry.get("first_layer"):
            lines.append(f"{label}: it begins at layer {first['layer']}")
    return lines
