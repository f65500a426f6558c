"""An output in more than 8 bits, for formats whose int8 layers can only give out bytes.

The layer computes one row for each of several windows of the output. A row's bytes cover its
window, finely stepped, and stand still at its ends for what lies beyond; the sum of all rows is the
output in that many times as many steps.

All rows are one matrix product, so that the weights are read once. What tells the rows apart are
inputs that the layer did not have: constants, whose weights take the window's shift off the sums,
to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgenet.graph import Affine

WINDOWS = 4
COLUMNS = 32
"""Inputs that take the shifts off, at most: 31 of the largest value and one of 1."""
LARGEST_WEIGHT = 127
REACH = 1.25
"""What they cover together, in ranges of the 8 bits that they stand for: images vary."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How the bytes of each stand for a part of the output."""

    affine: Affine
    """The same for all."""
    shifts: tuple[float, ...]
    """What each takes off the output first, so that the sum of all is the output again; they lie as
    far apart as a window is wide."""


def windows(affine: Affine) -> Windows:
    """Return the windows of an output that would have `affine` in 8 bits."""
    scale = float(np.float32(affine.scale * REACH / WINDOWS))
    width = 255 * scale
    middle = affine.scale * (127.5 - affine.zero_point)
    zero_point = round(width / 2 / scale - middle / WINDOWS / scale)
    one = Affine(scale=scale, zero_point=int(np.clip(zero_point, 0, 255)))
    lowest = -one.zero_point * scale * WINDOWS
    return Windows(
        affine=one,
        # A window's own values begin at its share of the lowest.
        shifts=tuple(lowest + n * width + one.zero_point * scale for n in range(WINDOWS)),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Inputs and weights that take each window's shift off the sums of a layer."""

    inputs: npt.NDArray[np.int8]
    """(rows, columns), in the affine of the layer's own inputs; nothing in the first row."""
    weights: npt.NDArray[np.int8]
    """(outputs, columns)."""


def least_weight_scale(output: Affine, source: Affine) -> float:
    """Return the weight scale below which `COLUMNS` cannot reach the windows' distance.

    `output` is the affine in 8 bits of a layer's output, `source` that of its input. Only outputs
    with next to no weights come near: rounding those more coarsely costs less than a step.
    """
    distance = 255 * windows(output).affine.scale
    return distance / source.scale / ((COLUMNS - 1) * LARGEST_WEIGHT * abs(_unit(source)))


def columns(steps: npt.NDArray[np.int64], source: Affine) -> Columns:
    """Return what adds `steps` (outputs,) to the integer sums of a layer, once more in each row."""
    unit = _unit(source)
    coarse = np.rint(steps / unit).astype(np.int64)
    count = max(-(-int(np.abs(coarse).max()) // LARGEST_WEIGHT), 1)
    assert count < COLUMNS
    # As equal as whole numbers can be: together they are `coarse`.
    shares = [coarse * (n + 1) // count - coarse * n // count for n in range(count)]
    sign = 1 if unit > 0 else -1
    values = np.outer(np.arange(WINDOWS), [unit] * count + [sign])
    return Columns(
        inputs=(values + source.zero_point - 128).astype(np.int8),
        weights=np.stack([*shares, (steps - coarse * unit) * sign], axis=1).astype(np.int8),
    )


def _unit(source: Affine) -> int:
    """Return the value, in steps, of which a tensor's bytes hold the most that the last row asks.

    It is furthest from zero on the longer side of the zero point.
    """
    last = WINDOWS - 1
    return (
        (255 - source.zero_point) // last
        if source.zero_point < 128
        else -(source.zero_point // last)
    )
