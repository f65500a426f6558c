"""What an INT8 form must keep for its files to compute what it means, whatever the format.

Writers that find a rule broken refuse by its name. Knows nothing of formats.
"""

from __future__ import annotations

from edgenet.errors import ConversionFailed
from edgenet.graph import KEEPS_BYTES, Operator, Pool, QuantizedGraph, Weighted, inputs_of


def check(quantized: QuantizedGraph) -> None:
    """Raise `ConversionFailed` for the first operator that breaks a rule."""
    for op in quantized.graph.operators:
        if isinstance(op, Weighted) and op.name in quantized.layers:
            require_8_bits(op.name, op.input, quantized)
        if isinstance(op, KEEPS_BYTES) and quantized.is_integer(op):
            _require_one_affine(op, quantized)


def require_8_bits(layer: str, tensor: str, quantized: QuantizedGraph) -> None:
    """Raise `ConversionFailed` if a tensor at an int8 layer does not travel in 8 bits."""
    if tensor not in quantized.tensors:
        raise ConversionFailed(
            f"{layer} computes in int8 but {tensor} is not an 8-bit tensor; quantise the tensor "
            "or leave the layer in float"
        )


def _require_one_affine(op: Operator, quantized: QuantizedGraph) -> None:
    """Operators that pass bytes on cannot change what a byte means."""
    affine = quantized.tensors[op.name]
    for source in inputs_of(op):
        if quantized.tensors[source] != affine:
            kind = f"{op.kind} pool" if isinstance(op, Pool) else type(op).__name__.lower()
            raise ConversionFailed(
                f"{op.name} ({kind}) passes bytes on, but {source} is held as "
                f"{quantized.tensors[source]} and {op.name} as {affine}; give both one affine"
            )
