"""Does a runtime really work here? `python -m edgenet.measure.probe litert` finds out, as JSON.

It runs a small int8 model whose answer is known: a package may import and still crash in its first
8-bit kernel, or answer wrongly. A process of its own, because a crash ends it.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import numpy as np

from edgenet import runtimes
from edgenet.runtimes import UInt8Array

FOLDER = Path(__file__).with_name("probe_models")
"""Written by tools/make_probe_models.py."""
RESOLUTION = 32
MODELS = {"onnxruntime": "onnxruntime.onnx", "openvino": "openvino.xml", "litert": "litert.tflite"}
PACKAGES = {"litert": ("ai_edge_litert", "tflite_runtime")}
"""What is imported for a runtime, the preferred first; its own name where it is not here."""
ANSWER = (-3.946, 1.647, 0.507, 0.685)
TOLERANCE = 0.05
"""Two steps of the 8-bit output, by which right answers differ (docs/processors.md)."""


def picture() -> UInt8Array:
    """Return the picture that the models are run on, (1, 32, 32, 3)."""
    ramp = np.arange(RESOLUTION * RESOLUTION * 3, dtype=np.uint32)
    return (ramp * 37 % 256).astype(np.uint8).reshape(1, RESOLUTION, RESOLUTION, 3)


def probe(runtime: str) -> dict[str, object]:
    """Return whether a runtime is installed, whether it works, and what it says it is."""
    package = _installed(runtime)
    if package is None:
        return _result(installed=False)
    if runtime not in MODELS:
        return _result(version=f"{runtime} {_version(runtime, package)}")
    session = runtimes.load(runtime, FOLDER / MODELS[runtime])
    logits = session.run(picture())["logits"][0]
    session.close()
    wrong = not np.allclose(logits, ANSWER, rtol=0, atol=TOLERANCE)
    failure = f"answers {np.round(logits, 3).tolist()}, right is {list(ANSWER)}" if wrong else None
    return _result(failure=failure, version=session.version, device=session.device)


def _installed(runtime: str) -> ModuleType | None:
    """Return the runtime's package, None where there is none; one that is broken raises."""
    for name in PACKAGES.get(runtime, (runtime,)):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # it is there, and lacks another
                raise
    return None


def _version(runtime: str, package: ModuleType) -> str:
    try:
        return version(runtime)
    except PackageNotFoundError:  # installed by the system, not by pip
        return str(getattr(package, "__version__", "of unknown version"))


def _result(
    *,
    installed: bool = True,
    failure: str | None = None,
    version: str | None = None,
    device: str | None = None,
) -> dict[str, object]:
    return {"installed": installed, "failure": failure, "version": version, "device": device}


def main(runtime: str) -> None:
    """Print the result; what a runtime raises is its failure, told without the user's paths."""
    try:
        result = probe(runtime)
    except Exception as error:  # noqa: BLE001  packages that are broken raise anything
        result = _result(failure=f"{type(error).__name__}: {error}")
    text = json.dumps(result)
    for folder, name in ((sys.prefix, "<python>"), (str(Path.home()), "~")):
        if folder not in ("/", "/usr"):
            text = text.replace(f"{folder}/", f"{name}/")
    print(text)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
