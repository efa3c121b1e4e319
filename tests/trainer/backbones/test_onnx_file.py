"""Backbones from ONNX files: what they may be, and how they become part of the trunk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from inspection.errors import InputError
from inspection.preprocessing import Preprocessing
from trainer.backbones.catalogue import load_backbone
from trainer.backbones.onnx_file import OnnxBackbone
from trainer.export import OPSET, export_trunk
from trainer.features import extract
from trainer.trunk import Trunk

SIZE_PX = 64

PLAIN = """
    s8 = Conv <kernel_shape = [8, 8], strides = [8, 8]> (x, w8)
    s16 = Conv <kernel_shape = [2, 2], strides = [2, 2]> (s8, w16)
    pooled = GlobalAveragePool (s16)
    logits = Flatten (pooled)
"""


def write(
    path: Path,
    body: str = PLAIN,
    *,
    takes: str = "float[1, 3, 64, 64] x",
    gives: str = "float[1, 5, 8, 8] s8, float[1, 7, 4, 4] s16, float[1, 7] logits",
    opset: int = 17,
) -> Path:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]>\nnet ({takes}) => ({gives}) {{ {body} }}'
    )
    rng = np.random.default_rng(3)
    for name, shape in (("w8", (5, 3, 8, 8)), ("w16", (7, 5, 2, 2))):
        values = rng.normal(0, 0.1, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    path.write_bytes(model.SerializeToString())
    return path


def planes(count: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(4)
    return rng.uniform(0, 255, (count, 3, SIZE_PX, SIZE_PX)).astype(np.float32)


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_a_file_of_a_single_frame_serves_any_batch(tmp_path: Path, opset: int) -> None:
    path = write(tmp_path / "net.onnx", opset=opset)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    shown = planes(3)

    backbone = OnnxBackbone(path, ("s8", "s16"), SIZE_PX)
    found = backbone(torch.from_numpy(shown))

    assert backbone.channels == (5, 7)
    assert backbone.name == "onnx:net.onnx#s8,s16"
    assert backbone.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for i in range(3):
        alone = session.run(["s8", "s16"], {"x": shown[i : i + 1]})
        for mine, theirs in zip(found, alone, strict=True):
            assert np.allclose(mine[i].numpy(), theirs[0], rtol=1e-5, atol=1e-4)


def test_outputs_may_be_chosen_and_ordered(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", gives="float[1, 7, 4, 4] s16, float[1, 5, 8, 8] s8")

    assert load_backbone(f"onnx:{path}#s8", None, SIZE_PX).channels == (5,)
    assert load_backbone(f"onnx:{path}#s8,s16", None, SIZE_PX).channels == (5, 7)
    assert load_backbone(f"onnx:{path}", None, SIZE_PX).channels == (7, 5)


def test_what_lies_behind_the_chosen_maps_is_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", gives="float[1, 5, 8, 8] s8, float[1, 7] logits")

    backbone = OnnxBackbone(path, ("s8",), SIZE_PX)

    assert [node.op_type for node in backbone.graph.graph.node] == ["Conv"]


def test_a_pooled_output_of_four_axes_must_be_left_out_by_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "net.onnx", gives="float[1, 5, 8, 8] s8, float[1, 7, 1, 1] pooled", opset=18
    )

    assert OnnxBackbone(path, ("s8",), SIZE_PX).channels == (5,)
    assert OnnxBackbone(path, (), SIZE_PX).channels == (5, 7)  # a stride of 64 is the coarsest
    with pytest.raises(InputError, match="Name different ones"):
        OnnxBackbone(path, ("s9",), SIZE_PX)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_trunk_that_is_assembled_gives_the_features_that_were_learned(
    tmp_path: Path, batch: int
) -> None:
    path = write(tmp_path / "net.onnx")
    trunk = Trunk(load_backbone(f"onnx:{path}", None, SIZE_PX)).eval()
    shown = np.random.default_rng(5).integers(0, 256, (batch, 64, 64, 3)).astype(np.uint8)
    trunk.learn_lengths(torch.from_numpy(shown))

    data = export_trunk(trunk, Preprocessing(SIZE_PX))

    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = session.run(["patch_features"], {"frames": shown})[0]
    assert found.shape == (batch, 64, 12)
    assert np.abs(found - extract(trunk, shown)).max() < 1e-5


@pytest.mark.parametrize(
    ("body", "change", "text"),
    [
        pytest.param(
            PLAIN,
            {"takes": "float[1, 3, 32, 32] x", "gives": "float[1, 5, 4, 4] s8"},
            r"takes 32 × 32 px alone, and the fit 64 px; fit with its --size",
            id="another size",
        ),
        pytest.param(
            PLAIN, {"takes": "float[4, 3, 64, 64] x"}, "takes x float", id="a batch of four"
        ),
        pytest.param(
            PLAIN, {"takes": "float[1, 64, 64, 3] x"}, "takes x float", id="channels last"
        ),
        pytest.param(
            "s8 = Cast <to = 1> (x)",
            {"takes": "uint8[1, 3, 64, 64] x", "gives": "float[1, 3, 64, 64] s8"},
            "takes x uint8",
            id="bytes",
        ),
        pytest.param(
            PLAIN,
            {"takes": "float[1, 3, 64, 64] x, float[1] y"},
            "takes x float.*, y float",
            id="two inputs",
        ),
        pytest.param(
            PLAIN, {"gives": "float[1, 7] logits"}, "gives no feature map", id="a classifier"
        ),
        pytest.param(
            "same = Relu (x)", {"gives": "float[1, 3, 64, 64] same"}, "with a stride", id="stride 1"
        ),
        pytest.param(
            "deep = Conv <kernel_shape = [8, 8], strides = [8, 8]> (x, w8)\n"
            "less = Neg (deep)\ntwice = Mul (deep, less)\nout = Sqrt (twice)",
            {"gives": "float[1, 5, 8, 8] out"},
            "out is not finite",
            id="not finite",
        ),
    ],
)
def test_a_file_that_is_no_such_backbone_is_refused(
    tmp_path: Path, body: str, change: dict[str, str], text: str
) -> None:
    path = write(tmp_path / "net.onnx", body, **change)  # type: ignore[arg-type]

    with pytest.raises(InputError, match=text):
        OnnxBackbone(path, (), SIZE_PX)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            "s8 = Conv <kernel_shape = [8, 8], strides = [8, 8]> (x, w8)\n"
            "wide = Constant <value_ints = [1, 5, 8, 8]> ()\nout = Reshape (s8, wide)",
            id="a reshape to one frame",
        ),
        pytest.param(
            "s8 = Conv <kernel_shape = [8, 8], strides = [8, 8]> (x, w8)\n"
            "axes = Constant <value_ints = [0]> ()\n"
            "mean = ReduceMean <keepdims = 1> (s8, axes)\nout = Add (s8, mean)",
            id="a mean over the batch",
        ),
    ],
)
def test_a_file_that_mixes_or_counts_frames_is_refused(tmp_path: Path, body: str) -> None:
    path = write(tmp_path / "net.onnx", body, gives="float[1, 5, 8, 8] out", opset=18)

    with pytest.raises(InputError, match="holds a batch of one in its nodes"):
        OnnxBackbone(path, (), SIZE_PX)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x08"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(data)

    with pytest.raises(InputError, match=r"net\.onnx is no ONNX file"):
        OnnxBackbone(tmp_path / "net.onnx", (), SIZE_PX)


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path / "net.onnx"))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0)

    with pytest.raises(InputError, match="keeps its weights in another file"):
        OnnxBackbone(tmp_path / "net.onnx", (), SIZE_PX)


def test_operators_beyond_the_standard_are_refused(tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path / "net.onnx"))
    model.opset_import.add(domain="com.example", version=1)
    model.graph.node[0].domain = "com.example"
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(InputError, match=r"beyond the standard \(com\.example\)"):
        OnnxBackbone(tmp_path / "net.onnx", (), SIZE_PX)


def test_a_file_has_its_weights_inside(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave --weights out"):
        load_backbone("onnx:net.onnx", tmp_path / "w.pth", SIZE_PX)


def test_a_name_that_nobody_knows_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match="no backbone 'resnet18'; choose one of effic"):
        load_backbone("resnet18")


def test_weights_that_must_be_fetched_say_how() -> None:
    with pytest.raises(InputError, match="`dualbank-train weights get dinov2-vits14` and give"):
        load_backbone("dinov2-vits14")
