"""The trunk's graph in the precision of an engine: ONNX in, ONNX out. Compiling is `compiler`'s.

Networks are strongly typed: the graph says what is half and what is not, and a compiler obeys it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, checker, numpy_helper
from onnx.shape_inference import infer_shapes
from onnxruntime.transformers.float16 import convert_float_to_float16

from inspection.errors import BundleError

FRAMES, PATCH_FEATURES = "frames", "patch_features"

_PIXEL_OPERATORS = {
    *("Cast", "Transpose", "Sub", "Div", "Mul", "Add", "Pad", "Reshape", "Squeeze", "Unsqueeze"),
    *("Slice", "Gather", "Concat", "Split", "Identity"),
}
"""What pixels go through before the first operator that looks for something in them."""

_SUM_OF_SQUARES = {"ReduceSumSquare", "ReduceL2", "LayerNormalization", "InstanceNormalization"}
_REDUCTIONS = {"ReduceSum", "ReduceMean"}
_QUANTISING = {"QuantizeLinear", "DequantizeLinear"}


def checked_trunk(name: str, data: bytes) -> bytes:
    """Hold a graph against the contract: `frames` (B, S, S, 3) uint8 → `patch_features` float32.

    Args:
        name: Of the file in the bundle, for the error.
        data: ONNX.

    Raises:
        BundleError: It is no ONNX, or not a trunk.
    """
    graph = _read(name, data).graph
    weights = {each.name for each in graph.initializer}
    found = [
        [_described(value) for value in values if value.name not in weights]
        for values in (graph.input, graph.output)
    ]
    expected = [
        [(FRAMES, TensorProto.UINT8, 4)],
        [(PATCH_FEATURES, TensorProto.FLOAT, 3)],
    ]
    if found != expected:
        raise BundleError(
            f"{name} is no trunk: expected {FRAMES} (B, S, S, 3) uint8 in and {PATCH_FEATURES} "
            f"(B, P, D) float32 out, got {_listed(graph.input)} in and {_listed(graph.output)} out"
        )
    return data


def checked_quantised(name: str, data: bytes) -> bytes:
    """Hold a graph with INT8 ranges against the contract, and against what TensorRT takes.

    That is int8 around zero points of 0: neither uint8 nor the int32 biases of other runtimes.

    Raises:
        BundleError: It is no trunk, nothing in it is quantised, or not in this way.
    """
    graph = _read(name, checked_trunk(name, data)).graph
    weights = {each.name: each for each in graph.initializer}
    quantised = [node for node in graph.node if node.op_type in _QUANTISING]
    if not any(node.op_type == "QuantizeLinear" for node in quantised):
        raise BundleError(f"{name} has no QuantizeLinear, so nothing in it would be INT8")
    for node in quantised:
        # Both say their type by the zero point; a weight is stored as DequantizeLinear takes it.
        zero_points = [weights[each] for each in node.input[2:3] if each in weights]
        stored = [weights[node.input[0]]] if node.input[0] in weights else []
        typed = zero_points if node.op_type == "QuantizeLinear" else zero_points + stored
        kinds = {each.data_type for each in typed} - {TensorProto.INT8}
        if kinds or any(numpy_helper.to_array(each).any() for each in zero_points):
            told = " and ".join(TensorProto.DataType.Name(kind).lower() for kind in sorted(kinds))
            raise BundleError(
                f"{name}: {node.op_type} {node.name!r} must be int8 around zero points of 0, it "
                f"has {told or 'others'}"
            )
    return data


def in_half(name: str, data: bytes) -> bytes:
    """Write a trunk in FP16, but for what FP16 is too coarse or too short for.

    FP32 stay the preparation of pixels, as 8-bit levels less a mean are told apart there, and sums
    of squares over channels: on EfficientNet-Lite0 they reach 12,000 of the 65,504 that FP16 can
    say, and a backbone of wider or stronger maps would have infinite lengths. Input and output keep
    their types.

    Args:
        name: Of the file in the bundle, for the error.
        data: A trunk in FP32.

    Returns:
        The same trunk in FP16.

    Raises:
        BundleError: It is no trunk.
    """
    model = _read(name, checked_trunk(name, data))
    graph = model.graph
    _name_everything(graph)
    kept = {node.name for node in (*_pixel_nodes(graph), *_length_nodes(graph))}
    floats = _floats(model)
    weights = {each.name: TensorProto.FromString(each.SerializeToString())
               for each in graph.initializer}  # fmt: skip
    try:
        with warnings.catch_warnings():
            # It warns of every weight below 6e-8, which becomes that; the gate judges the whole.
            warnings.simplefilter("ignore")
            half = convert_float_to_float16(model, keep_io_types=True, node_block_list=sorted(kept))
        _stay_in_full(half.graph, kept, floats, weights)
        _sort(half.graph)
        checker.check_model(half, full_check=True)
    except Exception as error:
        raise BundleError(
            f"{name} cannot be written in FP16, build fp32 instead: {_on_one_line(error)}"
        ) from error
    return bytes(half.SerializeToString())


def _read(name: str, data: bytes) -> ModelProto:
    try:
        model = onnx.load_from_string(data)
        checker.check_model(model)
    except Exception as error:
        raise BundleError(f"{name} is no ONNX graph: {_on_one_line(error)}") from error
    return model


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _described(value: Any) -> tuple[str, int, int]:
    kind = value.type.tensor_type
    return value.name, kind.elem_type, len(kind.shape.dim)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(value.name for value in values) or "nothing"


def _name_everything(graph: GraphProto) -> None:
    """Give every node a name of its own, and let constants be initializers, as weights are."""
    constants = [node for node in graph.node if node.op_type == "Constant"]
    for node in constants:
        value = next((each.t for each in node.attribute if each.name == "value"), None)
        if value is not None:
            graph.initializer.add().CopyFrom(value)
            graph.initializer[-1].name = node.output[0]
            graph.node.remove(node)
    for number, node in enumerate(graph.node):
        node.name = f"{number}_{node.op_type}"


def _pixel_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Walk from the frames to the first operators that compute features, these left out."""
    constant = {each.name for each in graph.initializer}
    reached = {FRAMES}
    for node in graph.node:
        inputs = {each for each in node.input if each} - constant
        if node.op_type in _PIXEL_OPERATORS and inputs and inputs <= reached:
            reached.update(node.output)
            yield node


