"""Image metrics against scikit-learn where it has them, else against the obvious definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    roc_auc_score,
)
from sklearn.metrics import precision_recall_curve as sklearn_precision_recall_curve
from sklearn.metrics import roc_curve as sklearn_roc_curve

from inspection.errors import InputError
from inspection.metrics import (
    auroc,
    average_precision,
    escape_rate,
    f1_max,
    false_reject_rate,
    frr_at_recall,
    precision_recall_curve,
    roc_curve,
)
from tests.inspection.labelled_scores import EXACT, claim, parts, random_parts


@pytest.mark.parametrize("ties", [False, True], ids=["distinct scores", "heavy ties"])
@pytest.mark.parametrize("seed", range(20))
def test_image_metrics_agree_with_scikit_learn(seed, ties):
    scores, is_defect = random_parts(seed, ties)

    precision, recall, _ = sklearn_precision_recall_curve(is_defect, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    fpr, tpr, _ = sklearn_roc_curve(is_defect, scores, drop_intermediate=False)

    assert auroc(scores, is_defect) == pytest.approx(roc_auc_score(is_defect, scores), abs=EXACT)
    assert average_precision(scores, is_defect) == pytest.approx(
        average_precision_score(is_defect, scores), abs=EXACT
    )
    assert f1_max(scores, is_defect).value == pytest.approx(f1.max(), abs=EXACT)
    for wanted in (0.01, 0.5, 0.9, 1.0):
        assert frr_at_recall(scores, is_defect, wanted) == pytest.approx(
            fpr[tpr >= wanted].min(), abs=EXACT
        )


@pytest.mark.parametrize("ties", [False, True], ids=["distinct scores", "heavy ties"])
@pytest.mark.parametrize("seed", range(20))
def test_curves_go_through_the_points_of_scikit_learn(seed, ties):
    scores, is_defect = random_parts(seed, ties)
    expected_fpr, expected_tpr, _ = sklearn_roc_curve(is_defect, scores, drop_intermediate=False)
    # It lists ascending thresholds, and ends with a point that belongs to none.
    precisions, recalls, _ = sklearn_precision_recall_curve(is_defect, scores)

    fpr, tpr = roc_curve(scores, is_defect)
    recall, precision = precision_recall_curve(scores, is_defect)

    np.testing.assert_allclose((fpr, tpr), (expected_fpr, expected_tpr), atol=EXACT)
    np.testing.assert_allclose(recall, recalls[-2::-1], atol=EXACT)
    np.testing.assert_allclose(precision, precisions[-2::-1], atol=EXACT)


@claim
@given(parts())
def test_areas_below_the_curves_are_the_figures(labelled):
    scores, is_defect = labelled

    fpr, tpr = roc_curve(scores, is_defect)
    recall, precision = precision_recall_curve(scores, is_defect)

    below = np.dot(np.diff(fpr), tpr[1:] + tpr[:-1]) / 2
    assert auroc(scores, is_defect) == pytest.approx(below, abs=EXACT)
    steps = np.dot(np.diff(recall, prepend=0), precision)
    assert average_precision(scores, is_defect) == pytest.approx(steps, abs=EXACT)


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
    pytest.param(roc_curve, id="roc_curve"),
    pytest.param(precision_recall_curve, id="precision_recall_curve"),
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
