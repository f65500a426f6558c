"""TFLite Model Metadata: what other people's tools read from a .tflite file.

The record is the FlatBuffer of tflite-support's `metadata_schema.fbs` 1.1.0 (root `ModelMetadata`,
identifier "M001"); no package generates Python for it without bringing a runtime along, so its
tables are laid out here. The labels lie in a zip archive behind the model, as tflite-support's
own populator leaves them. Knows nothing of tensors and operators.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import flatbuffers
import numpy as np
import numpy.typing as npt

from edgenet.convert.description import Description
from edgenet.graph import IMAGE, LOGITS, Affine

NAME = "TFLITE_METADATA"
"""The entry of `Model.metadata` in which tools look for the record."""

LABELS_FILE = "labels.txt"

FILE_IDENTIFIER = b"M001"
MIN_PARSER_VERSION = "1.0.0"
"""Nothing below came later than the first version of the schema."""

FEATURE_PROPERTIES, IMAGE_PROPERTIES = np.uint8(1), np.uint8(2)
"""Members of the union ContentProperties."""
NORMALIZATION_OPTIONS = np.uint8(1)
"""Member of the union ProcessUnitOptions."""
RGB = np.int8(1)
"""ColorSpaceType."""
TENSOR_AXIS_LABELS = np.int8(2)
"""AssociatedFileType."""


class _Table:
    """A FlatBuffer table: its fields in the schema's order, None where one is left out."""

    def __init__(self, *fields: _Field) -> None:
        self.fields = fields


_Field = (
    None | str | np.uint8 | np.int8 | np.uint32 | npt.NDArray[np.float32] | _Table | list[_Table]
)


def metadata(
    description: Description,
    *,
    height: int,
    width: int,
    image_affine: Affine | None,
    outputs: Sequence[str],
) -> bytes:
    """Return the ModelMetadata record of a network from `image` to `outputs`.

    `height` and `width` are the image's, in pixels. `image_affine` is how the file's input tensor
    is quantised, None where its bytes mean themselves.
    """
    image = _Table(  # TensorMetadata: see `_tensor_metadata` for the fields
        IMAGE,
        f"RGB picture of {width} x {height} pixels as bytes, 0 to 255. "
        "Do not normalise: the model does.",
        None,
        _Table(  # Content: content_properties_type, content_properties, range
            IMAGE_PROPERTIES,
            # ImageProperties: color_space, default_size; ImageSize: width, height
            _Table(RGB, _Table(np.uint32(width), np.uint32(height))),
            None,
        ),
        [_Table(NORMALIZATION_OPTIONS, _normalization(image_affine))],  # ProcessUnit
        _Table(_floats(255), _floats(0)),  # Stats: max, min
        None,
    )
    # SubGraphMetadata: name, description, input_tensor_metadata, output_tensor_metadata
    given = [_logits()] if description.labels else [_values(name) for name in outputs]
    subgraph = _Table(None, None, [image], given)
    what = f"classifier with {len(description.labels)} labels" if description.labels else "network"
    record = _Table(
        description.name,
        f"Image {what}, written by edgenet {description.version}.",
        description.version,
        [subgraph],
        None,  # author
        description.licence,
        None,  # associated_files: the labels belong to the output tensor
        MIN_PARSER_VERSION,
    )
    builder = flatbuffers.Builder()
    builder.Finish(_pack(builder, record), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def append_labels(model: bytes, labels: tuple[str, ...]) -> bytes:
    """Return `model` with an uncompressed zip archive behind it: labels.txt, one label a line.

    Without labels it is `model` itself.
    """
    if not labels:
        return model
    file = io.BytesIO(model)
    # A fixed date, system and mode: the bytes depend on the labels alone.
    entry = zipfile.ZipInfo(LABELS_FILE, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry, "".join(f"{label}\n" for label in labels).encode())
    return file.getvalue()


def _logits() -> _Table:
    """Return the TensorMetadata of a classifier's output."""
    labels = _Table(  # AssociatedFile: name, description, type, locale
        LABELS_FILE, "One label for each logit, in order.", TENSOR_AXIS_LABELS, None
    )
    features = _Table(FEATURE_PROPERTIES, _Table(), None)
    text = "One score for each label, before softmax."
    return _Table(LOGITS, text, None, features, None, None, [labels])


def _values(output: str) -> _Table:
    """Return the TensorMetadata of any other output."""
    features = _Table(FEATURE_PROPERTIES, _Table(), None)
    text = "Values as the network makes them; of a map, height x width x channels."
    return _Table(output, text, None, features, None, None)


def _normalization(affine: Affine | None) -> _Table:
    """Return NormalizationOptions (mean, std): from the picture's bytes to the tensor's values.

    Readers that follow the schema normalise and then quantise with the tensor's own affine; the
    two have to cancel, so that the model gets the bytes as they are.
    """
    if affine is None:
        return _Table(_floats(0), _floats(1))
    return _Table(_floats(affine.zero_point), _floats(1 / affine.scale))


def _floats(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def _pack(builder: flatbuffers.Builder, table: _Table) -> int:
    """Write `table` and everything that it holds; return its offset."""
    # FlatBuffers are written inside out: what a table refers to comes before the table.
    offsets = {
        slot: _pack_reference(builder, field)
        for slot, field in enumerate(table.fields)
        if isinstance(field, (str, np.ndarray, _Table, list))
    }
    builder.StartObject(len(table.fields))
    for slot, field in enumerate(table.fields):
        if isinstance(field, np.uint8):
            builder.PrependUint8Slot(slot, int(field), 0)
        elif isinstance(field, np.int8):
            builder.PrependInt8Slot(slot, int(field), 0)
        elif isinstance(field, np.uint32):
            builder.PrependUint32Slot(slot, int(field), 0)
        elif field is not None:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
    return int(builder.EndObject())


def _pack_reference(
    builder: flatbuffers.Builder, value: str | npt.NDArray[np.float32] | _Table | list[_Table]
) -> int:
    """Write what a table holds by reference: a text, floats, a table or tables."""
    match value:
        case str():
            return int(builder.CreateString(value))
        case np.ndarray():
            return int(builder.CreateNumpyVector(value))
        case _Table():
            return _pack(builder, value)
        case _:
            offsets = [_pack(builder, table) for table in value]
            builder.StartVector(4, len(offsets), 4)
            for offset in reversed(offsets):
                builder.PrependUOffsetTRelative(offset)
            return int(builder.EndVector())
