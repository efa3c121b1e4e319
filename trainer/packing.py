"""A trained model becomes a bundle, if all its runtimes agree on the golden frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from inspection import bundle as formats
from inspection.bank import bank_to_bytes
from inspection.bundle import ANY_PRODUCT, Bundle, pack, read_bundle
from inspection.errors import ParityError
from inspection.foreground import foregrounds_to_bytes, laid_over
from inspection.golden import (
    RELATIVE_TOLERANCE,
    Agreement,
    GoldenFrame,
    agreement,
    golden_from_bytes,
    golden_to_bytes,
    oracle_agreement,
)
from inspection.heads import heads_to_bytes
from inspection.lineage import lineage_to_bytes
from inspection.manifest import LimitsEntry, RouteEntry
from inspection.preprocessing import MIN_SIDE_PX, Preprocessing, ResizePass, prepare
from inspection.routing import router_to_bytes
from inspection.scoring import image_score
from trainer.banks import abnormal_bank, located_rows
from trainer.calibrate import patch_scores
from trainer.dataset import Category, read_image, resize
from trainer.export import export_full, export_head, export_trunk
from trainer.features import frame_features
from trainer.fit import Model
from trainer.head import head_weights
from trainer.runtime import Runtime
from trainer.search import locate

REVIEW_FRR, REJECT_FRR = 0.05, 0.01
"""Share of good parts that the first thresholds let be looked at, and be ejected."""

LONGEST_GOLDEN_PX = 1024
"""Longest side of a golden frame; a larger one is shrunk."""

GOLDEN_GOOD = 2
"""Golden frames of each category that show good parts; one more shows a damaged part."""


def make_bundle(model: Model, categories: Sequence[Category]) -> dict[str, bytes]:
    """Lay out the bundle of a model, golden frames and parity check included.

    Returns:
        Path below the bundle's folder → bytes, for `trainer.bundle_folder.write_bundle`.

    Raises:
        ParityError: Torch, numpy and ONNX Runtime do not agree on a golden frame.
    """
    trunk = export_trunk(model.trunk, model.preprocessing)
    settings, spec = model.settings, model.preprocessing
    top = model.scorings[ANY_PRODUCT].top_patches(spec.patches)
    rows = {name: side.rows.numpy() for name, side in model.sides.items()}
    heads = {name: head_weights(side.head) for name, side in model.sides.items()}
    files = {
        formats.TRUNK: trunk,
        formats.HEAD_GRAPH: export_head(model.trunk.dimensions, settings.k),
        formats.FULL: export_full(trunk, settings.k, top, spec),
        formats.NORMAL_BANK: bank_to_bytes(model.normal),
        formats.ABNORMAL_BANK: bank_to_bytes(abnormal_bank(rows, settings.abnormal_rows_each)),
        formats.HEAD: heads_to_bytes(heads),
        formats.ROUTER: router_to_bytes(model.router),
        formats.FOREGROUND: foregrounds_to_bytes(model.foregrounds),
        formats.MODEL_CARD: _model_card(model, categories).encode(),
        formats.LINEAGE: lineage_to_bytes(model.lineage),
    }
    golden = _golden_frames(model, categories)
    files[formats.GOLDEN] = golden_to_bytes(golden)
    laid_out = pack(
        files,
        parent=None,
        backbone=model.trunk.backbone.name,
        weights=model.trunk.backbone.weights_sha256,
        seed=settings.seed,
        preprocessing=dataclasses.asdict(spec),
        scoring={"k": settings.k, "top_fraction": settings.top_fraction},
        routes={product: _route(model, product) for product in model.calibrations},
    )
    check_parity(read_bundle(laid_out.__getitem__))
    return laid_out


def check_parity(bundle: Bundle) -> list[Agreement]:
    """Hold ONNX Runtime and the numpy oracle against the golden answers, which torch gave.

    Raises:
        ParityError: One of them is further off than `RELATIVE_TOLERANCE`, or judges otherwise.
    """
    runtime = Runtime(bundle)
    agreements = []
    for number, golden in enumerate(golden_from_bytes(bundle.file(formats.GOLDEN))):
        route = bundle.route(golden.product)
        found = runtime.inspect(golden.prepared, route)
        features = runtime.patch_features(golden.prepared, route)
        recognised = bundle.recognise(features.reshape(-1, features.shape[-1]))
        if golden.product is None and runtime.recognise(golden.prepared) != recognised:
            raise ParityError(
                f"golden frame {number}: {formats.TRUNK} and {formats.FULL} see other products in "
                "it. No bundle is written"
            )
        answers = {
            "ONNX Runtime": agreement(golden, found.anomaly_map, found.score, route),
            "numpy": oracle_agreement(bundle, golden, features),
        }
        for name, agreed in answers.items():
            agreements.append(agreed)
            if not agreed.holds:
                raise ParityError(
                    f"golden frame {number} ({golden.product}): {name} disagrees with torch by "
                    f"{agreed.score_error:.2g} of the score and {agreed.map_error:.2g} of the map, "
                    f"and comes to {'the same' if agreed.same_verdict else 'another'} verdict; at "
                    f"most {RELATIVE_TOLERANCE:g} and the same verdict are allowed. No bundle is "
                    "written"
                )
    return agreements


def _route(model: Model, product: str) -> RouteEntry:
    calibration = model.calibrations[product]
    thresholds = calibration.thresholds(REVIEW_FRR, REJECT_FRR)
    return RouteEntry(
        temperature=model.scorings[product].temperature,
        position_weight=model.scorings[product].position_weight,
        # What shows no product has no known defects.
        abnormal_weight=0.0 if product == ANY_PRODUCT else model.sides[product].weight,
        good_scores=list(calibration.good_scores),
        review=thresholds.review,
        reject=thresholds.reject,
        statement=calibration.statement(REVIEW_FRR, REJECT_FRR),
        limits=LimitsEntry(**dataclasses.asdict(model.limits[product])),
    )


def _golden_frames(model: Model, categories: Sequence[Category]) -> list[GoldenFrame]:
    """Answer golden frames in torch: good parts and a damaged one of each category."""
    rng = np.random.default_rng(model.settings.seed)
    golden: list[GoldenFrame] = []
    for category in categories:
        good = [
            _moderate(read_image(path), model.preprocessing)
            for path in category.train[:GOLDEN_GOOD]
        ]
        golden.extend(_answer(model, category.name, frame) for frame in good)
        golden.append(_answer(model, category.name, _damaged(good[0], rng)))
        if len(categories) > 1:
            golden.append(_answer(model, None, good[0]))
    return golden


def _answer(model: Model, product: str | None, frame: NDArray[np.uint8]) -> GoldenFrame:
    spec = model.preprocessing
    prepared = prepare(frame, spec, resize)
    scoring = model.scorings[product or ANY_PRODUCT]
    features = frame_features(model.trunk, prepared, spec)
    shape = (features.shape[0], features.shape[1])
    scores = patch_scores(
        locate(
            torch.from_numpy(features.reshape(-1, features.shape[2])),
            torch.from_numpy(np.argwhere(np.ones(shape, np.bool_))),
            scoring.position_weight,
        ),
        located_rows(model.normal, product, scoring),
        None if product is None else model.sides[product],
        scoring,
    ).numpy()
    if product is not None:
        scores *= laid_over(model.foregrounds[product], shape).ravel()
    return GoldenFrame(
        product=product,
        frame=frame,
        prepared=prepared,
        anomaly_map=scores.reshape(shape),
        score=image_score(scores, scoring, spec.patches),
    )


def _moderate(frame: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.uint8]:
    """Make a large frame smaller: golden frames travel with every bundle, uncompressed.

    Of tiles the middle is cut out instead, two by two of them, so that what they show stays what it
    is and the seams are proven too.
    """
    if spec.fit == "tiles":
        most = (2 * spec.size_px - spec.overlap_px) * spec.shrink
        top, left = (max(0, (side - most) // 2) for side in frame.shape[:2])
        return np.ascontiguousarray(frame[top : top + most, left : left + most])
    scale = LONGEST_GOLDEN_PX / max(frame.shape[:2])
    if scale >= 1:
        return frame
    height, width = (max(MIN_SIDE_PX, round(side * scale)) for side in frame.shape[:2])
    return resize(frame, ResizePass(height, width, shrinks=True))


def _damaged(frame: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a patch of noise on a good part, an eighth of the frame wide, near the middle."""
    damaged: NDArray[np.uint8] = frame.copy()
    height, width = frame.shape[:2]
    rows, columns = max(4, height // 8), max(4, width // 8)
    top, left = height // 2 - rows // 2, width // 2 - columns // 2
    noise = rng.integers(0, 256, (rows, columns, 1), dtype=np.uint8)
    damaged[top : top + rows, left : left + columns] = noise
    return damaged


def _fitting(spec: Preprocessing) -> str:
    """Tell in words how frames come to fit the network's input."""
    if spec.fit == "tiles":
        shrunk = f"{spec.shrink} times smaller" if spec.shrink > 1 else "as they are"
        return f"frames {shrunk}, in tiles that overlap by {spec.overlap_px} px"
    return "frames stretched" if spec.fit == "stretch" else "frames padded, their aspect kept"


def _model_card(model: Model, categories: Sequence[Category]) -> str:
    """Tell a reader what the model was made of and what it promises."""
    settings, backbone = model.settings, model.trunk.backbone
    rows = len(model.normal.features) // len(model.normal.categories)
    lines = [
        "# Model card",
        "",
        f"Backbone {backbone.name}, frozen, weights of SHA-256 {backbone.weights_sha256}; "
        f"input {settings.size_px} × {settings.size_px} px RGB, {_fitting(model.preprocessing)}; "
        f"recipe {settings.recipe.name}, {rows} normal and {settings.abnormal_rows_each} abnormal "
        f"rows a product; seed {settings.seed}.",
        "",
        f"The image score is the mean of the highest {settings.top_fraction:.1%} of patch scores, "
        "in robust standard deviations above the median good part.",
        "",
        "| product | good images learned from | thresholds rest on |",
        "|---|--:|---|",
    ]
    for category in categories:
        statement = model.calibrations[category.name].statement(REVIEW_FRR, REJECT_FRR)
        lines.append(f"| {category.name} | {len(category.train)} | {statement} |")
    return "\n".join([*lines, "", *_taught(model)]) + "\n"


def _taught(model: Model) -> list[str]:
    """Tell what labelled defects there were, and what they may do to a score."""
    lines = []
    for name, side in model.sides.items():
        count = sum(image.category == name for image in model.lineage.labelled)
        source = f"{count} labelled defects" if count else "made-up rows, no labelled defect"
        effect = f"may raise a patch by weight {side.weight:g}" if side.weight else "has no weight"
        lines.append(f"- {name}: the abnormal side rests on {source}; it {effect}.")
    return lines
