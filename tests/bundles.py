"""A tiny real bundle, made without a trainer: 32 px, 16 patches, features are mean colours.

The graph keeps the contract of `full.onnx`. With K = 1 the memory of a patch is its nearest row, so
that a distance, positions included, is all there is to compute, and its answers are the oracle's,
to float32. The head's weights are taken and left alone: no route has an abnormal weight.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx.parser
from numpy.typing import NDArray

from inspection import bundle as bundles
from inspection.bank import MemoryBank, bank_to_bytes, empty_bank
from inspection.foreground import everywhere, foregrounds_to_bytes
from inspection.golden import GoldenFrame, golden_to_bytes
from inspection.heads import heads_to_bytes
from inspection.lineage import NOTHING_LABELLED, lineage_to_bytes
from inspection.manifest import (
    MANIFEST,
    FileEntry,
    LimitsEntry,
    PreprocessingEntry,
    RouteEntry,
    ScoringEntry,
    manifest_bytes,
    parse_manifest,
)
from inspection.preprocessing import Preprocessing, prepare, resize_exactly
from inspection.routing import Router, descriptor, router_to_bytes
from inspection.scoring import Head, Scoring, enhanced_length, image_score, patch_scores
from inspection.thresholds import Calibration, calibration_of
from inspection.verdicts import Verdict, judge
from inspection.views import map_of_canvas

SIZE_PX = 32
SPEC = Preprocessing(SIZE_PX)
LETTERBOX = Preprocessing(SIZE_PX, "letterbox")
TILES = Preprocessing(SIZE_PX, "tiles", overlap_px=16)
SCORING = Scoring(k=1, temperature=0.01, top_fraction=0.125, position_weight=1e-4)
"""A step costs so little that a good part of many tiles passes, which a small bank has not seen."""

PRODUCTS = {"bolt": (105, 105, 105), "nut": (150, 60, 60)}
"""Colour of a good part, RGB."""

REVIEW_FRR, REJECT_FRR = 0.10, 0.02

LIMITS = LimitsEntry(
    least_brightness=20.0,
    most_white_share=0.5,
    least_sharpness=2.0,
    least_sharpness_one_way=2.0,
    least_change=0.25,
)
"""Good, bad and doubtful frames are all within: 100 or brighter, a quarter white at most, sharper
than 5, and 2 levels from one another."""

TRUNK_TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
trunk (uint8[B, 32, 32, 3] frames) => (float[B, 16, 3] patch_features)
<float level = {255.0}, int64[6] blocks = {-1, 4, 8, 4, 8, 3}, int64[3] patches = {-1, 16, 3}>
{
    pixels = Cast <to = 1> (frames)
    light = Div (pixels, level)
    blocked = Reshape (light, blocks)
    colours = ReduceMean <axes = [2, 4], keepdims = 0> (blocked)
    patch_features = Reshape (colours, patches)
}
"""

_GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
full (
    uint8[B, 32, 32, 3] frames, float[B, 16, 2] places,
    float[N, 3] normal_rows, bool[N] normal_valid, float[N, 2] normal_places,
    float[M, 3] abnormal_rows, bool[M] abnormal_valid,
    float temperature, float abnormal_weight,
    float[Z, U] hidden_weight, float[U] hidden_bias, float[U] output_weight, float[1] output_bias,
    float[4, 4] foreground
) => (float[B, 4, 4] anomaly_map, float[B] image_score, float[B, 16, 3] patch_features)
<
    float level = {255.0}, float far = {1e30},
    int64[6] blocks = {-1, 4, 8, 4, 8, 3}, int64[3] patches = {-1, 16, 3},
    int64[3] grid = {-1, 4, 4}, int64[2] row = {-1, 16}, int64[1] top = {2},
    int64[1] axis1 = {1}, int64[1] axis2 = {2}, int64[1] axis3 = {3}
