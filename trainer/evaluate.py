"""What a bundle is worth on test images, measured through the graph that the station runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from inspection.bundle import LINEAGE
from inspection.lineage import lineage_from_bytes
from inspection.metrics import (
    PixelCurves,
    auroc,
    average_precision,
    escape_rate,
    f1_max,
    false_reject_rate,
    frr_at_recall,
)
from inspection.preprocessing import Preprocessing, prepare
from trainer.dataset import Category, Sample, read_image, read_mask, resize
from trainer.learned import without_learned
from trainer.pictures import full_size_map
from trainer.progress import Progress
from trainer.runtime import Runtime
from trainer.unknown_product import UnknownProduct

RECALL = 0.95
"""Share of defects that must be caught where `frr_at_95_recall` is read."""

RawMap = tuple[NDArray[np.float32], tuple[int, int]]
"""(Mh, Mw) in units of feature distance, and (H, W) of its image in px."""

FIGURES = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "frr_at_95_recall",
    "frr",
    "escape_rate",
    "pixel_auroc",
    "pixel_ap",
    "aupro",
)
"""Fractions; null where a category has no good, no defective or no outlined test images."""


def evaluate(
    runtime: Runtime,
    categories: Sequence[Category],
    progress: Progress,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Measure every category with its product known, and all of them under one threshold.

    Test images that the bundle has learned from are left out, whatever they are called.

    Args:
        runtime: Of the bundle.
        categories: Products that the bundle knows.
        progress: Shows how far the work is.
        without: SHA-256 of further images to leave out, hex: those that other bundles learned from,
            so that all are measured on the same test images.

    Returns:
        The report of `dualbank-train evaluate --json`.

    Raises:
        InputError: A category is no product of the bundle.
        DatasetError: A test image or mask cannot be used; it is named.
        BundleError: What the bundle says that it has learned from cannot be read.
    """
    for category in categories:
        runtime.bundle.route(category.name)
    learned = lineage_from_bytes(runtime.bundle.file(LINEAGE)).digests
    whole, categories = categories, without_learned(categories, learned.union(without))
    left_out = {
        before.name: len(before.test) - len(after.test)
        for before, after in zip(whole, categories, strict=True)
    }
    figures: dict[str, dict[str, float | int | None]] = {}
    pooled_scores, pooled_defects = [], []
    unknown = UnknownProduct(runtime)
    with progress.task("test images", sum(len(each.test) for each in categories)) as advance:
        for category in categories:
            scores, maps = _score(runtime, category, unknown, advance)
            defects = np.array([sample.defect is not None for sample in category.test], bool)
            figures[category.name] = _measure(runtime, category, scores, defects, maps)
            figures[category.name]["left_out"] = left_out[category.name]
            pooled_scores.append(scores)
            pooled_defects.append(defects)
    all_defects = np.concatenate(pooled_defects)
    blind = _image_auroc(np.concatenate(pooled_scores), all_defects)
    manifest = runtime.bundle.manifest
    return {
        "categories": figures,
        "mean": {name: _mean([each[name] for each in figures.values()]) for name in FIGURES},
        "class_blind": {"image_auroc": blind},
        **unknown.report(all_defects),
        "settings": {
            "backbone": manifest.backbone,
            "seed": manifest.seed,
            **manifest.preprocessing.model_dump(),
            **manifest.scoring.model_dump(),
            "normal_rows": len(runtime.bundle.normal.features),
            "abnormal_rows": len(runtime.bundle.abnormal.features),
            "product_known": True,
        },
        "bundle": runtime.bundle.id,
    }


