"""What `evaluate` writes follows the published schema, whatever could be measured."""

import json
from importlib.resources import files

import fastjsonschema
import pytest

from edgenet.bundle import Precision, shipped_bundle
from edgenet.convert.pipeline import select_targets
from edgenet.data import fashion_mnist
from edgenet.manifest import load_bundle
from edgenet.measure.evaluate import evaluate
from edgenet.models.weights import Choices, load_reference
from edgenet.report.record import evaluation_document
from edgenet.report.saving import record_path, save_document

TEN = tuple(f"class {index}" for index in range(10))


@pytest.fixture(scope="module")
def valid():
    schema = (files("edgenet.schemas") / "record.schema.json").read_bytes()
    return fastjsonschema.compile(json.loads(schema))


def document(bundle):
    found = evaluate(bundle, fashion_mnist.test_set().draw(6, seed=0), bundle.artifacts)
    return evaluation_document(bundle, found, command=["edgenet", "evaluate", "b"], threads=1)


def test_schema(small_bundle, valid, tmp_path):
    made = document(small_bundle)
    save_document(made, tmp_path / "deep/record.json")
    assert valid(json.loads((tmp_path / "deep/record.json").read_text("utf-8")))
    assert record_path(small_bundle, "evaluation").parent == small_bundle.root.parent / "records"


def test_nothing_is_written_into_the_installed_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = record_path(load_bundle(shipped_bundle()), "profile")
    assert path.parent == tmp_path / "records"


def test_schema_where_little_is_known(make_bundle, valid):
    reference = load_reference("random", Choices(width_multiplier=0.25, resolution=32, labels=TEN))
    targets = select_targets(("litert",), (Precision.INT8,))
    made = document(make_bundle(reference, targets=targets))
    assert valid(json.loads(json.dumps(made)))
    (record,) = made["records"]
    for name, value in record.items():
        if value is None:
            assert record[f"{name}_reason"]
    assert record["accuracy"] is None
    assert record["agreement"] is None
    assert made["reference"] is None


def test_the_schema_refuses(small_bundle, valid):
    made = json.loads(json.dumps(document(small_bundle)))
    del made["records"][0]["predictions"]
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        valid(made)