>
{
    pixels = Cast <to = 1> (frames)
    light = Div (pixels, level)
    blocked = Reshape (light, blocks)
    colours = ReduceMean <axes = [2, 4], keepdims = 0> (blocked)
    patch_features = Reshape (colours, patches)
    located = Concat <axis = 2> (patch_features, places)
    located_rows = Concat <axis = 1> (normal_rows, normal_places)
    apart = Unsqueeze (located, axis2)
    gaps = Sub (apart, located_rows)
    squares = Mul (gaps, gaps)
    sums = ReduceSum <keepdims = 0> (squares, axis3)
    distances = Sqrt (sums)
    found = Where (normal_valid, distances, far)
    nearest = ReduceMin <axes = [2], keepdims = 0> (found)
    unmasked = Reshape (nearest, grid)
    anomaly_map = Mul (unmasked, foreground)
    scores = Reshape (anomaly_map, row)
    highest, where = TopK (scores, top)
    image_score = ReduceMean <axes = [1], keepdims = 0> (highest)
}
"""


def graph_bytes(text: str = _GRAPH) -> bytes:
    """Give `full.onnx` as bytes."""
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def good_frame(product: str = "bolt", seed: int = 1, side_px: int = SIZE_PX) -> NDArray[np.uint8]:
    """(side, side, 3) uint8 RGB of a good part: its colour, a little different in every patch."""
    random = np.random.default_rng(seed)
    tint = random.integers(-8, 9, (4, 4, 3))
    of_patch = np.arange(side_px) * 4 // side_px
    noise = random.integers(-2, 3, (side_px, side_px, 3))
    frame = np.array(PRODUCTS[product]) + tint[of_patch][:, of_patch] + noise
    return np.asarray(frame, np.uint8)


def bad_frame(product: str = "bolt", seed: int = 1, side_px: int = SIZE_PX) -> NDArray[np.uint8]:
    """A good part with a white quarter: FAIL by far."""
    frame = good_frame(product, seed, side_px)
    frame[: side_px // 2, : side_px // 2] = 255
    return frame


def doubtful_frame(product: str = "bolt") -> NDArray[np.uint8]:
    """A frame whose score lies between the thresholds: REVIEW."""
    known = calibration(product)
    limits = known.thresholds(REVIEW_FRR, REJECT_FRR)
    for seed in range(1000):
        frame = good_frame(product, seed)
        score = _raw_score(frame, product)
        if judge(score, known, limits).decision.verdict is Verdict.REVIEW:
            return frame
    raise AssertionError("no good part among 1000 lies between the thresholds")


def features(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(8 · Mh, 8 · Mw, 3) → (Mh · Mw, 3) float64: what the graph computes, in numpy."""
    height, width = frame.shape[0] // 8, frame.shape[1] // 8
    return (frame / 255.0).reshape(height, 8, width, 8, 3).mean(axis=(1, 3)).reshape(-1, 3)


def positions(shape: tuple[int, int]) -> NDArray[np.int64]:
    """(Mh, Mw) of a map → (Mh · Mw, 2): row and column of every patch."""
    return np.argwhere(np.ones(shape, np.bool_))


@cache
def banks() -> tuple[MemoryBank, MemoryBank]:
    """Normal bank, 20 rows of 24 valid a product, and an abnormal one without evidence."""
    rows_each, used = 24, 20
    normal = empty_bank(tuple(PRODUCTS), rows_each, 3)
    rows, valid = normal.features.copy(), normal.valid.copy()
    position = normal.position.copy()
    for number, product in enumerate(PRODUCTS):
        seen = np.concatenate([features(good_frame(product, 100 + i)) for i in range(2)])
        rows[number * rows_each :][:used] = seen[:used]
        valid[number * rows_each :][:used] = True
        position[number * rows_each :][:used] = np.tile(positions(SPEC.grid), (2, 1))[:used]
    filled = replace(normal, features=rows, valid=valid, position=position)
    return filled, empty_bank(tuple(PRODUCTS), 4, 3)


@cache
def head() -> Head:
    """A head of the right shape; it is never asked, as no route has an abnormal weight."""
    inputs = enhanced_length(3, SCORING.k)
    return Head(
        np.ones((inputs, 2), np.float32), np.zeros(2, np.float32), np.ones(2, np.float32), 0.0
    )


@cache
def router() -> Router:
    """Tells bolts from nuts, and both from what has another colour; damaged parts are in reach."""
    seen = [descriptor(features(good_frame(product, 100))) for product in PRODUCTS]
    return Router(
        products=tuple(PRODUCTS),
        prototypes=np.stack(seen).astype(np.float32),
        product=np.arange(len(PRODUCTS), dtype=np.int32),
        reach=np.full(len(PRODUCTS), 0.5, np.float32),
    )


