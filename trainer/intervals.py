"""95 % bootstrap intervals of an evaluation's figures, in the same order as the figures are given.

Products are drawn independently of each other. A mean over products is computed of each draw, so
that its interval is that of the mean and not a mean of intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspection.bootstrap import (
    CONFIDENCE,
    Draws,
    draw,
    drawn_auroc,
    drawn_average_precision,
    drawn_pixel_figures,
    drawn_rate,
    interval,
)
from inspection.pixel_metrics import MapCounts
from trainer.results import CategoryResults
from trainer.unknown_product import recognised_scores

DRAWS = 1000
"""With 1000 the ends of an interval move by about a tenth of its width from seed to seed."""

SEED = 0
"""Of the draws. Not the seed of the fit: two bundles are compared on the same draws."""

WITH_INTERVAL = ("image_auroc", "image_ap", "frr", "escape_rate", "pixel_auroc", "aupro")
"""Figures that get an interval."""

Drawn = dict[str, NDArray[np.float64]]
"""Figure → (DRAWS,), its value in each draw."""


def intervals(
    results: Sequence[CategoryResults], counts: Mapping[str, Sequence[MapCounts]]
) -> dict[str, Any]:
    """Give the part `intervals` of a report, built as the figures are: [low, high], or null.

    Args:
        results: Of every product.
        counts: By product, of every map; a product without outlined defects need not be there.
    """
    rng = np.random.default_rng(SEED)
    draws = {each.name: draw(each.defects, DRAWS, rng) for each in results if each.has_both_kinds}
    drawn = {
        each.name: _drawn(each, draws[each.name], counts.get(each.name, ()))
        if each.name in draws
        else {}
        for each in results
    }
    return {
        "confidence": CONFIDENCE,
        "draws": DRAWS,
        "seed": SEED,
        "categories": {name: _intervals(figures) for name, figures in drawn.items()},
        "mean": _intervals(_mean(drawn.values())),
        "defect_types": {each.name: _of_types(each, rng) for each in results},
        **_pooled(results, rng),
    }


def _drawn(results: CategoryResults, draws: Draws, maps: Sequence[MapCounts]) -> Drawn:
    scores, defects, passed = results.scores, results.defects, results.passed
    figures = {
        "image_auroc": drawn_auroc(scores, defects, draws),
        "image_ap": drawn_average_precision(scores, defects, draws),
        "frr": drawn_rate(~passed, ~defects, draws),
        "escape_rate": drawn_rate(passed, defects, draws),
    }
    if maps:
        figures["pixel_auroc"], figures["aupro"] = drawn_pixel_figures(maps, draws)
    return figures


def _mean(drawn: Iterable[Drawn]) -> Drawn:
    """Mean over the products that have a figure, draw by draw."""
    drawn = list(drawn)
    return {
        name: np.mean([figures[name] for figures in drawn if name in figures], axis=0)
        for name in WITH_INTERVAL
        if any(name in figures for figures in drawn)
    }


def _of_types(results: CategoryResults, rng: np.random.Generator) -> dict[str, Any]:
    """Intervals of each defect type against all good parts, drawn for itself.

    A draw of the whole product may hold no image of a rare type.
    """
    found: dict[str, Any] = {}
    for defect in results.types:
        chosen = ~results.defects | results.of_type(defect)
        scores, defects = results.scores[chosen], results.defects[chosen]
        figures: Drawn = {}
        if not defects.all():
            draws = draw(defects, DRAWS, rng)
            figures["image_auroc"] = drawn_auroc(scores, defects, draws)
            figures["escape_rate"] = drawn_rate(results.passed[chosen], defects, draws)
        found[defect] = _intervals(figures, ("image_auroc", "escape_rate"))
    return found


def _pooled(results: Sequence[CategoryResults], rng: np.random.Generator) -> dict[str, Any]:
    """Intervals of what is measured of all products together."""
    defects = np.concatenate([each.defects for each in results])
    pools = {
        "class_blind": np.concatenate([each.scores for each in results]),
        "unknown_product": recognised_scores(results),
    }
    both = bool(defects.any() and not defects.all())
    draws = draw(defects, DRAWS, rng) if both else None
    return {
        name: _intervals(
            {} if draws is None else {"image_auroc": drawn_auroc(scores, defects, draws)},
            ("image_auroc",),
        )
        for name, scores in pools.items()
        if scores is not None
    }


def _intervals(drawn: Drawn, names: Sequence[str] = WITH_INTERVAL) -> dict[str, Any]:
    found = {name: interval(drawn[name]) if name in drawn else None for name in names}
    return {name: None if each is None else [each.low, each.high] for name, each in found.items()}
