"""The runtimes are imported without their telemetry."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys
from pathlib import Path
from edgenet import runtimes
{first}
runtimes.load("openvino", Path(sys.argv[1])).close()
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__, "openvino_telemetry" in sys.modules)
"""


@pytest.mark.parametrize("first", ["", "import edgenet.convert.openvino"], ids=["run", "convert"])
def test_openvino_sends_nothing_and_makes_no_file(small_bundle, tmp_path, first):
    (artifact, *_) = small_bundle.select(("openvino",))
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(first=first), str(small_bundle.path(artifact))],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "False"]
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_onnxruntime_makes_no_file_of_its_telemetry(small_bundle, tmp_path):
    """Imported as it comes it does: a deviceid and a store of events."""
    (artifact, *_) = small_bundle.select(("onnxruntime",))
    ours = "import sys; from pathlib import Path; from edgenet import runtimes; "
    code = ours + "runtimes.load('onnxruntime', Path(sys.argv[1])).close()"
    unset = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", code, str(small_bundle.path(artifact))],
        env={**unset, "HOME": str(tmp_path)},
        check=True,
    )
    assert not list(tmp_path.iterdir())
