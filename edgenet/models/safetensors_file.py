"""Reading a safetensors file so that damage is named by byte or tensor.

The `safetensors` library does the reading; this module checks the header first, because its errors
say that a file is wrong but not where. Format: https://github.com/huggingface/safetensors (8 bytes
of header length, a JSON header, then the tensors end to end).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgenet.errors import BadWeights, MissingExtra

LENGTH_BYTES = 8


def read_safetensors(path: Path) -> tuple[Mapping[str, npt.NDArray[np.float32]], dict[str, str]]:
    """Return the tensors by name, as float32, and the header's metadata.

    Raises `BadWeights` naming the byte or the tensor when the file is damaged, holds something
    else, or has a value that is not finite.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError as error:
        raise MissingExtra("safetensors", "convert") from error
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read ({error.strerror})") from error
    metadata = _check_header(data, path)
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise BadWeights(f"{path}: is not a readable safetensors file ({error})") from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            where = int(np.flatnonzero(~np.isfinite(tensor))[0])
            raise BadWeights(f"{path}: tensor {name} is not finite at element {where}")
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}, metadata


def _check_header(data: bytes, path: Path) -> dict[str, str]:
    """Check that every tensor announced in the header lies in the file; return the metadata."""
    advice = "get the file again"
    if len(data) < LENGTH_BYTES:
        raise BadWeights(f"{path}: ends at byte {len(data)}, inside the header length; {advice}")
    (length,) = struct.unpack_from("<Q", data)
    start = LENGTH_BYTES + length
    if start > len(data):
        raise BadWeights(
            f"{path}: byte 0 announces a header of {length} bytes but the file has {len(data)}; "
            f"it is cut off or not a safetensors file"
        )
    try:
        header = json.loads(data[LENGTH_BYTES:start])
    except UnicodeDecodeError as error:
        raise BadWeights(
            f"{path}: header is damaged at byte {LENGTH_BYTES + error.start}; {advice}"
        ) from None
    except json.JSONDecodeError as error:
        raise BadWeights(
            f"{path}: header is damaged at byte {LENGTH_BYTES + error.pos}; {advice}"
        ) from None
    if not isinstance(header, dict):
        raise BadWeights(f"{path}: header at byte {LENGTH_BYTES} is not a JSON object; {advice}")
    metadata = header.pop("__metadata__", {})
    for name, entry in header.items():
        try:
            begin, end = entry["data_offsets"]
            beyond = not 0 <= begin <= end <= len(data) - start
        except (TypeError, KeyError, ValueError):
            raise BadWeights(f"{path}: header entry of tensor {name} is damaged") from None
        if beyond:
            raise BadWeights(
                f"{path}: tensor {name} should end at byte {start + end} but the file ends at "
                f"byte {len(data)}; {advice}"
            )
    return metadata if isinstance(metadata, dict) else {}
