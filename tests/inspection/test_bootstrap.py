"""Each draw against the slow way: write the drawn images down and measure them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inspection.bootstrap import (
    draw,
    drawn_auroc,
    drawn_average_precision,
    drawn_pixel_figures,
    drawn_rate,
    interval,
)
from inspection.errors import InputError
from inspection.metrics import auroc, average_precision, escape_rate, false_reject_rate
from inspection.pixel_metrics import COARSE_BINS, PixelCurves
from tests.inspection.labelled_scores import EXACT, random_maps, random_parts


def written_out(values, weights):
    """The drawn images themselves, each as often as it was drawn."""
    return np.repeat(values, weights, axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_every_draw_has_as_many_of_each_kind_and_not_always_the_same_ones(seed):
    _, is_defect = random_parts(seed, ties=False)

    draws = draw(is_defect, 50, np.random.default_rng(seed))

    assert draws.shape == (50, len(is_defect))
    assert (draws[:, is_defect].sum(axis=1) == is_defect.sum()).all()
    assert (draws[:, ~is_defect].sum(axis=1) == (~is_defect).sum()).all()
    assert len(np.unique(draws, axis=0)) == 50


def test_every_image_is_drawn_once_on_average():
    is_defect = np.arange(20) < 8

    draws = draw(is_defect, 4000, np.random.default_rng(0))

    # The mean of 4000 counts of variance near 1 has a standard error of 0.016.
    np.testing.assert_allclose(draws.mean(axis=0), 1, atol=0.08)
    assert draws.max() > 2


def test_the_same_seed_draws_the_same_images():
    is_defect = np.arange(20) < 8

    first, second, other = (draw(is_defect, 9, np.random.default_rng(seed)) for seed in (3, 3, 4))

    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


@pytest.mark.parametrize("ties", [False, True], ids=["distinct scores", "heavy ties"])
@pytest.mark.parametrize("seed", range(5))
def test_image_figures_of_a_draw_are_those_of_the_drawn_images(seed, ties):
    scores, is_defect = random_parts(seed, ties)
    passed = scores <= np.median(scores)
    draws = draw(is_defect, 20, np.random.default_rng(seed))

    figures = {
        auroc: drawn_auroc(scores, is_defect, draws),
        average_precision: drawn_average_precision(scores, is_defect, draws),
    }
    rates = {
        false_reject_rate: drawn_rate(~passed, ~is_defect, draws),
        escape_rate: drawn_rate(passed, is_defect, draws),
    }

    for i, weights in enumerate(draws):
        labels = written_out(is_defect, weights)
        for metric, drawn in figures.items():
            expected = metric(written_out(scores, weights), labels)
            assert drawn[i] == pytest.approx(expected, abs=EXACT)
        for metric, drawn in rates.items():
            expected = metric(written_out(passed, weights), labels)
            assert drawn[i] == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("ties", [True, False], ids=["a bin a score", "many scores a bin"])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_figures_of_a_draw_are_those_of_the_drawn_maps(seed, ties):
    maps, regions = random_maps(seed, ties, images=6)
    is_defect = np.array([region.any() for region in regions])
    draws = draw(np.append(is_defect[:-1], False), 12, np.random.default_rng(seed))
    curves = PixelCurves(0, 1)
    counts = [curves.add(*each) for each in zip(maps, regions, strict=True)]

    pixel_auroc, aupro = drawn_pixel_figures(counts, draws)

    for i, weights in enumerate(draws):
        drawn = PixelCurves(0, 1)
        for times, anomaly_map, region in zip(weights, maps, regions, strict=True):
            for _ in range(times):
                drawn.add(anomaly_map, region)
        # 4,096 bins against 65,536; with ties both hold one distinct score each.
        tolerance = EXACT if ties else 1e-3
        assert pixel_auroc[i] == pytest.approx(drawn.auroc(), abs=tolerance)
        assert aupro[i] == pytest.approx(drawn.aupro(), abs=tolerance)


@pytest.mark.parametrize("bins", [1, 100, COARSE_BINS, 65536, 70000])
def test_the_counts_of_a_map_are_those_of_its_pixels_in_few_bins(bins):
    maps, regions = random_maps(0, ties=False)
    curves = PixelCurves(0, 1, bins)

    counts = curves.add(maps[0], regions[0])

    assert len(counts.good) <= COARSE_BINS
    assert counts.good.sum() == (regions[0] == 0).sum()
    assert counts.defect.sum() == (regions[0] > 0).sum()
    assert counts.overlap.sum() == pytest.approx(3)


def test_more_draws_than_are_measured_together_are_all_measured():
    maps, regions = random_maps(1, ties=False, images=3)
    curves = PixelCurves(0, 1)
    counts = [curves.add(*each) for each in zip(maps, regions, strict=True)]
    draws = draw(np.array([True, True, False]), 150, np.random.default_rng(0))

    together = drawn_pixel_figures(counts, draws)

    for figures in together:
        assert figures.shape == (150,)
        assert not np.isnan(figures).any()
    for i in (0, 63, 64, 149):
        alone = drawn_pixel_figures(counts, draws[i : i + 1])
        assert [figures[i] for figures in together] == pytest.approx([x[0] for x in alone])


def test_a_draw_without_an_outlined_region_has_no_pixel_figures_and_is_left_out():
    maps, regions = random_maps(1, ties=False, images=2)  # the second is a good part
    curves = PixelCurves(0, 1)
    counts = [curves.add(*each) for each in zip(maps, regions, strict=True)]

    pixel_auroc, aupro = drawn_pixel_figures(counts, np.array([[1, 1], [0, 2]]))

    assert np.isnan([pixel_auroc[1], aupro[1]]).all()
    assert interval(aupro).low == interval(aupro).high == pytest.approx(curves.aupro(), abs=1e-3)


def test_an_interval_leaves_out_the_outermost_draws_on_both_sides():
    found = interval(np.random.default_rng(0).permutation(1001) / 1000)

    assert (found.low, found.high) == pytest.approx((0.025, 0.975))


def test_no_figure_has_no_interval():
    assert interval(np.full(9, math.nan)) is None


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    # Two normal distributions a distance of 1 apart: AUROC is Φ(1/√2) = 0.7602.
    rng = np.random.default_rng(0)
    is_defect = np.arange(120) < 60
    held = 0
    for _ in range(200):
        scores = rng.normal(size=120) + is_defect
        found = interval(drawn_auroc(scores, is_defect, draw(is_defect, 300, rng)))
        held += found.low <= 0.7602 <= found.high

    # 95 % of 200 is 190, with a standard deviation of 3; an interval that holds all says nothing.
    assert 178 <= held <= 198


def test_more_images_give_a_narrower_interval():
    rng = np.random.default_rng(0)
    widths = []
    for n in (100, 2500):
        is_defect = np.arange(n) < n // 2
        scores = rng.normal(size=n) + is_defect
        found = interval(drawn_auroc(scores, is_defect, draw(is_defect, 300, rng)))
        widths.append(found.high - found.low)

    # By a factor of five, as the root of the number of images.
    assert 3 < widths[0] / widths[1] < 8


@pytest.mark.parametrize(
    ("is_defect", "count", "came"),
    [
        pytest.param(np.zeros(3, bool), 9, "3 good and 0 defect", id="only good"),
        pytest.param(np.ones(3, bool), 9, "0 good and 3 defect", id="only defective"),
        pytest.param(np.arange(3) < 1, 0, "at least 1 draw, got 0", id="no draws"),
    ],
)
def test_what_cannot_be_drawn_is_refused(is_defect, count, came):
    with pytest.raises(InputError, match=came):
        draw(is_defect, count, np.random.default_rng(0))
