"""A shadow of a run: real processes and runtimes; it counts what is so and leaves the run alone."""

import copy
import os
import signal
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.convert.pipeline import select_targets
from edgenet.data import fashion_mnist
from edgenet.errors import BadData, RuntimeRefused
from edgenet.measure.agreement import agreement
from edgenet.measure.profile import null_artifact
from edgenet.preprocess import prepare
from edgenet.report.shadow import shadow_fields, shadow_text
from edgenet.stream.shadow import Sampling, Shadow
from tests.processes import children_of
from tests.stream.results import make_result
from tests.stream.test_watch import descriptors, run

ALWAYS = Sampling(least_s=0, share=1)
PICTURES = 60


def int8(bundle, runtime="litert"):
    (artifact,) = bundle.select((runtime,), (Precision.INT8,))
    return artifact


def reference(bundle):
    (artifact,) = bundle.select(("onnxruntime",), (Precision.FLOAT32,))
    return artifact


def with_reference(bundle, path):
    """Return the bundle with another file for its one float artefact."""
    other = replace(reference(bundle), files=(str(path),))
    return replace(bundle, artifacts=(int8(bundle), other))


@pytest.fixture(scope="module")
def images(small_bundle):
    samples = fashion_mnist.test_set().samples[:PICTURES]
    return [prepare(sample.read(), small_bundle.preprocessing) for sample in samples]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures")
    for number, sample in enumerate(fashion_mnist.test_set().samples[:PICTURES]):
        cv2.imwrite(str(path / f"{number:03d}.png"), sample.read()[:, :, ::-1])
    return path


