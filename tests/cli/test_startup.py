"""What is asked for often must start fast: help and summary load nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert", "cv2", "numpy"}
CODE = """
import sys
from edgenet.cli import run
code = run({arguments!r})
print(*sorted({{name.partition(".")[0] for name in sys.modules}}), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("line", ["--help", "convert --help", "--version", "summary --all"])
def test_imports_nothing_heavy(line):
    code = CODE.format(arguments=line.split())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "typer" in loaded
    assert not loaded & HEAVY
