"""From the labels that a data set writes to indices in a bundle's labels."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from edgenet.data.sample import Dataset, Sample
from edgenet.errors import BadData


def accepted_in(dataset: Dataset, labels: Sequence[str]) -> list[frozenset[int]]:
    """Return the indices accepted for each sample of a data set, in its order.

    Raises `BadData` when the set counts other classes than `labels` names, or holds a label that is
    none of them.
    """
    if dataset.classes not in (None, len(labels)):
        raise BadData(
            f"the data set {dataset.name} has {dataset.classes} classes and this bundle "
            f"{len(labels)}; give --data that fits it"
        )
    return [accepted_indices(sample, labels) for sample in dataset.samples]


def accepted_indices(sample: Sample, labels: Sequence[str]) -> frozenset[int]:
    """Return the indices of all labels accepted for `sample`.

    A label is written as in the bundle, as one of its comma-separated names, or as an index.
    Raises `BadData` naming where a label stands that the bundle does not have.
    """
    return frozenset(_index(text, labels, sample.origin) for text in sample.labels)


def _index(text: str, labels: Sequence[str], origin: str) -> int:
    wanted = text.casefold()
    whole = [i for i, label in enumerate(labels) if label.casefold() == wanted]
    matches = whole or [
        i
        for i, label in enumerate(labels)
        if wanted in (part.strip().casefold() for part in label.split(","))
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise BadData(
            f"{origin}: label {text!r} names several classes; write one of the indices "
            f"{', '.join(map(str, matches))}"
        )
    if text.isdecimal() and int(text) < len(labels):
        return int(text)
    close = difflib.get_close_matches(text, labels, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise BadData(
        f"{origin}: label {text!r} is not one of the bundle's {len(labels)} labels "
        f"(names, or indices 0 to {len(labels) - 1}){hint}"
    )
