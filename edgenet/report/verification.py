"""A verification as text and as JSON."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from edgenet.bundle import AGAIN, Bundle, artifact_fields
from edgenet.measure.first_layer import FirstLayer
from edgenet.measure.verify import Verdict, Verification
from edgenet.report.table import render

SCHEMA_VERSION = "1.2"
NO_TOP1 = "the network is no classifier"
WEIGHTS = {
    None: "whether its weights are the host's is not known",
    False: "its weights in the file are not the host's",
    True: "its weights in the file are the host's",
}
OTHER_PIXELS = "the preprocessing on this machine makes other pixels than the host's"


def verification_text(verification: Verification) -> str:
    """Return one table of all artefacts, and what must be known to read it."""
    classifies = any(verdict.top1 for verdict in verification.verdicts)
    table = render(
        (
            *("artefact", "same top-1" if classifies else "worst output"),
            *("max diff", "allowed", "verdict"),
        ),
        [
            _row(verdict, _top1(verdict) if classifies else verdict.output)
            for verdict in verification.verdicts
        ],
    )
    pictures = len(verification.pictures)
    same = pictures - len(verification.other_pixels)
    notes = [
        f"pixels: {same} of {pictures} golden pictures are prepared as on the host",
        *([f"FAILS: {OTHER_PIXELS}"] if verification.other_pixels else []),
        *(line for verdict in verification.failed for line in _failure_lines(verdict)),
        *dict.fromkeys(
            f"{verdict.artifact.runtime}: {verdict.version} on {verdict.device}"
            for verdict in verification.verdicts
            if verdict.version
        ),
        *(f"{artifact.label} not run: {reason}" for artifact, reason in verification.not_run),
    ]
    return table + "\n\n" + "\n".join(notes)


def failure_line(bundle: Bundle, verification: Verification) -> str:
    """Return in one line what does not hold and what to do; for a verification that fails."""
    causes = [_named(verdict) for verdict in verification.failed]
    told = f"{', '.join(causes)}: not as on the host" if causes else ""
    pixels = OTHER_PIXELS if verification.other_pixels else ""
    made_by = ", ".join(f"{name} {version}" for name, version in bundle.tools.items())
    todo = (
        f"a file is not the host's: {AGAIN}"
        if any(_has_other_weights(verdict) for verdict in verification.failed)
        else f"install what the host had here ({made_by}), or choose other artefacts with "
        "--runtime and --precision and measure those with edgenet evaluate"
    )
    return f"{bundle.root}: " + "; ".join([*filter(None, (pixels, told)), todo])


def verification_document(
    bundle: Bundle, verification: Verification, *, command: Sequence[str], threads: int
) -> dict[str, Any]:
    """Return the JSON document of one verification; what is unknown is null with a reason."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "verification",
        "command": list(command),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "bundle_sha256": bundle.sha256,
        "machine": platform.machine(),
        "threads": threads,
        "holds": verification.holds,
        "pixels": {
            "n": len(verification.pictures),
            "same": len(verification.pictures) - len(verification.other_pixels),
            "other": list(verification.other_pixels),
        },
        "artifacts": [_entry(verdict) for verdict in verification.verdicts],
        "not_run": [
            {"artifact": artifact_fields(artifact), "reason": reason}
            for artifact, reason in verification.not_run
        ],
    }


def _failure_lines(verdict: Verdict) -> list[str]:
    """Return what is wrong with an artefact, and from where on."""
    label, first = verdict.artifact.label, verdict.first_layer
    if isinstance(first, str):
        where = f"the layer where it begins is not known: {first}"
    else:
        where = f"it begins at layer {first.layer}: {_what_differs(first)}"
    return [f"{label} FAILS: {verdict.failure}", f"{label}: {where}"]


def _what_differs(first: FirstLayer) -> str:
    weights = WEIGHTS[first.same_weights]
    if isinstance(first.means, str):
        return f"{weights}; {first.means}"
    far = first.means.difference
    by = "is not finite" if far is None else f"differs by {far:.3g}"
    return (
        f"the mean of its channel {first.means.channel} {by}, allowed are "
        f"{first.means.allowed:.3g}; {weights}"
    )


def _has_other_weights(verdict: Verdict) -> bool:
    return isinstance(verdict.first_layer, FirstLayer) and verdict.first_layer.same_weights is False


def _named(verdict: Verdict) -> str:
    first = verdict.first_layer
    from_on = "" if isinstance(first, str) else f" from layer {first.layer} on"
    return f"{verdict.artifact.label}{from_on}"


def _top1(verdict: Verdict) -> str:
    return "-" if verdict.top1 is None else f"{verdict.top1.right}/{verdict.top1.n}"


def _row(verdict: Verdict, told: str) -> tuple[str, ...]:
    worst = verdict.max_difference
    return (
        verdict.artifact.label,
        told,
        "-" if worst is None else f"{worst:.3g}",
        f"{verdict.tolerance.largest:.3g}",
        "holds" if verdict.failure is None else "FAILS",
    )


def _entry(verdict: Verdict) -> dict[str, Any]:
    top1 = verdict.top1
    entry = {
        "artifact": artifact_fields(verdict.artifact),
        "device": verdict.device,
        "runtime_version": verdict.version,
        "top1": None if top1 is None else {"right": top1.right, "n": top1.n},
        "output": verdict.output,
        "max_difference": verdict.max_difference,
        "tolerance": {
            "largest": verdict.tolerance.largest,
            "reason": verdict.tolerance.reason,
        },
        "holds": verdict.failure is None,
        "failure": verdict.failure,
    }
    unknown = [name for name, value in entry.items() if value is None and name != "failure"]
    return {
        **entry,
        **{f"{name}_reason": verdict.failure or NO_TOP1 for name in unknown},
        **_first_layer(verdict.first_layer),
    }


def _first_layer(found: FirstLayer | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"first_layer": None, "first_layer_reason": found}
    means = found.means
    entry: dict[str, Any] = asdict(found)
    if isinstance(means, str):
        entry |= {"means": None, "means_reason": means}
    elif means.difference is None:
        entry["means"]["difference_reason"] = "it is not finite"
    if found.same_weights is None:
        entry["same_weights_reason"] = "it is not known where they lie in the file"
    return {"first_layer": entry}
