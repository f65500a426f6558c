"""Results as a pipeline makes them, and a time that only the test moves."""

import math

import numpy as np

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
    index = sum(map(ord, label)) % 997 if index is None else index
    # So many others that none of them is more likely, behind it as it comes first of equals.
    count = max(1, math.ceil((1 - probability) / probability))
    others = [index + 1 + number for number in range(count)]
    logits = np.full(others[-1] + 1, -np.inf, np.float32)
    logits[index] = np.log(probability)
    if probability < 1:
        logits[others] = np.log((1 - probability) / len(others))
    return Result(
        frame=frame,
        image=np.zeros((1, 8, 8, 3), np.uint8),
        logits=logits,
        best=index,
        labels={index: label, **{each: f"other {each}" for each in others}},
        stages=StageTimes(**{"wait_ns": 0, "preprocess_ns": 0, "infer_ns": 0, **stages}),
        labelled_ns=frame.captured_ns if labelled_ns is None else labelled_ns,
    )
