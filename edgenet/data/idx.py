"""The IDX format of the MNIST family: gzipped arrays of unsigned bytes with a shape in front.

Format: http://yann.lecun.com/exdb/mnist/ (magic 0x00000800 + dimensions, big-endian sizes).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from edgenet.errors import BadData
from edgenet.preprocess import UInt8Array

UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> UInt8Array:
    """Return the uint8 array in a gzipped IDX file; raises `BadData` naming the byte at fault."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"{path}: not a whole gzip file ({error})") from error
    if len(data) < 4 or data[:3] != bytes([0, 0, UNSIGNED_BYTE]):
        raise BadData(f"{path}: byte 0 does not start an IDX array of unsigned bytes")
    dimensions = data[3]
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise BadData(f"{path}: ends at byte {len(data)} inside its {start}-byte header")
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    if len(data) - start != math.prod(shape):
        raise BadData(
            f"{path}: shape {shape} needs {math.prod(shape)} bytes, {len(data) - start} found"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
