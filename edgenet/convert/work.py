"""What each layer of a network has to do, for the manifest: a board has no graph to count on."""

from __future__ import annotations

import math

from edgenet.bundle import LayerWork
from edgenet.graph import (
    Activate,
    Add,
    Concatenate,
    Convolution,
    Flatten,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Multiply,
    Normalise,
    Operator,
    Pool,
    Select,
    Weighted,
    inputs_of,
    is_depthwise,
    mult_adds,
)
from edgenet.quantize.spare import Filled

KINDS: dict[type, str] = {
    Normalise: "normalisation",
    Convolution: "convolution",
    FullyConnected: "fully connected",
    Pool: "pool",
    GlobalAveragePool: "global average pool",
    Flatten: "flatten",
    Activate: "activation",
    Add: "add",
    Multiply: "multiply",
    Concatenate: "concatenate",
    Select: "channel selection",
}


def work_of(graph: Graph) -> tuple[LayerWork, ...]:
    """Return the work of every operator, in the order of execution."""
    return tuple(
        LayerWork(
            name=op.name,
            kind=_kind(op),
            mult_adds=mult_adds(graph, op),
            weights=int(op.weight.size) if isinstance(op, Weighted) else 0,
            read=sum(math.prod(graph.shapes[name]) for name in inputs_of(op)),
            written=math.prod(graph.shapes[op.name]),
        )
        for op in graph.operators
    )


def less_work_in(filled: Filled) -> tuple[LayerWork, ...]:
    """Return the work of the operators that lack channels which the reference has."""
    lacking = filled.left_out.keys()
    affected = {
        op.name
        for op in filled.graph.operators
        if op.name in lacking or not lacking.isdisjoint(inputs_of(op))
    }
    return tuple(layer for layer in work_of(filled.graph) if layer.name in affected)


def _kind(op: Operator) -> str:
    if is_depthwise(op):
        return "depthwise convolution"
    if isinstance(op, Convolution) and op.weight.shape[2:] == (1, 1):
        return "pointwise convolution"
    return KINDS[type(op)]
