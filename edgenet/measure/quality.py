"""What an artefact's answers are worth, to stand beside how fast it gives them.

Labelled pictures give an accuracy; where a board has none, the golden pictures of the bundle give
agreement with the float reference, on a handful of images.
"""

from __future__ import annotations

from functools import partial

from edgenet.bundle import Bundle
from edgenet.data.dataset import open_dataset
from edgenet.data.sample import Dataset, Sample
from edgenet.errors import BadData, MissingData
from edgenet.golden import read_reference
from edgenet.preprocess import read_picture

DATA_OF_WEIGHTS = {"imagenet": "photographs", "fashion-mnist": "fashion-mnist"}
"""Which built-in data fit which built-in weights."""
NO_CLASSIFIER = "it is no classifier"


def pictures_for(bundle: Bundle) -> Dataset:
    """Return the built-in labelled set that fits a bundle, or else its own golden pictures.

    Raises `BadData` for a bundle without golden pictures that no installed set fits.
    """
    try:
        return open_dataset(DATA_OF_WEIGHTS[bundle.model.weights], labelled=True)
    except (KeyError, MissingData):
        return golden_pictures(bundle)


def golden_pictures(bundle: Bundle) -> Dataset:
    """Return the golden pictures of a bundle, without labels, with the reference's answers."""
    if bundle.golden is None:
        raise BadData(f"{bundle.root}: has no golden pictures; give labelled ones with --data")
    known = read_reference(bundle)
    answers = [None] * len(bundle.golden.images) if known is None else list(known)
    return Dataset(
        name="golden pictures",
        samples=tuple(
            Sample(
                name=file,
                read=partial(read_picture, bundle.root / file),
                labels=(),
                origin=str(bundle.root / file),
                reference=answer,
            )
            for file, answer in zip(bundle.golden.images, answers, strict=True)
        ),
    )
