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
    mean_square: Float64Array

    def without(self, channels: Sequence[int]) -> ChannelStatistics:
        """Return the same of a tensor that lacks some channels."""
        return ChannelStatistics(
            low=np.delete(self.low, channels),
            high=np.delete(self.high, channels),
            mean=np.delete(self.mean, channels),
            mean_square=np.delete(self.mean_square, channels),
        )


def collect(
    graph: Graph, images: Sequence[UInt8Array], *, on_image: Callable[[], None] = lambda: None
) -> Mapping[str, ChannelStatistics]:
    """Return the statistics of every tensor over `images`, each (1, H, W, 3) uint8 RGB.

    One image at a time: memory does not grow with their number. Raises `ConversionFailed` naming
    the first tensor that is not finite.
    """
    sums: dict[str, _Sums] = {}

    def watch(name: str, x: Tensor) -> None:
        flat = x.flatten(2) if x.ndim > 2 else x[..., None]
        sums.setdefault(name, _Sums()).add(flat)

    for image in images:
        execute(graph, torch.from_numpy(image), watch)
        on_image()
    for name, total in sums.items():
        if not torch.isfinite(total.mean).all():
            raise ConversionFailed(
                f"tensor {name} is not finite on the calibration images; check the weights"
            )
    return {name: total.statistics(len(images)) for name, total in sums.items()}


class _Sums:
    """One tensor's running extremes and means; each is (channels,)."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        self.mean = torch.zeros(1, dtype=torch.float64)
        self.mean_square = torch.zeros(1, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Take in one image's tensor, (1, channels, positions)."""
        low, high = x.amin((0, 2)), x.amax((0, 2))
        first = not hasattr(self, "low")
        self.low = low if first else torch.minimum(self.low, low)
        self.high = high if first else torch.maximum(self.high, high)
        self.mean = self.mean + x.mean((0, 2), dtype=torch.float64)
        self.mean_square = self.mean_square + x.square().mean((0, 2), dtype=torch.float64)

    def statistics(self, images: int) -> ChannelStatistics:
        """Return what was seen of `images` images."""
        return ChannelStatistics(
            low=self.low.double().numpy(),
            high=self.high.double().numpy(),
            mean=(self.mean / images).numpy(),
            mean_square=(self.mean_square / images).numpy(),
        )


def merge(
    first: Mapping[str, ChannelStatistics], second: Mapping[str, ChannelStatistics], *, share: float
) -> Mapping[str, ChannelStatistics]:
    """Return the statistics of two sets of images as one; `share` of them are in the first."""
    return {
        name: ChannelStatistics(
            low=np.minimum(a.low, b.low),
            high=np.maximum(a.high, b.high),
            mean=share * a.mean + (1 - share) * b.mean,
            mean_square=share * a.mean_square + (1 - share) * b.mean_square,
        )
        for (name, a), b in zip(first.items(), second.values(), strict=True)
    }
