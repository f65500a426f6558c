"""Labels of single pictures as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgenet.bundle import Bundle, artifact_fields
from edgenet.errors import BadImage
from edgenet.measure.classify import Classification

SCHEMA_VERSION = "1.0"


def classification_document(
    bundle: Bundle, results: Sequence[Classification], unreadable: Sequence[BadImage]
) -> dict[str, Any]:
    """Return the labels of each picture, best first, and why others have none."""
    return {
        "schema_version": SCHEMA_VERSION,
        "bundle_sha256": bundle.sha256,
        "unreadable": [str(error) for error in unreadable],
        "images": [
            {
                "file": str(result.file),
                "artifact": artifact_fields(result.artifact),
                "device": result.device,
                "labels": [
                    {
                        "index": guess.index,
                        "label": guess.label,
                        "probability": guess.probability,
                    }
                    for guess in result.guesses
                ],
            }
            for result in results
        ],
    }
