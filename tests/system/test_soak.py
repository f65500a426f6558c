"""A minute of a camera that stalls, freezes, dies and comes back; ten of them: tools/bench."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "tools" / "bench" / "camera.py"


def test_a_minute_leaks_nothing_and_tells_every_fault():
    done = subprocess.run(
        [sys.executable, BENCH, "soak", "--minutes", "1", "--settle", "15"],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MISSED" not in done.stdout
