"""Data sets in every form, and what is wrong with them."""

import csv
import gzip
import hashlib
import os
import tempfile
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgenet.data import fashion_mnist, photographs
from edgenet.data.dataset import open_dataset
from edgenet.data.idx import read_idx
from edgenet.data.labels import accepted_indices
from edgenet.errors import BadData, BadImage, UsageError
from edgenet.preprocess import pixels_sha256

NOBODY = 65534
CALIBRATION = Path(str(files("edgenet.calibration")))


def picture(path, shade=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((40, 50, 3), shade, np.uint8))


def test_labelled_folder(tmp_path):
    for name in ("cat/1.png", "cat/deep/2.png", "3/a.png", ".hidden/x.png", "cat/.thumb.png"):
        picture(tmp_path / name)
    dataset = open_dataset(str(tmp_path), labelled=True)
    assert [(s.name, s.labels) for s in dataset.samples] == [
        ("3/a.png", ("3",)),
        ("cat/1.png", ("cat",)),
        ("cat/deep/2.png", ("cat",)),
    ]
    assert dataset.samples[0].read().shape == (40, 50, 3)


def test_folder_without_classes(tmp_path):
    picture(tmp_path / "1.png")
    with pytest.raises(BadData, match="no sub-folders"):
        open_dataset(str(tmp_path), labelled=True)
    assert len(open_dataset(str(tmp_path), labelled=False).samples) == 1


def test_empty_folder(tmp_path):
    (tmp_path / "cat").mkdir()
    for labelled in (True, False):
        with pytest.raises(BadData, match="holds no pictures"):
            open_dataset(str(tmp_path), labelled=labelled)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("closed", [".", "cat"])
def test_a_folder_that_may_not_be_listed_is_no_empty_one(labelled, closed):
    """Root may list everything, so somebody else has to look."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "cat").mkdir()
        (root / "cat/a.jpg").touch()
        root.chmod(0o755)
        (root / closed).chmod(0o000)
        everybody = os.geteuid()
        try:
            if everybody == 0:
                os.seteuid(NOBODY)
            with pytest.raises(BadData, match=r"cannot be listed \(Permission denied\); .*chmod"):
                open_dataset(place, labelled=labelled)
        finally:
            os.seteuid(everybody)
            (root / closed).chmod(0o755)


def test_csv(tmp_path):
    picture(tmp_path / "pictures/a.png")
    table = tmp_path / "set.csv"
    table.write_text(
        '\ufefffile,label\npictures/a.png,cat | 2\nnone.png,"tench, Tinca tinca"\n', "utf-8"
    )
    first, second = open_dataset(str(table), labelled=True).samples
    assert first.labels == ("cat", "2")
    assert first.read().shape == (40, 50, 3)
    assert second.labels == ("tench, Tinca tinca",)
    with pytest.raises(BadImage, match=r"none\.png"):
        second.read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.png\n", "line 1 lacks the column label"),
        ("", "lacks the column"),
        ("file,label\na.png,\n", "line 2 lacks a label"),
        ("file,label\n,cat\n", "line 2 lacks a file"),
        ("file,label\n", "holds no pictures"),
        ("file,label\na.png\n", "line 2 lacks a label"),
    ],
)
def test_malformed_csv(tmp_path, text, message):
    table = tmp_path / "set.csv"
    table.write_text(text)
    with pytest.raises(BadData, match=message):
        open_dataset(str(table), labelled=True)


def test_csv_that_is_a_picture(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(BadData, match=r"a\.png"):
        open_dataset(str(tmp_path / "a.png"), labelled=True)


@pytest.mark.parametrize("source", ["nowhere", ""])
@pytest.mark.parametrize("labelled", [True, False])
def test_no_such_data(source, labelled):
    with pytest.raises(UsageError, match=f"'{source}': .* photographs or fashion-mnist"):
        open_dataset(source, labelled=labelled)


LABELS = ("background", "tench, Tinca tinca", "crane", "house cat, cat", "crane")


def accepted(tmp_path, label):
    table = tmp_path / "set.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "label"), ("a.png", label)])
    (sample,) = open_dataset(str(table), labelled=True).samples
    return accepted_indices(sample, LABELS)


def test_labels(tmp_path):
    assert accepted(tmp_path, "Tinca Tinca") == {1}
    assert accepted(tmp_path, "tench, tinca tinca|cat") == {1, 3}
    assert accepted(tmp_path, "0|4") == {0, 4}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("crane", "names several classes; write one of the indices 2, 4"),
        ("5", "not one of the bundle's 5 labels"),
        ("-1", "not one of"),
        ("backgrond", "did you mean 'background'"),
    ],
)
def test_labels_outside_the_bundle(tmp_path, label, message):
    with pytest.raises(BadData, match=message) as caught:
        accepted(tmp_path, label)
    assert "set.csv line 2" in str(caught.value)


def test_draw_is_seeded():
    dataset = fashion_mnist.calibration_set()
    first, again, other = (dataset.draw(20, seed=seed) for seed in (1, 1, 2))
    assert [s.name for s in first.samples] == [s.name for s in again.samples]
    assert [s.name for s in first.samples] != [s.name for s in other.samples]
    assert dataset.draw(1000, seed=0) is dataset


def test_fashion_mnist():
    test_set = fashion_mnist.test_set()
    assert len(test_set.samples) == 10_000
    labels = [sample.labels[0] for sample in test_set.samples]
    assert {labels.count(str(label)) for label in range(10)} == {1000}
    tested = {pixels_sha256(sample.read()) for sample in test_set.samples}
    calibration = {pixels_sha256(s.read()) for s in fashion_mnist.calibration_set().samples}
    assert len(calibration) == 200
    assert not tested & calibration


def test_photographs(imagenet):
    dataset = photographs.labelled()
    assert len(dataset.samples) == 57
    first = dataset.samples[0].read()
    assert first.shape == (256, 256, 3)
    assert pixels_sha256(first) == pixels_sha256(dataset.samples[0].read())
    for sample in dataset.samples:
        assert accepted_indices(sample, imagenet.labels)


def test_calibration_photographs_are_what_the_table_says():
    table = (CALIBRATION / "images.csv").read_text("utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    found = {path.name for path in (CALIBRATION / "images").iterdir()}
    assert {row["file"].rpartition("/")[2] for row in rows} == found
    assert len(photographs.calibration_set().samples) == len(rows) >= 96
    for row in rows:
        data = (CALIBRATION / "images" / row["file"].rpartition("/")[2]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert row["licence"]
        assert row["source"]
    shared = {pixels_sha256(s.read()) for s in photographs.labelled().samples} & {
        row["pixels_sha256"] for row in rows
    }
    assert not shared


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"plain", "not a whole gzip file"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x09" + bytes(8)), "shape"),
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\x02ab"), "byte 0"),
        (gzip.compress(b"\0\0\x08\x03\0\0"), "ends at byte 6"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab")[:-9], "not a whole gzip file"),
    ],
)
def test_damaged_idx(tmp_path, data, message):
    path = tmp_path / "x.gz"
    path.write_bytes(data)
    with pytest.raises(BadData, match=message):
        read_idx(path)


def test_idx(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03abcdef"))
    assert read_idx(path).tolist() == [[97, 98, 99], [100, 101, 102]]
