"""Results as a pipeline makes them, and a time that only the test moves."""

import numpy as np

from edgenet.measure.classify import Guess
from edgenet.stream.frame import Clock, Frame
from edgenet.stream.result import Result, StageTimes

MS = 10**6
SECOND = 10**9


class HandClock:
    """A time that only the test moves."""

    def __init__(self):
        self.ns = 1000 * SECOND

    def __call__(self):
        return self.ns


def make_frame(sequence=0, *, captured_ns=0, arrived_ns=None, bgr=None, **changes):
    return Frame(
        **{
            "bgr": np.full((8, 8, 3), sequence % 256, np.uint8) if bgr is None else bgr,
            "sequence": sequence,
            "captured_ns": captured_ns,
            "clock": Clock.SENSOR,
            "arrived_ns": captured_ns if arrived_ns is None else arrived_ns,
            "decode_ns": None,
            **changes,
        }
    )


def make_result(
    label="cat", probability=0.9, *, frame=None, labelled_ns=None, index=None, **stages
):
    frame = frame or make_frame()
    return Result(
        frame=frame,
        image=np.zeros((1, 8, 8, 3), np.uint8),
        logits=np.array([probability, 1 - probability], np.float32),
        guesses=(
            Guess(
                index=sum(map(ord, label)) if index is None else index,
                label=label,
                probability=probability,
            ),
        ),
        stages=StageTimes(**{"wait_ns": 0, "preprocess_ns": 0, "infer_ns": 0, **stages}),
        labelled_ns=frame.captured_ns if labelled_ns is None else labelled_ns,
    )
