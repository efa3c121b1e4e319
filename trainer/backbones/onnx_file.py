"""Any other backbone, as an ONNX file: images in, named feature maps out.

The file takes one input, (1 or B, 3, S, S) float32 RGB in 0 … 255, normalisation inside. It is run
by ONNX Runtime while training and becomes part of `trunk.onnx`, see `trainer.assembly`. Files that
were exported for a batch of one are opened to any batch, and believed only after a comparison.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, version_converter
from onnx.utils import Extractor
from torch import Tensor, nn

from inspection.errors import InputError

OPSET = 18
"""Of every graph in a bundle; a file of another opset is converted."""

IR_VERSION = 9
"""Likewise; the newest that ONNX Runtime 1.17 reads."""

STRIDES = (4, 64)
"""Finest and coarsest map that is of use on a grid of 8 px."""

TOLERANCE = 1e-4
"""How far the opened graph may be from the file, relative to a map's largest value."""

MAX_BYTES = 1 << 30
"""Protobuf ends at 2 GiB, and a bundle holds the graph twice."""


class OnnxBackbone(nn.Module):
    """A frozen backbone for one input size, run by ONNX Runtime.

    Attributes:
        graph: The file's graph at `OPSET`, its batch open, cut behind the maps that are used.
        outputs: Names of the maps in it, in order.
    """

    def __init__(self, path: Path, outputs: Sequence[str], size_px: int) -> None:
        """Read a file and find out what it gives.

        Args:
            path: The file.
            outputs: Names of feature maps, in order; all outputs with four axes if empty.
            size_px: S.

        Raises:
            InputError: The file is no such backbone; the text says in what.
        """
        super().__init__()
        model, self.weights_sha256 = _read(path)
        feed = _input_name(model, path.name, size_px)
        given = [each.name for each in model.graph.output]
        unknown = [name for name in outputs if name not in given]
        if unknown or len(set(outputs)) < len(outputs):
            raise InputError(
                f"{path.name} gives {', '.join(given)}; got {', '.join(outputs)}. "
                "Name different ones of them: onnx:FILE#first,second"
            )
        rng = np.random.default_rng(0)
        frames = (255 * rng.random((2, 3, size_px, size_px))).astype(np.float32)
        # One by one: the file may hold a batch of one.
        session = _session(model, path.name)
        found = [_run(session, given, feed, frames[i : i + 1], path.name) for i in range(2)]
        first = dict(zip(given, found[0], strict=True))
        self.outputs = tuple(outputs) or tuple(name for name in given if first[name].ndim == 4)
        if not self.outputs:
            raise InputError(f"{path.name} gives no feature map: no output has four axes")
        for name in self.outputs:
            _check_map(path.name, name, first[name], size_px)
        self.name = f"onnx:{path.name}#{','.join(self.outputs)}"
        self.channels = tuple(first[name].shape[1] for name in self.outputs)
        self.size_px, self.feed = size_px, feed
        self.graph = _opened(model, feed, self.outputs, path.name)
        self._session = _session(self.graph, path.name)
        together = _run(self._session, self.outputs, feed, frames, path.name)
        for i, alone in enumerate(found):
            by_name = dict(zip(given, alone, strict=True))
            for name, maps in zip(self.outputs, together, strict=True):
                if maps.shape[1:] != by_name[name].shape[1:] or len(maps) != 2:
                    raise InputError(_batch_text(path.name))
                gap = np.abs(maps[i] - by_name[name][0]).max()
                if not gap <= TOLERANCE * np.abs(by_name[name]).max():
                    raise InputError(_batch_text(path.name))
        self.eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) float32 in 0 … 255 RGB → maps, each (B, C, S / stride, S / stride)."""
        if tuple(x.shape[-2:]) != (self.size_px, self.size_px):
            raise InputError(f"{self.name} was opened for {self.size_px} px, got {tuple(x.shape)}")
        maps = _run(self._session, self.outputs, self.feed, x.contiguous().numpy(), self.name)
        return [torch.from_numpy(each) for each in maps]


def _read(path: Path) -> tuple[ModelProto, str]:
    if not path.is_file():
        raise InputError(f"there is no backbone at {path}; give one with --backbone onnx:FILE")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path.name} has {path.stat().st_size} bytes, more than {MAX_BYTES}")
    data = path.read_bytes()
    try:
        model = onnx.load_from_string(data)
        # Parsers read nearly anything as an empty message.
        if not model.graph.node:
            raise ValueError("no graph is in it")
    except Exception as error:
        raise InputError(f"{path.name} is no ONNX file: {error}") from error
    if any(each.data_location == TensorProto.EXTERNAL for each in model.graph.initializer):
        raise InputError(
            f"{path.name} keeps its weights in another file, which no digest would cover; save it "
            "whole: onnx.save(onnx.load(FILE), OTHER)"
        )
    foreign = {each.domain for each in model.opset_import} - {"", "ai.onnx"}
    foreign &= {node.domain for node in model.graph.node}
    if foreign or model.functions:
        raise InputError(
            f"{path.name} uses operators beyond the standard ({', '.join(sorted(foreign))}); "
            "a station may not know them: export it without"
        )
    return model, hashlib.sha256(data).hexdigest()


def _input_name(model: ModelProto, file: str, size_px: int) -> str:
    """Check the one input and give its name."""
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    described = [
        f"{each.name} {TensorProto.DataType.Name(each.type.tensor_type.elem_type).lower()}"
        f"{[d.dim_value or d.dim_param or '?' for d in each.type.tensor_type.shape.dim]}"
        for each in inputs
    ]
    wanted = f"one input, (1 or B, 3, {size_px}, {size_px}) float32 RGB in 0 … 255"
    sides = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    if (
        len(sides) != 4
        or inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT
        or sides[1] not in (0, 3)
        or sides[0] > 1
    ):
        raise InputError(f"{file} takes {', '.join(described)}; expected {wanted}")
    if any(side not in (0, size_px) for side in sides[2:]):
        raise InputError(
            f"{file} takes {sides[2]} × {sides[3]} px alone, and the fit {size_px} px; "
            "fit with its --size, or export it for that size"
        )
    return str(inputs[0].name)


def _check_map(file: str, name: str, values: NDArray[np.float32], size_px: int) -> None:
    """A map must be a square grid of a stride that divides the frame."""
    side = values.shape[-1] if values.ndim == 4 else 0
    stride = size_px // side if side else 0
    if (
        values.dtype != np.float32
        or values.ndim != 4
        or values.shape[0] != 1
        or values.shape[2] != side
        or stride * side != size_px
        or not STRIDES[0] <= stride <= STRIDES[1]
    ):
        raise InputError(
            f"{file}: {name} is {values.dtype}{values.shape} for a frame of {size_px} px; expected "
            f"float32 (1, C, S / stride, S / stride) with a stride from {STRIDES[0]} to "
            f"{STRIDES[1]}; choose the outputs with onnx:FILE#NAME,NAME"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{file}: {name} is not finite on noise; the file is damaged")


def _opened(model: ModelProto, feed: str, outputs: Sequence[str], file: str) -> ModelProto:
    """Convert to `OPSET`, cut behind the outputs, and let the first axis be any batch."""
    try:
        standard = [each for each in model.opset_import if each.domain in ("", "ai.onnx")]
        if standard[0].version != OPSET:
            model = version_converter.convert_version(model, OPSET)
        model = Extractor(model).extract_model([feed], list(outputs))
    except Exception as error:
        raise InputError(
            f"{file} cannot be converted to opset {OPSET}: {error}; export it with that opset"
        ) from error
    model.ir_version = IR_VERSION
    del model.opset_import[1:]
    # Shapes in between hold the old batch; they are only remarks.
    del model.graph.value_info[:]
    for each in (*model.graph.input, *model.graph.output):
        each.type.tensor_type.shape.dim[0].dim_param = "B"
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, model.graph, model):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def _session(model: ModelProto, file: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise InputError(f"ONNX Runtime does not take {file}: {error}") from error


def _run(
    session: onnxruntime.InferenceSession,
    outputs: Sequence[str],
    feed: str,
    frames: NDArray[np.float32],
    file: str,
) -> list[NDArray[np.float32]]:
    try:
        maps: list[NDArray[np.float32]] = session.run(list(outputs), {feed: frames})
    except Exception as error:
        # A graph that was opened fails here where a node holds the old batch.
        raise InputError(
            f"{file} fails on {frames.shape}: {error}"
            + (f". {_batch_text(file)}" if len(frames) > 1 else "")
        ) from error
    return maps


def _batch_text(file: str) -> str:
    return (
        f"{file} holds a batch of one in its nodes: two frames together are not what they are "
        "alone; export it with a dynamic first axis"
    )
