"""Other people's models: a network for images in an ONNX file becomes a graph.

The file takes normalised pixels; the graph takes bytes, as every graph here, and normalises them
with the mean and deviation that the caller gives. A softmax at the end is left out: what leaves is
what it would read, of a classifier the logits. Needs the `convert` extra.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgenet.errors import BadWeights, UnsupportedOperator
from edgenet.graph import IMAGE, LOGITS, Graph, Normalise, Weighted, infer_shapes
from edgenet.models.onnx_lowering import NORMALISED, lower
from edgenet.models.onnx_names import Names
from edgenet.models.onnx_nodes import Network, load_model, read_network
from edgenet.preprocess import UInt8Array


@dataclass(frozen=True, kw_only=True)
class ImportedOutput:
    """One output of the file and of the graph."""

    name: str
    """What the graph calls it."""
    file_name: str
    """What the file calls it."""
    values: str
    """The file's tensor that the graph makes: that output, or what a final softmax reads."""
    turned: bool
    """Whether it is a map that the file has as batch x channels x H x W."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportedModel:
    """A graph and what the file says about itself."""

    graph: Graph
    """From bytes to the outputs; its first operator normalises."""
    mean: tuple[float, ...]
    """Per channel, in steps of the input byte: what makes the file's input from bytes."""
    std: tuple[float, ...]
    """Per channel, in steps of the input byte."""
    input_name: str
    input_dtype: Literal["float32", "uint8"]
    layout: Literal["NCHW", "NHWC"]
    """Of the file's input."""
    resolution: int
    """Height and width of the image, in pixels."""
    outputs: tuple[ImportedOutput, ...]
    """In the graph's order."""
    sha256: str
    """Of the file; with external data, of the file and its data files one after the other."""
    notes: tuple[str, ...]
    """What was left out, for the user to read."""


def import_onnx(
    path: Path,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    resolution: int | None = None,
    outputs: Sequence[str] = (),
) -> ImportedModel:
    """Return the network in an ONNX file as a graph from bytes to `outputs`, or all that it has.

    `mean` and `std`, one number or three, in steps of the input byte, make the file's float input
    from RGB bytes; a file that takes bytes needs mean 0 and std 1. `resolution` is needed only
    where the file leaves height and width open. Raises `BadWeights` for a file that is damaged or
    takes no image, `UnsupportedOperator` for what edgenet's graph cannot hold.
    """
    model, sha256 = load_model(path)
    try:
        network = read_network(model, resolution=resolution, outputs=outputs)
        if network.input_dtype == "uint8" and (any(mean) or set(std) != {1}):
            raise BadWeights(
                f"input {network.input_name!r} takes bytes and normalises them itself; "
                "give mean 0 and std 1"
            )
        normalise = Normalise(
            name=NORMALISED,
            input=IMAGE,
            mean=_per_colour(mean),
            std=_per_colour(std),
        )
        lowered = lower(network, normalise)
    except UnsupportedOperator as error:
        raise UnsupportedOperator(f"{path}: {error}") from error
    except BadWeights as error:
        raise BadWeights(f"{path}: {error}") from error
    operators = lowered.operators
    for op in operators:
        if isinstance(op, Weighted) and not (
            np.isfinite(op.weight).all() and np.isfinite(op.bias).all()
        ):
            raise BadWeights(f"{path}: layer {op.name} has weights that are not finite")
    size = network.resolution
    graph = Graph(
        name=Names(()).unique(path.stem),
        operators=operators,
        shapes=infer_shapes(operators, (3, size, size)),
        outputs={output.tensor: output.name for output in lowered.outputs},
    )
    return ImportedModel(
        graph=graph,
        mean=mean,
        std=std,
        input_name=network.input_name,
        input_dtype=network.input_dtype,
        layout=network.layout,
        resolution=size,
        outputs=tuple(
            ImportedOutput(
                name=ours.name,
                file_name=theirs.name,
                values=theirs.values,
                turned=len(graph.shapes[ours.tensor]) == 3 and not ours.channels_last,
            )
            for ours, theirs in zip(lowered.outputs, network.outputs, strict=True)
        ),
        sha256=sha256,
        notes=tuple(_notes(graph, network)),
    )


def _notes(graph: Graph, network: Network) -> Iterator[str]:
    """Yield what was left out, and what leaves where that is not plainly a classifier's."""
    for name, output in zip(graph.outputs.values(), network.outputs, strict=True):
        if output.dropped:
            yield f"{output.dropped} at the end is left out: the output is {_before(name)}"
    if not graph.is_classifier:
        names = ", ".join(graph.outputs.values())
        yield f"no classifier, which has one vector of logits: the outputs are {names}"


def _before(name: str) -> str:
    return name if name == LOGITS else f"{name} before it"


def run_file(imported: ImportedModel, path: Path, images: UInt8Array) -> npt.NDArray[np.float32]:
    """Return the file's outputs one after the other, (N, values), from ONNX Runtime.

    Channels come last, as they leave every artefact.
    """
    import onnx

    from edgenet.runtimes.onnxruntime import package

    onnxruntime = package()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source: str | bytes = str(path)
    inside = [output.values for output in imported.outputs if output.values != output.file_name]
    if inside:
        model, _ = load_model(path)
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in inside
        )
        source = model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    copies = batch if isinstance(batch, int) else 1
    mean, std = _per_colour(imported.mean), _per_colour(imported.std)
    rows = []
    for image in images:
        pixels = image[None] if imported.input_dtype == "uint8" else (image[None] - mean) / std
        turned = pixels if imported.layout == "NHWC" else pixels.transpose(0, 3, 1, 2)
        fed = {imported.input_name: np.repeat(turned, copies, axis=0)}
        made = session.run([output.values for output in imported.outputs], fed)
        rows.append(
            np.concatenate(
                [
                    (values[0].transpose(1, 2, 0) if output.turned else values[0]).ravel()
                    for output, values in zip(imported.outputs, made, strict=True)
                ]
            )
        )
    return np.stack(rows).astype(np.float32)


def _per_colour(values: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """Return (3,) float32."""
    colours: npt.NDArray[np.float32] = np.empty(3, np.float32)
    colours[:] = values
    return colours
