"""Charts are well-formed, stay on their paper, and put the points where the figures are."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from inspection.thresholds import Thresholds
from trainer.report.charts import (
    HEIGHT,
    LEFT,
    WIDTH,
    X_SHARE,
    Y_SHARE,
    interval_bar,
    precision_recall_chart,
    roc_chart,
    score_chart,
)
from trainer.report.markup import Markup

Chart = Callable[[NDArray[np.float64], NDArray[np.bool_], Thresholds], Markup]

THRESHOLDS = Thresholds(review=1.5, reject=2.5)
SCORES = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
DEFECTS = np.array([False, False, True, False, True])


def parsed(chart: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(chart)


def points(chart: Markup) -> list[tuple[float, ...]]:
    """Of the curve, px."""
    (curve,) = [line for line in parsed(chart).iter("polyline") if line.get("class") == "curve"]
    return [tuple(map(float, each.split(","))) for each in curve.attrib["points"].split()]


def shares(*xy: tuple[float, float]) -> list[tuple[float, float]]:
    return [(X_SHARE(x), Y_SHARE(y)) for x, y in xy]


def centre(chart: Markup, kind: str) -> tuple[float, float]:
    """Of the mark of a threshold, px."""
    for each in parsed(chart).iter():
        if each.get("class") == kind == "dot":
            return float(each.attrib["cx"]), float(each.attrib["cy"])
        if each.get("class") == kind == "square":
            return float(each.attrib["x"]) + 6, float(each.attrib["y"]) + 6
    raise AssertionError(f"no {kind}")


def test_the_roc_curve_steps_from_nothing_to_all() -> None:
    chart = roc_chart(SCORES, DEFECTS, THRESHOLDS)

    # Defect, good, defect, good, good from the highest score down.
    assert points(chart) == shares((0, 0), (0, 0.5), (1 / 3, 0.5), (1 / 3, 1), (2 / 3, 1), (1, 1))


def test_thresholds_stand_on_the_curves_where_they_cut() -> None:
    roc = roc_chart(SCORES, DEFECTS, THRESHOLDS)
    precision = precision_recall_chart(SCORES, DEFECTS, THRESHOLDS)

    # Above 1.5 lie both defects and one good part; above 2.5 one of each.
    assert [centre(roc, "dot")] == shares((1 / 3, 1))
    assert [centre(roc, "square")] == shares((1 / 3, 0.5))
    assert [centre(precision, "dot")] == shares((1, 2 / 3))
    assert [centre(precision, "square")] == shares((0.5, 0.5))


def test_precision_steps_and_is_not_interpolated() -> None:
    drawn = points(precision_recall_chart(SCORES, DEFECTS, THRESHOLDS))

    assert drawn[:2] == shares((0, 1), (0, 1))
    assert all(x0 == x1 or y0 == y1 for (x0, y0), (x1, y1) in pairwise(drawn))
    assert drawn[-1] == shares((1, 0.4))[0]


def test_a_threshold_that_nothing_exceeds_has_no_precision_and_no_mark() -> None:
    chart = precision_recall_chart(SCORES, DEFECTS, Thresholds(9.0, 9.5))

    assert 'class="dot"' not in chart
    assert 'class="square"' not in chart


def bars(chart: Markup, kind: str) -> list[float]:
    return [float(r.attrib["height"]) for r in parsed(chart).iter("rect") if r.get("class") == kind]


def test_histograms_count_every_part_on_one_scale() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 1, 200), rng.normal(4, 2, 100)])

    chart = score_chart(scores, np.arange(300) >= 200, THRESHOLDS)

    heights = bars(chart, "good"), bars(chart, "defect")
    one = sum(heights[0]) / 200
    assert sum(heights[1]) / one == pytest.approx(100, rel=0.01)


def test_a_score_far_beyond_the_thresholds_lies_in_the_last_bar() -> None:
    near = score_chart(np.array([0.0, 1, 6, 7]), np.arange(4) > 1, THRESHOLDS)
    far = score_chart(np.array([0.0, 1, 6e9, 7e9]), np.arange(4) > 1, THRESHOLDS)

    assert near == far
    assert len(bars(far, "defect")) == 1


@pytest.mark.parametrize("chart", [roc_chart, precision_recall_chart, score_chart])
@pytest.mark.parametrize(
    ("scores", "thresholds"),
    [
        pytest.param(SCORES, THRESHOLDS, id="usual"),
        pytest.param(SCORES * 1e6, THRESHOLDS, id="far above"),
        pytest.param(SCORES - 1e6, THRESHOLDS, id="far below"),
        pytest.param(SCORES * 0, THRESHOLDS, id="all alike"),
        pytest.param(SCORES * 0 + 2.5, Thresholds(2.5, 2.5), id="all on one threshold"),
        pytest.param(SCORES, Thresholds(-3.0, -2.0), id="thresholds below zero"),
    ],
)
def test_charts_stay_on_their_paper(
    chart: Chart, scores: NDArray[np.float64], thresholds: Thresholds
) -> None:
    drawn = parsed(chart(scores, DEFECTS, thresholds))

    assert drawn.get("role") == "img"
    assert drawn[0].tag == "title"
    for each in drawn.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert -LEFT <= float(each.get(name, 0)) <= WIDTH
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(each.get(name, 0)) <= HEIGHT
    assert not re.search(r"nan|inf", "".join(drawn.itertext()))


def test_an_interval_is_drawn_from_end_to_end_with_the_figure_in_it() -> None:
    bar = parsed(interval_bar(0.9, (0.8, 0.95), low=0.5))

    (line,) = [each for each in bar.iter("line") if each.get("class") == "interval"]
    dot = next(bar.iter("circle"))
    assert float(line.attrib["x1"]) < float(dot.attrib["cx"]) < float(line.attrib["x2"])
    assert bar[0].text == "90.0 %, from 80.0 to 95.0"


@pytest.mark.parametrize("ends", [None, (1.0, 1.0)], ids=["unknown", "no spread"])
def test_without_spread_no_interval_is_drawn(ends: tuple[float, float] | None) -> None:
    assert 'class="interval"' not in interval_bar(1.0, ends)


def test_a_figure_below_the_track_stays_on_it() -> None:
    bar = parsed(interval_bar(0.2, (0.1, 0.3), low=0.5))

    assert float(next(bar.iter("circle")).attrib["cx"]) == 4
