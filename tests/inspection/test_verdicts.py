"""The verdict table, and boxes around what is suspicious, in pixels of the frame as sent."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.thresholds import Thresholds, calibration_of
from inspection.verdicts import Reason, Region, Verdict, decide, find_regions, judge

THRESHOLDS = Thresholds(review=1.0, reject=2.0)


@pytest.mark.parametrize(
    ("score", "verdict", "reason"),
    [
        pytest.param(-3.0, Verdict.PASS, None, id="better than the median good part"),
        pytest.param(1.0, Verdict.PASS, None, id="on review: the milder side"),
        pytest.param(
            np.nextafter(1.0, 2.0), Verdict.REVIEW, Reason.SCORE_ABOVE_REVIEW, id="past review"
        ),
        pytest.param(2.0, Verdict.REVIEW, Reason.SCORE_ABOVE_REVIEW, id="on reject"),
        pytest.param(
            np.nextafter(2.0, 3.0), Verdict.FAIL, Reason.SCORE_ABOVE_REJECT, id="past reject"
        ),
        pytest.param(math.inf, Verdict.FAIL, Reason.SCORE_ABOVE_REJECT, id="infinite"),
        pytest.param(
            math.nan, Verdict.REVIEW, Reason.SCORE_NOT_A_NUMBER, id="not a number: a person looks"
        ),
    ],
)
def test_the_verdict_follows_the_table(score, verdict, reason):
    decision = decide(float(score), THRESHOLDS)

    assert (decision.verdict, decision.reason) == (verdict, reason)


def test_where_both_thresholds_are_one_nothing_is_reviewed():
    thresholds = Thresholds(1.0, 1.0)

    assert decide(1.0, thresholds).verdict is Verdict.PASS
    assert decide(1.0001, thresholds).verdict is Verdict.FAIL


@given(scores=st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)))
@settings(derandomize=True, database=None, deadline=None)
def test_a_higher_score_never_gets_a_milder_verdict(scores):
    severity = [Verdict.PASS, Verdict.REVIEW, Verdict.FAIL]

    mild, hard = (severity.index(decide(score, THRESHOLDS).verdict) for score in sorted(scores))

    assert mild <= hard


def test_a_judgement_is_in_the_unit_of_the_thresholds():
    calibration = calibration_of([1.0, 2.0, 3.0, 4.0])

    judgement = judge(5.0, calibration, calibration.thresholds(0.5, 0.2))

    assert judgement.score == (5.0 - 2.5) / (1.4826 * 1.0)
    assert judgement.p_value == 1 / 5
    assert judgement.decision.verdict is Verdict.FAIL


def test_the_good_part_that_set_the_threshold_passes():
    calibration = calibration_of(np.random.default_rng(1).lognormal(size=99))
    thresholds = calibration.thresholds(0.05, 0.01)

    judgement = judge(calibration.threshold(0.05), calibration, thresholds)

    assert judgement.decision.verdict is Verdict.PASS


def test_a_raw_score_that_is_not_a_number_is_reviewed_and_has_no_p_value():
    calibration = calibration_of([1.0, 2.0])

    judgement = judge(math.nan, calibration, calibration.thresholds(0.5, 0.5))

    assert judgement.decision.verdict is Verdict.REVIEW
    assert judgement.decision.reason is Reason.SCORE_NOT_A_NUMBER
    assert math.isnan(judgement.score)
    assert math.isnan(judgement.p_value)


def drawn(*rows):
    """A map from a drawing: a digit is a patch's score, a dot is 0."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.float32)


