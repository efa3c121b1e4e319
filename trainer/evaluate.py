"""What a bundle is worth on test images, measured through the graph that the station runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.bundle import LINEAGE, Bundle
from inspection.lineage import lineage_from_bytes
from inspection.metrics import (
    auroc,
    average_precision,
    escape_rate,
    f1_max,
    false_reject_rate,
    frr_at_recall,
)
from inspection.pixel_metrics import MapCounts, PixelCurves
from inspection.preprocessing import Preprocessing, prepare
from inspection.verdicts import judge
from trainer.dataset import Category, read_image, read_mask, resize
from trainer.intervals import intervals
from trainer.learned import without_learned
from trainer.pictures import full_size_map
from trainer.progress import Progress
from trainer.results import CategoryResults, ImageResult
from trainer.runtime import Runtime
from trainer.unknown_product import recognise, unknown_product

RECALL = 0.95
"""Share of defects that must be caught where `frr_at_95_recall` is read."""

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


Figures = dict[str, float | int | None]


def evaluate(
    runtime: Runtime,
    categories: Sequence[Category],
    progress: Progress,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Measure a bundle on test images: `figures_of` what `inspect_tests` finds."""
    return figures_of(runtime.bundle, inspect_tests(runtime, categories, progress, without))


def inspect_tests(
    runtime: Runtime,
    categories: Sequence[Category],
    progress: Progress,
    without: Collection[str] = (),
) -> tuple[CategoryResults, ...]:
    """Judge every test image by the route of its product.

    Test images that the bundle has learned from are left out, whatever they are called.

    Args:
        runtime: Of the bundle.
        categories: Products that the bundle knows.
        progress: Shows how far the work is.
        without: SHA-256 of further images to leave out, hex: those that other bundles learned from,
            so that all are measured on the same test images.

    Returns:
        One a category, in their order.

    Raises:
        InputError: A category is no product of the bundle.
        DatasetError: A test image cannot be used; it is named.
        BundleError: What the bundle says that it has learned from cannot be read.
    """
    for category in categories:
        runtime.bundle.route(category.name)
    learned = lineage_from_bytes(runtime.bundle.file(LINEAGE)).digests
    kept = without_learned(categories, learned.union(without))
    with progress.task("test images", sum(len(each.test) for each in kept)) as advance:
        return tuple(
            CategoryResults(
                name=category.name,
                has_masks=category.has_masks,
                images=_score(runtime, category, advance),
                left_out=tuple(sample for sample in whole.test if sample not in category.test),
            )
            for whole, category in zip(categories, kept, strict=True)
        )


def figures_of(bundle: Bundle, results: Sequence[CategoryResults]) -> dict[str, Any]:
    """Measure every category with its product known, and all of them under one threshold.

    Args:
        bundle: Which said it.
        results: Of every category, from `inspect_tests`.

    Returns:
        The report of `dualbank-train evaluate --json`.

    Raises:
        DatasetError: A mask cannot be used; it is named.
    """
    figures: dict[str, Figures] = {}
    counts: dict[str, Sequence[MapCounts]] = {}
    for each in results:
        figures[each.name], counts[each.name] = _measure(each, bundle.preprocessing)
    defects = np.concatenate([each.defects for each in results])
    blind = _image_auroc(np.concatenate([each.scores for each in results]), defects)
    manifest = bundle.manifest
    return {
        "categories": figures,
        "mean": {name: _mean([each[name] for each in figures.values()]) for name in FIGURES},
        "defect_types": {each.name: _of_types(each) for each in results},
        "class_blind": {"image_auroc": blind},
        **unknown_product(results),
        "intervals": intervals(results, counts),
        "settings": {
            "backbone": manifest.backbone,
            "seed": manifest.seed,
            "size_px": manifest.preprocessing.size_px,
            **manifest.scoring.model_dump(),
            "normal_rows": len(bundle.normal.features),
            "abnormal_rows": len(bundle.abnormal.features),
            "product_known": True,
        },
        "bundle": bundle.id,
    }


def _score(
    runtime: Runtime, category: Category, advance: Callable[[int], None]
) -> tuple[ImageResult, ...]:
    """Judge the test images of one product, in order."""
    route = runtime.bundle.route(category.name)
    results: list[ImageResult] = []
    for sample in category.test:
        image = read_image(sample.image)
        prepared = prepare(image, runtime.bundle.preprocessing, resize)
        found = runtime.inspect(prepared[None], route)
        judgement = judge(float(found.scores[0]), route.calibration, route.thresholds)
        results.append(
            ImageResult(
                sample=sample,
                shape=(image.shape[0], image.shape[1]),
                judgement=judgement,
                anomaly_map=found.maps[0],
                recognised=recognise(runtime, prepared, category.name, judgement.score),
            )
        )
        advance(1)
    return tuple(results)


def _measure(results: CategoryResults, spec: Preprocessing) -> tuple[Figures, list[MapCounts]]:
    """Figures of one product, and the counts of its maps if any defect is outlined."""
    scores, defects, passed = results.scores, results.defects, results.passed
    figures: Figures = dict.fromkeys(FIGURES)
    figures |= {
        "n_good": int((~defects).sum()),
        "n_defect": int(defects.sum()),
        "left_out": len(results.left_out),
    }
    if not results.has_both_kinds:
        return figures, []
    figures |= {
        "image_auroc": auroc(scores, defects),
        "image_ap": average_precision(scores, defects),
        "image_f1_max": f1_max(scores, defects).value,
        "frr_at_95_recall": frr_at_recall(scores, defects, RECALL),
        "frr": false_reject_rate(passed, defects),
        "escape_rate": escape_rate(passed, defects),
    }
    curves, counts = _pixel_curves(results, spec) if results.has_masks else (None, [])
    if curves is not None:
        figures |= {
            "pixel_auroc": curves.auroc(),
            "pixel_ap": curves.average_precision(),
            "aupro": curves.aupro(),
        }
    return figures, counts


def _of_types(results: CategoryResults) -> dict[str, Figures]:
    """Each defect type against all good parts."""
    found: dict[str, Figures] = {}
    for defect in results.types:
        of_type = results.of_type(defect)
        chosen = ~results.defects | of_type
        found[defect] = {
            "n_defect": int(of_type.sum()),
            "image_auroc": _image_auroc(results.scores[chosen], results.defects[chosen]),
            "escape_rate": float(results.passed[of_type].mean()),
        }
    return found


def _pixel_curves(
    results: CategoryResults, spec: Preprocessing
) -> tuple[PixelCurves | None, list[MapCounts]]:
    """Compare maps with masks at the size of the images; nothing if no mask outlines anything."""
    outlined = False
    low = min(float(image.anomaly_map.min()) for image in results.images)
    high = max(float(image.anomaly_map.max()) for image in results.images)
    curves = PixelCurves(low, high)
    counts = []
    for image in results.images:
        regions: NDArray[np.integer[Any]] = np.zeros(image.shape, np.int32)
        if image.sample.mask is not None:
            mask = read_mask(image.sample.mask, image.shape).astype(np.uint8)
            regions = np.asarray(cv2.connectedComponents(mask, connectivity=8)[1], np.int32)
            outlined = outlined or bool(mask.any())
        # Interpolation and smoothing average, so only rounding can leave the range.
        enlarged = np.clip(full_size_map(image.anomaly_map, spec, image.shape), low, high)
        counts.append(curves.add(enlarged, regions))
    return (curves, counts) if outlined else (None, [])


def _image_auroc(scores: NDArray[np.float64], defects: NDArray[np.bool_]) -> float | None:
    return auroc(scores, defects) if defects.any() and not defects.all() else None


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
