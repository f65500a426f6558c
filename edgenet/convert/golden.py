"""Write golden vectors: choose pictures, show them to every artefact, state the tolerances.

Host side. The values are what each artefact answers here, through the same path from the JPEG file
that `edgenet verify` takes; nothing in them comes from the reference, whose own answers stand in a
file of theirs. Of a runtime that is not installed nothing is written, and `verify` says so.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgenet import runtimes
from edgenet.bundle import Artifact, GoldenFiles, Output, Precision, Quantization
from edgenet.convert.golden_layers import LayerMade, LayersInFile, measure_layers
from edgenet.errors import MissingExtra, RuntimeRefused
from edgenet.golden import (
    FOLDER,
    LAYERS,
    LOGITS,
    REFERENCE,
    SCHEMA_VERSION,
    TABLE,
    GoldenLayer,
    Tolerance,
    prepare_pictures,
    split,
)
from edgenet.preprocess import Preprocessing, UInt8Array, pixels_sha256, resize
from edgenet.runtimes import Float32Array, litert

PICTURES = 4
"""How many travel: enough to move most weights' output, and few kilobytes."""

LONGEST_SIDE = 640
"""Pixels; a camera's full picture would outweigh the artefacts."""

JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, 95),
    # Chroma at full size: how a decoder interpolates it is the one step that decoders differ in.
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)

FLOAT_TOLERANCE = {Precision.FLOAT32: 1e-4, Precision.FLOAT16: 2.0**-11}
"""Of an output's largest value. Runtimes that sum in different orders differ by 1e-6 of it
(measured); the flipped sign of a layer's largest weight moves it by 6e-4 and more."""

ROUNDING_STEPS = {"openvino": 3.0}
"""Output steps that a runtime may differ from itself in INT8 on another processor; 0 if not named.

OpenVINO keeps floats between its integer layers and rounds them as the processor's kernels do:
2 steps from the exact arithmetic of the others over 128 photographs. A processor whose int8
products saturate is 31 off, and must fail."""

OTHER_PACKAGE_TIMES = 2.0
"""How many times as far as the built-in kernels are from XNNPACK here tflite-runtime may be, which
computes INT8 with its own. Halves rounded another way in every layer, 2 to 6 steps of the output
in trained networks and ten times that in random ones: it is measured on each."""

FLOAT_LAYER_STEPS = 2.0
"""Output steps that layers left in float may move an int8 model by tipping a rounding."""

MAP_TIMES = 4.0
"""How many times as many steps in a map, whose values are no means of many: OpenVINO's were 6 off
over 64 photographs (small residual networks, its int8 kernels against float ones)."""


