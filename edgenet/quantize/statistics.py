"""What the calibration set shows of every tensor: range and mean, channel by channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgenet.errors import ConversionFailed
from edgenet.graph import Graph
from edgenet.preprocess import UInt8Array
from edgenet.quantize.execute import execute

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelStatistics:
    """One tensor over the calibration set; each array is (channels,) float64."""

    low: Float64Array
    high: Float64Array
    mean: Float64Array


def collect(
    graph: Graph, images: Sequence[UInt8Array], *, on_image: Callable[[], None] = lambda: None
) -> Mapping[str, ChannelStatistics]:
    """Return the statistics of every tensor over `images`, each (1, H, W, 3) uint8 RGB.

    One image at a time: memory does not grow with their number. Raises `ConversionFailed` naming
    the first tensor that is not finite.
    """
    lows: dict[str, Tensor] = {}
    highs: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}

    def watch(name: str, x: Tensor) -> None:
        flat = x.flatten(2) if x.ndim > 2 else x[..., None]
        low, high = flat.amin((0, 2)), flat.amax((0, 2))
        mean = flat.double().mean((0, 2))
        lows[name] = torch.minimum(lows.get(name, low), low)
        highs[name] = torch.maximum(highs.get(name, high), high)
        sums[name] = sums[name] + mean if name in sums else mean

    for image in images:
        execute(graph, torch.from_numpy(image), watch)
        on_image()
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise ConversionFailed(
                f"tensor {name} is not finite on the calibration images; check the weights"
            )
    return {
        name: ChannelStatistics(
            low=lows[name].double().numpy(),
            high=highs[name].double().numpy(),
            mean=(total / len(images)).numpy(),
        )
        for name, total in sums.items()
    }
