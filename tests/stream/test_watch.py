"""A live run from its parts, and the same from Python: what is opened is closed again."""

import gc
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgenet
from edgenet.board.target import load_target
from edgenet.bundle import Precision
from edgenet.errors import BadImage, DeviceUnavailable, RuntimeRefused, UsageError
from edgenet.measure.profile import null_artifact, runnable
from edgenet.stream.loading import in_order, load_first
from edgenet.stream.recording import Recording, Replay
from edgenet.stream.watch import Plan, watch


class Quiet:
    """Keeps what it is told."""

    def __init__(self):
        self.begun_with, self.results, self.faults, self.alarms = None, [], [], []

    def begun(self, loaded, source):
        self.begun_with = loaded, source

    def went_on(self, live, result, running):
        assert running is None, "nothing is known to be right"
        if result is not None:
            self.results.append(result)

    def failed(self, fault):
        self.faults.append(fault)

    def alarmed(self, measure):
        self.alarms.append(measure)


@pytest.fixture
def null(small_bundle):
    return null_artifact(small_bundle)


def run(bundle, artifacts, stopped=lambda: False, **plan):
    told = Quiet()
    plan = Plan(**{"preprocessing": bundle.preprocessing, **plan})
    found = watch(bundle, artifacts, plan, target=load_target("x86"), stopped=stopped, told=told)
    return found, told


def test_every_frame_of_a_short_stream(small_bundle, null):
    found, told = run(small_bundle, [null], source="synthetic://?fps=100&frames=40")
    assert found.ending == "the source ended"
    assert found.complete
    assert found.labelled == len(told.results) == found.kept
    assert found.labelled + found.counts.dropped == found.counts.delivered == 40
    assert [result.frame.sequence for result in told.results] == sorted(
        {result.frame.sequence for result in told.results}
    )
    assert all(result.age_ms >= 0 for result in told.results)
    assert (np.asarray(found.samples_ns["frame_to_label"]) > 0).all()
    assert (np.asarray(found.samples_ns["wait"]) >= 0).all()
    assert found.quick
    assert (found.device, found.source.name) == (
        "none (nothing is computed)",
        "synthetic://?fps=100&frames=40",
    )
    assert len(found.states) >= 2
    assert found.peak_bytes > found.before_load_bytes > 1_000_000


def test_it_ends_when_it_is_told(small_bundle, null):
    told = []
    found, _ = run(
        small_bundle,
        [null],
        source="synthetic://?fps=200",
        stopped=lambda: told.append(1) or len(told) > 30,
    )
    assert found.ending == "it was asked to end"
    assert found.complete, "nobody asked for more"
    found, _ = run(small_bundle, [null], source="synthetic://", seconds=60, stopped=lambda: True)
    assert (found.labelled, found.complete) == (0, False)


def test_the_duration(small_bundle, null):
    found, _ = run(small_bundle, [null], source="synthetic://", seconds=0.5)
    assert 0.5 <= found.seconds < 1.5
    assert found.complete
    assert found.ending == "the duration is over"


def folder_of(path, sizes):
    path.mkdir()
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        picture = rng.integers(0, 256, (height, width, 3), np.uint8)
        cv2.imwrite(str(path / f"{number:02d}.png"), picture)
    return path


def test_a_region_is_watched(small_bundle, tmp_path):
    """The label of a region is that of the region cut out beforehand."""
    (artifact,) = small_bundle.select(("onnxruntime",), (Precision.FLOAT32,))
    whole = folder_of(tmp_path / "whole", [(90, 70)])
    picture = cv2.imread(str(whole / "00.png"))
    (tmp_path / "part").mkdir()
    cv2.imwrite(str(tmp_path / "part" / "00.png"), picture[8:58, 20:84])
    cropped = replace(small_bundle.preprocessing, crop=(20, 8, 64, 50))
    _, told = run(small_bundle, [artifact], source=str(whole), preprocessing=cropped)
    _, expected = run(small_bundle, [artifact], source=str(tmp_path / "part"))
    assert np.array_equal(told.results[0].logits, expected.results[0].logits)
    assert told.results[0].frame.bgr.shape == (70, 90, 3)


def test_a_region_that_does_not_fit(small_bundle, null, tmp_path):
    cropped = replace(small_bundle.preprocessing, crop=(0, 0, 80, 60))
    small = folder_of(tmp_path / "small", [(40, 30)])
    with pytest.raises(BadImage, match="crop 0,0,80,60 does not fit into 40 x 30"):
        run(small_bundle, [null], source=str(small), preprocessing=cropped)
    # Later on it is a change of size, and the run goes on.
    mixed = folder_of(tmp_path / "mixed", [(90, 70), (40, 30), (90, 70)])
    found, _ = run(small_bundle, [null], source=str(mixed), preprocessing=cropped)
    assert (found.labelled, found.unfit) == (2, 1)


