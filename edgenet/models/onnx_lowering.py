"""From plain ONNX nodes to edgenet's operators.

Every node becomes an operator, goes into the one before it, or is a view: reshapes and turns move
nothing until an operator needs the tensor as a map (C, H, W) or as a vector (C,). Knows what ONNX
means, and nothing of files; what can be folded into what is the assembly's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgenet.errors import UnsupportedOperator
from edgenet.graph import (
    IMAGE,
    LOGITS,
    Activate,
    Add,
    Concatenate,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Multiply,
    Normalise,
    Operator,
    Pool,
    same_padding,
)
from edgenet.models.assembly import NO_PAD, Assembly, Float64Array, clip_activation, float32
from edgenet.models.onnx_names import NO_CLASSES, Names
from edgenet.models.onnx_nodes import FileOutput, Network, Node

Pad = tuple[int, int, int, int]
"""(top, bottom, left, right)."""

FLOAT32 = 1
"""TensorProto.FLOAT"""
NORMALISED = "normalised"
UNBOUNDED = float(np.finfo(np.float32).max)
"""Exporters write this, or half of nothing, where a Clip has no bound."""


@dataclass(frozen=True, kw_only=True)
class _View:
    """A tensor of the file: an operator's output, seen in some shape and order."""

    operator: str
    shape: tuple[int, ...]
    """As the file sees it, batch and zeros around it included."""
    channels_last: bool = False
    """Whether the elements are in the order of (H, W, C) instead of (C, H, W)."""
    pad: Pad = NO_PAD
    """Zeros around the operator's output."""


@dataclass(frozen=True, kw_only=True)
class LoweredOutput:
    """One output of the file in terms of the operators."""

    name: str
    """What artefacts call it."""
    tensor: str
    """The operator that makes it: (C,) or (C, H, W)."""
    channels_last: bool
    """Whether the file has it as (H, W, C)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lowered:
    """A whole network."""

    operators: tuple[Operator, ...]
    outputs: tuple[LoweredOutput, ...]
    """In the file's order."""


def lower(network: Network, normalise: Normalise) -> Lowered:
    """Return the operators from `normalise` to the outputs.

    Raises `UnsupportedOperator` naming the node that edgenet's operators cannot express.
    """
    return _Lowering(network, normalise).run()


