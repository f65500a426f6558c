"""One table: edgenet's INT8 beside what each runtime's own tools make of the same network.

Every line is a file on its runtime, against the float32 ONNX file of the same bundle: SQNR and
top-1 agreement on the labelled pictures and on the harder pictures, accuracy where the labels
are the network's, latency in interleaved blocks, size. Nobody is calibrated on these pictures. It
does not know which figures are required.

    python tools/bench/int8.py                                     MobileNet V1, converted first
    python tools/bench/int8.py --quick --bundle full-integer=B     a bundle that is there
    python tools/bench/int8.py --networks --model residual=net.onnx --convert "--mean 0 --std 255"

Needs `requirements.txt` of this folder and what `pictures.py` names.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import latency
import numpy as np
import pictures
import rivals
from latency import Contestant, Plan, Ratio, Run

from edgenet import runtimes
from edgenet.bundle import Bundle, Precision
from edgenet.data import photographs
from edgenet.data.dataset import open_dataset
from edgenet.data.labels import accepted_indices
from edgenet.data.photographs import IMAGENET_CLASSES
from edgenet.data.sample import Dataset
from edgenet.errors import BadData
from edgenet.manifest import load_bundle
from edgenet.measure.accuracy import Accuracy, Proportion, score, top_indices
from edgenet.measure.agreement import Agreement, agreement
from edgenet.preprocess import UInt8Array, pixels_sha256, prepare, resize
from edgenet.report.table import render, size
from edgenet.runtimes import Float32Array

FORMS = {
    "full-integer": ("--full-integer",),
    "default": (),
    "min-sqnr 28": ("--min-sqnr", "28"),
}
"""The forms of INT8 that are compared, and what asks `edgenet convert` for them."""
BASELINE = "full-integer"
"""Latency is given as a multiple of this form's."""
PUBLISHED = Plan(launches=5, blocks=10, runs=20)
QUICK = Plan(launches=2, blocks=5, runs=10)
QUICK_PICTURES = 100
MOST_LABELLED = 2000
"""Of a larger labelled set so many are drawn."""
PACKAGES = ("onnxruntime", "openvino", "ai-edge-litert", "nncf", "litert-quantizer")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One file against the float reference on one set of pictures."""

    agreement: Agreement
    p10_sqnr_db: float
    """Tenth percentile of the SQNR of single pictures."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Latency of one file."""

    p50_ms: float
    to_baseline: Ratio | None
    """Against our full-integer form on the same runtime."""
    to_rival: Ratio | None
    """Ours against the rival with the best SQNR on the same runtime."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    contestant: Contestant
    labelled: Comparison
    harder: Comparison | None
    accuracy: Accuracy | None
    timing: Timing | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """The pictures of one run at a network's resolution, and the reference's answers."""

    labelled: UInt8Array
    """(n, H, W, 3) RGB, as are the harder ones."""
    harder: UInt8Array
    accepted: Sequence[frozenset[int]] | None
    """None where the labels are not the network's."""
    labelled_reference: Float32Array
    harder_reference: Float32Array


@dataclass(frozen=True, kw_only=True)
class Result:
    """One network."""

    network: str
    reference: Accuracy | None
    pictures: tuple[int, int]
    """Labelled and harder."""
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Which pictures a run is about; anything that `--data` and `--calibration` of edgenet take."""

    labelled: str
    calibration: str | None
    """None: the embedded photographs."""
    harder: int
    """How many harder pictures."""
    sizes: pictures.Sizes


def bench(network: str, bundles: dict[str, Bundle], sources: Sources, plan: Plan) -> Result:
    """Return the figures of one network; `bundles` are its forms by name."""
    first = next(iter(bundles.values()))
    files = _float_files(first)
    calibrating = _calibration(sources.calibration, bundles)
    scene = _scene(files, first, sources)
    made = rivals.make_all(files, calibrating)
    contestants = [*_ours(bundles), *_theirs(made)]
    contestants.sort(key=lambda each: (runtimes.names().index(each.runtime), not each.ours))
    rows = [_compare(each, scene, plan.threads) for each in contestants]
    return Result(
        network=network,
        reference=_accuracy(scene.labelled_reference, scene.accepted),
        pictures=(len(scene.labelled), len(scene.harder)),
        rows=tuple(_timed(rows, scene.labelled[:1], plan)),
    )


def _calibration(source: str | None, bundles: dict[str, Bundle]) -> UInt8Array:
    """Return the images that the rivals calibrate on; refuses others than the bundles' own."""
    dataset = (
        photographs.calibration_set() if source is None else open_dataset(source, labelled=False)
    )
    for form, bundle in bundles.items():
        identity = bundle.calibration
        if identity is None:
            raise BadData(f"{form}: nothing in this bundle is in 8 bits")
        drawn = [
            sample.read() for sample in dataset.draw(identity.count, seed=identity.seed).samples
        ]
        if identity.images and identity.images != tuple(map(pixels_sha256, drawn)):
            raise BadData(
                f"{form}: was calibrated on {identity.name}, not on the images given here; "
                "name them with --calibration"
            )
    return np.concatenate([prepare(picture, bundle.preprocessing) for picture in drawn])


