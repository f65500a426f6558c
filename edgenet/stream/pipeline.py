"""The way of one frame through the network: preprocess, infer, label; each stage timed.

The frame goes blue first through the one preprocessing that calibration and evaluation use. It does
not know where frames come from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edgenet.preprocess import Preprocessing, UInt8Array, prepare_bgr
from edgenet.runtimes import Session
from edgenet.stream.frame import Frame
from edgenet.stream.result import Result, StageTimes


class Pipeline:
    """A loaded classifier that labels frames."""

    def __init__(
        self,
        session: Session,
        preprocessing: Preprocessing,
        labels: Sequence[str],
        *,
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take a session of a classifier; `now` is the clock of the frames, in ns."""
        self._session = session
        self._preprocessing = preprocessing
        self._labels = labels
        self._now = now

    def label(self, frame: Frame, *, taken_ns: int, picture: UInt8Array | None = None) -> Result:
        """Return what the network says of a frame that was taken out of the slot at `taken_ns`.

        The network sees `picture` (H, W, 3) BGR where it is given, a part of the frame. Raises
        `BadImage` where the crop does not fit into it.
        """
        began = self._now()
        image = prepare_bgr(frame.bgr if picture is None else picture, self._preprocessing)
        prepared = self._now()
        logits = self._session.run(image)["logits"][0]
        inferred = self._now()
        best = int(logits.argmax())
        labelled = self._now()
        return Result(
            frame=frame,
            image=image,
            logits=logits,
            best=best,
            labels=self._labels,
            stages=StageTimes(
                wait_ns=taken_ns - frame.arrived_ns,
                preprocess_ns=prepared - began,
                infer_ns=inferred - prepared,
            ),
            labelled_ns=labelled,
        )
