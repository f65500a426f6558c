"""Evaluation of a real bundle on real pictures."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgenet.bundle import Precision
from edgenet.convert.pipeline import WRITERS, select_targets
from edgenet.data import fashion_mnist, photographs
from edgenet.data.dataset import open_dataset
from edgenet.data.sample import Dataset
from edgenet.errors import BadData
from edgenet.measure.evaluate import evaluate
from edgenet.measure.quality import golden_pictures
from edgenet.models.weights import Choices, load_reference
from edgenet.preprocess import pixels_sha256

TEN = tuple(f"class {index}" for index in range(10))


@pytest.fixture(scope="module")
def evaluation(small_bundle):
    dataset = fashion_mnist.test_set().draw(400, seed=3)
    return evaluate(small_bundle, dataset, small_bundle.artifacts)


def test_every_artefact_is_as_good_as_the_published_network(evaluation):
    assert len(evaluation.results) == len(WRITERS)
    for result in evaluation.results:
        assert result.accuracy.top1.n == 400
        assert result.accuracy.top1.percent > 90
        assert result.accuracy.top5.percent > 99


def test_agreement_with_the_reference(evaluation):
    assert evaluation.reference.runtime == "onnxruntime"
    assert evaluation.reference.precision is Precision.FLOAT32
    for result in evaluation.results:
        found = result.agreement
        if result.artifact == evaluation.reference:
            assert found.sqnr_db is None
        elif result.artifact.precision is Precision.FLOAT32:
            assert found.max_difference < 1e-3
            assert found.top1.percent == 100
        else:
            assert found.sqnr_db > (30 if result.artifact.precision is Precision.INT8 else 50)
            assert found.top1.percent >= 98.5


def test_the_golden_pictures_bring_the_reference_where_no_float_artefact_runs(small_bundle):
    """As the built-in bundle has none: agreement is with what torch said on the host."""
    pictures = golden_pictures(small_bundle)
    (int8,) = small_bundle.select(("litert",), (Precision.INT8,))
    beside = evaluate(small_bundle, pictures, (int8,)).results[0].agreement
    alone = replace(small_bundle, artifacts=(int8,))
    found = evaluate(alone, pictures, (int8,))
    assert found.reference.label == "torch float32"
    agreement = found.results[0].agreement
    assert agreement.top1 == beside.top1
    assert agreement.sqnr_db == pytest.approx(beside.sqnr_db, abs=0.01)
    older = replace(alone, golden=replace(alone.golden, reference=None))
    assert evaluate(older, golden_pictures(older), (int8,)).results[0].agreement is None
    others = fashion_mnist.test_set().draw(4, seed=1)
    assert evaluate(alone, others, (int8,)).results[0].agreement is None


def test_unreadable_pictures_are_named_and_left_out(small_bundle, tmp_path):
    folder = tmp_path / "Bag"
    folder.mkdir()
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    with pytest.raises(BadData, match="none of its 1 files"):
        evaluate(small_bundle, open_dataset(str(tmp_path), labelled=True), small_bundle.artifacts)
    broken = open_dataset(str(tmp_path), labelled=True).samples
    good = fashion_mnist.test_set().samples[:5]
    found = evaluate(
        small_bundle, Dataset(name="mixed", samples=(*good, *broken)), small_bundle.artifacts[:1]
    )
    assert len(found.pictures) == 5
    assert len(found.unreadable) == 1
    assert "broken.jpg" in found.unreadable[0]


def test_a_label_outside_the_bundle(small_bundle):
    sample = replace(fashion_mnist.test_set().samples[0], labels=("10",))
    with pytest.raises(BadData, match="indices 0 to 9"):
        evaluate(small_bundle, Dataset(name="x", samples=(sample,)), small_bundle.artifacts)


def test_a_data_set_of_another_network(small_bundle):
    with pytest.raises(BadData, match="1001 classes and this bundle 10"):
        evaluate(small_bundle, photographs.labelled(), small_bundle.artifacts)


def test_no_picture_is_calibrated_and_judged_on(small_bundle):
    dataset = fashion_mnist.test_set().draw(20, seed=0)
    shared = tuple(pixels_sha256(sample.read()) for sample in dataset.samples[7:9])
    calibration = replace(small_bundle.calibration, images=("0" * 64, *shared))
    bundle = replace(small_bundle, root=Path("nowhere"), calibration=calibration)  # nothing loads
    first = dataset.samples[7].name
    with pytest.raises(BadData, match=f"2 of 20 evaluation images .* the first is {first};"):
        evaluate(bundle, dataset, bundle.artifacts)


def test_random_weights_have_no_accuracy(make_bundle):
    reference = load_reference("random", Choices(width_multiplier=0.25, resolution=32, labels=TEN))
    targets = select_targets(("litert",), (Precision.FLOAT32,))
    bundle = make_bundle(reference, targets=targets)
    dataset = fashion_mnist.test_set().draw(5, seed=0)
    (result,) = evaluate(bundle, dataset, bundle.artifacts).results
    assert result.accuracy is None
