"""The exported graphs against the numpy oracle, with banks nobody made for their sake."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf.message import Message
from numpy.typing import NDArray

from inspection.bank import MemoryBank, empty_bank
from inspection.golden import RELATIVE_TOLERANCE
from inspection.heads import head_arrays
from inspection.preprocessing import Preprocessing
from inspection.scoring import Head, Scoring, image_score, patch_scores
from trainer.backbones.efficientnet_lite import LITE0
from trainer.export import IR_VERSION, OPSET, export_full, export_trunk
from trainer.features import extract
from trainer.trunk import Trunk

DIMENSIONS = sum(LITE0.channels)
SPEC = Preprocessing(48)  # 6 x 6 patches
PLACES = np.stack(np.divmod(np.arange(36), 6), axis=1)
EVERYWHERE = np.ones((6, 6), np.uint8)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def learned(trunk: Trunk) -> Trunk:
    fresh = Trunk(trunk.backbone).eval()
    fresh.learn_lengths(torch.from_numpy(frames(4, seed=1)))
    return fresh


@pytest.fixture(scope="module")
def trunk_bytes(learned: Trunk) -> bytes:
    return export_trunk(learned, SPEC)


def frames(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of colour with noise: neighbouring patches differ, and many are a little alike."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, 6, 6, 3)).repeat(8, 1).repeat(8, 2)
    return np.asarray(np.clip(blocks + rng.normal(0, 6, blocks.shape), 0, 255), np.uint8)


def random_head(k: int) -> Head:
    rng = np.random.default_rng(k)
    z = 3 * DIMENSIONS + 2 * k + 1
    return Head(
        rng.normal(0, z**-0.5, (z, 64)).astype(np.float32),
        rng.normal(0, 0.1, 64).astype(np.float32),
        rng.normal(0, 0.5, 64).astype(np.float32),
        0.3,
    )


def random_bank(
    features: NDArray[np.float32], rows: int, valid: int, bait: NDArray[np.float32]
) -> MemoryBank:
    """A bank of one product, near the features; its invalid rows are `bait`, which would win."""
    rng = np.random.default_rng(rows)
    near = features[rng.integers(len(features), size=rows)]
    near = near + 0.4 * rng.normal(0, DIMENSIONS**-0.5, near.shape).astype(np.float32)
    near[valid // 2 : valid] = near[: valid - valid // 2]  # every row twice
    near[valid:] = bait[np.arange(rows - valid) % len(bait)]
    order = rng.permutation(rows)
    columns = {name: getattr(empty_bank(("bolt",), rows, DIMENSIONS), name) for name in _COLUMNS}
    filled = {"features": near[order], "valid": (np.arange(rows) < valid)[order]}
    position = rng.integers(0, 6, (rows, 2)).astype(np.int32)
    return MemoryBank(**{**columns, **filled, "position": position})


_COLUMNS = MemoryBank.__slots__


def feeds(
    shown: NDArray[np.uint8],
    normal: MemoryBank,
    abnormal: MemoryBank,
    head: Head,
    constants: Scoring,
    weight: float,
    foreground: NDArray[np.uint8] = EVERYWHERE,
) -> dict[str, NDArray[np.generic]]:
    """All inputs of the graph."""
    return {
        "frames": shown,
        "places": np.stack([constants.position_weight * PLACES] * len(shown)).astype(np.float32),
        "normal_rows": normal.features,
        "normal_valid": normal.valid,
        "normal_places": (constants.position_weight * normal.position).astype(np.float32),
        "abnormal_rows": abnormal.features,
        "abnormal_valid": abnormal.valid,
        "temperature": np.array(constants.temperature, np.float32),
        "abnormal_weight": np.array(weight, np.float32),
        "foreground": foreground.astype(np.float32),
        **head_arrays(head),
    }


@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("k", "rows", "valid", "defect_rows", "defects_valid"),
    [
        pytest.param(1, 1, 1, 1, 1, id="one row"),
        pytest.param(12, 13, 12, 17, 12, id="just enough valid rows"),
        pytest.param(5, 131, 97, 33, 21, id="more rows than patches"),
        pytest.param(1, 131, 97, 33, 21, id="the nearest alone"),
        pytest.param(12, 131, 130, 200, 64, id="K of the defaults"),
    ],
)
def test_the_graph_says_what_the_oracle_says(
    learned: Trunk,
    trunk_bytes: bytes,
    k: int,
    rows: int,
    valid: int,
    defect_rows: int,
    defects_valid: int,
    batch: int,
    weight: float,
) -> None:
    constants, head = Scoring(k, 0.02, 0.1, position_weight=0.05), random_head(k)
    shown = frames(batch)
    evidence = extract(learned, frames(3, seed=2)).reshape(-1, DIMENSIONS)
    bait = extract(learned, shown).reshape(-1, DIMENSIONS)
    normal = random_bank(evidence, rows, valid, bait)
    abnormal = random_bank(evidence, defect_rows, defects_valid, bait)
    graph = export_full(trunk_bytes, k, constants.top_patches(36), SPEC)

    maps, scores, features = run(graph, **feeds(shown, normal, abnormal, head, constants, weight))

    assert maps.shape == (batch, 6, 6)
    for i in range(batch):
        expected = patch_scores(
            *(features[i], PLACES, normal, abnormal, head, constants),
            category="bolt",
            weight=weight,
        )
        assert expected.min() > 0.01  # nobody took the bait
        # What golden frames allow: float32 in another order, some 1e-6, and attention around it.
        error = np.abs(maps[i].ravel() - expected).max()
        assert error < RELATIVE_TOLERANCE * expected.max()
        assert scores[i] == pytest.approx(image_score(expected, constants), rel=RELATIVE_TOLERANCE)


def test_the_abnormal_side_of_the_graph_raises_some_patches_and_lowers_none(
    learned: Trunk, trunk_bytes: bytes
) -> None:
    shown = frames(2)
    features = extract(learned, frames(3, seed=2)).reshape(-1, DIMENSIONS)
    bank = random_bank(features, 40, 40, features)
    graph = export_full(trunk_bytes, 3, 2, SPEC)
    constants = Scoring(3, 0.1, 0.1)

    alone, both = (
        run(graph, **feeds(shown, bank, bank, random_head(3), constants, weight))[0]
        for weight in (0, 5)
    )

    assert (both >= alone).all()
    assert (both > alone * 1.01).any()


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_what_is_not_inspected_scores_nothing_in_the_graph_and_in_the_oracle(
    learned: Trunk, trunk_bytes: bytes, weight: float
) -> None:
    shown, head, constants = frames(2), random_head(3), Scoring(3, 0.1, 0.1)
    evidence = extract(learned, frames(3, seed=2)).reshape(-1, DIMENSIONS)
    bank = random_bank(evidence, 40, 40, evidence)
    foreground = np.random.default_rng(4).integers(0, 2, (6, 6)).astype(np.uint8)
    graph = export_full(trunk_bytes, 3, constants.top_patches(36), SPEC)

    inputs = feeds(shown, bank, bank, head, constants, weight, foreground)
    maps, scores, features = run(graph, **inputs)

    assert (maps[:, foreground == 0] == 0).all()
    assert (maps[:, foreground == 1] > 0).all()
    for i in range(2):
        expected = patch_scores(
            *(features[i], PLACES, bank, bank, head, constants),
            category="bolt",
            weight=weight,
            foreground=foreground,
        )
        error = np.abs(maps[i].ravel() - expected).max()
        assert error < RELATIVE_TOLERANCE * expected.max()
        assert scores[i] == pytest.approx(image_score(expected, constants), rel=RELATIVE_TOLERANCE)


def test_with_no_weight_the_abnormal_rows_are_not_read(trunk_bytes: bytes) -> None:
    graph = export_full(trunk_bytes, 2, 1, SPEC)
    bank = empty_bank(("bolt",), 5, DIMENSIONS)
    inputs = feeds(frames(1), bank, bank, random_head(2), Scoring(2, 1.0), 0.0)
    inputs["normal_valid"] = np.ones(5, bool)
    inputs["abnormal_rows"] = np.full((1, DIMENSIONS), np.nan, np.float32)  # and fewer than K
    inputs["abnormal_valid"] = np.zeros(1, bool)

    maps, _, _ = run(graph, **inputs)

    assert np.isfinite(maps).all()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_trunks_graph_gives_the_trunks_features(
    learned: Trunk, trunk_bytes: bytes, batch: int
) -> None:
    shown = frames(batch, seed=3)
    session = onnxruntime.InferenceSession(trunk_bytes, providers=["CPUExecutionProvider"])

    found = session.run(["patch_features"], {"frames": shown})[0]

    # Eleven blocks of float32 convolutions in another order; features are no longer than 1.
    assert np.abs(found - extract(learned, shown)).max() < 1e-4


def test_graphs_are_whole_and_of_the_versions_declared(trunk_bytes: bytes) -> None:
    full = export_full(trunk_bytes, 12, 1, SPEC)

    for data in (trunk_bytes, full):
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        assert model.ir_version == IR_VERSION
        assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    assert [each.name for each in model.graph.output] == [
        "anomaly_map",
        "image_score",
        "patch_features",
    ]


def test_bytes_are_converted_before_anything_else(trunk_bytes: bytes) -> None:
    """TensorRT refuses any other operator on uint8, a Transpose for one."""
    for graph in (trunk_bytes, export_full(trunk_bytes, 3, 1, SPEC)):
        nodes = onnx.load_from_string(graph).graph.node

        assert [node.op_type for node in nodes if "frames" in node.input] == ["Cast"]


def test_graphs_tell_nothing_of_the_machine_that_made_them(trunk_bytes: bytes) -> None:
    full = export_full(trunk_bytes, 1, 1, SPEC)

    for data in (trunk_bytes, full):
        told = list(texts(onnx.load_from_string(data)))
        assert len(told) > 100
        forbidden = (".py", "site-packages", str(ROOT), str(Path.home()), f"/{getpass.getuser()}/")
        assert [text for text in told if any(each in text for each in forbidden)] == []
        assert not any("torch.export" in text or "torch.onnx" in text for text in told)


def texts(message: Message) -> Iterator[str]:
    """Every text anywhere in a protobuf message."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        for each in values:
            if isinstance(each, Message):
                yield from texts(each)
            elif isinstance(each, str):
                yield each


def run(graph: bytes, **feeds: Any) -> list[NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(
        ["anomaly_map", "image_score", "patch_features"], feeds
    )
    return found