class _Lowering:
    """The operators so far, by name, and what each tensor of the file is in terms of them."""

    def __init__(self, network: Network, normalise: Normalise) -> None:
        self.network = network
        self.constants = network.constants
        self.readers = network.readers()
        self.output_names = _output_names(network, Names((IMAGE, normalise.name)))
        called = self.output_names.values()
        self.names = Names((IMAGE, LOGITS, normalise.name, *called))
        side = network.resolution
        self.net = Assembly(normalise, (3, side, side), unique=self.names.unique)
        self.views: dict[str, _View] = {}
        image = network.input_name
        self._bind(image, normalise.name, channels_last=network.layout == "NHWC")

    def run(self) -> Lowered:
        """Lower every node, then see that vectors and maps leave."""
        for node in self.network.nodes:
            if node.kind not in HANDLERS:
                remedy = next(
                    (text for kinds, text in REMEDIES.items() if node.kind in kinds), OTHER
                )
                raise node.refuse(f"is not an operator that edgenet takes; {remedy}")
        for node in self.network.nodes:
            self._require_shapes(node)
            HANDLERS[node.kind](self, node)
        outputs = [self._output(output) for output in self.network.outputs]
        names: dict[str, str] = {}
        for output in outputs:
            if output.tensor in names:
                raise UnsupportedOperator(
                    f"outputs {names[output.tensor]} and {output.name} have the same values (a "
                    "softmax at the end is left out); choose one of them with --take"
                )
            names[output.tensor] = output.name
        return Lowered(operators=self.net.finished(names), outputs=tuple(outputs))

    def _output(self, output: FileOutput) -> LoweredOutput:
        """Return a vector or a map that leaves the network."""
        maker = next((n for n in self.network.nodes if output.made in n.outputs), None)
        if maker is None or self._view(maker, output.made).operator == NORMALISED:
            raise UnsupportedOperator(f"output {output.name!r} is the image itself")
        view = self._unpadded(maker, output.made)
        is_vector = math.prod(view.shape) == max(view.shape)
        if not is_vector and len(view.shape) != 4:
            raise maker.refuse(
                f"makes the output {output.name!r}, {_times(view.shape)}; edgenet takes vectors, "
                "batch x channels, and maps, batch x channels x H x W"
            )
        name = self.output_names[output.name]
        if is_vector:
            tensor = self._vector(maker, output.made)
            return LoweredOutput(name=name, tensor=tensor, channels_last=False)
        view = self._map(maker, output.made)
        return LoweredOutput(name=name, tensor=view.operator, channels_last=view.channels_last)

    def _require_shapes(self, node: Node) -> None:
        for tensor in node.outputs:
            shape = self.network.shapes.get(tensor)
            if (shape is None or min(shape, default=1) < 1) and self.readers[tensor]:
                raise node.refuse("the shape of its output is not fixed; export with fixed shapes")

    # What tensors are

    def _bind(self, tensor: str, operator: str, *, channels_last: bool = False) -> None:
        """Say that `operator` makes `tensor`, in its natural shape or with channels last."""
        self._bind_view(
            tensor,
            _View(
                operator=operator,
                shape=_seen(self.net.shapes[operator], channels_last),
                channels_last=channels_last,
            ),
        )

    def _bind_view(self, tensor: str, view: _View) -> None:
        self.views[tensor] = view
        self.net.note_readers(view.operator, self.readers[tensor])

    def _rebind(self, node: Node, view: _View, operator: str) -> None:
        """Say that `operator` makes the node's output, seen as `view` sees the node's input."""
        self._bind_view(node.output, replace(view, operator=operator))

    def _view(self, node: Node, tensor: str) -> _View:
        if tensor not in self.views:
            if tensor in self.constants:
                raise node.refuse("reads a constant where edgenet takes a tensor of the image's")
            raise node.refuse(f"reads {tensor!r}, a second output that edgenet does not make")
        return self.views[tensor]

    def _unpadded(self, node: Node, tensor: str) -> _View:
        view = self._view(node, tensor)
        if view.pad != NO_PAD:
            raise node.refuse("follows a Pad; edgenet takes one before Conv, MaxPool, AveragePool")
        return view

    def _map(self, node: Node, tensor: str) -> _View:
        """Return a view of a (C, H, W) operator, in the order in which the file sees it."""
        view = self._view(node, tensor)
        if len(self.net.shapes[view.operator]) == 1:
            channels = self.net.shapes[view.operator][0]
            fits = view.shape in ((1, channels, 1, 1), (1, 1, 1, channels))
            if not fits or not self.net.make_map(view.operator):
                raise node.refuse(f"reads {_times(view.shape)}, which is not channels x H x W")
        shape = self.net.shapes[view.operator]
        padded = (shape[0], *_grown(shape[1:], view.pad))
        for channels_last in (False, True):
            same_order = channels_last == view.channels_last or padded[1:] == (1, 1)
            if same_order and view.shape == _seen(padded, channels_last):
                return replace(view, channels_last=channels_last)
        raise node.refuse(
            f"reads {_times(view.shape)}, which is a map of {_times(padded)} (channels x height x "
            "width) put into another shape, as attention needs it; edgenet takes networks of "
            "convolutions, which keep maps as they are: choose such a one"
        )

    def _channels_first(self, node: Node, tensor: str) -> _View:
        view = self._map(node, tensor)
        if view.channels_last:
            raise node.refuse(f"reads {_times(view.shape)} with channels last; edgenet takes NCHW")
        return view

    def _vector(self, node: Node, tensor: str) -> str:
        """Return a (C,) operator that makes `tensor`."""
        name, order = self._ordered_vector(node, tensor)
        if order is not None:
            raise node.refuse("reads a map flattened with channels last; edgenet takes NCHW")
        return name

    def _ordered_vector(self, node: Node, tensor: str) -> tuple[str, npt.NDArray[np.int64] | None]:
        """Return a (C,) operator, and where each element that the file sees stands in it."""
        view = self._unpadded(node, tensor)
        name = view.operator
        if max(view.shape) != math.prod(view.shape):
            raise node.refuse(f"reads {_times(view.shape)} where edgenet takes batch x channels")
        shape = self.net.shapes[name]
        if len(shape) == 1:
            return name, None
        moved = view.channels_last and 1 not in (shape[0], shape[1] * shape[2])
        order = np.arange(math.prod(shape)).reshape(shape).transpose(1, 2, 0).ravel()
        return self.net.vector(name), order if moved else None

    def _constant(self, node: Node, index: int) -> npt.NDArray[Any] | None:
        """Return a constant input, None where it is left out."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        values = self.constants.get(node.inputs[index])
        if values is None:
            raise node.refuse(f"its input {index} is computed from the image, not a constant")
        return values

    def _weights(self, node: Node, index: int) -> Float64Array:
        values = self._constant(node, index)
        if values is None:
            raise node.refuse(f"its input {index} is missing")
        return np.asarray(values, np.float64)

    # Layers

    def convolution(self, node: Node) -> None:
        """Conv with two spatial dimensions."""
        view = self._channels_first(node, node.inputs[0])
        weight = self._weights(node, 1)
        if weight.ndim != 4:
            raise node.refuse(f"has {weight.ndim - 2} spatial dimensions; edgenet takes 2")
        dilations = tuple(node.attributes.get("dilations", (1, 1)))
        if dilations[0] != dilations[1]:
            raise node.refuse(f"is dilated {_times(dilations)}; edgenet takes one dilation")
        bias = self._constant(node, 2)
        groups = int(node.attributes.get("group", 1))
        source = view.operator
        if groups == 1:
            source, weight = self.net.without_select(source, weight)
        stride = _pair(node.attributes.get("strides", (1, 1)))
        window = tuple(dilations[0] * (side - 1) + 1 for side in weight.shape[2:])
        op = Convolution(
            name=self.names.of_layer(node),
            input=source,
            weight=float32(weight),
            bias=float32(np.zeros(len(weight)) if bias is None else bias),
            stride=stride,
            pad=self._pad(node, view, window, stride),
            groups=groups,
            dilation=int(dilations[0]),
            activation=None,
        )
        self._bind(node.output, self.net.append(op, self.network.shapes[node.output][1:]))

    def _pad(
        self, node: Node, view: _View, window: tuple[int, ...], stride: tuple[int, int]
    ) -> Pad:
        """Return the zeros around the operator that `view` sees: a Pad's and the node's own."""
        mode = node.attributes.get("auto_pad", b"NOTSET").decode()
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            own = _same(view.shape[2:], window, stride)
            if mode == "SAME_LOWER":
                own = [own[1], own[0], own[3], own[2]]
        else:
            top, left, bottom, right = node.attributes.get("pads", (0, 0, 0, 0))
            own = [0, 0, 0, 0] if mode == "VALID" else [top, bottom, left, right]
        if min(own) < 0:
            raise node.refuse("has a negative padding; edgenet takes none")
        top, bottom, left, right = (a + b for a, b in zip(view.pad, own, strict=True))
        return top, bottom, left, right

    def gemm(self, node: Node) -> None:
        """Gemm with constant weights."""
        if node.attributes.get("transA", 0):
            raise node.refuse("has transA=1; edgenet takes transA=0")
        weight = self._weights(node, 1) * node.attributes.get("alpha", 1.0)
        if not node.attributes.get("transB", 0):
            weight = weight.T
        bias = self._constant(node, 2)
        shift = np.zeros(1) if bias is None else bias * float(node.attributes.get("beta", 1.0))
        self._fully_connected(node, weight, np.broadcast_to(shift, (1, len(weight)))[0])

    def matmul(self, node: Node) -> None:
        """MatMul with constant weights; an Add of a constant behind it becomes the bias."""
        weight = self._weights(node, 1)
        if weight.ndim != 2:
            raise node.refuse(f"its weights have {weight.ndim} dimensions; edgenet takes 2")
        self._fully_connected(node, weight.T, np.zeros(weight.shape[1]))

    def _fully_connected(self, node: Node, weight: Float64Array, bias: Float64Array) -> None:
        source, order = self._ordered_vector(node, node.inputs[0])
        if order is not None:
            moved = np.empty_like(weight)
            moved[:, order] = weight
            weight = moved
        source, weight, bias = self.net.without_diagonal(source, weight, bias)
        op = FullyConnected(
            name=self.names.of_layer(node),
            input=source,
            weight=float32(weight),
            bias=float32(bias),
        )
        self.net.append(op, (len(weight),))
        self._bind_view(node.output, _View(operator=op.name, shape=self._shape(node)))

    def _shape(self, node: Node) -> tuple[int, ...]:
        return self.network.shapes[node.output]

    # Pooling

    def max_pool(self, node: Node) -> None:
        """MaxPool; zeros of a Pad before it never win where the input is not negative."""
        view = self._channels_first(node, node.inputs[0])
        if view.pad != NO_PAD and not self.net.is_never_negative(view.operator):
            raise node.refuse(
                "follows a Pad with zeros and can see negative values, where they win; "
                "put the padding into MaxPool itself"
            )
        kernel, stride = self._window(node)
        top, bottom, left, right = self._pad(node, view, kernel, stride)
        sides, out = self.net.shapes[view.operator][1:], self._shape(node)[2:]
        # With ceil_mode the last windows reach beyond the edge.
        rest = [
            max(0, (o - 1) * s + k - side - p)
            for o, s, k, side, p in zip(
                out, stride, kernel, sides, (top + bottom, left + right), strict=True
            )
        ]
        self._pool(
            node, view, "max", kernel, stride, (top, bottom + rest[0], left, right + rest[1])
        )

    def average_pool(self, node: Node) -> None:
        """AveragePool; one that counts the zeros around is a convolution."""
        view = self._channels_first(node, node.inputs[0])
        kernel, stride = self._window(node)
        pad = self._pad(node, view, kernel, stride)
        sides = self.net.shapes[view.operator][1:]
        grown, out = _grown(sides, pad), self._shape(node)[2:]
        reach = tuple((o - 1) * s + k for o, s, k in zip(out, stride, kernel, strict=True))
        # With ceil_mode the last windows reach beyond the edge.
        rest = [max(0, r - g) for r, g in zip(reach, grown, strict=True)]
        counts = pad == view.pad or bool(node.attributes.get("count_include_pad", 0))
        if pad == NO_PAD or not counts:
            top, bottom, left, right = pad
            uncounted = (top, bottom + rest[0], left, right + rest[1])
            self._mean(node, view, kernel, stride, uncounted)
            return
        if any(rest):
            raise node.refuse(
                "counts zeros around and has ceil_mode=1 with windows beyond the edge; edgenet "
                "takes one of both: export with ceil_mode=0"
            )
        channels = self.net.shapes[view.operator][0]
        op = Convolution(
            name=self.names.of_step(node),
            input=view.operator,
            weight=np.full((channels, 1, *kernel), 1 / math.prod(kernel), np.float32),
            bias=np.zeros(channels, np.float32),
            stride=stride,
            pad=pad,
            groups=channels,
            activation=None,
        )
        self._bind(node.output, self.net.append(op, self._shape(node)[1:]))

    def _mean(
        self,
        node: Node,
        view: _View,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        pad: Pad,
    ) -> None:
        """Make the node's output the mean of what each window sees; what pads it does not count."""
        sides = self.net.shapes[view.operator][1:]
        if kernel == sides and pad == NO_PAD:
            self.global_average_pool(node)
            return
        if view.pad != NO_PAD or pad not in (NO_PAD, tuple(_same(sides, kernel, stride))):
            raise node.refuse(
                f"does not count its padding of {list(pad)}; edgenet takes that where the padding "
                "is SAME's: use auto_pad=SAME_UPPER or count_include_pad=1"
            )
        self._pool(node, view, "average", kernel, stride, pad)

    def _window(self, node: Node) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return kernel and stride of a pooling."""
        kernel = node.attributes["kernel_shape"]
        if len(kernel) != 2 or set(node.attributes.get("dilations", (1,))) != {1}:
            raise node.refuse("edgenet takes pooling over two dimensions without dilation")
        return _pair(kernel), _pair(node.attributes.get("strides", (1, 1)))

    def _pool(
        self,
        node: Node,
        view: _View,
        kind: Literal["max", "average"],
        kernel: tuple[int, int],
        stride: tuple[int, int],
        pad: Pad,
    ) -> None:
        op = Pool(
            name=self.names.of_step(node),
            input=view.operator,
            kind=kind,
            kernel=kernel,
            stride=stride,
            pad=pad,
        )
        self._bind(node.output, self.net.append(op, self._shape(node)[1:]))

    def global_average_pool(self, node: Node) -> None:
        """GlobalAveragePool, or an AveragePool or ReduceMean that is one."""
        view = self._map(node, self._unpadded_name(node))
        op = GlobalAveragePool(name=self.names.of_step(node), input=view.operator, keep_map=True)
        self.net.append(op, (self.net.shapes[view.operator][0], 1, 1))
        self._bind_view(node.output, _View(operator=op.name, shape=self._shape(node)))

    def _unpadded_name(self, node: Node) -> str:
        self._unpadded(node, node.inputs[0])
        return node.inputs[0]

    def global_max_pool(self, node: Node) -> None:
        """GlobalMaxPool, or a ReduceMax that is one: one window over all of it."""
        view = self._map(node, self._unpadded_name(node))
        op = Pool(
            name=self.names.of_step(node),
            input=view.operator,
            kind="max",
            kernel=_pair(self.net.shapes[view.operator][1:]),
            stride=(1, 1),
            pad=NO_PAD,
        )
        self.net.append(op, (self.net.shapes[view.operator][0], 1, 1))
        self._bind_view(node.output, _View(operator=op.name, shape=self._shape(node)))

    def reduce_mean(self, node: Node) -> None:
        """ReduceMean over height and width."""
        self._require_both_sides(node)
        self.global_average_pool(node)

    def reduce_max(self, node: Node) -> None:
        """ReduceMax over height and width."""
        self._require_both_sides(node)
        self.global_max_pool(node)

    def _require_both_sides(self, node: Node) -> None:
        view = self._map(node, self._unpadded_name(node))
        axes = node.attributes.get("axes", self._constant(node, 1))
        wanted = {1, 2} if view.channels_last else {2, 3}
        if axes is None or {int(axis) % 4 for axis in axes} != wanted:
            raise node.refuse("edgenet takes it over height and width together only")

    # Views

    def cast(self, node: Node) -> None:
        """Cast of bytes to float32."""
        if node.attributes.get("to") != FLOAT32:
            raise node.refuse(
                "edgenet takes Cast to float32 only; a network that computes in float16 has to be "
                "exported in float32"
            )
        self.reshape(node)

    def reshape(self, node: Node) -> None:
        """Reshape, Flatten, Squeeze, Unsqueeze: the same elements in another shape."""
        view = self._unpadded(node, node.inputs[0])
        self._bind_view(node.output, replace(view, shape=self._shape(node)))

    def transpose(self, node: Node) -> None:
        """Transpose between channels first and last, or one that moves sides of 1 only."""
        view = self._view(node, node.inputs[0])
        rank = len(view.shape)
        order = tuple(node.attributes.get("perm", reversed(range(rank))))
        moved = [axis for axis in order if view.shape[axis] != 1]
        if moved == sorted(moved):
            self._bind_view(node.output, replace(view, shape=self._shape(node)))
            return
        if self._shuffle(node, view, order):
            return
        view = self._map(node, node.inputs[0])
        if order != ((0, 3, 1, 2) if view.channels_last else (0, 2, 3, 1)):
            raise node.refuse(
                f"turns {_times(view.shape)} by {list(order)}; edgenet takes turns between "
                "NCHW and NHWC"
            )
        turned = replace(view, shape=self._shape(node), channels_last=not view.channels_last)
        self._bind_view(node.output, turned)

    def _shuffle(self, node: Node, view: _View, order: tuple[int, ...]) -> bool:
        """Take a turn within the channels, seen as groups x channels of each; tell whether."""
        shape = self.net.shapes[view.operator]
        at = 3 if view.channels_last else 1
        groups, size = view.shape[at : at + 2] if len(view.shape) == 5 else (0, 0)
        merged = (*view.shape[:at], groups * size, *view.shape[at + 2 :])
        swapped = (0, 2, 1, 3, 4) if at == 1 else (0, 1, 2, 4, 3)
        if merged != _seen(shape, view.channels_last) or order != swapped:
            return False
        channels = np.arange(shape[0]).reshape(groups, size).T.ravel()
        self._select(node, view, node.output, channels)
        return True

    # Channels

    def split(self, node: Node) -> None:
        """Split of the channels."""
        view, axis = self._channels(node, int(node.attributes.get("axis", 0)))
        start = 0
        for tensor in node.outputs:
            end = start + self.network.shapes[tensor][axis]
            self._select(node, view, tensor, np.arange(start, end), again=start > 0)
            start = end

    def slice(self, node: Node) -> None:
        """Slice of the channels, backwards too."""
        names = ("starts", "ends", "axes", "steps")
        given = [
            node.attributes.get(name, self._constant(node, at)) for at, name in enumerate(names, 1)
        ]
        starts, ends = given[:2]
        axes = range(len(starts)) if given[2] is None else given[2]
        steps = np.ones(len(starts), int) if given[3] is None else given[3]
        view, channels_axis = self._channels(node, None)
        kept = [np.arange(side) for side in view.shape]
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            kept[axis] = kept[axis][int(start) : int(end) : int(step)]
        for axis, side in enumerate(view.shape):
            if axis != channels_axis and not np.array_equal(kept[axis], np.arange(side)):
                raise node.refuse("cuts more than channels; edgenet takes slices of channels")
        self._select(node, view, node.output, kept[channels_axis])

    def gather(self, node: Node) -> None:
        """Gather of channels by constant numbers."""
        numbers = self._constant(node, 1)
        view, axis = self._channels(node, int(node.attributes.get("axis", 0)))
        assert numbers is not None
        self._select(node, view, node.output, numbers.ravel() % view.shape[axis])

    def _channels(self, node: Node, axis: int | None) -> tuple[_View, int]:
        """Return the map or vector that a node reads and its channels' axis, which `axis` must be.

        None: the node has several.
        """
        view = self._canonical(node, node.inputs[0])
        own = len(view.shape) - 1 if view.channels_last or len(view.shape) != 4 else 1
        if axis is not None and axis % len(view.shape) != own:
            raise node.refuse(f"is along axis {axis}; edgenet takes the channels' axis")
        return view, own

    def _select(
        self,
        node: Node,
        view: _View,
        tensor: str,
        channels: npt.NDArray[Any],
        *,
        again: bool = False,
    ) -> None:
        """Make `tensor` some channels of what `view` sees; `again` if the node made others."""
        name = self.net.select(
            view.operator,
            tuple(channels.tolist()),
            name=lambda: self.names.of_step(node),
            again=again,
        )
        made = replace(view, operator=name, shape=self.network.shapes[tensor])
        self._bind_view(tensor, made)

    def pad(self, node: Node) -> None:
        """Zeros around height and width, for the layers that follow."""
        view = self._map(node, node.inputs[0])
        mode = node.attributes.get("mode", b"constant").decode()
        pads = [int(side) for side in node.attributes.get("pads", ())]
        value = node.attributes.get("value", 0.0)
        if not pads:
            pads = [int(side) for side in self._weights(node, 1)]
            filled = self._constant(node, 2)
            value = 0.0 if filled is None else float(filled.item())
        if len(node.inputs) > 3 and node.inputs[3]:
            axes = [int(axis) % 4 for axis in self._weights(node, 3)]
            given = dict(zip([*axes, *(axis + 4 for axis in axes)], pads, strict=True))
            pads = [given.get(side, 0) for side in range(8)]
        down, across = (1, 2) if view.channels_last else (2, 3)
        own = (pads[down], pads[down + 4], pads[across], pads[across + 4])
        if mode != "constant" or value != 0 or min(pads) < 0 or sum(own) != sum(pads):
            raise node.refuse("edgenet takes zeros added to height and width only")
        top, bottom, left, right = (a + b for a, b in zip(view.pad, own, strict=True))
        padded = replace(view, shape=self._shape(node), pad=(top, bottom, left, right))
        self._bind_view(node.output, padded)

    # Scales and shifts

    def batch_norm(self, node: Node) -> None:
        """BatchNormalization with fixed statistics."""
        if node.attributes.get("training_mode", 0):
            raise node.refuse("is in training mode; export the network in eval mode")
        gain, shift, mean, variance = (self._weights(node, index) for index in range(1, 5))
        gain = gain / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
        sides = (1,) * (len(self._shape(node)) - 2)
        self._affine(
            node,
            node.inputs[0],
            gain.reshape(-1, *sides),
            (shift - mean * gain).reshape(-1, *sides),
        )

    def add(self, node: Node) -> None:
        """Add of two tensors of one shape, or of a constant."""
        fixed = self._fixed_input(node)
        if fixed is not None:
            self._affine(node, node.inputs[1 - fixed], np.ones(1), self._weights(node, fixed))
        else:
            self.total(node)

    def total(self, node: Node) -> None:
        """Sum: additions one after the other."""
        views = [self._canonical(node, name) for name in node.inputs]
        shape = self.net.shapes[views[0].operator]
        if any(
            self.net.shapes[view.operator] != shape or view.channels_last != views[0].channels_last
            for view in views
        ):
            seen = " and ".join(_times(view.shape) for view in views)
            raise node.refuse(f"adds {seen}; edgenet takes tensors of one shape, or constants")
        if len(views) == 1:
            self._rebind(node, views[0], views[0].operator)
            return
        name = views[0].operator
        for view in views[1:]:
            op = Add(name=self.names.of_step(node), inputs=(name, view.operator))
            name = self.net.append(op, shape)
        self._rebind(node, views[0], name)

    def subtract(self, node: Node) -> None:
        """Subtraction with a constant on either side."""
        fixed = self._fixed_input(node)
        if fixed is None:
            raise node.refuse("of two tensors; edgenet takes Add of two, or Sub with a constant")
        sign = 1.0 if fixed == 1 else -1.0
        scale = np.full(1, sign)
        self._affine(node, node.inputs[1 - fixed], scale, -sign * self._weights(node, fixed))

    def multiply(self, node: Node) -> None:
        """The product with a constant, or of a map with a map or with a number a channel."""
        fixed = self._fixed_input(node)
        if fixed is not None:
            self._affine(node, node.inputs[1 - fixed], self._weights(node, fixed), np.zeros(1))
            return
        views = [self._canonical(node, name) for name in node.inputs]
        first, second = sorted(views, key=lambda v: -math.prod(self.net.shapes[v.operator]))
        large, small = self.net.shapes[first.operator], self.net.shapes[second.operator]
        same_order = first.channels_last == second.channels_last
        by_channel = len(large) == 3 and small == (large[0], 1, 1)
        if not (by_channel or (small == large and same_order)):
            seen = " and ".join(_times(view.shape) for view in views)
            raise node.refuse(f"multiplies {seen}; edgenet takes one shape, or a number a channel")
        op = Multiply(name=self.names.of_step(node), inputs=(first.operator, second.operator))
        self.net.append(op, large)
        self._rebind(node, first, op.name)
        self.net.fuse_hard_swish(op.name)

    def divide(self, node: Node) -> None:
        """Division by a constant."""
        if self._fixed_input(node) != 1:
            raise node.refuse("edgenet takes division by a constant only")
        self._affine(node, node.inputs[0], 1 / self._weights(node, 1), np.zeros(1))

    def negate(self, node: Node) -> None:
        """Neg."""
        self._affine(node, node.inputs[0], -np.ones(1), np.zeros(1))

    def _fixed_input(self, node: Node) -> int | None:
        """Return which of two inputs is a constant, None if none is."""
        return next((i for i, name in enumerate(node.inputs) if name in self.constants), None)

    def _canonical(self, node: Node, tensor: str) -> _View:
        """Return a tensor as a map or a vector, whichever the file sees."""
        view = self._unpadded(node, tensor)
        if len(view.shape) == 4:
            return self._map(node, tensor)
        name = self._vector(node, tensor)
        return _View(operator=name, shape=view.shape)

    def _affine(self, node: Node, tensor: str, scale: Float64Array, shift: Float64Array) -> None:
        """Make the node's output scale * x + shift."""
        self._bind_view(node.output, self._affine_view(node, tensor, scale, shift))

    def _affine_view(
        self, node: Node, tensor: str, scale: Float64Array, shift: Float64Array
    ) -> _View:
        """Return scale * x + shift; both broadcast against the tensor as the file sees it."""
        view = self._unpadded(node, tensor)
        if self._shape(node) != view.shape:
            raise node.refuse(f"makes {_times(self._shape(node))} of {_times(view.shape)}")
        if scale.size > 1 or shift.size > 1:
            view = self._canonical(node, tensor)
        channels = self.net.shapes[view.operator][0]
        axis = len(view.shape) - 1 if view.channels_last or len(view.shape) != 4 else 1
        gain, offset = (_per_channel(node, v, view.shape, axis, channels) for v in (scale, shift))
        name = self.net.scale(view.operator, gain, offset, name=lambda: self.names.of_step(node))
        return replace(view, operator=name)

    # Activations

    def relu(self, node: Node) -> None:
        """Relu."""
        self._clip(node, self._unpadded(node, node.inputs[0]), 0.0, math.inf)

    def clip(self, node: Node) -> None:
        """Clip with bounds as attributes (up to opset 10) or constants."""
        low, high = node.attributes.get("min", -math.inf), node.attributes.get("max", math.inf)
        bounds = [self._constant(node, 1), self._constant(node, 2)]
        if bounds[0] is not None:
            low = float(bounds[0].item())
        if bounds[1] is not None:
            high = float(bounds[1].item())
        self._clip(node, self._unpadded(node, node.inputs[0]), low, high)

    def bound(self, node: Node) -> None:
        """Min or Max with one constant: half of a Clip."""
        fixed = self._fixed_input(node)
        if fixed is None or len(node.inputs) != 2 or self._weights(node, fixed).size != 1:
            raise node.refuse("edgenet takes it with one tensor and one constant number only")
        limit = float(self._weights(node, fixed).item())
        low, high = (-math.inf, limit) if node.kind == "Min" else (limit, math.inf)
        self._clip(node, self._unpadded(node, node.inputs[1 - fixed]), low, high)

    def _clip(self, node: Node, view: _View, low: float, high: float) -> None:
        """Make the node's output what `view` sees, clipped, in the operator itself if it can."""
        low = -math.inf if low <= -UNBOUNDED else low
        high = math.inf if high >= UNBOUNDED else high
        if self.net.clip(view.operator, low, high):
            self._bind_view(node.output, view)
            return
        function = clip_activation(low, high)
        if function == "nothing":
            self._bind_view(node.output, view)
        elif function is None:
            raise node.refuse(
                f"clips to {low:g} ... {high:g}; edgenet takes 0 and up, 0 ... 6 and 0 ... 1"
            )
        else:
            self._function(node, view, function)

    def hard_sigmoid(self, node: Node) -> None:
        """HardSigmoid: a scale and a shift, then a clip to 0 ... 1."""
        scale = np.full(1, node.attributes.get("alpha", 0.2), np.float64)
        shift = np.full(1, node.attributes.get("beta", 0.5), np.float64)
        view = self._affine_view(node, node.inputs[0], scale, shift)
        self._clip(node, view, 0.0, 1.0)

    def hard_swish(self, node: Node) -> None:
        """HardSwish."""
        self._function(node, self._unpadded(node, node.inputs[0]), "hard_swish")

    def sigmoid(self, node: Node) -> None:
        """Sigmoid."""
        self._function(node, self._unpadded(node, node.inputs[0]), "sigmoid")

    def _function(self, node: Node, view: _View, function: Any) -> None:
        op = Activate(name=self.names.of_step(node), input=view.operator, function=function)
        self.net.append(op, self.net.shapes[view.operator])
        self._rebind(node, view, op.name)

    def concatenate(self, node: Node) -> None:
        """Concat along the channels."""
        views = [self._canonical(node, name) for name in node.inputs]
        rank, last = len(self._shape(node)), views[0].channels_last
        axis = int(node.attributes["axis"]) % rank
        if axis != (rank - 1 if last or rank == 2 else 1) or any(
            view.channels_last != last for view in views
        ):
            raise node.refuse(f"joins along axis {axis}; edgenet takes the channels' axis")
        whole = self.net.rejoined([view.operator for view in views])
        if whole is not None:
            source, scale, shift = whole
            name = self.net.scale(source, scale, shift, name=lambda: self.names.of_step(node))
            self._bind(node.output, name, channels_last=last)
            return
        parts = [self.net.shapes[view.operator] for view in views]
        shape = (sum(part[0] for part in parts), *parts[0][1:])
        op = Concatenate(
            name=self.names.of_step(node), inputs=tuple(view.operator for view in views)
        )
        self.net.append(op, shape)
        self._bind(node.output, op.name, channels_last=last)

    def softmax(self, node: Node) -> None:
        """Softmax is taken at the end only, where it is left out before this."""
        raise node.refuse("stands inside the network; edgenet takes it as the last operator only")

    def quantized(self, node: Node) -> None:
        """A file in 8 bits already."""
        raise node.refuse("the file is quantised already; edgenet quantises the float model")


