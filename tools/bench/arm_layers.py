"""Arm instructions layer by layer: where LiteRT's INT8 takes more than half of what float takes.

LiteRT tells nobody what its operators take, so the network is cut after each of them, and a layer's
count is what the piece that it ends takes more than the one before. Counts as in
`arm_instructions.py`, which says what they are not; the two files of a bundle are compared.

    python tools/bench/arm_layers.py BUNDLE
    python tools/bench/arm_layers.py BUNDLE --profile pi4
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter as Totals
from pathlib import Path

from arm_instructions import PROCESSORS, Counter, Failed

from edgenet.bundle import Bundle, Precision
from edgenet.manifest import load_bundle
from edgenet.report.table import render
from edgenet.runtimes import litert

HALF = 0.5


def count_layers(
    counter: Counter, bundle: Bundle, precision: Precision, profile: str
) -> dict[str, int]:
    """Return the instructions of each layer of a bundle's LiteRT file, in order.

    What stands before the first layer or behind the last is counted with it.
    """
    (artifact,) = bundle.select(("litert",), (precision,))
    layers = {layer.name for layer in bundle.layers if layer.weights}
    found: Totals[str] = Totals()
    before, waiting, last = 0, 0, ""
    for report, model in litert.pieces(bundle.path(artifact)):
        total = counter.count_piece(model, bundle.model.resolution, profile)
        name = report.name.partition("/")[0]
        waiting += total - before
        before = total
        last = name if name in layers else last
        if last:
            found[last] += waiting
            waiting = 0
    return dict(found)


def table(float32: dict[str, int], int8: dict[str, int]) -> str:
    """Return every layer, those first that take most beyond half of float's instructions."""
    order = sorted(float32, key=lambda name: HALF * float32[name] - int8[name])
    rows = [
        (name, f"{float32[name]:,}", f"{int8[name]:,}", f"{int8[name] / float32[name]:.2f}")
        for name in order
    ]
    everything = (sum(float32.values()), sum(int8.values()))
    rows.append(
        (
            "all",
            f"{everything[0]:,}",
            f"{everything[1]:,}",
            f"{everything[1] / everything[0]:.2f}",
        )
    )
    return render(("layer", "float32", "int8", "of float32"), rows)


def main() -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--profile", choices=PROCESSORS, default="pi5")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    with tempfile.TemporaryDirectory() as folder:
        try:
            counter = Counter(Path(folder), [options.profile])
            float32, int8 = (
                count_layers(counter, bundle, precision, options.profile)
                for precision in (Precision.FLOAT32, Precision.INT8)
            )
        except Failed as error:
            raise SystemExit(str(error)) from None
    print(table(float32, int8))


if __name__ == "__main__":
    main()
