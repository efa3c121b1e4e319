"""Pixel metrics against scikit-learn where it has them, else against the slow definition."""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from inspection.errors import InputError
from inspection.pixel_metrics import PixelCurves
from tests.inspection.labelled_scores import EXACT, claim, parts, random_maps


@st.composite
def pixel_maps(draw):
    """One map (1, N) of scores in [-8, 8], with good pixels and regions 1..R, R >= 1."""
    scores, is_defect = draw(parts())
    regions = np.zeros(len(scores), np.int32)
    regions[is_defect] = np.arange(is_defect.sum()) % draw(st.integers(1, 3)) + 1
    return scores.astype(np.float32)[None, :], regions[None, :]


def curves_of(maps, regions, low=0.0, high=1.0, bins=65536):
    curves = PixelCurves(low, high, bins)
    for anomaly_map, region in zip(maps, regions, strict=True):
        curves.add(anomaly_map, region)
    return curves


def flat(maps, regions):
    scores = np.concatenate([m.ravel() for m in maps])
    return scores, np.concatenate([r.ravel() for r in regions]) > 0


def slow_aupro(maps, regions, max_fpr):
    """The definition: every score is a threshold, every region is looked at, each image kept."""
    points = [(0.0, 0.0)]
    good = sum(int((r == 0).sum()) for r in regions)
    for threshold in sorted({float(s) for m in maps for s in m.ravel()}, reverse=True):
        rejected, overlaps = 0, []
        for m, r in zip(maps, regions, strict=True):
            above = m >= threshold
            rejected += int((above & (r == 0)).sum())
            overlaps += [above[r == k].mean() for k in range(1, r.max() + 1)]
        points.append((rejected / good, float(np.mean(overlaps))))

    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < max_fpr and x1 > x0:
            end = min(x1, max_fpr)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / max_fpr


def documented_bounds(maps, regions, bins, max_fpr, low=0.0, high=1.0):
    """The three error bounds in the docstring of `PixelCurves`, from histograms made here."""
    scores, is_defect = flat(maps, regions)
    bin_of = np.floor((scores.astype(np.float64) - low) * (bins / (high - low)))
    bin_of = np.minimum(bin_of, bins - 1)
    g = np.array([(bin_of[~is_defect] == b).sum() for b in range(bins)])
    d = np.array([(bin_of[is_defect] == b).sum() for b in range(bins)])
    n = np.cumsum((g + d)[::-1])[::-1]
    return {
        "auroc": (g * d).sum() / (2 * g.sum() * d.sum()),
        "average_precision": (d / d.sum() * np.maximum(g, d) / np.maximum(n, 1)).sum(),
        "aupro": g.max() / (g.sum() * max_fpr),
    }


