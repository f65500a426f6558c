"""A data set on its way to a board: every picture by its content, and a CSV that lists them.

    data/<digits>/<sha256>    a file as it is here, or a PNG of a picture that is made
    data/<digits>/<name>      columns file,label,name: what `--data` takes there

The digits are of the CSV's hash, so a set that is there is known to be whole. A picture that
several sets share is sent once. Names and labels arrive as they are here, so that the same playlist
is recognised there, and the pixels too, so that records compare.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2

from edgenet.data.sample import Dataset, Sample
from edgenet.errors import BadData, BadImage
from edgenet.remote.hosts import Board
from edgenet.remote.sending import Content, content_of, content_of_bytes, receiving

FOLDER = "data"
"""Below the board's root."""
DIGITS = 16
SHOWN = 3
"""Pictures named in a warning."""
MISSING = "missing"
"""A file that is not there, for a picture that cannot be read here."""
PNG_EFFORT = 1
"""Of zlib's 9: what a slow link saves more, a slow host loses."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What a board needs of a data set."""

    folder: str
    """Below the board's root."""
    listing: str
    """The CSV's name in it."""
    text: str
    """What is in the CSV."""
    contents: Mapping[str, Content]
    """The pictures' files by their name in the folder."""
    missing: tuple[str, ...]
    """Why a picture cannot be read here, one each; there it will not be readable either."""


def pack(dataset: Dataset, *, on_sample: Callable[[], None] = lambda: None) -> Parcel:
    """Return what takes `dataset` to a board; every picture is read.

    Raises `BadData` for names and labels that a CSV cannot hold.
    """
    contents: dict[str, Content] = {}
    rows, missing = [], []
    for sample in dataset.samples:
        try:
            content = _stored(sample)
        except (BadImage, OSError) as error:
            missing.append(f"{sample.origin}: {error}")
            file = MISSING
        else:
            file = content.sha256
            contents[file] = content
        rows.append((file, _label(sample), sample.name))
        on_sample()
    text = _csv(dataset, rows)
    return Parcel(
        folder=f"{FOLDER}/{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}",
        listing=_file_name(dataset.name),
        text=text,
        contents=contents,
        missing=tuple(missing),
    )


def send(parcel: Parcel, board: Board) -> str:
    """Send what a board lacks of a data set; return what `--data` takes there.

    Raises `DeployRefused` where it has no room or something else is being sent to it.
    """
    root = board.installation.root
    listing = f"{root}/{parcel.folder}/{parcel.listing}"
    if board.connection.run(["test", "-e", listing]).status == 0:
        return listing
    with receiving(board.connection, board.installation.python, root) as receiver:
        receiver.send(list(parcel.contents.values()))
        receiver.place(parcel.folder, parcel.contents, notes={parcel.listing: parcel.text})
    return listing


def missing_words(parcel: Parcel) -> str | None:
    """Return what is to be told of the pictures that cannot be read; None where all can."""
    if not parcel.missing:
        return None
    more = len(parcel.missing) - SHOWN
    return f"not sent: {'; '.join(parcel.missing[:SHOWN])}" + (
        f"; and {more} more" if more > 0 else ""
    )


def _stored(sample: Sample) -> Content:
    """Return a file whose pixels are those of the sample."""
    if sample.file is not None:
        return content_of(sample.file)
    pixels = cv2.cvtColor(sample.read(), cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, PNG_EFFORT])
    if not done:
        raise BadImage(f"{sample.origin}: OpenCV cannot write it as PNG")
    return content_of_bytes(encoded.tobytes())


def _label(sample: Sample) -> str:
    for label in sample.labels:
        if "|" in label:
            raise BadData(
                f"{sample.origin}: the label {label!r} has a | in it, which parts labels in what a "
                "board gets; rename it"
            )
    return "|".join(sample.labels)


def _csv(dataset: Dataset, rows: list[tuple[str, str, str]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(("file", "label", "name"))
    writer.writerows(rows)
    text = stream.getvalue()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadData(
            f"{dataset.name}: the name of a picture is not UTF-8 ({error.object[error.start]!r}); "
            "rename it"
        ) from None
    return text


def _file_name(name: str) -> str:
    """Return a plain name of a file that still tells which set it is."""
    plain = name.replace("/", "_").replace("\\", "_").replace("\0", "_")
    return plain if plain.strip(".") else "data"
