"""Metrics against scikit-learn where it has them, else against the slow and obvious definition."""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from inspection.errors import InputError
from inspection.metrics import (
    PixelCurves,
    auroc,
    average_precision,
    escape_rate,
    f1_max,
    false_reject_rate,
    frr_at_recall,
)

# Both sides add at most some thousand float64 terms in [0, 1]: rounding stays far below this.
EXACT = 1e-12

# Seeded by the test itself, and nothing is written beside the tests.
claim = settings(derandomize=True, database=None, deadline=None, max_examples=100)


@st.composite
def parts(draw):
    """Scores (N,) and labels (N,) with both classes; few distinct values, so ties abound."""
    n = draw(st.integers(2, 30))
    # Small integers: sums and products with small integers are exact, so ties stay ties.
    scores = draw(st.lists(st.integers(-8, 8), min_size=n, max_size=n))
    defects = draw(st.integers(1, n - 1))
    is_defect = draw(st.permutations([True] * defects + [False] * (n - defects)))
    return np.array(scores, np.float64), np.array(is_defect)


@st.composite
def pixel_maps(draw):
    """One map (1, N) of scores in [-8, 8], with good pixels and regions 1..R, R >= 1."""
    scores, is_defect = draw(parts())
    regions = np.zeros(len(scores), np.int32)
    regions[is_defect] = np.arange(is_defect.sum()) % draw(st.integers(1, 3)) + 1
    return scores.astype(np.float32)[None, :], regions[None, :]


def random_parts(seed, ties):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 400))
    is_defect = rng.random(n) < rng.uniform(0.05, 0.6)
    is_defect[:2] = True, False
    scores = rng.normal(size=n) + is_defect * rng.uniform(0, 3)
    return (np.round(scores) if ties else scores), is_defect


def random_maps(seed, ties, images=5):
    """Maps in [0, 1] with rectangles of very different size; the last image is a good part."""
    rng = np.random.default_rng(seed)
    maps, regions = [], []
    for image in range(images):
        region = np.zeros((37, 53), np.int32)
        if image < images - 1:
            region[1:3, 2:5] = 1  # 6 pixels
            region[10 : 20 + image, 8:30] = 2  # 220 pixels and more
            region[30:31, 40:52] = 3  # 12 pixels
        scores = rng.beta(2, 5, region.shape)
        scores[region > 0] = rng.beta(4, 4, int((region > 0).sum()))
        maps.append((np.round(scores * 8) / 8 if ties else scores).astype(np.float32))
        regions.append(region)
    return maps, regions


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


# --- image level ------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True], ids=["distinct scores", "heavy ties"])
@pytest.mark.parametrize("seed", range(20))
def test_image_metrics_agree_with_scikit_learn(seed, ties):
    scores, is_defect = random_parts(seed, ties)

    precision, recall, _ = precision_recall_curve(is_defect, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    fpr, tpr, _ = roc_curve(is_defect, scores, drop_intermediate=False)

    assert auroc(scores, is_defect) == pytest.approx(roc_auc_score(is_defect, scores), abs=EXACT)
    assert average_precision(scores, is_defect) == pytest.approx(
        average_precision_score(is_defect, scores), abs=EXACT
    )
    assert f1_max(scores, is_defect).value == pytest.approx(f1.max(), abs=EXACT)
    for wanted in (0.01, 0.5, 0.9, 1.0):
        assert frr_at_recall(scores, is_defect, wanted) == pytest.approx(
            fpr[tpr >= wanted].min(), abs=EXACT
        )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("seed", range(10))
def test_rejecting_above_the_threshold_of_best_f1_gives_the_best_f1(seed, dtype):
    scores, is_defect = random_parts(seed, ties=False)
    scores = scores.astype(dtype)

    best = f1_max(scores, is_defect)

    assert f1_score(is_defect, scores > best.threshold) == pytest.approx(best.value, abs=EXACT)


def test_of_equally_good_f1_the_threshold_that_rejects_least_is_chosen():
    # F1 is 2/3 above 2.0, where one of two defects is caught, and again when all are rejected.
    best = f1_max(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, False, False, True]))

    assert best.value == pytest.approx(2 / 3)
    assert best.threshold == 2.0


