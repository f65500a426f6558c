"""A stream that comes late: the playlist's clock sees it, the arrival's does not and says so.

Real processes on either side of a real proxy; `tools/bench/live.py delay` measures it closely.
"""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from edgenet.bundle import shipped_bundle

EDGENET = (sys.executable, "-m", "edgenet")
PROXY = Path(__file__).parents[1] / "stand_ins/delaying_proxy.py"
DELAY_MS = 300
TOLERANCE_MS = 100
"""Of one run each on a machine that does other things too."""


@contextmanager
def program(*words):
    """Give the first line that a program prints; end it afterwards."""
    with subprocess.Popen(
        [*map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def watched(url, path):
    """Return the document of a camera run of some seconds, and what it printed."""
    done = subprocess.run(
        [
            *(*EDGENET, "camera", shipped_bundle(), "--source", url, "--truth", "photographs"),
            *("--view", "off", "--duration", "5", "-o", path),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(path.read_text())["records"]
    return record, done.stdout


def test_a_late_stream_is_later_by_the_playlists_clock_alone(tmp_path):
    serving = ("playlist", "photographs", "--serve", "mjpeg", "--loop", "--seconds", "0.4")
    with program(*EDGENET, *serving, "--listen", "127.0.0.1:0") as url:
        port = url.split(":")[2].partition("/")[0]
        with program(sys.executable, PROXY, port, "--ms", DELAY_MS) as late_port:
            prompt, _ = watched(url, tmp_path / "prompt.json")
            late, text = watched(url.replace(port, late_port), tmp_path / "late.json")

    def rise(*names):
        found = []
        for record in (prompt, late):
            for name in names:
                record = record[name]
            found.append(record["p50"])
        return found[1] - found[0]

    assert abs(rise("truth", "draw_to_label_ms") - DELAY_MS) < TOLERANCE_MS
    assert abs(rise("latency", "frame_to_label_ms")) < TOLERANCE_MS / 2
    assert abs(rise("latency", "inference_ms")) < TOLERANCE_MS / 2
    ages = late["latency"]["frame_to_label_ms"]
    assert ages["clock"] == "arrival"
    assert "what came before is not known" in ages["begins"]
    assert "which that clock cannot see" in text
    # Late, and whole: nothing was lost or torn on the way.
    assert late["truth"]["frames"]["unlabelled"] == 0
    assert late["camera"]["faults"] == []
