"""LiteRT (TensorFlow Lite) on the CPU, through whichever of its two packages is installed.

`ai_edge_litert` is the maintained one and is preferred; `tflite_runtime` is its predecessor, the
only one on 32-bit boards, and needs numpy 1.x.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenet.errors import MissingExtra, RuntimeRefused
from edgenet.runtimes import (
    Float32Array,
    OperatorReport,
    OperatorTime,
    OperatorTimes,
    Tensor,
    UInt8Array,
    check_image,
)

PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
"""Distributions by the package that they install, the preferred first."""

WARM_UP_RUNS = 3
"""Of each pair of pieces, which are not counted."""
QUICK_SHARE = 10
"""Percentile of a piece's runs that stands for it."""
DRAWS = 500
"""Of the bootstrap that tells a difference from noise."""
Int64Array = npt.NDArray[np.int64]
IDENTIFIER = b"TFL3"
STDERR = 2
INFORMATION = ("INFO:", "WARNING: All log messages before absl")
"""How lines begin that say nothing of the model."""
DELEGATE = "DELEGATE"
"""The operator that stands for those which XNNPACK took over."""
SUBGRAPHS_OF_MODEL, OUTPUTS_OF_SUBGRAPH = 2, 2
"""Places of fields in TFLite's tables (schema.fbs)."""


def load(path: Path, *, threads: int) -> LiteRtSession:
    """Return a session on the .tflite file at `path`."""
    return LiteRtSession(*_interpreter(path, threads))


def load_built_in(path: Path, *, threads: int) -> LiteRtSession:
    """Return a session without XNNPACK, which is how tflite-runtime computes INT8.

    The built-in kernels round halves another way than XNNPACK does.
    """
    return LiteRtSession(*_interpreter(path, threads, delegates=False))


def operators(path: Path, *, threads: int = 1) -> tuple[OperatorReport, ...]:
    """Return what runs, in order, as the interpreter reports it.

    XNNPACK tells nobody how it fuses what it takes over. Its operators are listed as the file has
    them, marked as its own, with the types of the tensors between them.
    """
    interpreter, _ = _interpreter(path, threads)
    return tuple(_reports(interpreter).values())


def time_operators(path: Path, images: UInt8Array, *, threads: int) -> OperatorTimes:
    """Return what each operator adds to the time of the network cut after it.

    The Python package has no profiler. Two neighbouring pieces run in turn, so that they share
    whatever the machine does meanwhile, and their tenth percentiles are compared, as a difference
    of two times is small and a disturbance is not. One thread is timed by its own clock, which
    stands while another process has its core. Raises `RuntimeRefused` for tflite-runtime, which
    cannot cut.
    """
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    times = []
    shorter: LiteRtSession | None = None
    for report, model in pieces(path, threads=threads):
        longer = LiteRtSession(*_interpreter(model, threads))
        taken_ns = [
            (longer.invoke_ns(image[None], clock), shorter.invoke_ns(image[None], clock))
            if shorter
            else (longer.invoke_ns(image[None], clock), 0)
            for image in images
        ]
        added_ns = _difference_ns(np.array(taken_ns[WARM_UP_RUNS:]))
        times.append(OperatorTime(operator=report, duration_ns=added_ns))
        shorter = longer
    return OperatorTimes(by="prefix", resolution_ns=1.0, times=tuple(times))


def pieces(path: Path, *, threads: int = 1) -> Iterator[tuple[OperatorReport, bytes]]:
    """Yield each operator that computes, and the network's file cut after it.

    Raises `RuntimeRefused` for tflite-runtime, which cannot cut.
    """
    whole, _ = _interpreter(path, threads)  # it checks the file, which the schema does not
    cut = _cutter(path)
    for index, report in _reports(whole).items():
        if cut.computes(index):
            yield report, cut.after(index)


def trace(
    path: Path, images: Sequence[UInt8Array], names: Sequence[str], *, threads: int
) -> Iterator[Mapping[str, Tensor]]:
    """Yield what each image makes of the tensors of these names.

    They are made outputs: XNNPACK keeps no other tensor, whatever the interpreter is told to keep.
    """
    whole, _ = _interpreter(path, threads)  # it checks the file, which is patched unseen
    numbers = {str(each["name"]): int(each["index"]) for each in whole.get_tensor_details()}
    missing = [name for name in names if name not in numbers]
    if missing:
        raise RuntimeRefused(f"{path}: has no tensor {missing[0]}")
    given = [int(each["index"]) for each in whole.get_output_details()]
    wanted = [numbers[name] for name in names]
    model = _with_outputs(path.read_bytes(), list(dict.fromkeys([*given, *wanted])))
    interpreter, _ = _interpreter(model, threads)
    source = interpreter.get_input_details()[0]["index"]
    for image in images:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        yield {name: interpreter.get_tensor(numbers[name]) for name in names}