def test_where_rejecting_every_part_is_best_the_threshold_is_below_every_score():
    best = f1_max(np.array([2.0, 1.0]), np.array([False, True]))

    assert best.threshold == -math.inf
    assert best.value == pytest.approx(2 / 3)


def test_separated_classes_are_perfect_by_every_metric():
    scores, is_defect = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])

    assert auroc(scores, is_defect) == 1.0
    assert average_precision(scores, is_defect) == 1.0
    assert f1_max(scores, is_defect).value == 1.0
    assert f1_max(scores, is_defect).threshold == 0.2
    assert frr_at_recall(scores, is_defect, 1.0) == 0.0


def test_equal_scores_say_nothing():
    scores, is_defect = np.zeros(10), np.arange(10) < 3

    assert auroc(scores, is_defect) == 0.5
    assert average_precision(scores, is_defect) == pytest.approx(0.3)
    assert frr_at_recall(scores, is_defect, 0.1) == 1.0


def test_infinite_scores_are_ordered_like_any_other():
    scores = np.array([-math.inf, 0.0, 1.0, math.inf, math.inf])
    is_defect = np.array([False, False, True, True, False])

    assert auroc(scores, is_defect) == auroc(np.array([0.0, 1, 2, 3, 3]), is_defect)


@pytest.mark.parametrize("defects", [3, 7, 10, 100, 1000])
def test_a_recall_of_k_of_n_defects_asks_for_k_and_not_one_more(defects):
    # Scores descend, and every defect is followed by a good part: catching k rejects k - 1.
    scores = -np.arange(2 * defects, dtype=np.float64)
    is_defect = np.arange(2 * defects) % 2 == 0

    for k in range(1, defects + 1):
        assert frr_at_recall(scores, is_defect, k / defects) == (k - 1) / defects


def test_a_recall_written_in_decimals_is_not_rounded_up_to_one_more_defect():
    scores = -np.arange(200, dtype=np.float64)
    is_defect = np.arange(200) % 2 == 0

    # math.ceil(0.07 * 100) is 8
    assert frr_at_recall(scores, is_defect, 0.07) == 0.06


def test_rates_count_each_class_by_itself():
    is_defect = np.array([False] * 4 + [True] * 5)
    passed = np.array([True, True, True, False, True, True, False, False, False])

    assert false_reject_rate(passed, is_defect) == 1 / 4
    assert escape_rate(passed, is_defect) == 2 / 5


@claim
@given(parts(), st.integers(1, 50), st.integers(-50, 50))
def test_image_metrics_see_only_the_order_of_the_scores(labelled, scale, shift):
    scores, is_defect = labelled
    moved = scores * scale + shift

    assert auroc(moved, is_defect) == auroc(scores, is_defect)
    assert average_precision(moved, is_defect) == average_precision(scores, is_defect)
    assert f1_max(moved, is_defect).value == f1_max(scores, is_defect).value
    assert f1_max(moved, is_defect).threshold == f1_max(scores, is_defect).threshold * scale + shift
    assert frr_at_recall(moved, is_defect, 0.8) == frr_at_recall(scores, is_defect, 0.8)


@claim
@given(parts())
def test_negated_scores_and_swapped_classes_each_turn_auroc_round(labelled):
    scores, is_defect = labelled

    turned = pytest.approx(1 - auroc(scores, is_defect), abs=EXACT)

    assert auroc(-scores, is_defect) == turned
    assert auroc(scores, ~is_defect) == turned