def _float_files(bundle: Bundle) -> rivals.FloatFiles:
    found = {
        artifact.runtime: bundle.path(artifact)
        for artifact in bundle.artifacts
        if artifact.precision is Precision.FLOAT32
    }
    return rivals.FloatFiles(onnx=found["onnxruntime"], tflite=found["litert"])


def _scene(files: rivals.FloatFiles, bundle: Bundle, sources: Sources) -> Scene:
    side = bundle.preprocessing.resolution
    dataset = open_dataset(sources.labelled, labelled=True).draw(MOST_LABELLED, seed=0)
    labelled = np.concatenate(
        [prepare(each.read(), bundle.preprocessing) for each in dataset.samples]
    )
    harder = np.empty((0, side, side, 3), np.uint8)
    if sources.harder:
        harder = pictures.harder(sources.harder, sizes=sources.sizes)
    if sources.harder and side != pictures.SIDE:
        harder = np.stack([resize(image, (side, side)) for image in harder])
    session = runtimes.load("onnxruntime", files.onnx)
    references = [
        _logits(lambda image: session.run(image)["logits"], chosen) for chosen in (labelled, harder)
    ]
    return Scene(
        labelled=labelled,
        harder=harder,
        accepted=_accepted(dataset, bundle),
        labelled_reference=references[0],
        harder_reference=references[1],
    )


def _accepted(dataset: Dataset, bundle: Bundle) -> Sequence[frozenset[int]] | None:
    classes = len(bundle.labels)
    if not bundle.model.trained:
        return None
    if dataset.classes in (None, classes):
        return [accepted_indices(sample, bundle.labels) for sample in dataset.samples]
    if dataset.classes == classes + 1 == IMAGENET_CLASSES:  # ImageNet without the background
        return [frozenset(int(label) - 1 for label in each.labels) for each in dataset.samples]
    return None


def _ours(bundles: dict[str, Bundle]) -> Iterator[Contestant]:
    for form, bundle in bundles.items():
        for artifact in bundle.artifacts:
            if artifact.precision is Precision.INT8:
                yield Contestant(
                    name=" ".join(filter(None, ("edgenet", form, artifact.variant))),
                    runtime=artifact.runtime,
                    path=bundle.path(artifact),
                    size_bytes=artifact.size_bytes,
                    ours=True,
                )


def _theirs(made: Sequence[rivals.Rival]) -> Iterator[Contestant]:
    for rival in made:
        yield Contestant(
            name=rival.name,
            runtime=rival.runtime,
            path=rival.path,
            size_bytes=rival.size_bytes,
            ours=False,
        )


def _compare(contestant: Contestant, scene: Scene, threads: int) -> Row:
    run = latency.open_contestant(contestant, threads=threads)
    labelled = _logits(run, scene.labelled)
    harder = _logits(run, scene.harder)
    return Row(
        contestant=contestant,
        labelled=_comparison(labelled, scene.labelled_reference),
        harder=_comparison(harder, scene.harder_reference) if len(harder) else None,
        accuracy=_accuracy(labelled, scene.accepted),
    )