HANDLERS: Mapping[str, Callable[[_Lowering, Node], None]] = {
    "Add": _Lowering.add,
    "AveragePool": _Lowering.average_pool,
    "BatchNormalization": _Lowering.batch_norm,
    "Cast": _Lowering.cast,
    "Clip": _Lowering.clip,
    "Concat": _Lowering.concatenate,
    "Conv": _Lowering.convolution,
    "DequantizeLinear": _Lowering.quantized,
    "Div": _Lowering.divide,
    "Flatten": _Lowering.reshape,
    "Gather": _Lowering.gather,
    "Gemm": _Lowering.gemm,
    "GlobalAveragePool": _Lowering.global_average_pool,
    "GlobalMaxPool": _Lowering.global_max_pool,
    "HardSigmoid": _Lowering.hard_sigmoid,
    "HardSwish": _Lowering.hard_swish,
    "LogSoftmax": _Lowering.softmax,
    "MatMul": _Lowering.matmul,
    "Max": _Lowering.bound,
    "MaxPool": _Lowering.max_pool,
    "Min": _Lowering.bound,
    "Mul": _Lowering.multiply,
    "Neg": _Lowering.negate,
    "Pad": _Lowering.pad,
    "QuantizeLinear": _Lowering.quantized,
    "ReduceMax": _Lowering.reduce_max,
    "ReduceMean": _Lowering.reduce_mean,
    "Relu": _Lowering.relu,
    "Reshape": _Lowering.reshape,
    "Sigmoid": _Lowering.sigmoid,
    "Slice": _Lowering.slice,
    "Softmax": _Lowering.softmax,
    "Split": _Lowering.split,
    "Squeeze": _Lowering.reshape,
    "Sub": _Lowering.subtract,
    "Sum": _Lowering.total,
    "Transpose": _Lowering.transpose,
    "Unsqueeze": _Lowering.reshape,
}
"""What makes edgenet's operators of each kind of node."""

