"""An output in more than 8 bits, for formats whose int8 layers can only give out bytes.

The layer stands several times with the same weights. Each time its bytes cover one window of the
output, finely stepped, and stand still at its ends for what lies beyond; the sum of all is the
output in that many times as many steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgenet.graph import Affine

WINDOWS = 2
REACH = 1.25
"""What they cover together, in ranges of the 8 bits that they stand for: images vary."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How the bytes of each stand for a part of the output."""

    affine: Affine
    """The same for all."""
    shifts: tuple[float, ...]
    """What each takes off the output first, so that the sum of all is the output again."""


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
