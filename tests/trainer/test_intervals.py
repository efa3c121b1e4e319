"""Intervals stand beside figures: around them, of the same form, and from the same images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspection.pixel_metrics import MapCounts, PixelCurves
from tests.trainer.judged import judged, results_of
from trainer.dataset import find_categories
from trainer.evaluate import evaluate
from trainer.intervals import DRAWS, WITH_INTERVAL, intervals
from trainer.progress import Progress
from trainer.results import CategoryResults, Recognised
from trainer.runtime import Runtime


def overlapping(name: str, seed: int, images: int = 40, types: int = 1) -> CategoryResults:
    rng = np.random.default_rng(seed)
    good, defective = rng.normal(0, 1, images), rng.normal(1.5, 1, images)
    return results_of(name, list(good), list(defective), *"abc"[:types])


@pytest.fixture(scope="module")
def report(parts: Path, runtime: Runtime) -> dict[str, Any]:
    return evaluate(runtime, find_categories(parts), Progress(shown=False))


def test_intervals_are_built_as_the_figures_are(report: dict[str, Any]) -> None:
    found = report["intervals"]

    assert (found["confidence"], found["draws"]) == (0.95, DRAWS)
    assert set(found["categories"]) == set(report["categories"])
    for name, row in report["categories"].items():
        spread = found["categories"][name]
        assert {figure for figure in WITH_INTERVAL if row[figure] is None} == {
            figure for figure in WITH_INTERVAL if spread[figure] is None
        }
    assert {"scratch"} == set(found["defect_types"]["bolt"]) == set(report["defect_types"]["bolt"])
    for pool in ("class_blind", "unknown_product"):
        assert set(found[pool]) == {"image_auroc"} <= set(report[pool])


def test_every_figure_lies_in_its_interval(report: dict[str, Any]) -> None:
    pairs = [
        (report["categories"][name][figure], ends)
        for name, spread in report["intervals"]["categories"].items()
        for figure, ends in spread.items()
        if ends is not None
    ]
    pairs += [
        (report[part][figure], ends)
        for part in ("mean", "class_blind", "unknown_product")
        for figure, ends in report["intervals"][part].items()
    ]

    assert len(pairs) == 6 + 4 + 6 + 1 + 1
    for value, (low, high) in pairs:
        # Bins are coarser in the draws of maps than in the figure itself.
        assert low - 1e-3 <= value <= high + 1e-3


def test_the_same_results_give_the_same_intervals() -> None:
    results = [overlapping("bolt", 0), overlapping("nut", 1)]

    assert intervals(results, {}) == intervals(results, {})


def test_the_mean_of_many_products_is_surer_than_each() -> None:
    results = [overlapping(f"part {i}", i) for i in range(9)]

    found = intervals(results, {})

    widths = [
        high - low for low, high in (row["image_auroc"] for row in found["categories"].values())
    ]
    low, high = found["mean"]["image_auroc"]
    # By the root of nine products that are drawn independently.
    assert high - low == pytest.approx(np.mean(widths) / 3, rel=0.3)


def test_a_product_with_one_kind_of_image_has_none_and_leaves_the_mean_alone() -> None:
    whole = overlapping("bolt", 0)
    good_only = results_of("nut", [0.0, 1.0], [])

    found = intervals([whole, good_only], {})

    assert set(found["categories"]["nut"].values()) == {None}
    assert found["mean"] == found["categories"]["bolt"]
    assert found["defect_types"]["nut"] == {}


def test_without_any_defect_nothing_has_an_interval() -> None:
    found = intervals([results_of("nut", [0.0, 1.0], [])], {})

    assert set(found["mean"].values()) == {None}
    assert found["class_blind"] == {"image_auroc": None}
    assert "unknown_product" not in found


def test_a_defect_type_is_drawn_against_all_good_parts() -> None:
    results = overlapping("bolt", 3, types=3)

    found = intervals([results], {})["defect_types"]["bolt"]

    assert set(found) == {"a", "b", "c"}
    low, high = found["a"]["image_auroc"]
    alone = results_of("bolt", list(results.scores[:40]), list(results.scores[40::3]))
    again_low, again_high = intervals([alone], {})["categories"]["bolt"]["image_auroc"]
    # Other draws of the same images.
    assert (low, high) == pytest.approx((again_low, again_high), abs=0.03)


def test_a_rare_defect_type_is_never_missing_from_a_draw() -> None:
    results = results_of("bolt", [0.0, 1.0, 2.0], [1.5] * 9, *(["common"] * 8 + ["rare"]))

    rare = intervals([results], {})["defect_types"]["bolt"]["rare"]

    assert rare["image_auroc"][0] < rare["image_auroc"][1]
    assert rare["escape_rate"] == [0.0, 0.0]


def test_unknown_products_are_measured_by_their_own_scores() -> None:
    images = tuple(
        judged(score, defect, Recognised("bolt", -score))
        for score, defect in ((0.0, None), (0.5, None), (3.0, "dent"), (4.0, "dent"))
    )
    results = dataclasses.replace(overlapping("bolt", 0), images=images)

    found = intervals([results], {})

    assert found["class_blind"]["image_auroc"] == [1.0, 1.0]
    assert found["unknown_product"]["image_auroc"] == [0.0, 0.0]


def test_maps_without_any_outlined_defect_in_a_draw_do_not_spoil_the_mean() -> None:
    rng = np.random.default_rng(0)
    curves = PixelCurves(0, 1)

    def counts(outlined: bool) -> MapCounts:
        regions = np.zeros((8, 8), np.int32)
        regions[2:4, 2:4] = outlined
        return curves.add(rng.random((8, 8), np.float32), regions)

    # Of three defects one is outlined: a third of the draws is without any.
    maps = {"bolt": [counts(i == 3) for i in range(6)]}
    results = [results_of("bolt", [0.0, 0.1, 0.2], [1.0, 2.0, 3.0])]

    found = intervals(results, maps)

    low, high = found["mean"]["aupro"]
    assert 0 <= low <= high <= 1
    assert found["mean"]["aupro"] == found["categories"]["bolt"]["aupro"]