def _with_outputs(model: bytes, tensors: Sequence[int]) -> bytes:
    """Return a model whose outputs are the tensors of these numbers.

    tflite-runtime has no schema to write a model by, and none is needed: a new list is put behind
    the file and the place of the old one says where.
    """
    subgraphs = _field(model, _follow(model, 0), SUBGRAPHS_OF_MODEL)
    first = _follow(model, _follow(model, subgraphs) + 4)  # behind the list's length
    place = _field(model, first, OUTPUTS_OF_SUBGRAPH)
    padded = model + bytes(-len(model) % 4)
    patched = bytearray(padded + struct.pack(f"<{1 + len(tensors)}i", len(tensors), *tensors))
    struct.pack_into("<I", patched, place, len(padded) - place)
    return bytes(patched)


def _follow(model: bytes, place: int) -> int:
    """Return where an offset points to; it counts from where it stands."""
    (offset,) = struct.unpack_from("<I", model, place)
    return place + int(offset)


def _field(model: bytes, table: int, number: int) -> int:
    """Return where a field of a table stands, which its list of places says."""
    (back,) = struct.unpack_from("<i", model, table)
    (offset,) = struct.unpack_from("<H", model, table - back + 4 + 2 * number)
    return table + int(offset)


def _difference_ns(taken_ns: Int64Array) -> float | None:
    """Return what the longer piece takes more, of (n, 2) runs of both; None if that may be 0.

    It may where the 95 % bootstrap interval of the difference reaches down to 0.
    """
    drawn = np.random.default_rng(0).integers(len(taken_ns), size=(DRAWS, len(taken_ns)))
    longer, shorter = np.percentile(taken_ns[drawn], QUICK_SHARE, axis=1).T
    if np.percentile(longer - shorter, 2.5) <= 0:
        return None
    longest, shortest = np.percentile(taken_ns, QUICK_SHARE, axis=0)
    return float(longest - shortest)


def _reports(interpreter: Any) -> dict[int, OperatorReport]:
    """Return what runs, in order, by the operators' places in the file."""
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    nodes = interpreter._get_ops_details()
    delegated = _delegated(nodes)
    return {
        node["index"]: OperatorReport(
            name=tensors[int(node["outputs"][0])]["name"],
            kind=f"{node['op_name']} (XNNPACK)" if node["index"] in delegated else node["op_name"],
            precision=_precision(tensors[int(node["inputs"][0])]["dtype"]),
        )
        for node in nodes
        if node["op_name"] != DELEGATE
    }


def _interpreter(model: Path | bytes, threads: int, *, delegates: bool = True) -> tuple[Any, str]:
    """Return an interpreter with its tensors allocated, and its package with the version."""
    source = {"model_path": str(model)} if isinstance(model, Path) else {"model_content": model}
    for package, distribution in PACKAGES.items():
        try:
            module = importlib.import_module(f"{package}.interpreter")
        except ImportError:
            continue
        said: list[str] = []
        try:
            with _listening(said):
                kernels = module.OpResolverType
                interpreter = module.Interpreter(
                    **source,
                    num_threads=threads,
                    experimental_op_resolver_type=kernels.AUTO
                    if delegates
                    else kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                )
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            where = model if isinstance(model, Path) else "a piece of the network"
            reason = "; ".join([str(error), *said])
            raise RuntimeRefused(f"{where}: {distribution} cannot load it ({reason})") from error
        return interpreter, f"{distribution} {version(distribution)}"
    raise MissingExtra(" or ".join(PACKAGES.values()), "litert")


@contextmanager
def _listening(said: list[str]) -> Iterator[None]:
    """Keep what C++ writes to stderr in this block off it, and put its lines into `said`.

    It tells with every model that it made a delegate. What is no such information is a reason if
    loading fails; where it goes well, it is passed on.
    """
    sys.stderr.flush()
    try:
        heard, stderr = tempfile.TemporaryFile(), os.dup(STDERR)  # noqa: SIM115 - closed below
    except OSError:  # no room for a file, or no stderr: not worth failing for
        yield
        return
    loaded = False
    with heard:
        os.dup2(heard.fileno(), STDERR)
        try:
            yield
            loaded = True
        finally:
            os.dup2(stderr, STDERR)
            os.close(stderr)
            heard.seek(0)
            lines = heard.read().decode(errors="replace").splitlines()
            said += [line for line in lines if line.strip() and not line.startswith(INFORMATION)]
            if loaded and said:
                sys.stderr.write("\n".join(said) + "\n")


