"""LiteRT's own lines: off stderr while it goes well, a part of the message when it does not."""

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.errors import RuntimeRefused
from edgenet.runtimes.litert import _listening


def test_a_load_says_nothing(small_bundle, capfd):
    (artifact,) = small_bundle.select(("litert",), (Precision.FLOAT32,))
    session = runtimes.load("litert", small_bundle.path(artifact))
    assert "XNNPACK" in session.device
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"


def test_a_refusal_is_one_message(tmp_path, capfd):
    (tmp_path / "broken.tflite").write_bytes(bytes(100))
    with pytest.raises(RuntimeRefused, match=r"broken.tflite: ai-edge-litert cannot load it"):
        runtimes.load("litert", tmp_path / "broken.tflite")
    assert capfd.readouterr().err == ""


def fail():
    raise ValueError


@pytest.mark.parametrize(("end", "shown"), [(fail, ""), (lambda: None, "ERROR: no such kernel\n")])
def test_what_it_says_is_kept_for_a_refusal_or_shown(capfd, end, shown):
    said = []
    with suppress(ValueError), _listening(said):
        os.write(2, b"INFO: Created a delegate.\nERROR: no such kernel\n")
        end()
    assert said == ["ERROR: no such kernel"]
    assert capfd.readouterr().err == shown


def test_without_stderr_it_loads_all_the_same(small_bundle):
    (artifact,) = small_bundle.select(("litert",), (Precision.INT8,))
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom edgenet import runtimes\nos.close(2)\n"
        "print(runtimes.load('litert', Path(sys.argv[1])).device)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_bundle.path(artifact))],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "XNNPACK" in done.stdout