@pytest.mark.parametrize(
    ("picture", "regions"),
    [
        pytest.param(["....", "....", "...."], [], id="nothing"),
        pytest.param(["....", ".5..", "...."], [(1, 1, 1, 1, 5)], id="one patch"),
        pytest.param(
            ["5...", ".6..", "..7."], [(0, 0, 3, 3, 7)], id="a diagonal touches: one region"
        ),
        pytest.param(["..5.", ".6..", "...."], [(1, 0, 2, 2, 6)], id="the other diagonal"),
        pytest.param(["5.6.", "....", "...7"], [(3, 2, 1, 1, 7), (2, 0, 1, 1, 6), (0, 0, 1, 1, 5)],
                     id="a gap of one separates, the worst comes first"),
        pytest.param(["9..9", "9..9", "9999"], [(0, 0, 4, 3, 9)], id="a horseshoe is one"),
        pytest.param(["9999", "9...", "9.5."], [(0, 0, 4, 3, 9), (2, 2, 1, 1, 5)],
                     id="a region inside the box of another is a region"),
        pytest.param(["9999", "9999", "9999"], [(0, 0, 4, 3, 9)], id="everything"),
        pytest.param(["1...", "..2.", "...."], [], id="on the level is not above it"),
    ],
)  # fmt: skip
def test_regions_are_the_patches_that_touch(picture, regions):
    found = find_regions(drawn(*picture), level=2.0, frame_shape=(3, 4, 3))

    assert found == tuple(Region(*region) for region in regions)


@pytest.mark.parametrize(
    ("frame_shape", "cell", "box"),
    [
        # (x, y, width, height): outer edges, so that no pixel of a suspicious patch is left out
        pytest.param((300, 400), (1, 1), (100, 100, 100, 100), id="divides"),
        pytest.param((100, 101), (0, 1), (25, 0, 26, 34), id="does not divide: rounds outwards"),
        pytest.param((100, 101), (2, 3), (75, 66, 26, 34), id="the last cell ends at the edge"),
        pytest.param((8, 9), (1, 2), (4, 2, 3, 4), id="a small frame"),
        pytest.param((2, 2), (1, 1), (0, 0, 1, 2), id="a frame smaller than the grid"),
        pytest.param((1, 1), (2, 3), (0, 0, 1, 1), id="a frame of one pixel"),
        pytest.param((32768, 32768), (2, 3), (24576, 21845, 8192, 10923), id="the largest frame"),
    ],
)
def test_a_region_covers_its_patch_in_pixels_of_the_frame(frame_shape, cell, box):
    anomaly_map = np.zeros((3, 4), np.float32)
    anomaly_map[cell] = 1.0

    (region,) = find_regions(anomaly_map, 0.5, frame_shape)

    assert (region.x_px, region.y_px, region.width_px, region.height_px) == box


@given(height=st.integers(1, 500), width=st.integers(1, 500), seed=st.integers(0, 999))
@settings(derandomize=True, database=None, deadline=None)
def test_boxes_lie_in_the_frame_and_cover_every_suspicious_patch(height, width, seed):
    anomaly_map = np.random.default_rng(seed).random((5, 7)) * (np.arange(7) % 3 > 0)
    level = 0.6

    regions = find_regions(anomaly_map, level, (height, width), most=99)

    for box in regions:
        assert 0 <= box.x_px < box.x_px + box.width_px <= width
        assert 0 <= box.y_px < box.y_px + box.height_px <= height
    for row, column in np.argwhere(anomaly_map > level):
        x, y = (column + 0.5) * width / 7, (row + 0.5) * height / 5
        assert any(
            box.x_px <= x <= box.x_px + box.width_px
            and box.y_px <= y <= box.y_px + box.height_px
            and box.score >= anomaly_map[row, column]
            for box in regions
        )


def test_the_worst_sixteen_are_kept_when_there_are_more():
    anomaly_map = np.zeros((20, 20))
    anomaly_map[::2, ::2] = 1.0 + np.random.default_rng(2).permutation(100).reshape(10, 10)

    regions = find_regions(anomaly_map, 0.5, (200, 200))

    assert [region.score for region in regions] == list(range(100, 84, -1))


def test_a_map_of_nothing_but_nan_has_no_regions_and_infinity_has_one():
    anomaly_map = np.full((3, 4), math.nan)
    assert find_regions(anomaly_map, 0.0, (30, 40)) == ()

    anomaly_map[1, 1] = math.inf

    assert [region.score for region in find_regions(anomaly_map, 0.0, (30, 40))] == [math.inf]


def test_finding_regions_leaves_the_map_as_it_was():
    anomaly_map = drawn("5..6", ".7..")
    before = anomaly_map.copy()

    find_regions(anomaly_map, 0.5, (20, 40))

    np.testing.assert_array_equal(anomaly_map, before)