def choose_pictures(logits: Float32Array, count: int = PICTURES) -> tuple[int, ...]:
    """Return which of the reference's (n, classes) logits belong to pictures fit to travel.

    Their best class leads by no less than the median picture's, so that no rounding on another
    processor turns it; of different classes as far as there are, from all over the set.
    """
    if logits.shape[1] < 2:
        return tuple(range(min(count, len(logits))))
    second, first = np.partition(logits, -2, axis=1)[:, -2:].T
    clear = np.flatnonzero(first - second >= np.median(first - second))
    best = logits.argmax(axis=1)
    firsts = [index for index in clear if index == clear[best[clear] == best[index]][0]]
    others = [index for index in clear if index not in firsts]
    fit = firsts if len(firsts) >= count else [*firsts, *others][:count]
    number = min(count, len(fit))
    return tuple(sorted(int(fit[place * len(fit) // number]) for place in range(number)))


def spread_pictures(total: int, count: int = PICTURES) -> tuple[int, ...]:
    """Return which of `total` pictures travel where no class says which are fit: from all over."""
    number = min(count, total)
    return tuple(place * total // number for place in range(number))


def write_golden(
    folder: Path,
    pictures: Sequence[tuple[str, UInt8Array]],
    preprocessing: Preprocessing,
    artifacts: Sequence[Artifact],
    *,
    outputs: Sequence[Output],
    quantizations: Sequence[Quantization] = (),
    output_steps: Mapping[str, Mapping[str, float]] | None = None,
    layers: Mapping[str, LayersInFile] | None = None,
    reference: Callable[[Sequence[UInt8Array]], Float32Array] | None = None,
    threads: int = 1,
    on_artifact: Callable[[], None] = lambda: None,
) -> GoldenFiles | None:
    """Write `golden/` into a bundle's folder and return its files; None if no runtime is installed.

    `pictures` are names and upright (H, W, 3) uint8 RGB. `output_steps` holds the scales of the
    8-bit outputs of each quantised model by its name; of an output that stays in float, what that
    scale would be. `layers` says, by the artefact's label, what its file has of each; without them
    it cannot be told later where an answer begins to be another one. `reference` gives the float
    reference's values, (pictures, values), by which a bundle without a float artefact can tell on a
    board how near it is. Raises `RuntimeRefused` for an artefact that does not load.
    """
    (folder / FOLDER).mkdir()
    files = [
        _write_picture(folder, f"{FOLDER}/{number}.jpg", pixels, preprocessing)
        for number, (_, pixels) in enumerate(pictures)
    ]
    inputs = prepare_pictures(folder, files, preprocessing)
    names = [output.name for output in outputs]
    forms = {quantization.name: quantization for quantization in quantizations}
    rows: list[dict[str, Any]] = []
    answers: list[Float32Array] = []
    inside: list[LayerMade] = []
    for artifact in artifacts:
        try:
            session = runtimes.load(artifact.runtime, folder / artifact.files[0], threads=threads)
        except MissingExtra:
            continue
        with closing(session):
            values = np.stack([runtimes.answer(session, image, names) for image in inputs])
        form = artifact.quantization or ""
        steps = (output_steps or {}).get(form, {})
        bounds = [
            asdict(
                tolerance(
                    artifact, output, part, form=forms.get(form), output_step=steps.get(output.name)
                )
            )
            for output, part in zip(outputs, split(values, outputs), strict=True)
        ]
        made = _measure_layers(
            artifact,
            folder,
            inputs,
            (layers or {}).get(artifact.label),
            exact=not any(bound["largest"] for bound in bounds),
            threads=threads,
        )
        rows.append(
            {
                "artifact": artifact.label,
                "sha256": artifact.sha256,
                "tolerance": bounds[0],  # all that readers of version 1.0 know
                "tolerances": bounds,
                **_other_package(artifact, folder, inputs, values, outputs, steps, threads=threads),
                "host": {"device": session.device, "version": session.version},
                "file_bytes": (folder / artifact.files[-1]).stat().st_size,
                **_layer_entries(made),
            }
        )
        inside += () if isinstance(made, str) else made
        answers.append(values)
        on_artifact()
    if not rows:
        return None
    table = {
        "schema_version": SCHEMA_VERSION,
        "images": [
            {"file": file, "prepared_sha256": pixels_sha256(image), "made_of": name}
            for file, image, (name, _) in zip(files, inputs, pictures, strict=True)
        ],
        "artifacts": rows,
    }
    (folder / TABLE).write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", "utf-8")
    _write_array(folder / LOGITS, np.stack(answers))
    if inside:
        _write_array(folder / LAYERS, np.concatenate([each.means for each in inside]))
    if reference is not None:
        _write_array(folder / REFERENCE, reference(inputs))
    return GoldenFiles(
        file=TABLE,
        logits=LOGITS,
        layers=LAYERS if inside else None,
        reference=None if reference is None else REFERENCE,
        images=tuple(files),
    )


def tolerance(
    artifact: Artifact,
    output: Output,
    values: Float32Array,
    *,
    form: Quantization | None,
    output_step: float | None,
) -> Tolerance:
    """Return how far an artefact's output with these (pictures, values) may be off elsewhere.

    `form` is the quantised model that it encodes, with `output_step` the scale of the output; None
    for a float artefact. Raises `ValueError` for an int8 artefact without the one it needs.
    """
    share = FLOAT_TOLERANCE.get(artifact.precision)
    if share is not None:
        largest = share * float(np.abs(values).max())
        return Tolerance(largest=largest, reason=f"{share:.2g} of the largest value")
    if form is None:
        raise ValueError(f"{artifact.label}: its quantised model is not named")
    steps = max(
        ROUNDING_STEPS.get(artifact.runtime, 0.0), FLOAT_LAYER_STEPS if form.float_layers else 0.0
    ) * (MAP_TIMES if output.is_map else 1.0)
    if not steps:
        return Tolerance(largest=0.0, reason="integers throughout: the same bits")
    if output_step is None:
        raise ValueError(f"{artifact.label}: the scale of its output is not given")
    # A hair more than whole steps: values are multiples of a float32 scale.
    return Tolerance(
        largest=steps * output_step * (1 + 1e-5), reason=f"{steps:g} steps of {output_step:.3g}"
    )


def _other_package(
    artifact: Artifact,
    folder: Path,
    inputs: Sequence[UInt8Array],
    values: Float32Array,
    outputs: Sequence[Output],
    steps: Mapping[str, float],
    *,
    threads: int,
) -> dict[str, Any]:
    """Return how far LiteRT's INT8 may be off where tflite-runtime computes it; nothing of others.

    `values` are what the host answered, `steps` the scales of the outputs by name.
    """
    if artifact.runtime != "litert" or artifact.precision is not Precision.INT8:
        return {}
    path, names = folder / artifact.files[0], [output.name for output in outputs]
    with closing(litert.load_built_in(path, threads=threads)) as session:
        others = np.stack([runtimes.answer(session, image, names) for image in inputs])
    bounds = []
    for output, apart in zip(outputs, split(np.abs(others - values), outputs), strict=True):
        step, here = steps[output.name], float(apart.max())
        largest = OTHER_PACKAGE_TIMES * here + FLOAT_LAYER_STEPS * step
        reason = f"the built-in kernels, that round halves otherwise, were {here:.3g} off"
        bounds.append(asdict(Tolerance(largest=largest, reason=reason)))
    return {"other_package": bounds}


def _measure_layers(
    artifact: Artifact,
    folder: Path,
    inputs: Sequence[UInt8Array],
    layers: LayersInFile | None,
    *,
    exact: bool,
    threads: int,
) -> tuple[LayerMade, ...] | str:
    """Return what each layer makes, or why that cannot be seen: no reason not to convert."""
    if layers is None or not layers.tensors:
        return "no tensor of its file is known to be a layer's"
    try:
        return measure_layers(artifact, folder, inputs, layers, exact=exact, threads=threads)
    except RuntimeRefused as error:
        return str(error)


def _layer_entries(made: tuple[LayerMade, ...] | str) -> dict[str, Any]:
    if isinstance(made, str):
        return {"layers": None, "layers_reason": made}
    return {"layers": [_layer_entry(each.golden) for each in made]}


def _layer_entry(layer: GoldenLayer) -> dict[str, Any]:
    stored = layer.weights
    return {
        "layer": layer.layer,
        "tensor": layer.tensor,
        "channels": layer.channels,
        "allowed": layer.allowed,
        "weights": stored
        and {"offset": stored.offset, "bytes": stored.size_bytes, "crc32": stored.crc32},
    }


def _write_array(path: Path, values: Float32Array) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values.astype("<f4"), allow_pickle=False)
    path.write_bytes(buffer.getvalue())


def _write_picture(
    folder: Path, file: str, pixels: UInt8Array, preprocessing: Preprocessing
) -> str:
    """Write one picture as JPEG, no larger than it need be, and return its path in the bundle."""
    longest = max(pixels.shape[:2])
    # A crop is in the picture's own pixels, which therefore must stay.
    if longest > LONGEST_SIDE and preprocessing.crop is None:
        height, width = (max(1, round(side * LONGEST_SIDE / longest)) for side in pixels.shape[:2])
        pixels = resize(pixels, (width, height))
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), JPEG)
    assert done, "OpenCV encodes any 8-bit colour picture as JPEG"
    (folder / file).write_bytes(data.tobytes())
    return file