def _logits(run: Run, images: UInt8Array) -> Float32Array:
    """Return (n, classes), no rows for no images."""
    return np.array([run(image[None])[0] for image in images], np.float32)


def _comparison(logits: Float32Array, reference: Float32Array) -> Comparison:
    wide = reference.astype(np.float64)
    noise = ((logits - wide) ** 2).sum(axis=1)
    with np.errstate(divide="ignore"):  # a bit-identical picture has an infinite SQNR
        single = 10 * np.log10((wide**2).sum(axis=1) / noise)
    return Comparison(
        agreement=agreement(logits, reference), p10_sqnr_db=float(np.percentile(single, 10))
    )


def _accuracy(logits: Float32Array, accepted: Sequence[frozenset[int]] | None) -> Accuracy | None:
    if accepted is None:
        return None
    return score([top_indices(row, 5) for row in logits], accepted)


def _timed(rows: Sequence[Row], image: UInt8Array, plan: Plan) -> Iterator[Row]:
    """Yield the rows with their latencies; those of one runtime run interleaved."""
    for runtime in dict.fromkeys(row.contestant.runtime for row in rows):
        group = [row for row in rows if row.contestant.runtime == runtime]
        medians = latency.measure([row.contestant for row in group], image, plan)
        names = [row.contestant.name for row in group]
        full = f"edgenet {BASELINE}"
        baseline = names.index(full) if full in names else None
        theirs = [index for index, row in enumerate(group) if not row.contestant.ours]
        best = max(
            theirs,
            key=lambda index: _sqnr(group[index].harder or group[index].labelled),
            default=None,
        )
        for index, row in enumerate(group):
            own = row.contestant.ours
            yield replace(
                row,
                timing=Timing(
                    p50_ms=float(np.median(medians[:, :, index])),
                    to_baseline=None
                    if baseline is None or index == baseline
                    else latency.ratio(medians, index, baseline),
                    to_rival=latency.ratio(medians, index, best)
                    if own and best is not None
                    else None,
                ),
            )


def _sqnr(comparison: Comparison) -> float:
    found = comparison.agreement.sqnr_db
    return math.inf if found is None else found