TAKEN = ", ".join(
    kind for kind in HANDLERS if kind not in ("DequantizeLinear", "LogSoftmax", "QuantizeLinear")
)
OTHER = f"it takes {TAKEN}: replace it by some of these and export again"
REMEDIES: Mapping[tuple[str, ...], str] = {
    ("LayerNormalization", "Erf", "Einsum", "RMSNormalization", "Attention"): (
        "it belongs to transformers and to networks like ConvNeXt: take a network of "
        "convolutions with BatchNormalization"
    ),
    ("GroupNormalization", "InstanceNormalization", "LRN", "Pow"): (
        "it normalises by each image's own statistics: use BatchNormalization and train again"
    ),
    ("Celu", "Elu", "Gelu", "LeakyRelu", "Mish", "PRelu", "Selu", "Softplus", "Tanh"): (
        "use Relu, Clip, HardSwish or x * Sigmoid(x) in its place and train again"
    ),
    ("ArgMax", "TopK"): "export the network with its logits as the output, a number for each class",
    ("If", "Loop", "Scan"): "export without control flow, for one fixed shape of the input",
    ("ConvTranspose", "Resize", "Upsample"): (
        "it makes maps larger: end the network before it, and enlarge what leaves"
    ),
}
"""What to do about operators that are often met; for others there is `OTHER`."""


