"""A Python as a board has it: real, and without whatever packages a test leaves out."""

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

HOST_ONLY = ("torch", "torchgen", "functorch", "onnx", "onnxscript", "safetensors")
RUNTIMES = ("onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime")


def make_python(folder: Path, *, without: Collection[str]) -> Path:
    """Return the interpreter of a new environment with links to all packages but some."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    for source in (Path(entry) for entry in sys.path if entry.endswith("site-packages")):
        for found in source.iterdir():
            link = packages / found.name
            # Of the files that add to the path only the one of edgenet itself is taken along.
            foreign = found.suffix == ".pth" and "edgenet" not in found.name
            if found.name not in without and not foreign and not link.exists():
                link.symlink_to(found)
    return folder / "bin" / "python"