def machine_line() -> str:
    """Return what the figures were taken on, and how busy it is now."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    flags = Path("/proc/cpuinfo").read_text()
    vnni = next((name for name in ("avx512_vnni", "avx_vnni", "asimddp") if name in flags), "none")
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {cpu} {platform.machine()}, "
        f"{os.cpu_count()} cores, int8 dot product {vnni}, "
        f"governor {governor.read_text().strip() if governor.is_file() else 'unknown'}, "
        f"load {os.getloadavg()[0]:.2f}, " + ", ".join(_versions())
    )


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} missing"


def table(result: Result) -> str:
    """Return the table of one network with a line on what it holds."""
    labelled, harder = result.pictures
    float32 = "" if result.reference is None else f"; float32: {_accuracy_text(result.reference)}"
    return (
        f"{result.network}: {labelled} labelled pictures, {harder} harder pictures{float32}\n\n"
        + render(
            (
                "INT8 made by",
                "runtime",
                "SQNR dB",
                "agreement %",
                "harder: SQNR",
                "p10",
                "agreement %",
                "top-1 top-5",
                "ms",
                f"x {BASELINE}",
                "x best rival",
                "size",
            ),
            [_cells(row) for row in result.rows],
        )
    )


def _cells(row: Row) -> tuple[str, ...]:
    timing = row.timing
    return (
        row.contestant.name,
        row.contestant.runtime,
        f"{_sqnr(row.labelled):.1f}",
        _proportion(row.labelled.agreement.top1),
        *_harder_cells(row.harder),
        "-" if row.accuracy is None else _accuracy_text(row.accuracy),
        "-" if timing is None else f"{timing.p50_ms:.2f}",
        _ratio(timing.to_baseline if timing else None),
        _ratio(timing.to_rival if timing else None),
        size(row.contestant.size_bytes),
    )


def _harder_cells(found: Comparison | None) -> tuple[str, ...]:
    if found is None:
        return ("-", "-", "-")
    return (f"{_sqnr(found):.1f}", f"{found.p10_sqnr_db:.1f}", _proportion(found.agreement.top1))


def _proportion(found: Proportion) -> str:
    low, high = found.interval
    return f"{found.percent:.1f} [{low:.1f}, {high:.1f}]"


def _ratio(found: Ratio | None) -> str:
    return "-" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _accuracy_text(found: Accuracy) -> str:
    return f"{found.top1.right} {found.top5.right} of {found.top1.n}"


def document(results: Sequence[Result], machine: Sequence[str], plan: Plan) -> dict[str, object]:
    """Return the figures as JSON values."""
    return {
        "command": " ".join(sys.argv),
        "machine": list(machine),
        "plan": asdict(plan),
        "networks": [asdict(result) for result in results],
    }


def converted(
    network: str, model: str, forms: Sequence[str], calibration: str | None, further: Sequence[str]
) -> dict[str, Bundle]:
    """Convert `model` into each form and return the bundles; `further` are options of convert."""
    bundles = {}
    for form in forms:
        folder = pictures.CACHE / "bundles" / f"{network}-{form.replace(' ', '-')}"
        command = [sys.executable, "-m", "edgenet", "convert", model, *FORMS[form]]
        command += [*(["--calibration", calibration] if calibration else []), *further]
        command += ["--force", "-o", str(folder)]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
            raise SystemExit(f"failed: {' '.join(command)}")
        bundles[form] = load_bundle(folder)
    return bundles


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="*", default=["mobilenet_v1"], metavar="NAME", help="built-in models"
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=ONNX",
        help="another model to convert and compare",
    )
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        type=_pair,
        metavar="FORM=PATH",
        help="compare these forms of one network and convert nothing",
    )
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--data", default="photographs", metavar="SET", help="labelled pictures")
    parser.add_argument("--calibration", metavar="DIR|CSV", help="for ours and theirs alike")
    parser.add_argument(
        "--convert",
        default="",
        metavar="OPTIONS",
        help="further options of edgenet convert in one word: '--mean 127.5 --std 127.5'",
    )
    parser.add_argument(
        "--pictures", type=int, default=1000, metavar="N", help="harder pictures, 0: none"
    )
    parser.add_argument(
        "--cutouts",
        nargs=2,
        type=float,
        default=pictures.SIZES.cutout,
        metavar=("LEAST", "MOST"),
        help="size of what is pasted on harder pictures, as a share of theirs",
    )
    parser.add_argument(
        "--crops",
        nargs=2,
        type=float,
        default=pictures.SIZES.crop,
        metavar=("LEAST", "MOST"),
        help="size of what harder pictures show, as a share of the photograph",
    )
    parser.add_argument("--quick", action="store_true", help="few pictures, short timing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    return parser.parse_args()


def main() -> None:
    """Print the machine's state and a table for each network."""
    options = _options()
    plan = QUICK if options.quick else PUBLISHED
    count = min(options.pictures, QUICK_PICTURES) if options.quick else options.pictures
    sizes = pictures.Sizes(cutout=tuple(options.cutouts), crop=tuple(options.crops))
    sources = Sources(
        labelled=options.data, calibration=options.calibration, harder=count, sizes=sizes
    )
    machine = [machine_line()]
    print(f"{machine[0]}\n{plan.threads} thread{' (quick)' if options.quick else ''}; {sizes}\n")
    if options.bundle:
        bundles = {form: load_bundle(Path(path)) for form, path in options.bundle}
        work = iter([(next(iter(bundles.values())).name, bundles)])
    else:
        further = shlex.split(options.convert)
        models = [*((name, name) for name in options.networks), *options.model]
        work = (
            (name, converted(name, model, options.forms, options.calibration, further))
            for name, model in models
        )
    results = []
    for network, bundles in work:
        results.append(bench(network, bundles, sources, plan))
        print(table(results[-1]) + "\n", flush=True)
    machine.append(machine_line())
    print(f"load at the end {os.getloadavg()[0]:.2f}")
    if options.json:
        options.json.write_text(
            json.dumps(document(results, machine, plan), indent=2, default=str) + "\n", "utf-8"
        )


if __name__ == "__main__":
    main()
