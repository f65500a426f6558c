"""Real child processes: what they answer, how they die, what an interrupt leaves."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgenet.bundle import Precision
from edgenet.errors import RuntimeRefused
from edgenet.measure.launch import Launch
from edgenet.measure.timing import Rules
from tests.processes import children_of

BRIEF = Rules(runs=5, seconds=0.1, warm_up_runs=5, warm_up_seconds=0.1, give_up_seconds=2.0)


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8))
    return path


@pytest.fixture
def null(small_bundle, images):
    path = small_bundle.path(small_bundle.artifacts[0])
    with Launch("null", path, threads=1, images=images) as launch:
        yield launch


@pytest.fixture
def working(small_bundle, images):
    """One whose runs take so long that it is busy for half a minute before it has enough."""
    (artifact,) = small_bundle.select(("litert",), (Precision.FLOAT32,))
    with Launch("litert", small_bundle.path(artifact), threads=1, images=images) as launch:
        yield launch


def child_of(launch):
    (pid,) = children_of(os.getpid())
    return pid


def test_one_launch_from_load_to_layers(small_bundle, images):
    (artifact,) = small_bundle.select(("litert",), (Precision.INT8,))
    with Launch("litert", small_bundle.path(artifact), threads=1, images=images) as launch:
        opened = launch.open()
        assert opened.version.startswith("ai-edge-litert")
        assert opened.device == "CPU (XNNPACK)"
        assert opened.load_ns > opened.first_inference_ns > 0
        assert set(opened.affinity) <= set(range(os.cpu_count()))
        warmed, peak = launch.warm_up(BRIEF)
        assert warmed.runs >= 5
        assert peak > opened.before_load_bytes > 1_000_000
        samples = launch.back_to_back(runs=30, seconds=0.1)
        assert len(samples) >= 30
        assert sum(samples) >= 0.09e9
        found = launch.paced(50, runs=5, seconds=0.1)
        assert found.frames_per_second == 50
        assert len(found.samples_ns) >= 5
        assert launch.operators(runs=10).by == "prefix"
        assert not launch.interrupted


def test_another_artefact_in_the_same_process(small_bundle, images):
    one, other = small_bundle.select(("onnxruntime",))[:2]
    with Launch("onnxruntime", small_bundle.path(one), threads=1, images=images) as launch:
        launch.open()
        pid = child_of(launch)
        launch.exchange(small_bundle.path(other), images)
        assert len(launch.back_to_back(runs=3, seconds=0)) >= 3
        with pytest.raises(RuntimeRefused, match=r"nowhere\.onnx"):
            launch.exchange(Path("nowhere.onnx"), images)
        assert child_of(launch) == pid


def test_a_file_that_does_not_load(tmp_path, images):
    path = tmp_path / "cut.tflite"
    path.write_bytes(b"TFL3 and no more")
    with (
        Launch("litert", path, threads=1, images=images) as launch,
        pytest.raises(RuntimeRefused, match=r"cut\.tflite"),
    ):
        launch.open()


def test_a_runtime_that_is_not_installed(small_bundle, images):
    """The child has none of the packages: only numpy and edgenet itself are on its path."""
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from edgenet.measure.launched import main\n"
        "main(sys.argv[1:])"
    )
    replies, child_end = os.pipe()
    path = small_bundle.path(small_bundle.select(("openvino",))[0])
    request = (
        f'{{"do": "open", "runtime": "openvino", "path": "{path}", "threads": 1, '
        f'"images": "{images}"}}\n'
    )
    subprocess.run(
        [sys.executable, "-c", code, str(child_end)],
        input=request.encode(),
        pass_fds=[child_end],
        check=True,
    )
    os.close(child_end)
    with os.fdopen(replies) as answers:
        assert "pip install 'edgenet[openvino]'" in answers.read()


def test_a_process_that_is_killed_half_way_is_one_clear_error(working):
    working.open()
    pid = child_of(working)
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(RuntimeRefused, match=r"in litert: its process was ended by SIGKILL during"):
        working.back_to_back(runs=1, seconds=30)
    with pytest.raises(RuntimeRefused, match="SIGKILL"):
        working.paced(30, runs=1, seconds=1)


def test_a_process_that_crashes_before_it_is_asked(null):
    os.kill(child_of(null), signal.SIGSEGV)
    with pytest.raises(RuntimeRefused, match=r"was ended by SIGSEGV during open"):
        null.open()


def interrupt_after(seconds):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_an_interrupt_gives_what_there_is(working):
    working.open()
    interrupt_after(0.3)
    samples = working.back_to_back(runs=1, seconds=60)
    assert working.interrupted
    assert len(samples) > 100
    assert sum(samples) < 10e9


def test_an_interrupt_at_a_rate_gives_what_there_is(null):
    null.open()
    interrupt_after(0.5)
    found = null.paced(20, runs=1, seconds=60)
    assert null.interrupted
    assert 1 <= len(found.samples_ns) < 400


def test_an_interrupt_where_nothing_can_be_partial(null):
    null.open()
    interrupt_after(0.2)
    long = Rules(warm_up_seconds=20, warm_up_runs=10**9, give_up_seconds=20)
    with pytest.raises(KeyboardInterrupt):
        null.warm_up(long)


def test_closes_twice_and_leaves_no_process(null):
    null.open()
    pid = child_of(null)
    null.close()
    null.close()
    assert not Path(f"/proc/{pid}").exists()


def alive(pid):
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_no_orphan_when_the_parent_is_killed(small_bundle, images):
    path = small_bundle.path(small_bundle.artifacts[0])
    code = (
        "import sys\nfrom pathlib import Path\nfrom edgenet.measure.launch import Launch\n"
        f"launch = Launch('null', Path({str(path)!r}), threads=1, images=Path({str(images)!r}))\n"
        "launch.open()\nprint('ready', flush=True)\nlaunch.paced(1, runs=1, seconds=600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n"
    (pid,) = children_of(parent.pid)
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