@cache
def calibration(product: str | None) -> Calibration:
    """Scores of 60 good parts a product that the bank has not seen."""
    shown = [product] if product else list(PRODUCTS)
    return calibration_of(
        [_raw_score(good_frame(each, 1000 + i), product) for each in shown for i in range(60)]
    )


@cache
def golden_frames(spec: Preprocessing = SPEC) -> tuple[GoldenFrame, ...]:
    """A good and a bad frame of every product, larger than the network's input, with answers."""
    frames = []
    for product in (*PRODUCTS, None):
        for make in (good_frame, bad_frame):
            frame = make(product or "bolt", 7, 50)
            prepared = prepare(frame, spec, resize_exactly)
            scores = _scores(prepared, product)
            score = image_score(scores, SCORING, spec.patches)
            anomaly_map = scores.reshape(map_of_canvas(prepared)).astype(np.float32)
            frames.append(GoldenFrame(product, frame, prepared, anomaly_map, score))
    return tuple(frames)


def tiny_files(spec: Preprocessing = SPEC, **changes: bytes) -> dict[str, bytes]:
    """The files of the tiny bundle by name; `changes` name them without dots: full_onnx=…"""
    normal, abnormal = banks()
    files = {
        bundles.TRUNK: graph_bytes(TRUNK_TEXT),
        bundles.HEAD_GRAPH: b"nor the head",
        bundles.FULL: graph_bytes(),
        bundles.NORMAL_BANK: bank_to_bytes(normal),
        bundles.ABNORMAL_BANK: bank_to_bytes(abnormal),
        bundles.HEAD: heads_to_bytes(dict.fromkeys(PRODUCTS, head())),
        bundles.ROUTER: router_to_bytes(router()),
        bundles.FOREGROUND: foregrounds_to_bytes(
            {product: everywhere(SPEC.grid) for product in PRODUCTS}
        ),
        bundles.GOLDEN: golden_to_bytes(golden_frames(spec)),
        bundles.MODEL_CARD: b"# Tiny\n",
        bundles.LINEAGE: lineage_to_bytes(NOTHING_LABELLED),
    }
    return files | {
        name: changes[key] for name in files if (key := name.replace(".", "_")) in changes
    }


def write_tiny_bundle(folder: Path, spec: Preprocessing = SPEC, **changes: bytes) -> Path:
    """Write the tiny bundle into a folder; returns the folder."""
    laid_out = bundles.pack(
        tiny_files(spec, **changes),
        parent=None,
        backbone="mean-colour",
        seed=0,
        preprocessing=PreprocessingEntry(**asdict(spec)),
        scoring=ScoringEntry(k=SCORING.k, top_fraction=SCORING.top_fraction),
        routes={
            product or bundles.ANY_PRODUCT: _route_entry(product, spec)
            for product in (*PRODUCTS, None)
        },
    )
    for path, data in laid_out.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Give a bundle another file, as whoever wrote it would have."""
    manifest = parse_manifest((folder / MANIFEST).read_bytes())
    entry = FileEntry(sha256=bundles.digest(data), size_bytes=len(data))
    (folder / entry.path).write_bytes(data)
    files = {**manifest.files, name: entry}
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest.model_copy(update={"files": files})))


def _route_entry(product: str | None, spec: Preprocessing) -> RouteEntry:
    known = calibration(product)
    limits = known.thresholds(REVIEW_FRR, REJECT_FRR)
    return RouteEntry(
        temperature=SCORING.temperature,
        position_weight=SCORING.position_weight,
        abnormal_weight=0.0,
        good_scores=list(known.good_scores),
        review=limits.review,
        reject=limits.reject,
        statement=known.statement(REVIEW_FRR, REJECT_FRR),
        # Large frames of tests are small ones side by side: a pattern, and nothing is sharp in it.
        limits=None if spec.fit == "tiles" else LIMITS,
    )


def _raw_score(frame: NDArray[np.uint8], product: str | None) -> float:
    return image_score(_scores(frame, product), SCORING)


def _scores(frame: NDArray[np.uint8], product: str | None) -> NDArray[np.float64]:
    normal, abnormal = banks()
    return patch_scores(
        features(frame),
        positions(map_of_canvas(frame)),
        normal,
        abnormal,
        head(),
        SCORING,
        category=product,
        weight=0.0,
    )
