"""What a board gets of a data set, and what it makes of it."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from by_hand import put_edgenet

from edgenet.cli import run
from edgenet.data.dataset import open_dataset
from edgenet.errors import BadData
from edgenet.preprocess import pixels_sha256
from edgenet.remote.pictures import missing_words, pack
from edgenet.stream.playlist import playlist_of

ROOM = ".local/share/edgenet"


@pytest.fixture
def photos(tmp_path):
    """Six pictures of three classes in a CSV, with names as people give them."""
    draw = np.random.default_rng(3)
    names = ["a b.png", "sub/ä.jpg", "c,d.png", 'e".png', "f.png", "g.png"]
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in names:
        picture = draw.integers(0, 255, (70, 80, 3), np.uint8)
        cv2.imwrite(str(folder / name), picture)
    with (folder / "list.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label"])
        writer.writerows(
            [name, ["3", "4|Bag", "Coat"][index % 3]] for index, name in enumerate(names)
        )
    return folder / "list.csv"


def unpack(parcel, folder):
    """Return the data set that a board would open."""
    folder.mkdir()
    for name, content in parcel.contents.items():
        data = content.read_from
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.read_bytes())
    (folder / parcel.listing).write_text(parcel.text, "utf-8", newline="")
    return open_dataset(str(folder / parcel.listing), labelled=True)


def test_the_same_set_arrives(photos, tmp_path):
    here = open_dataset(str(photos), labelled=True)
    there = unpack(pack(here), tmp_path / "board")
    assert there.name == here.name
    assert playlist_of(there).identity == playlist_of(here).identity
    for mine, its in zip(here.samples, there.samples, strict=True):
        assert (its.name, its.labels) == (mine.name, mine.labels)
        assert np.array_equal(its.read(), mine.read())


def test_pictures_that_are_made_arrive_bit_for_bit(tmp_path):
    here = open_dataset("fashion-mnist", labelled=True).draw(20, seed=1)
    there = unpack(pack(here), tmp_path / "board")
    assert there.name == here.name
    assert [pixels_sha256(sample.read()) for sample in there.samples] == [
        pixels_sha256(sample.read()) for sample in here.samples
    ]
    assert playlist_of(there).identity == playlist_of(here).identity


def test_the_same_picture_is_in_it_once(photos):
    for name in ("f.png", "g.png"):
        shutil.copy(photos.parent / "a b.png", photos.parent / name)
    assert len(pack(open_dataset(str(photos), labelled=True)).contents) == 4


def test_what_cannot_be_read_keeps_its_place(photos, tmp_path):
    (photos.parent / "a b.png").unlink()
    parcel = pack(open_dataset(str(photos), labelled=True))
    assert len(parcel.missing) == 1
    assert "a b.png" in missing_words(parcel)
    there = unpack(parcel, tmp_path / "board")
    assert there.samples[0].name == "a b.png"
    assert not (tmp_path / "board/missing").exists()


def test_all_is_there(photos):
    assert missing_words(pack(open_dataset(str(photos), labelled=True))) is None


def test_a_label_that_a_list_cannot_hold(tmp_path):
    (tmp_path / "set/cat|dog").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "set/cat|dog/1.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(BadData, match=re.escape("the label 'cat|dog' has a | in it")):
        pack(open_dataset(str(tmp_path / "set"), labelled=True))


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", ".", "a\0b"])
def test_a_set_whose_name_leads_elsewhere(photos, name):
    hostile = replace(open_dataset(str(photos), labelled=True), name=name)
    listing = pack(hostile).listing
    assert "/" not in listing and "\0" not in listing and listing.strip(".")


@pytest.fixture
def deployed(board, small_bundle, tmp_path, monkeypatch):
    put_edgenet(board, small_bundle)
    shutil.copytree(small_bundle.root, tmp_path / "here/small")
    monkeypatch.chdir(tmp_path / "here")
    return board


def document(capsys, *words):
    assert run([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("limit", [[], ["--limit", "4", "--seed", "7"]])
def test_the_board_answers_as_here(deployed, photos, capsys, limit):
    line = ["evaluate", "small", "--data", photos, "--runtime", "litert", *limit]
    here = document(capsys, *line)
    there = document(capsys, *line, "--host", "board")
    assert there["data"] == here["data"]
    assert [record["predictions"] for record in there["records"]] == [
        record["predictions"] for record in here["records"]
    ]
    assert [record["accuracy"] for record in there["records"]] == [
        record["accuracy"] for record in here["records"]
    ]
    assert there["command"][-2:] == ["--host", "board"]
    (record,) = Path("records").glob("*_evaluation_board_*.json")
    assert json.loads(record.read_text()) == there


def test_a_set_is_sent_once(deployed, photos, capsys):
    line = ["evaluate", "small", "--data", photos, "--runtime", "litert", "--host", "board"]
    document(capsys, *line)
    (folder,) = (deployed.home / ROOM / "data").iterdir()
    first = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (photos.parent / "sub/ä.jpg").touch()
    document(capsys, *line)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == first
    # Another set of the same pictures shares their files.
    document(capsys, *line, "--limit", "4")
    (other,) = set((deployed.home / ROOM / "data").iterdir()) - {folder}
    shared = [path for path in other.iterdir() if path.suffix != ".csv"]
    assert len(shared) == 4
    assert all(path.samefile(folder / path.name) for path in shared)


def test_the_default_pictures_go_along(deployed, capsys):
    line = ["profile", "small", "--runtime", "litert", "--precision", "int8", "--quick"]
    line += ["--duration", "0.2", "--layers", "off"]
    there = document(capsys, *line, "--host", "board")
    here = document(capsys, *line)
    assert there["data"] == here["data"] == {"name": "fashion-mnist", "n": 100, "unreadable": []}
    assert there["records"][0]["predictions"] == here["records"][0]["predictions"]


def test_a_set_of_other_classes_is_refused_here(deployed, capsys):
    assert run(["evaluate", "small", "--data", "photographs", "--host", "board"]) == 1
    assert "has 1001 classes and this bundle 10" in capsys.readouterr().err
    assert not (deployed.home / ROOM / "data").exists()
