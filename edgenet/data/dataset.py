"""Data sets: pictures with or without accepted labels, whatever they are stored in.

`open_dataset` takes what `--data` and `--calibration` take: a folder, a CSV, or a built-in name.
A picture is read when it is asked for, upright (H, W, 3) uint8 RGB; `edgenet.preprocess` makes the
network's input of it. Runs on boards.
"""

from __future__ import annotations

import csv
import os
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

    A CSV has the columns `file,label`, the files relative to it, and perhaps `name`, what a picture
    is called instead of its file; a folder has one sub-folder a class. Without `labelled` any
    folder of pictures will do and the label column may be missing.
    Raises `UsageError` when there is no such set, `BadData` when it is empty or malformed.
    """
    if source in BUILT_IN:
        return BUILT_IN[source]()
    path = Path(source)
    # Of an empty word, as of a shell's variable that is not set, Path makes the folder one is in.
    if source and path.is_dir():
        _check_listable(path)
        dataset = _labelled_folder(path) if labelled else _folder(path)
    elif path.is_file():
        dataset = _csv(path, labelled=labelled)
    else:
        raise UsageError(
            f"no data at {source!r}: give a folder, a CSV file, or {' or '.join(BUILT_IN)}"
        )
    if not dataset.samples:
        raise BadData(
            f"{path}: holds no pictures; put some there (JPEG or PNG; in a CSV, one a line), or "
            "give another"
        )
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
        name=row.get("name") or file,
        read=partial(read_picture, path.parent / file),
        labels=labels,
        origin=f"{path} line {line}",
        file=path.parent / file,
    )


def _file_sample(file: Path, root: Path, labels: tuple[str, ...]) -> Sample:
    return Sample(
        name=file.relative_to(root).as_posix(),
        read=partial(read_picture, file),
        labels=labels,
        origin=str(file),
        file=file,
    )


def _files(folder: Path) -> list[Path]:
    """Return every file below `folder`: what is no picture is reported when it is read.

    Raises `BadData` for a folder that may not be listed, whose pictures would silently be missing.
    """
    found = []
    for root, folders, names in os.walk(folder, onerror=_refuse, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (Path(root, name) for name in names if not name.startswith("."))
        found += [file for file in files if file.is_file()]
    return sorted(found)


def _check_listable(folder: Path) -> None:
    next(os.walk(folder, onerror=_refuse), None)


def _refuse(error: OSError) -> None:
    raise BadData(
        f"{error.filename}: cannot be listed ({error.strerror}); give yourself permission to read "
        "it (chmod u+rx), or another folder"
    )


def _visible(entry: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in entry.relative_to(root).parts)
