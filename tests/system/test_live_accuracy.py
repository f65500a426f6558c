"""Live accuracy over a real stream: drawn, encoded, served, decoded, read, labelled, compared."""

import subprocess
import sys
import time
from contextlib import closing

import cv2
import numpy as np
import pytest

from edgenet import runtimes
from edgenet.bundle import Precision
from edgenet.data import fashion_mnist
from edgenet.measure.evaluate import evaluate
from edgenet.preprocess import prepare
from edgenet.report.truth import truth_text
from edgenet.stream.frame import Clock, Frame
from edgenet.stream.playlist import playlist_of
from edgenet.stream.result import Result, StageTimes
from edgenet.stream.strip_reader import StripReader
from edgenet.stream.truth import Truth

LIMIT = 15


def labelled(frame, reading, session, bundle, sequence):
    """Return what a camera run makes of one frame."""
    arrived_ns = time.monotonic_ns()
    picture = frame if reading is None else reading.picture
    image = prepare(picture, bundle.preprocessing)[..., ::-1]
    logits = session.run(np.ascontiguousarray(image))["logits"][0]
    return Result(
        frame=Frame(
            bgr=frame,
            sequence=sequence,
            captured_ns=arrived_ns,
            clock=Clock.ARRIVAL,
            arrived_ns=arrived_ns,
            decode_ns=None,
        ),
        image=np.zeros((1, 8, 8, 3), np.uint8),
        logits=logits,
        best=int(logits.argmax()),
        labels=bundle.labels,
        stages=StageTimes(wait_ns=0, preprocess_ns=0, infer_ns=0),
        labelled_ns=time.monotonic_ns(),
    )


@pytest.mark.parametrize(
    "stream",
    [
        ("--serve", "rtsp", "--bitrate", "2000"),
        ("--serve", "rtsp", "--bitrate", "500"),
        ("--serve", "mjpeg", "--quality", "10"),
    ],
    ids=" ".join,
)
def test_live_against_direct(small_bundle, stream):
    line = ["fashion-mnist", "--limit", str(LIMIT), "--seconds", "0.4", *stream]
    (artifact,) = small_bundle.select(("litert",), (Precision.INT8,))
    dataset = fashion_mnist.test_set()
    truth, reader = Truth(playlist_of(dataset), small_bundle), StripReader()
    with (
        closing(runtimes.load("litert", small_bundle.path(artifact))) as session,
        subprocess.Popen(
            [sys.executable, "-m", "edgenet", "playlist", *line, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        capture = cv2.VideoCapture(child.stdout.readline().strip(), cv2.CAP_FFMPEG)
        sequence = 0
        while not truth.over:
            there, frame = capture.read()
            assert there
            reading = reader.read(frame)
            truth.add(reading, labelled(frame, reading, session, small_bundle, sequence))
            sequence += 1
        capture.release()
        child.communicate(timeout=30)
        report = truth.report(truth.feed_directly(artifact, session), reading_ns=reader.times_ns)
    # Of all that was shown, each picture once, and no frame that could not be read.
    assert {picture.sample_id for picture in report.pictures} == set(dataset.drawn(LIMIT, seed=0))
    assert report.frames.unlabelled == report.frames.other_playlist == 0
    assert report.frames.scored >= 4 * LIMIT
    assert report.frames.guarded >= 2 * LIMIT
    # The direct side is what `evaluate` says of the same pictures.
    expected = evaluate(small_bundle, dataset.draw(LIMIT, seed=0), [artifact])
    assert report.direct == expected.results[0].accuracy
    assert report.losses.camera.n == report.losses.both.n == LIMIT
    assert report.live.top1.right >= LIMIT - 4
    assert 0 < report.draw_to_label.p50 < 500
    assert report.reading.p50 < 1.0
    assert "camera (live - direct)" in truth_text(report)
