"""Data sets: pictures with or without accepted labels, whatever they are stored in.

`open_dataset` takes what `--data` and `--calibration` take: a folder, a CSV, or a built-in name.
A picture is read when it is asked for, upright (H, W, 3) uint8 RGB; `edgenet.preprocess` makes the
network's input of it. Runs on boards.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgenet.data import fashion_mnist, photographs
from edgenet.data.sample import Dataset, Sample
from edgenet.errors import BadData, UsageError
from edgenet.preprocess import read_picture

BUILT_IN: dict[str, Callable[[], Dataset]] = {
    "photographs": photographs.labelled,
    "fashion-mnist": fashion_mnist.test_set,
}
"""What `--data` takes by name."""


def open_dataset(source: str, *, labelled: bool) -> Dataset:
    """Return the data set called or stored at `source`.

    A CSV has the columns `file,label`, the files relative to it; a folder has one sub-folder a
    class. Without `labelled` any folder of pictures will do and the label column may be missing.
    Raises `UsageError` when there is no such set, `BadData` when it is empty or malformed.
    """
    if source in BUILT_IN:
        return BUILT_IN[source]()
    path = Path(source)
    if path.is_dir():
        dataset = _labelled_folder(path) if labelled else _folder(path)
    elif path.is_file():
        dataset = _csv(path, labelled=labelled)
    else:
        raise UsageError(
            f"no data at {source!r}: give a folder, a CSV file, or {' or '.join(BUILT_IN)}"
        )
    if not dataset.samples:
        raise BadData(f"{path}: holds no pictures")
    return dataset


def _labelled_folder(root: Path) -> Dataset:
    classes = sorted(entry for entry in root.iterdir() if entry.is_dir() and _visible(entry, root))
    if not classes:
        raise BadData(f"{root}: has no sub-folders; it needs one a class, named by label or index")
    return Dataset(
        name=root.name,
        samples=tuple(
            _file_sample(file, root, (folder.name,))
            for folder in classes
            for file in _files(folder)
        ),
    )


def _folder(root: Path) -> Dataset:
    return Dataset(
        name=root.name, samples=tuple(_file_sample(file, root, ()) for file in _files(root))
    )


def _csv(path: Path, *, labelled: bool) -> Dataset:
    columns = {"file", "label"} if labelled else {"file"}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = columns - set(reader.fieldnames or ())
            if missing:
                raise BadData(f"{path}: line 1 lacks the column {' and '.join(sorted(missing))}")
            samples = tuple(
                _row_sample(path, reader.line_num, row, labelled=labelled) for row in reader
            )
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{path}: is not a CSV text file ({error})") from None
    return Dataset(name=path.name, samples=samples)


def _row_sample(path: Path, line: int, row: dict[str, str], *, labelled: bool) -> Sample:
    file, label = row["file"] or "", row.get("label") or ""
    labels = tuple(part.strip() for part in label.split("|") if part.strip())
    if not file or (labelled and not labels):
        raise BadData(f"{path}: line {line} lacks a {'label' if file else 'file'}")
    return Sample(
        name=file,
        read=partial(read_picture, path.parent / file),
        labels=labels,
        origin=f"{path} line {line}",
    )


def _file_sample(file: Path, root: Path, labels: tuple[str, ...]) -> Sample:
    return Sample(
        name=file.relative_to(root).as_posix(),
        read=partial(read_picture, file),
        labels=labels,
        origin=str(file),
    )


def _files(folder: Path) -> list[Path]:
    """Return every file below `folder`: what is no picture is reported when it is read."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and _visible(file, folder))


def _visible(entry: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in entry.relative_to(root).parts)