@pytest.mark.parametrize("seed", range(5))
def test_pixel_metrics_are_exact_where_every_bin_holds_one_distinct_score(seed):
    maps, regions = random_maps(seed, ties=True)
    scores, is_defect = flat(maps, regions)

    curves = curves_of(maps, regions)

    assert curves.auroc() == pytest.approx(roc_auc_score(is_defect, scores), abs=EXACT)
    assert curves.average_precision() == pytest.approx(
        average_precision_score(is_defect, scores), abs=EXACT
    )
    for max_fpr in (0.01, 0.05, 0.3, 1.0):
        assert curves.aupro(max_fpr) == pytest.approx(slow_aupro(maps, regions, max_fpr), abs=EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_continuous_scores_in_the_usual_bins_agree_to_three_digits(seed):
    maps, regions = random_maps(seed, ties=False)
    scores, is_defect = flat(maps, regions)

    curves = curves_of(maps, regions)

    # 8721 good and 1084 defect pixels. Over 200 seeds AUROC was off by at most 2.2e-6, and
    # average precision by at most 1.6e-4: its first bins hold the few highest defects.
    assert curves.auroc() == pytest.approx(roc_auc_score(is_defect, scores), abs=1e-5)
    assert curves.average_precision() == pytest.approx(
        average_precision_score(is_defect, scores), abs=5e-4
    )


@pytest.mark.parametrize("seed", range(3))
def test_aupro_of_continuous_scores_agrees_with_the_sweep_over_every_threshold(seed):
    maps, regions = random_maps(seed, ties=False, images=2)

    curves = curves_of(maps, regions)

    # Over 40 seeds it was off by at most 7.6e-5, in maps of 3700 good pixels in all.
    for max_fpr in (0.05, 0.3, 1.0):
        assert curves.aupro(max_fpr) == pytest.approx(slow_aupro(maps, regions, max_fpr), abs=2e-4)


@pytest.mark.parametrize("bins", [8, 64, 512])
@pytest.mark.parametrize("seed", range(3))
def test_coarse_bins_err_by_no_more_than_documented(seed, bins):
    maps, regions = random_maps(seed, ties=False, images=2)
    scores, is_defect = flat(maps, regions)
    bound = documented_bounds(maps, regions, bins, max_fpr=0.3)

    curves = curves_of(maps, regions, bins=bins)

    assert abs(curves.auroc() - roc_auc_score(is_defect, scores)) <= bound["auroc"]
    assert (
        abs(curves.average_precision() - average_precision_score(is_defect, scores))
        <= bound["average_precision"]
    )
    assert abs(curves.aupro(0.3) - slow_aupro(maps, regions, 0.3)) <= bound["aupro"]
    # A bound of 1 would hold for any metric: from 64 bins on, these say something.
    assert bins == 8 or max(bound.values()) < 0.3


@claim
@given(pixel_maps(), st.integers(1, 20), st.floats(0.05, 1.0))
def test_no_map_and_no_bins_err_by_more_than_documented(labelled, bins, max_fpr):
    maps, regions = [labelled[0]], [labelled[1]]
    scores, is_defect = flat(maps, regions)
    bound = documented_bounds(maps, regions, bins, max_fpr, low=-8, high=8)

    curves = curves_of(maps, regions, low=-8, high=8, bins=bins)

    assert abs(curves.auroc() - roc_auc_score(is_defect, scores)) <= bound["auroc"] + EXACT
    ap_error = abs(curves.average_precision() - average_precision_score(is_defect, scores))
    assert ap_error <= bound["average_precision"] + EXACT
    aupro_error = abs(curves.aupro(max_fpr) - slow_aupro(maps, regions, max_fpr))
    assert aupro_error <= bound["aupro"] + EXACT


def test_the_auroc_bound_is_reached_when_one_bin_holds_all():
    # Perfectly separated, and the single bin sees only a tie: 0.5 where 1.0 is true.
    anomaly_map = np.array([[0.1, 0.9]], np.float32)
    regions = np.array([[0, 1]], np.int32)

    curves = curves_of([anomaly_map], [regions], bins=1)

    assert curves.auroc() == 0.5
    assert documented_bounds([anomaly_map], [regions], 1, 0.3)["auroc"] == 0.5


TWO_REGIONS = np.zeros((20, 20), np.int32)
TWO_REGIONS[0, 0] = 1  # 1 pixel
TWO_REGIONS[5:15, 5:15] = 2  # 100 pixels


@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
def test_a_perfect_map_scores_one(max_fpr):
    curves = curves_of([(TWO_REGIONS > 0).astype(np.float32)], [TWO_REGIONS])

    assert curves.aupro(max_fpr) == pytest.approx(1.0, abs=EXACT)
    assert curves.auroc() == 1.0
    assert curves.average_precision() == 1.0


@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
def test_a_constant_map_gets_the_diagonal(max_fpr):
    curves = curves_of([np.full((20, 20), 0.5, np.float32)], [TWO_REGIONS])

    # The triangle under the diagonal is max_fpr^2 / 2, divided by max_fpr.
    assert curves.aupro(max_fpr) == pytest.approx(max_fpr / 2, abs=EXACT)
    assert curves.auroc() == 0.5
    assert curves.average_precision() == pytest.approx(101 / 400)


@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
def test_an_inverted_map_scores_zero(max_fpr):
    curves = curves_of([(TWO_REGIONS == 0).astype(np.float32)], [TWO_REGIONS])

    assert curves.aupro(max_fpr) == 0.0
    assert curves.auroc() == 0.0


@pytest.mark.parametrize("found", [1, 2], ids=["only the small one", "only the large one"])
def test_regions_of_very_different_size_weigh_the_same(found):
    # One region at 1.0, all else at 0.0: overlap is 1/2 at no false positive, then rises to
    # (1, 1); the trapezoid up to 0.3 is 0.5 + 0.5 * 0.3 / 2 on average.
    curves = curves_of([(found == TWO_REGIONS).astype(np.float32)], [TWO_REGIONS])

    assert curves.aupro(0.3) == pytest.approx(0.575, abs=EXACT)


def test_regions_of_the_same_number_in_two_images_are_two_regions():
    large, small = np.zeros((10, 10), np.int32), np.zeros((10, 10), np.int32)
    large[:5], small[0, 0] = 1, 1

    curves = curves_of([np.zeros((10, 10), np.float32), small.astype(np.float32)], [large, small])

    assert curves.aupro(0.3) == pytest.approx(0.575, abs=EXACT)


def test_good_parts_count_in_the_false_positive_rate_and_nowhere_else():
    # Good pixels: 1 of the first image's 3 ranks above the defect; the good part adds 7 below.
    first = np.array([[0.9, 0.1, 0.1, 0.5]], np.float32)
    regions = np.array([[0, 0, 0, 1]], np.int32)
    good_part = np.full((1, 7), 0.2, np.float32)

    alone = curves_of([first], [regions])
    with_good = curves_of([first, good_part], [regions, np.zeros((1, 7), np.int32)])

    # Overlap is 0 up to the rate of that one pixel, 1/3 or 1/10, and 1 from there.
    assert alone.aupro(1.0) == pytest.approx(1 - 1 / 3, abs=EXACT)
    assert with_good.aupro(1.0) == pytest.approx(1 - 1 / 10, abs=EXACT)
    assert alone.aupro(0.3) == 0.0
    assert with_good.aupro(0.3) == pytest.approx(2 / 3, abs=EXACT)
    # No good pixel of the good part is above the defect, so precision is as before.
    assert with_good.average_precision() == alone.average_precision() == 0.5


def test_the_curve_is_interpolated_at_the_limit():
    # Points (0, 0), (1/2, 1), (1, 1): up to 1/4 the line reaches 1/2.
    anomaly_map = np.array([[0.9, 0.9, 0.1]], np.float32)
    curves = curves_of([anomaly_map], [np.array([[0, 1, 0]], np.int32)])

    assert curves.aupro(0.25) == pytest.approx(0.25, abs=EXACT)
    assert curves.aupro(0.5) == pytest.approx(0.5, abs=EXACT)
    assert curves.aupro(1.0) == pytest.approx(0.75, abs=EXACT)


@claim
@given(pixel_maps(), st.integers(0, 6), st.integers(-50, 50))
def test_pixel_metrics_see_only_the_order_of_the_scores(labelled, power, shift):
    # Powers of two and small integers keep the arithmetic exact, so each bin keeps its pixels.
    anomaly_map, regions = labelled
    scale = 2.0**power
    plain = curves_of([anomaly_map], [regions], low=-8, high=8, bins=11)
    moved = PixelCurves(-8 * scale + shift, 8 * scale + shift, bins=11)
    moved.add((anomaly_map * scale + shift).astype(np.float32), regions)

    assert moved.auroc() == plain.auroc()
    assert moved.average_precision() == plain.average_precision()
    assert moved.aupro() == plain.aupro()


@claim
@given(pixel_maps())
def test_a_negated_map_turns_pixel_auroc_round(labelled):
    anomaly_map, regions = labelled
    # Bins of width 1/2: each of the integer scores has one of its own, in both directions.
    plain = curves_of([anomaly_map], [regions], low=-9, high=9, bins=36)
    turned = curves_of([-anomaly_map], [regions], low=-9, high=9, bins=36)

    assert turned.auroc() == pytest.approx(1 - plain.auroc(), abs=EXACT)


@pytest.mark.parametrize("seed", range(3))
def test_neither_the_order_of_maps_nor_of_pixels_nor_of_region_numbers_matters(seed):
    rng = np.random.default_rng(seed)
    maps, regions = random_maps(seed, ties=False)
    number = np.array([0, 3, 1, 2], np.int32)
    shuffled_maps, shuffled_regions = [], []
    for i in rng.permutation(len(maps)):
        order = rng.permutation(maps[i].size)
        shuffled_maps.append(maps[i].ravel()[order].reshape(53, 37))
        shuffled_regions.append(number[regions[i].ravel()[order].reshape(53, 37)])

    plain = curves_of(maps, regions)
    shuffled = curves_of(shuffled_maps, shuffled_regions)

    assert shuffled.auroc() == plain.auroc()
    assert shuffled.average_precision() == plain.average_precision()
    # 1 / area is summed in another order, and floating sums see that.
    assert shuffled.aupro() == pytest.approx(plain.aupro(), abs=EXACT)


def test_a_thousand_maps_hold_no_more_memory_than_one():
    rng = np.random.default_rng(0)
    anomaly_map = rng.random((16, 16), dtype=np.float32)
    regions = np.zeros((16, 16), np.int32)
    regions[:4, :4], regions[8:, 8:] = 1, 2
    curves = curves_of([anomaly_map], [regions])

    tracemalloc.start()
    try:
        for _ in range(1000):
            curves.add(anomaly_map, regions)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # The histograms themselves were allocated before; one of them is 512 KiB, 1000 maps 1 MiB.
    assert held_bytes < 65536


def test_both_ends_of_the_range_belong_to_it():
    anomaly_map = np.array([[-2.0, 3.0]], np.float32)

    curves = curves_of([anomaly_map], [np.array([[0, 1]], np.int32)], low=-2, high=3, bins=7)

    assert curves.auroc() == 1.0


def test_a_narrow_range_far_from_zero_keeps_its_scores_apart():
    # 1000 and the next float32 after it, 6.1e-5 higher.
    near = np.float32(1000)
    anomaly_map = np.array([[near, np.nextafter(near, np.float32(2000))]], np.float32)

    curves = curves_of([anomaly_map], [np.array([[0, 1]], np.int32)], low=999.9, high=1000.1)

    assert curves.auroc() == 1.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_maps_of_any_float_dtype_fill_the_same_bins(dtype):
    # Eighths are exact in each dtype; bin 65535 itself is beyond float16.
    maps, regions = random_maps(0, ties=True)

    curves = curves_of([m.astype(dtype) for m in maps], regions)

    assert curves.auroc() == curves_of(maps, regions).auroc()
    assert curves.aupro() == curves_of(maps, regions).aupro()


ZEROS = np.zeros((4, 5), np.int32)
UNIT = np.full((4, 5), 0.5, np.float32)


def with_pixel(array, value, dtype=None):
    changed = array.astype(dtype or array.dtype)
    changed[2, 3] = value
    return changed


@pytest.mark.parametrize(
    ("anomaly_map", "regions", "came"),
    [
        pytest.param(with_pixel(UNIT, 1.25), ZEROS, r"in \[0, 1\], got 0.5..1.25", id="above"),
        pytest.param(with_pixel(UNIT, -0.5), ZEROS, r"in \[0, 1\], got -0.5..0.5", id="below"),
        pytest.param(with_pixel(UNIT, math.inf), ZEROS, "got 0.5..inf", id="infinite"),
        pytest.param(with_pixel(UNIT, math.nan), ZEROS, "got nan", id="not a number"),
        pytest.param(UNIT[None], ZEROS[None], r"got shape \(1, 4, 5\)", id="a batch"),
        pytest.param(UNIT[:0], ZEROS[:0], r"got shape \(0, 5\)", id="no pixels"),
        pytest.param(UNIT, ZEROS.T, r"shape \(4, 5\), got \(5, 4\)", id="turned"),
        pytest.param(UNIT, ZEROS > 0, "got bool", id="a mask instead of regions"),
        pytest.param(UNIT, with_pixel(ZEROS, -1), r"got -1..0", id="negative region"),
        pytest.param(UNIT, with_pixel(ZEROS, 2), r"got 0..2 with a gap", id="region 1 left out"),
        pytest.param(UNIT, with_pixel(ZEROS, 255, np.uint8), r"got 0..255", id="mask as 255"),
        pytest.param(
            UNIT, with_pixel(ZEROS, 2**62, np.int64), r"got 0..46116860", id="huge region"
        ),
    ],
)
def test_a_refused_map_says_what_came_and_leaves_the_counts_as_they_were(
    anomaly_map, regions, came
):
    maps, labelled = random_maps(0, ties=False)
    curves = curves_of(maps, labelled)
    before = curves.auroc(), curves.average_precision(), curves.aupro()

    with pytest.raises(InputError, match=came):
        curves.add(anomaly_map, regions)

    assert (curves.auroc(), curves.average_precision(), curves.aupro()) == before


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_regions_may_have_any_integer_dtype(dtype):
    maps, regions = random_maps(0, ties=False)

    curves = curves_of(maps, [r.astype(dtype) for r in regions])

    assert curves.aupro() == curves_of(maps, regions).aupro()


def test_neither_the_map_nor_the_regions_are_written_to():
    maps, regions = random_maps(0, ties=False)
    for array in (*maps, *regions):
        array.flags.writeable = False

    curves = curves_of(maps, regions)

    assert curves.auroc() > 0.5


@pytest.mark.parametrize(
    ("regions", "came"),
    [
        pytest.param(None, "0 good and 0 defect", id="no map at all"),
        pytest.param(ZEROS, "20 good and 0 defect", id="only good parts"),
        pytest.param(ZEROS + 1, "0 good and 20 defect", id="only defect"),
    ],
)
@pytest.mark.parametrize("metric", ["auroc", "average_precision", "aupro"])
def test_pixel_metrics_need_good_and_defect_pixels(metric, regions, came):
    curves = PixelCurves(0, 1)
    if regions is not None:
        curves.add(UNIT, regions)

    with pytest.raises(InputError, match=f"among the pixels, got {came}"):
        getattr(curves, metric)()


@pytest.mark.parametrize("max_fpr", [0.0, -0.3, 1.01, 30, math.nan])
def test_a_limit_that_is_no_rate_is_refused(max_fpr):
    maps, regions = random_maps(0, ties=False)

    with pytest.raises(InputError, match=r"max_fpr must be in \(0, 1\]"):
        curves_of(maps, regions).aupro(max_fpr)


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf), (-1e308, 1e308)],
)
def test_a_range_that_cannot_be_divided_is_refused(low, high):
    with pytest.raises(InputError, match="expected a finite range low < high"):
        PixelCurves(low, high)


def test_a_curve_without_bins_is_refused():
    with pytest.raises(InputError, match="at least 1 bin, got 0"):
        PixelCurves(0, 1, bins=0)