def _output_names(network: Network, names: Names) -> dict[str, str]:
    """Return what artefacts call each of the file's outputs.

    Nobody needs the file's name for the classes of a classifier: they are its logits.
    """
    only = network.outputs[0]
    shape = network.shapes[only.made]
    alone = len(network.outputs) == 1 and math.prod(shape) == max(shape)
    if alone and not NO_CLASSES.search(only.name):
        return {only.name: LOGITS}
    return {output.name: names.of_output(output.name) for output in network.outputs}


def _per_channel(
    node: Node, values: Float64Array, shape: tuple[int, ...], axis: int, channels: int
) -> Float64Array:
    """Return (channels,) values of a constant that broadcasts against `shape`."""
    if values.size == 1:
        return np.full(channels, values.item())
    sides = (1,) * (len(shape) - values.ndim) + values.shape
    if any(side != 1 for index, side in enumerate(sides) if index != axis):
        raise node.refuse(
            f"its constant is {_times(values.shape)}; edgenet takes one number, or one a channel"
        )
    return values.ravel()


def _same(sides: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, int]) -> list[int]:
    """Return the padding (top, bottom, left, right) of SAME_UPPER."""
    axes = zip(sides, window, stride, strict=True)
    return [pixels for axis in axes for pixels in same_padding(*axis)]


def _seen(shape: tuple[int, ...], channels_last: bool) -> tuple[int, ...]:
    """Return the file's shape of a (C, H, W) or (C,) tensor."""
    return (1, *shape[1:], shape[0]) if channels_last else (1, *shape)


def _grown(sides: tuple[int, ...], pad: Pad) -> tuple[int, int]:
    return sides[0] + pad[0] + pad[1], sides[1] + pad[2] + pad[3]


def _pair(values: Any) -> tuple[int, int]:
    down, across = values
    return int(down), int(across)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