class LiteRtSession:
    """A model in LiteRT."""

    def __init__(self, interpreter: Any, version: str) -> None:
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]
        self._shape = tuple(int(side) for side in self._input["shape"])
        self._outputs = _output_names(interpreter)
        self.version = version
        self.device = f"CPU ({_kernels(interpreter)})"

    def run(self, image: UInt8Array) -> Mapping[str, Float32Array]:
        """Return the outputs by name, (1, C) or (1, H, W, C), for (1, H, W, 3) uint8 RGB."""
        check_image(image, self._shape)
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        return {
            name: np.asarray(self._interpreter.get_tensor(index), np.float32)
            for name, index in self._outputs.items()
        }

    def invoke_ns(self, image: UInt8Array, clock: Callable[[], int]) -> int:
        """Return how long a run takes, without what goes in and out."""
        self._interpreter.set_tensor(self._input["index"], image)
        began = clock()
        self._interpreter.invoke()
        return clock() - began

    def close(self) -> None:
        """Release the model."""
        self._interpreter = None


def _output_names(interpreter: Any) -> dict[str, int]:
    """Return output tensor indices by name."""
    return {_bare(detail["name"]): detail["index"] for detail in interpreter.get_output_details()}


def _bare(name: str) -> str:
    """Return a tensor's name without the scope and suffix that other converters add."""
    return name.rpartition("/")[2].partition(":")[0]


def _kernels(interpreter: Any) -> str:
    """Return which kernels run: delegates show up among the operators of the loaded graph."""
    operators = {op["op_name"] for op in interpreter._get_ops_details()}
    return "XNNPACK" if DELEGATE in operators else "built-in kernels"


def _delegated(nodes: list[Any]) -> set[int]:
    """Return the indices of what delegates compute: all between their inputs and their outputs."""
    delegates = [node for node in nodes if node["op_name"] == DELEGATE]
    others = [node for node in nodes if node["op_name"] != DELEGATE]
    given = {int(tensor) for node in delegates for tensor in node["inputs"]}
    wanted = {int(tensor) for node in delegates for tensor in node["outputs"]}
    found: set[int] = set()
    for node in reversed(others):  # in order of execution, so makers come before users
        if any(int(tensor) in wanted for tensor in node["outputs"]):
            found.add(node["index"])
            wanted.update({int(tensor) for tensor in node["inputs"]} - given)
    return found


def _precision(dtype: Any) -> str:
    name = np.dtype(dtype).name
    return "int8" if name == "uint8" else name


class _Cutter:
    """Makes networks that end early of one that does not."""

    def __init__(self, path: Path, schema: Any, flatbuffers: Any) -> None:
        self._schema, self._flatbuffers = schema, flatbuffers
        self._data = path.read_bytes()
        self._graph = self._read().subgraphs[0]

    def _read(self) -> Any:
        return self._schema.ModelT.InitFromPackedBuf(self._data, 0)

    def computes(self, operator: int) -> bool:
        """Tell whether an operator reads anything but constants, which are computed on loading."""
        made = {int(t) for op in self._graph.operators for t in op.outputs}
        given = made | {int(t) for t in self._graph.inputs}
        return any(int(t) in given for t in self._graph.operators[operator].inputs)

    def after(self, operator: int) -> bytes:
        """Return the network that ends with the operator at this place, its file's bytes.

        Whatever is made by then and not used up is an output.
        """
        model = self._read()
        graph = model.subgraphs[0]
        graph.operators = graph.operators[: operator + 1]
        used = {int(t) for op in graph.operators for t in op.inputs}
        made = [int(t) for op in graph.operators for t in op.outputs]
        graph.outputs = [t for t in made if t not in used]
        model.signatureDefs, model.metadata = [], []
        self._drop_unused(model)
        builder = self._flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _drop_unused(self, model: Any) -> None:
        """Empty the buffers of weights that nobody reads any more."""
        graph = model.subgraphs[0]
        used = {int(t) for op in graph.operators for t in (*op.inputs, *op.outputs)}
        kept = {graph.tensors[t].buffer for t in used if t >= 0}
        for index, buffer in enumerate(model.buffers):
            if index not in kept:
                buffer.data = None


def _cutter(path: Path) -> _Cutter:
    """Return what cuts the .tflite file at `path`; `RuntimeRefused` where the schema is missing."""
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise RuntimeRefused(
            "tflite-runtime has no profiler and no schema to cut the network by; "
            "ai-edge-litert has the schema"
        ) from None
    return _Cutter(path, schema_py_generated, flatbuffers)