@pytest.fixture
def biased(make_bundle, fashion):
    """The float file of a network that says class 3 far too often."""
    module = copy.deepcopy(fashion.module)
    (last,) = (layer for layer in module.modules() if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        last.bias[3] += 12
    targets = select_targets(("onnxruntime",), (Precision.FLOAT32,))
    bundle = make_bundle(replace(fashion, module=module), "biased", targets=targets)
    return bundle.path(reference(bundle))


def logits_of(bundle, artifact, images):
    with closing(runtimes.load(artifact.runtime, bundle.path(artifact))) as session:
        return np.stack([session.run(image)["logits"][0] for image in images])


def hand_over(shadow, image, logits, accepted=None):
    """Offer one frame and wait until it is answered."""
    answered = shadow.standing.frames
    result = replace(make_result(), image=image, logits=logits)
    shadow.offer(result, accepted)
    until = time.monotonic() + 20
    while shadow.standing.frames == answered:
        assert time.monotonic() < until
        shadow.worked_since(0)
        time.sleep(0.001)


def test_the_main_path_gives_the_same_bits(small_bundle, folder):
    artifact = int8(small_bundle)
    _, without = run(small_bundle, [artifact], source=str(folder))
    found, beside = run(small_bundle, [artifact], source=str(folder), shadow=ALWAYS)
    assert len(without.results) == len(beside.results) == PICTURES
    for one, other in zip(without.results, beside.results, strict=True):
        assert one.logits.tobytes() == other.logits.tobytes()
        assert np.array_equal(one.image, other.image)
        assert one.guesses == other.guesses
    seen = found.shadow
    assert seen.standing.frames >= 1
    assert seen.standing.frames + seen.passed_over + seen.unanswered == PICTURES
    assert seen.fault is None


def test_agreement_is_what_the_files_say_themselves(small_bundle, images):
    artifact = int8(small_bundle)
    ours = logits_of(small_bundle, artifact, images)
    theirs = logits_of(small_bundle, reference(small_bundle), images)
    with Shadow(small_bundle, artifact, ALWAYS) as shadow:
        for image, logits in zip(images, ours, strict=True):
            hand_over(shadow, image, logits)
        report = shadow.report()
    expected = agreement(ours, theirs)
    assert report.reference == reference(small_bundle)
    assert report.standing.top1 == expected.top1
    assert report.standing.sqnr_db == pytest.approx(expected.sqnr_db)
    assert (report.passed_over, report.unanswered, report.is_artifact) == (0, 0, False)
    assert report.infer_ns > 0


def test_a_float_artefact_that_says_otherwise(small_bundle, images, biased):
    """Disagreement is seen, and the bound on the accuracy is as wide as it."""
    bundle = with_reference(small_bundle, biased)
    ours = logits_of(bundle, int8(bundle), images)
    theirs = logits_of(bundle, reference(bundle), images)
    labels = [int(sample.labels[0]) for sample in fashion_mnist.test_set().samples[:PICTURES]]
    with Shadow(bundle, int8(bundle), ALWAYS) as shadow:
        for number, (image, logits) in enumerate(zip(images, ours, strict=True)):
            hand_over(shadow, image, logits, {labels[number]} if number % 2 else None)
        report = shadow.report()
    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    assert 0 < same.sum() < PICTURES, "the file is another one"
    standing = report.standing
    assert (standing.top1.right, standing.top1.n) == (same.sum(), PICTURES)
    assert standing.sqnr_db < 10
    right = theirs.argmax(axis=1)[1::2] == labels[1::2]
    assert (standing.reference_accuracy.right, standing.labelled) == (right.sum(), PICTURES // 2)
    low, high = standing.bound
    apart = 100 * (1 - same[1::2].mean())
    assert low == pytest.approx(max(0, 100 * right.mean() - apart))
    assert high == pytest.approx(min(100, 100 * right.mean() + apart))
    assert low <= standing.accuracy.percent <= high
    text = shadow_text(report, {})
    assert "by agreement alone the artefact is on" in text
    assert "not accuracy" not in text


def test_what_was_not_labelled_is_no_accuracy(small_bundle, images):
    ours = logits_of(small_bundle, int8(small_bundle), images[:1])
    with Shadow(small_bundle, int8(small_bundle), ALWAYS) as shadow:
        hand_over(shadow, images[0], ours[0])
        report = shadow.report()
    assert "agreement with float, not accuracy" in shadow_text(report, {})
    fields = shadow_fields(report, {}, small_bundle.labels)
    assert fields["accuracy_bound"] is None
    assert "agreement with float, not accuracy" in fields["accuracy_bound_reason"]


def test_a_live_stream(small_bundle):
    """Every frame is in one count, and every label in one of the latencies."""
    source = "synthetic://?fps=100&frames=300"
    found, told = run(small_bundle, [int8(small_bundle)], source=source, shadow=ALWAYS)
    seen = found.shadow
    assert seen.standing.frames > 10
    assert seen.standing.frames + seen.passed_over + seen.unanswered == found.labelled
    beside = len(found.beside_ns.get("inference", ()))
    assert found.kept + beside == found.labelled
    assert len(found.samples_ns["inference"]) == found.kept
    assert [measure.name for measure in told.alarms] == list(seen.raised), "each is told once"
    assert {measure.name for measure in seen.drift if measure.alarm} <= set(seen.raised)


def test_it_is_asked_no_more_often_than_it_may(small_bundle):
    source = "synthetic://?fps=100&frames=250"
    sampling = Sampling(least_s=0.5, share=0.1)
    found, _ = run(small_bundle, [int8(small_bundle)], source=source, shadow=sampling)
    assert 1 <= found.shadow.standing.frames <= found.seconds / 0.5 + 1
    assert found.shadow.passed_over >= found.labelled - found.seconds / 0.5 - 2


def test_dark_pictures_raise_an_alarm_and_those_of_the_set_do_not(small_bundle, images):
    artifact = int8(small_bundle)
    looks = {}
    for name, shown in (("usual", images), ("bright", [255 - image // 8 for image in images])):
        with Shadow(small_bundle, artifact, ALWAYS) as shadow:
            for image, logits in zip(shown, logits_of(small_bundle, artifact, shown), strict=True):
                hand_over(shadow, image, logits)
            looks[name] = shadow.report()
            told = [measure.name for measure in shadow.new_alarms()]
            assert told == list(looks[name].raised)
            assert shadow.new_alarms() == ()
    assert looks["usual"].raised == ()
    assert "brightness" in looks["bright"].raised
    words = shadow_fields(looks["bright"], {}, small_bundle.labels)["alarms"]
    assert any(text.startswith("brighter than the calibration set: brightness") for text in words)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "my own"}, "the calibration set (my own) is not on this machine"),
        ({"sha256": "0" * 64}, "is another one in this edgenet"),
    ],
)
def test_a_calibration_set_that_is_not_here_gives_no_alarm(small_bundle, images, changes, reason):
    bundle = replace(small_bundle, calibration=replace(small_bundle.calibration, **changes))
    with Shadow(bundle, int8(bundle), ALWAYS) as shadow:
        for _ in range(35):
            hand_over(shadow, images[0] * 0, np.zeros(10, np.float32))
        report = shadow.report()
    assert report.raised == ()
    for measure in report.drift:
        assert measure.usual is None
        assert reason in measure.reason


def test_a_bundle_without_float_is_refused_with_what_to_do(small_bundle):
    bundle = replace(small_bundle, artifacts=(int8(small_bundle),))
    with pytest.raises(BadData, match=r"has no float artefact.*edgenet convert"):
        run(bundle, bundle.artifacts, source="synthetic://?frames=3", shadow=ALWAYS)


def test_what_computes_nothing_has_nothing_to_agree_with(small_bundle):
    with pytest.raises(BadData, match="null runtime computes nothing"):
        run(small_bundle, [null_artifact(small_bundle)], source="synthetic://", shadow=ALWAYS)


def test_the_reference_itself_is_told_apart(small_bundle, images):
    artifact = reference(small_bundle)
    with Shadow(small_bundle, artifact, ALWAYS) as shadow:
        hand_over(shadow, images[0], logits_of(small_bundle, artifact, images[:1])[0])
        report = shadow.report()
    assert report.is_artifact
    assert report.standing.sqnr_db is None
    assert "the artefact is the reference itself" in shadow_text(report, {})


def test_a_reference_that_does_not_load_is_told_before_the_first_frame(small_bundle, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    bundle = with_reference(small_bundle, broken)
    with pytest.raises(RuntimeRefused, match=r"--shadow: .*broken\.onnx"):
        run(bundle, [int8(bundle)], source="synthetic://?frames=3", shadow=ALWAYS)


def test_the_next_best_float_artefact_stands_in_and_is_named(small_bundle, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    bundle = with_reference(small_bundle, broken)
    (other,) = small_bundle.select(("litert",), (Precision.FLOAT32,))
    bundle = replace(bundle, artifacts=(*bundle.artifacts, other))
    found, _ = run(bundle, [int8(bundle)], source="synthetic://?frames=30", shadow=ALWAYS)
    assert found.shadow.reference == other
    assert "shadow, litert float32" in shadow_text(found.shadow, {})


def test_it_steps_back_behind_everything(small_bundle):
    with Shadow(small_bundle, int8(small_bundle)) as shadow:
        assert os.sched_getscheduler(shadow.pid) == os.SCHED_IDLE
        assert os.getpriority(os.PRIO_PROCESS, shadow.pid) == 19
        group = Path(f"/proc/{shadow.pid}/autogroup")
        if group.exists() and group.read_text():
            assert group.read_text().split()[-1] == "19"


def test_while_it_has_nothing_to_do_it_has_not_worked(small_bundle, images):
    with Shadow(small_bundle, int8(small_bundle), Sampling(least_s=60)) as shadow:
        assert not shadow.worked_since(time.monotonic_ns())
        before = time.monotonic_ns()
        hand_over(shadow, images[0], np.zeros(10, np.float32))
        assert shadow.worked_since(before)
        assert not shadow.worked_since(time.monotonic_ns())
        shadow.offer(replace(make_result(), image=images[0], logits=np.zeros(10, np.float32)))
        assert not shadow.worked_since(time.monotonic_ns()), "it is not time yet"
        assert shadow.report().passed_over == 1


def test_one_that_is_stopped_is_waiting_and_not_working(small_bundle, images):
    """On a busy board it gets no processor for long: frames meanwhile are not beside it."""
    with Shadow(small_bundle, int8(small_bundle), ALWAYS) as shadow:
        os.kill(shadow.pid, signal.SIGSTOP)
        time.sleep(0.1)
        shadow.offer(replace(make_result(), image=images[0], logits=np.zeros(10, np.float32)))
        assert not shadow.worked_since(time.monotonic_ns() - 10**9)
        began = time.monotonic()
        for _ in range(100):
            shadow.offer(replace(make_result(), image=images[0], logits=np.zeros(10, np.float32)))
        assert time.monotonic() - began < 0.5, "nobody waits for it"
        report = shadow.report()
        assert (report.passed_over, report.unanswered) == (100, 1)


def test_one_that_dies_takes_nobody_with_it(small_bundle):
    killed = []

    def stopped():
        if not killed and (found := children_of(os.getpid())):
            for pid in found:
                if b"edgenet.stream.shadowing" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    scheduler = os.sched_getscheduler(pid)
                    if scheduler == os.SCHED_IDLE:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
        return False

    source = "synthetic://?fps=50&frames=60"
    found, _ = run(small_bundle, [int8(small_bundle)], stopped, source=source, shadow=ALWAYS)
    assert killed
    assert found.ending == "the source ended"
    assert found.labelled + found.counts.dropped == 60
    assert "SIGKILL" in found.shadow.fault
    assert "the shadow ended before the run" in shadow_text(found.shadow, {})


def test_no_process_thread_or_descriptor_is_left(small_bundle):
    artifact, source = int8(small_bundle), "synthetic://?fps=100&frames=10"
    run(small_bundle, [artifact], source=source, shadow=ALWAYS)
    before = descriptors(), threading.active_count(), children_of(os.getpid())
    for _ in range(2):
        run(small_bundle, [artifact], source=source, shadow=ALWAYS)
        with pytest.raises(Exception, match="no such file"):
            run(small_bundle, [artifact], source="nowhere.mp4", shadow=ALWAYS)
    assert (descriptors(), threading.active_count(), children_of(os.getpid())) == before


def test_a_wish_to_end_does_not_wait_for_it(small_bundle):
    began = time.monotonic()
    found, _ = run(
        small_bundle, [int8(small_bundle)], lambda: True, source="synthetic://", shadow=ALWAYS
    )
    assert (found.labelled, found.shadow.standing.frames) == (0, 0)
    assert time.monotonic() - began < 15
