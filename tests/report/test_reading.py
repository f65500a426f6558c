"""Stored documents come back as they were written, or one line says why not."""

import json
import re

import pytest
from stored_profiles import profile_document, profile_record, write_document

from edgenet.data import fashion_mnist
from edgenet.errors import BadRecord, UsageError
from edgenet.measure.evaluate import evaluate
from edgenet.measure.statistics import summarise
from edgenet.report.reading import read_document
from edgenet.report.record import evaluation_document
from edgenet.report.saving import save_document


def test_a_profile_comes_back(tmp_path):
    record = profile_record(launches_ms=(5.0, 6.0), wrong=[3])
    found = read_document(write_document(tmp_path / "p.json", profile_document(record)))
    assert (found.kind, found.board) == ("profile", "Raspberry Pi 5 Model B Rev 1.0")
    (read,) = found.records
    assert read.label == "onnxruntime int8, 1 thread"
    assert read.latency["inference_ms"] == summarise(record["samples_ns"]["inference"])
    assert read.latency["load_ms"].p50 is None
    assert len(read.launches) == 2
    assert (read.quick, read.complete, read.paced_fps) == (False, True, 30)
    assert [prediction.right for prediction in read.predictions].count(False) == 1
    assert read.top1.right == 56


@pytest.fixture(scope="module")
def evaluation(small_bundle):
    found = evaluate(small_bundle, fashion_mnist.test_set().draw(6, seed=0), small_bundle.artifacts)
    return evaluation_document(small_bundle, found, command=["edgenet", "evaluate", "b"], threads=1)


def test_an_evaluation_comes_back(small_bundle, evaluation, tmp_path):
    save_document(evaluation, tmp_path / "e.json")
    found = read_document(tmp_path / "e.json")
    assert found.preprocessing_sha256 == small_bundle.preprocessing.sha256()
    assert len(found.records) == len(small_bundle.artifacts)
    for read, written in zip(found.records, evaluation["records"], strict=True):
        assert (read.latency, read.launches, read.throttled) == ({}, (), None)
        assert read.top1.right == written["accuracy"]["top1"]["right"]
        assert [p.top for p in read.predictions] == [p["top5"][0] for p in written["predictions"]]


def test_an_evaluation_of_schema_1_0_is_read(evaluation, tmp_path):
    old = {**evaluation, "schema_version": "1.0"}
    del old["preprocessing_sha256"]
    found = read_document(write_document(tmp_path / "old.json", old))
    assert found.preprocessing_sha256 is None
    assert len(found.records) == len(evaluation["records"])


def test_a_newer_minor_version_is_read(tmp_path):
    newer = profile_document(profile_record(colour="red"), schema_version="1.9", shape="round")
    assert read_document(write_document(tmp_path / "newer.json", newer)).records


def test_a_whole_file_but_for_its_end(tmp_path):
    text = json.dumps(profile_document())
    for length in (0, 1, 40, len(text) // 2, len(text) - 1):
        (tmp_path / "cut.json").write_text(text[:length])
        with pytest.raises(BadRecord, match=r"cut\.json: is no whole JSON document"):
            read_document(tmp_path / "cut.json")


def without(*names):
    """A profile whose only record lacks the last of `names`."""
    document = profile_document()
    place = document
    for name in names[:-1]:
        place = place[name]
    del place[names[-1]]
    return document


ONE = profile_record()
BAD = [
    ("text", b"hello", "is no whole JSON document"),
    ("bytes", b"\xff\xd8\xff\xe0", "is no whole JSON document"),
    ("nan", b'{"schema_version": NaN}', "NaN is no number"),
    ("deep", b"[" * 100_000, "is no whole JSON document"),
    ("list", [], "is JSON, but no record"),
    ("other", {"a": 1}, r"is not a record \(no schema_version and kind\)"),
    ("kind", profile_document(kind="diagnosis"), "is of kind 'diagnosis'; compare reads"),
    ("odd", profile_document(schema_version="one"), "is not a record"),
    (
        "older",
        profile_document(schema_version="0.9"),
        r"schema 0\.9 is not the 1\.x that this edgenet reads; measure again",
    ),
    (
        "newer",
        profile_document(schema_version="2.0"),
        r"schema 2\.0 is not the 1\.x that this edgenet reads; upgrade edgenet",
    ),
    ("threads", profile_document({**ONE, "threads": 0}), "is damaged: .*threads"),
    ("quick", without("records", 0, "quick"), "is damaged: .*quick"),
    ("board", without("board"), "is damaged: .*board"),
    ("sha", profile_document(bundle_sha256="12"), "is damaged: .*bundle_sha256"),
    (
        "latency",
        profile_document({**ONE, "latency": "fast"}),
        r"is damaged: record.records\[0\].latency must be object or null; measure again",
    ),
    (
        "inside",
        profile_document(
            {**ONE, "latency": {"inference_ms": {**ONE["latency"]["inference_ms"], "n": "many"}}}
        ),
        r"is damaged: record.records\[0\].latency.inference_ms.n must be integer; measure again",
    ),
    ("twice", profile_document(ONE, ONE), "two records of onnxruntime int8, 1 thread"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[name for name, *_ in BAD])
def test_what_is_no_record_says_so(tmp_path, name, content, message):
    path = tmp_path / f"{name}.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(BadRecord) as refused:
        read_document(path)
    assert re.search(f"{name}.json: .*{message}", str(refused.value))


def test_a_folder_is_no_record(small_bundle, tmp_path):
    with pytest.raises(UsageError, match=r"is a bundle; give the record .* records/"):
        read_document(small_bundle.root)
    with pytest.raises(UsageError, match="is a folder; give the record"):
        read_document(tmp_path)
    with pytest.raises(UsageError, match=r"none.json: no such file"):
        read_document(tmp_path / "none.json")