@claim
@given(parts(), st.randoms(use_true_random=False))
def test_image_metrics_do_not_see_the_order_of_the_parts(labelled, random):
    scores, is_defect = labelled
    order = np.array(random.sample(range(len(scores)), len(scores)))

    for metric in (auroc, average_precision, f1_max):
        assert metric(scores[order], is_defect[order]) == metric(scores, is_defect)
    assert frr_at_recall(scores[order], is_defect[order], 0.8) == frr_at_recall(
        scores, is_defect, 0.8
    )


@claim
@given(parts(), st.floats(0.01, 1.0))
def test_no_threshold_with_enough_recall_rejects_fewer_good_parts(labelled, recall):
    scores, is_defect = labelled
    thresholds = [-math.inf, *scores]

    frr = frr_at_recall(scores, is_defect, recall)

    assert frr == min(
        false_reject_rate(scores <= t, is_defect)
        for t in thresholds
        if 1 - escape_rate(scores <= t, is_defect) >= recall - EXACT
    )


IMAGE_METRICS = [
    pytest.param(auroc, id="auroc"),
    pytest.param(average_precision, id="average_precision"),
    pytest.param(f1_max, id="f1_max"),
    pytest.param(lambda s, d: frr_at_recall(s, d, 0.9), id="frr_at_recall"),
]
RATES = [
    pytest.param(lambda s, d: false_reject_rate(s > 0.5, d), id="false_reject_rate"),
    pytest.param(lambda s, d: escape_rate(s > 0.5, d), id="escape_rate"),
]


@pytest.mark.parametrize("metric", IMAGE_METRICS + RATES)
@pytest.mark.parametrize(
    ("is_defect", "came"),
    [([True] * 3, "0 good and 3 defect"), ([False] * 3, "3 good and 0 defect")],
)
def test_a_missing_class_is_refused_with_the_counts_that_came(metric, is_defect, came):
    with pytest.raises(InputError, match=f"at least one good and one defect.*{came}"):
        metric(np.array([0.1, 0.2, 0.9]), np.array(is_defect))


@pytest.mark.parametrize("metric", IMAGE_METRICS + RATES)
def test_no_parts_at_all_are_refused(metric):
    with pytest.raises(InputError, match="0 good and 0 defect"):
        metric(np.zeros(0), np.zeros(0, np.bool_))


@pytest.mark.parametrize("metric", IMAGE_METRICS)
def test_a_score_that_is_not_a_number_is_refused_and_counted(metric):
    with pytest.raises(InputError, match="1 NaN of 3"):
        metric(np.array([0.1, math.nan, 0.9]), np.array([False, False, True]))


@pytest.mark.parametrize("metric", IMAGE_METRICS + RATES)
@pytest.mark.parametrize(
    ("scores", "is_defect", "came"),
    [
        pytest.param(np.zeros(3), np.array([True, False]), r"\(3,\) and \(2,\)", id="lengths"),
        pytest.param(np.zeros((2, 1)), np.array([[True], [False]]), r"\(2, 1\)", id="columns"),
        pytest.param(np.zeros(2), np.array([1, -1]), "int64", id="labels 1 and -1"),
    ],
)
def test_labels_that_do_not_fit_the_scores_are_refused(metric, scores, is_defect, came):
    with pytest.raises(InputError, match=f"expected.*{came}"):
        metric(scores, is_defect)


@pytest.mark.parametrize("rate", [false_reject_rate, escape_rate])
def test_scores_in_place_of_what_passed_are_refused(rate):
    with pytest.raises(InputError, match="expected passed as bool, got float64"):
        rate(np.array([0.1, 0.9]), np.array([False, True]))


@pytest.mark.parametrize("recall", [0.0, -0.1, 1.0001, 95, math.nan])
def test_a_recall_that_is_no_share_is_refused(recall):
    with pytest.raises(InputError, match=r"recall must be in \(0, 1\]"):
        frr_at_recall(np.array([0.1, 0.9]), np.array([False, True]), recall)


# --- pixel level ------------------------------------------------------------------------------


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