def table(report: dict[str, Any]) -> Table:
    """Lay the report out for a terminal."""
    # Narrow enough for 80 columns, which is also what a pipe has.
    drawn = Table(
        title=f"bundle {report['bundle'][:12]}, %",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    drawn.add_column("category", no_wrap=True)
    shown = ("image_auroc", "image_ap", "frr", "escape_rate", "pixel_auroc", "aupro")
    for name in (*shown, "good", "bad"):
        drawn.add_column(name.replace("_", " "), justify="right")
    for name, row in report["categories"].items():
        cells = [_percent(row[figure]) for figure in shown]
        drawn.add_row(name, *cells, str(row["n_good"]), str(row["n_defect"]))
    drawn.add_section()
    drawn.add_row("mean", *(_percent(report["mean"][figure]) for figure in shown))
    drawn.add_row("one threshold", _percent(report["class_blind"]["image_auroc"]))
    if unknown := report.get("unknown_product"):
        drawn.add_row("product not known", _percent(unknown["image_auroc"]))
    return drawn


def _score(
    runtime: Runtime,
    category: Category,
    unknown: UnknownProduct,
    advance: Callable[[int], None],
) -> tuple[NDArray[np.float64], list[RawMap]]:
    """Standardised image scores (n,) and raw maps of the test images."""
    route = runtime.bundle.route(category.name)
    scores: list[float] = []
    maps: list[RawMap] = []
    for sample in category.test:
        image = read_image(sample.image)
        prepared = prepare(image, runtime.bundle.preprocessing, resize)
        found = runtime.inspect(prepared, route)
        scores.append(route.calibration.standardise(found.score))
        unknown.add(prepared, category.name, scores[-1])
        maps.append((found.anomaly_map, (image.shape[0], image.shape[1])))
        advance(1)
    return np.array(scores), maps


def _measure(
    runtime: Runtime,
    category: Category,
    scores: NDArray[np.float64],
    defects: NDArray[np.bool_],
    maps: list[RawMap],
) -> dict[str, float | int | None]:
    figures: dict[str, float | int | None] = dict.fromkeys(FIGURES)
    figures |= {"n_good": int((~defects).sum()), "n_defect": int(defects.sum())}
    if not defects.any() or defects.all():
        return figures
    thresholds = runtime.bundle.route(category.name).thresholds
    passed = scores <= thresholds.review
    figures |= {
        "image_auroc": auroc(scores, defects),
        "image_ap": average_precision(scores, defects),
        "image_f1_max": f1_max(scores, defects).value,
        "frr_at_95_recall": frr_at_recall(scores, defects, RECALL),
        "frr": false_reject_rate(passed, defects),
        "escape_rate": escape_rate(passed, defects),
    }
    spec = runtime.bundle.preprocessing
    if category.has_masks and (curves := _pixel_curves(category.test, maps, spec)) is not None:
        figures |= {
            "pixel_auroc": curves.auroc(),
            "pixel_ap": curves.average_precision(),
            "aupro": curves.aupro(),
        }
    return figures


def _pixel_curves(
    samples: Sequence[Sample], maps: list[RawMap], spec: Preprocessing
) -> PixelCurves | None:
    """Compare maps with masks at the size of the images; None if no mask outlines anything."""
    outlined = False
    low = min(float(each.min()) for each, _ in maps)
    high = max(float(each.max()) for each, _ in maps)
    curves = PixelCurves(low, high)
    for sample, (anomaly_map, shape) in zip(samples, maps, strict=True):
        regions: NDArray[np.integer[Any]] = np.zeros(shape, np.int32)
        if sample.mask is not None:
            mask = read_mask(sample.mask, shape).astype(np.uint8)
            regions = np.asarray(cv2.connectedComponents(mask, connectivity=8)[1], np.int32)
            outlined = outlined or bool(mask.any())
        # Interpolation and smoothing average, so only rounding can leave the range.
        curves.add(np.clip(full_size_map(anomaly_map, spec, shape), low, high), regions)
    return curves if outlined else None


def _image_auroc(scores: NDArray[np.float64], defects: NDArray[np.bool_]) -> float | None:
    return auroc(scores, defects) if defects.any() and not defects.all() else None


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
