"""A fit with another backbone: what the bundle says of it, and what is refused at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper, parser

from inspection.bundle import MODEL_CARD
from tests.trainer.conftest import SMALL
from tests.trainer.parts import write_category
from trainer.backbones.catalogue import installed_file
from trainer.backbones.published import PUBLISHED
from trainer.bundle_folder import open_bundle
from trainer.cli import main
from trainer.runtime import Runtime


@pytest.fixture(scope="module")
def bolts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bolts")
    write_category(root / "bolt", "bolt", train=6, test=2)
    return root


def write_backbone(path: Path, size_px: int = 64) -> Path:
    """A fixed batch of one, and its only map at stride 16."""
    side = size_px // 16
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        f"net (float[1, 3, {size_px}, {size_px}] x) => (float[1, 24, {side}, {side}] s16) {{\n"
        "    s16 = Conv <kernel_shape = [16, 16], strides = [16, 16]> (x, w)\n"
        "}"
    )
    values = np.random.default_rng(3).normal(0, 0.1, (24, 3, 16, 16)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "w"))
    path.write_bytes(model.SerializeToString())
    return path


def test_a_bundle_of_an_onnx_backbone_runs_and_names_it(bolts: Path, tmp_path: Path) -> None:
    path, out = write_backbone(tmp_path / "net.onnx"), tmp_path / "bundle"

    assert main(["fit", str(bolts), "--out", str(out), "--backbone", f"onnx:{path}", *SMALL]) == 0

    bundle = open_bundle(out)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert bundle.manifest.backbone == "onnx:net.onnx#s16"
    assert bundle.manifest.weights == digest
    assert digest in bundle.file(MODEL_CARD).decode()
    frame = np.zeros((64, 64, 3), np.uint8)
    assert Runtime(bundle).patch_features(frame, bundle.route("bolt")).shape == (8, 8, 24)


def test_weights_from_a_file_are_the_ones_that_the_manifest_names(
    bolts: Path, tmp_path: Path
) -> None:
    path, out = installed_file("efficientnet-lite0"), tmp_path / "bundle"

    assert main(["fit", str(bolts), "--out", str(out), "--weights", str(path), *SMALL]) == 0

    assert open_bundle(out).manifest.backbone == "efficientnet-lite0"
    assert open_bundle(out).manifest.weights == PUBLISHED["efficientnet-lite0"].sha256


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--backbone", "resnet18"], "no backbone 'resnet18'"),
        (["--backbone", "resnet50"], "weights of resnet50 are not installed"),
        (["--backbone", "onnx:none.onnx"], "no backbone at none.onnx"),
        (["--weights", "none.pth"], "no file of weights at none.pth"),
    ],
)
def test_a_backbone_that_cannot_be_had_leaves_nothing(
    bolts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    out = tmp_path / "bundle"

    assert main(["fit", str(bolts), "--out", str(out), *words, *SMALL]) == 1

    assert text in capsys.readouterr().err
    assert not out.exists()


def test_an_onnx_backbone_of_another_size_says_which_size_to_fit(
    bolts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_backbone(tmp_path / "net.onnx", size_px=96)

    words = ["--out", str(tmp_path / "bundle"), "--backbone", f"onnx:{path}", *SMALL]
    assert main(["fit", str(bolts), *words]) == 1

    assert "takes 96 × 96 px alone, and the fit 64 px" in capsys.readouterr().err
