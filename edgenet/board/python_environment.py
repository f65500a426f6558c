"""What this Python is and has, printed as JSON: `python -m edgenet.board.python_environment`.

A command like any sensor's, so that a recorded tree has it too. Knows packages by their names only
and imports none; tells no path, no user and no host.
"""

from __future__ import annotations

import json
import platform
import shutil
import struct
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

PACKAGES = (
    *("numpy", "opencv-python", "opencv-python-headless", "opencv-contrib-python"),
    *("opencv-contrib-python-headless", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("ai-edge-litert", "tflite-runtime", "tensorrt", "edgenet"),
)
"""Those that edgenet uses or that clash with one another."""


def describe() -> dict[str, object]:
    """Return version, width and packages of this Python, and the room where it stands."""
    installed = {
        distribution.metadata["Name"].lower().replace("_", "-"): distribution.version
        for distribution in distributions()
        if distribution.metadata["Name"]
    }
    return {
        "python": platform.python_version(),
        "bits": struct.calcsize("P") * 8,
        "libc": " ".join(platform.libc_ver()),
        "packages": {name: installed[name] for name in PACKAGES if name in installed},
        "opencv": find_spec("cv2") is not None,  # apt's has no distribution to be found by
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
    }


if __name__ == "__main__":
    print(json.dumps(describe()))  # noqa: T201