def _length_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """What squares, sums the squares, and takes the root, which alone is short enough."""
    squares = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Pow" or (node.op_type == "Mul" and node.input[0] == node.input[1])
    }
    sums: set[str] = set()
    for node in graph.node:
        source = node.input[0] if node.input else ""
        if node.op_type in _SUM_OF_SQUARES:
            sums.update(node.output)
            yield node
        elif node.op_type in _REDUCTIONS and source in squares:
            sums.update(node.output)
            yield squares[source]
            yield node
        elif node.op_type == "Sqrt" and source in sums:
            yield node


def _floats(model: ModelProto) -> set[str]:
    """Names of every float32 tensor that an operator computes."""
    graph = infer_shapes(model).graph
    return {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _stay_in_full(
    graph: GraphProto, kept: set[str], floats: set[str], weights: dict[str, TensorProto]
) -> None:
    """Undo what the converter does between two operators that stay FP32, and to their constants.

    It writes FP32 → FP16 → FP32 between them: a sum of squares would be rounded, or infinite, and
    so would the pixels' mean and deviation.
    """
    made_by = {output: node for node in graph.node for output in node.output}
    instead: dict[str, str] = {}
    for cast in [node for node in graph.node if _casts_to(node, TensorProto.FLOAT)]:
        source = cast.input[0]
        weight, before = weights.get(source), made_by.get(source)
        if weight is not None and weight.data_type == TensorProto.FLOAT:
            graph.initializer.add().CopyFrom(weight)
            graph.initializer[-1].name = instead[cast.output[0]] = f"{source}_in_full"
        elif before is not None and _casts_to(before, TensorProto.FLOAT16) and source in floats:
            maker = made_by.get(before.input[0])
            if maker is not None and maker.name in kept:
                instead[cast.output[0]] = before.input[0]
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = instead.get(name, name)
    _drop_unused(graph)


def _casts_to(node: NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind


def _drop_unused(graph: GraphProto) -> None:
    """Leave out casts and weights that nothing reads any more."""
    outputs = {value.name for value in graph.output}
    while True:
        read = {name for node in graph.node for name in _read_by(node)} | outputs
        idle = [
            node for node in graph.node if node.op_type == "Cast" and node.output[0] not in read
        ]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    unread, seen = [], set()
    for each in graph.initializer:
        if each.name not in read or each.name in seen:
            unread.append(each)
        seen.add(each.name)
    for each in unread:
        graph.initializer.remove(each)


def _sort(graph: GraphProto) -> None:
    """Put every node behind those that it reads: the converter leaves its casts at the end."""
    waiting = list(graph.node)
    made = {output for node in waiting for output in node.output}
    ordered: list[NodeProto] = []
    while waiting:
        ready = [node for node in waiting if not made.intersection(_read_by(node))]
        if not ready:
            raise BundleError("the trunk's graph has a circle in it")
        made -= {output for node in ready for output in node.output}
        waiting = [node for node in waiting if made.intersection(node.output)]
        ordered += ready
    del graph.node[:]
    graph.node.extend(ordered)


def _read_by(node: NodeProto) -> Iterator[str]:
    """Names that a node reads, also from inside a branch or a loop."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read_by(inner)