def test_the_order_of_artefacts(small_bundle):
    ordered = in_order(small_bundle.artifacts, load_target("raspberry_pi"))
    labels = [artifact.label for artifact in ordered]
    assert labels[0] == "litert int8"
    assert [label.split()[0] for label in labels] == sorted(
        (label.split()[0] for label in labels), key=["litert", "onnxruntime", "openvino"].index
    )
    assert in_order(small_bundle.artifacts, load_target("x86"))[0].label == "openvino int8"


def test_the_first_that_runs(small_bundle, tmp_path):
    """One that does not load is told, and is an error only where there is no other."""
    good, other = small_bundle.select(("litert",))[:2]
    broken = replace(good, files=("labels.txt",))
    loaded = load_first(small_bundle, [broken, other], threads=1)
    loaded.session.close()
    assert loaded.artifact == other
    ((artifact, reason),) = loaded.not_run
    assert artifact == broken
    assert "labels.txt" in reason
    with pytest.raises(RuntimeRefused, match=r"labels\.txt"):
        load_first(small_bundle, [broken], threads=1)


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "openvino"])
def test_a_replay_gives_the_same_labels_bit_for_bit(small_bundle, tmp_path, runtime):
    artifacts = runnable(small_bundle, (runtime,), (Precision.INT8,))[:1]
    path = tmp_path / "run.tar"
    found, told = run(small_bundle, artifacts, source="synthetic://?fps=60&frames=20", record=path)
    assert found.written.frames + found.written.lost == found.labelled
    replay = Replay(Recording(path))
    again, replayed = run(small_bundle, artifacts, source=lambda: replay, replay=replay)
    assert again.replayed.frames == again.labelled == found.written.frames > 0
    assert again.replayed.same_label == again.replayed.same_logits == again.labelled
    assert again.replayed.recorded_by["runtime"] == runtime
    if not found.written.lost:
        for result, before in zip(replayed.results, told.results, strict=True):
            assert np.array_equal(result.logits, before.logits)
    assert again.counts.dropped == 0


def test_a_recording_that_is_damaged_half_way_is_told_after_the_summary(
    small_bundle, null, tmp_path
):
    path = tmp_path / "run.tar"
    run(small_bundle, [null], source="synthetic://?fps=60&frames=10", record=path)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x89PNG", data.index(b"000004.png"))
    data[at : at + 200] = bytes(200)
    path.write_bytes(data)
    replay = Replay(Recording(path))
    found, _ = run(small_bundle, [null], source=lambda: replay, replay=replay)
    assert found.labelled == 4
    assert not found.complete
    assert "frame 4 is damaged" in str(found.failure)


def descriptors():
    gc.collect()
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_nothing_is_left_open(small_bundle, null, tmp_path):
    def once():
        run(small_bundle, [null], source="synthetic://?frames=3", record=tmp_path / "run.tar")
        for result in edgenet.load(small_bundle.root).stream("synthetic://", runtime="null"):
            assert result.label
            break

    once()
    before = descriptors(), threading.active_count()
    for _ in range(3):
        once()
    assert (descriptors(), threading.active_count()) == before


def test_an_empty_path_is_not_the_working_folder(small_bundle, monkeypatch):
    monkeypatch.chdir(small_bundle.root)
    with pytest.raises(UsageError, match="'' is no bundle"):
        edgenet.load("")


def test_from_python(small_bundle):
    model = edgenet.load(small_bundle.root)
    assert model.labels == small_bundle.labels
    stream = model.stream("synthetic://?frames=12&fps=50", runtime="litert", precision="int8")
    results = list(stream)
    assert 0 < len(results) <= 12
    assert all(result.label in small_bundle.labels for result in results)
    assert all(result.age_ms > 0 for result in results)


def test_from_python_what_is_wrong_is_raised(small_bundle, tmp_path):
    model = edgenet.load(small_bundle.root)
    with pytest.raises(UsageError, match="there is no such file"):
        next(model.stream("nowhere.mp4", runtime="null"))
    with pytest.raises(DeviceUnavailable):
        next(model.stream("http://127.0.0.1:9/", runtime="null"))
    with pytest.raises(UsageError, match="has no artefact"):
        model.stream(0, runtime="tensorrt", precision="float32")


def test_importing_edgenet_loads_nothing_and_streaming_no_torch(small_bundle):
    code = (
        "import sys, edgenet\n"
        "assert not {'numpy', 'cv2', 'typer'} & sys.modules.keys()\n"
        f"model = edgenet.load({str(small_bundle.root)!r})\n"
        "for result in model.stream('synthetic://?frames=3', runtime='litert'): pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'starlette', 'paho', 'typer'}\n"
        "print(result.label, sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("[]"), done.stderr
