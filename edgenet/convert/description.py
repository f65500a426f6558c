"""What an artefact says about itself in its own format, for other people's tools."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edgenet.preprocess import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Description:
    """The facts that every format's metadata carry: who, which labels, how to prepare a picture."""

    name: str
    version: str
    """The edgenet version that wrote the artefact."""
    licence: str
    labels: tuple[str, ...]
    """Empty for what is no classifier."""
    preprocessing: Preprocessing

    def properties(self) -> dict[str, str]:
        """Return the facts as text by key, as ONNX and OpenVINO metadata want them."""
        labels = json.dumps(self.labels, ensure_ascii=False)
        return {
            "edgenet.name": self.name,
            "edgenet.version": self.version,
            "edgenet.licence": self.licence,
            **({"edgenet.labels": labels} if self.labels else {}),
            "edgenet.input": "uint8 RGB NHWC, 0 to 255, normalisation inside the model",
            "edgenet.output": "float32, vectors (1, C), maps NHWC",
            "edgenet.preprocessing": json.dumps(self.preprocessing.spec(), sort_keys=True),
            "edgenet.preprocessing_sha256": self.preprocessing.sha256(),
        }
