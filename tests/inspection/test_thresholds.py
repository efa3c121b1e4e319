"""Where PASS ends: the promised rate over many draws, and against the trivial answer."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.errors import InputError
from inspection.thresholds import Calibration, Thresholds, calibration_of

claim = settings(derandomize=True, database=None, deadline=None, max_examples=200)

finite = st.floats(-1e6, 1e6)
RATES = [0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.001]


def counted(n):
    """The calibration whose scores are 1 … n: a score is its rank."""
    return calibration_of(range(1, n + 1))


@pytest.mark.parametrize(
    ("n", "max_frr"), [(19, 0.05), (99, 0.05), (150, 0.05), (40, 0.3), (999, 0.01)]
)
def test_the_promised_rate_is_kept_over_many_draws_and_not_by_never_rejecting(n, max_frr):
    rng = np.random.default_rng(n)
    draws, tested = 3000, 100
    # Good parts with a heavy tail, as raw image scores have; exchangeable within a draw.
    scores = rng.lognormal(sigma=0.5, size=(draws, n + tested))

    rates = [(row[n:] > calibration_of(row[:n]).threshold(max_frr)).mean() for row in scores]

    error = 4 * np.std(rates) / math.sqrt(draws)
    assert np.mean(rates) <= max_frr + error
    # A threshold that never rejects would pass too: one rank lower would break the promise.
    assert np.mean(rates) >= max_frr - 1 / (n + 1) - error
    assert error < max_frr / 10, "too few draws to tell"


def test_the_promised_rate_is_kept_where_scores_tie():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, size=(3000, 60 + 100)).astype(float)

    rates = [(row[60:] > calibration_of(row[:60]).threshold(0.1)).mean() for row in scores]

    assert np.mean(rates) <= 0.1 + 4 * np.std(rates) / math.sqrt(3000)


# With 0.41 and 99 parts, say, float64 puts (n + 1) · (1 − rate) a hair above a whole rank.
@pytest.mark.parametrize("rate", [*RATES, 0.18, 0.176, 0.41])
def test_the_threshold_is_the_rank_of_exact_arithmetic(rate):
    for n in [*range(2, 130), 149, 198, 199, 200, 249, 298, 299, 998, 999, 1000]:
        rank = min(n, math.ceil((n + 1) * (1 - Fraction(str(rate)))))

        assert counted(n).threshold(rate) == rank


@pytest.mark.parametrize("rate", RATES[1:])
def test_the_smallest_sample_that_suffices_is_said_to_and_one_fewer_is_not(rate):
    smallest = math.ceil(1 / Fraction(str(rate))) - 1

    enough = counted(smallest).statement(rate, rate)
    one_fewer = counted(smallest - 1).statement(rate, rate)

    assert enough.count("expected above") == 2
    assert "the highest" not in enough
    assert one_fewer.count(f"needs {smallest} good parts") == 2
    assert "expected above" not in one_fewer
    # The smallest sample supports the rate by its largest score; one fewer cannot.
    assert counted(smallest).threshold(rate) == smallest
    assert Fraction(1, smallest + 1) <= Fraction(str(rate)) < Fraction(1, smallest)


def test_the_statement_names_the_parts_and_both_rates():
    said = counted(199).statement(0.05, 0.001)

    assert said == (
        "199 good parts, each scored by a bank built without it; "
        "review: 5% of them expected above; "
        "reject: the highest of them, because 0.1% needs 999 good parts"
    )


def test_a_rate_below_a_hundredth_of_a_percent_is_not_said_to_be_zero():
    assert "because 0.001% needs 99999" in counted(9).statement(0.1, 0.00001)


@pytest.mark.parametrize("rate", [1 - 1e-9, 1 - 1e-12, np.nextafter(1, 0)])
def test_a_rate_of_nearly_one_is_the_lowest_score_and_not_the_highest(rate):
    assert counted(9).threshold(rate) == 1


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.1, math.nan, math.inf])
def test_a_rate_outside_zero_to_one_is_refused(rate):
    with pytest.raises(InputError, match="between 0 and 1"):
        counted(9).threshold(rate)


def test_more_rejects_than_reviews_are_refused():
    with pytest.raises(InputError, match="must not exceed review_frr"):
        counted(99).thresholds(review_frr=0.01, reject_frr=0.05)


def test_both_thresholds_may_rest_on_one_rate():
    thresholds = counted(99).thresholds(0.05, 0.05)

    assert thresholds.review == thresholds.reject


@pytest.mark.parametrize("n", [2, 19])
def test_p_values_of_good_parts_are_uniform(n):
    rng = np.random.default_rng(n)
    draws = 8000
    scores = rng.lognormal(size=(draws, n + 1))

    p_values = np.array([calibration_of(row[:n]).p_value(row[n]) for row in scores])

    for j in range(1, n + 1):
        share = j / (n + 1)
        # Exact under exchangeability: a tolerance of 4.5 standard errors of the share counted.
        tolerance = 4.5 * math.sqrt(share * (1 - share) / draws)
        assert (p_values <= share + 1e-12).mean() == pytest.approx(share, abs=tolerance)


def test_p_values_of_tied_good_parts_are_never_too_small():
    rng = np.random.default_rng(3)
    draws = 8000
    scores = rng.integers(0, 4, size=(draws, 20)).astype(float)

    p_values = np.array([calibration_of(row[:19]).p_value(row[19]) for row in scores])

    for share in np.arange(1, 20) / 20:
        tolerance = 4.5 * math.sqrt(share * (1 - share) / draws)
        assert (p_values <= share + 1e-12).mean() <= share + tolerance


@given(scores=st.lists(finite, min_size=2, max_size=30), raw=st.floats(allow_nan=False))
@claim
def test_a_p_value_counts_the_good_parts_that_look_as_bad(scores, raw):
    p_value = calibration_of(scores).p_value(raw)

    assert p_value == (1 + sum(score >= raw for score in scores)) / (len(scores) + 1)
    assert 1 / (len(scores) + 1) <= p_value <= 1


@given(
    scores=st.lists(st.integers(-20, 20), min_size=2, max_size=60),
    raw=st.integers(-25, 25),
    rate=st.sampled_from(RATES),
)
@claim
def test_a_score_is_above_the_threshold_exactly_when_its_p_value_is_within_the_rate(
    scores, raw, rate
):
    calibration = calibration_of(scores)
    supported = Fraction(1, len(scores) + 1) <= Fraction(str(rate))

    above = raw > calibration.threshold(rate)

    # Without enough parts the largest stands in, and no p-value is as small as the rate.
    within = calibration.p_value(raw) <= rate + 1e-12
    assert above == within if supported else not within


@given(
    scores=st.lists(finite, min_size=2, max_size=30),
    raw=st.tuples(finite, finite),
)
@claim
def test_standardising_keeps_the_order_so_a_raw_score_on_a_threshold_stays_on_it(scores, raw):
    calibration = calibration_of(scores)

    low, high = (calibration.standardise(score) for score in sorted(raw))
    thresholds = calibration.thresholds(0.2, 0.1)

    assert low <= high
    assert thresholds.review == calibration.standardise(calibration.threshold(0.2))
    assert thresholds.reject == calibration.standardise(calibration.threshold(0.1))


def test_the_unit_is_a_robust_standard_deviation_above_the_median_good_part():
    rng = np.random.default_rng(4)
    good = rng.normal(5.0, 0.3, 20_001)
    good[:200] = 1e6  # a few wrong labels move neither centre nor scale

    calibration = calibration_of(good)

    # 200 of 20,001 far outliers shift median and MAD by about 1 % of σ each.
    assert calibration.standardise(5.0) == pytest.approx(0.0, abs=0.05)
    assert calibration.standardise(5.3) == pytest.approx(1.0, abs=0.05)


def test_the_median_good_part_is_zero_and_maps_are_standardised_alike():
    calibration = calibration_of([1.0, 2.0, 4.0])
    anomaly_map = np.array([[2.0, 4.0], [1.0, 3.0]])

    standardised = calibration.standardise(anomaly_map)

    assert calibration.standardise(2.0) == 0.0
    for at in np.ndindex(2, 2):
        assert standardised[at] == calibration.standardise(float(anomaly_map[at]))


@pytest.mark.parametrize("scores", [[3.0] * 9, [0.0] * 9, [0.0] * 8 + [1.0]])
def test_good_parts_that_score_alike_still_have_a_scale(scores):
    calibration = calibration_of(scores)

    assert calibration.scale > 0
    assert math.isfinite(calibration.standardise(4.0))


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param((), id="none"),
        pytest.param((1.0,), id="one"),
        pytest.param((1.0, math.nan), id="not a number"),
        pytest.param((1.0, math.inf), id="infinite"),
        pytest.param((2.0, 1.0), id="descending"),
    ],
)
def test_scores_that_cannot_calibrate_are_refused(scores):
    with pytest.raises(InputError, match="calibration"):
        Calibration(scores)


def test_scores_are_sorted_into_a_calibration():
    assert calibration_of(np.array([3, 1, 2], np.float32)).good_scores == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("review", "reject"), [(2.0, 1.0), (math.nan, 1.0), (1.0, math.nan), (1.0, math.inf)]
)
def test_thresholds_out_of_order_or_not_finite_are_refused(review, reject):
    with pytest.raises(InputError, match=r"must (not exceed|be finite)"):
        Thresholds(review, reject)
