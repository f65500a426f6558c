"""OpenVINO is imported without its telemetry."""

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
def test_nothing_is_sent_and_no_file_is_made(small_bundle, tmp_path, first):
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
