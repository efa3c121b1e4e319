"""The bank scan where rounding, ties, gaps and numbers that are none could lead it astray."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gpu.kernels_on_cpu import CHIPS, kernels_for
from tests.gpu.searches import approx_error, assert_true, example, search

EVERY_CHIP = pytest.mark.parametrize("chip", CHIPS)


@EVERY_CHIP
@pytest.mark.parametrize("splits", [1, 3])
def test_of_equal_rows_the_lower_is_nearer(chip, splits):
    question = example(1, 20, 400, 20, k=6, splits=splits)
    question.bank[:] = question.bank[np.arange(400) // 4 % 40]

    (answers,) = search(kernels_for(chip), question)

    assert_true(question, answers)
    assert (np.diff(answers.distances[0], axis=1) == 0).any(), "there were ties"


@EVERY_CHIP
@pytest.mark.parametrize("kind", ["f16", "s8"])
def test_a_patch_that_is_a_row_is_at_distance_zero(chip, kind):
    question = example(1, 10, 300, 40, k=2, places=False)
    (searched,) = search(kernels_for(chip), question, kind=kind)
    question.patches[0] = searched.searched[5:15]
    question.temperature = 1e-3

    (answers,) = search(kernels_for(chip), question, kind=kind)

    assert answers.neighbours[0, :, 0].tolist() == list(range(5, 15))
    assert (answers.distances[0, :, 0] == 0).all()


@EVERY_CHIP
@pytest.mark.parametrize("kind", ["f16", "s8"])
def test_rows_nearer_to_each_other_than_rounding_are_all_looked_at(chip, kind):
    """100 rows lie within 1e-4 of one point: half precision cannot tell which 5 are nearest."""
    question = example(1, 9, 600, 30, k=5, splits=2, places=False)
    rng = np.random.default_rng(3)
    crowd = rng.permutation(600)[:100]
    question.bank[crowd] = question.bank[0] + 1e-4 * rng.standard_normal((100, 30), np.float32)
    question.patches[0, :4] = question.bank[0] + 0.1

    (answers,) = search(kernels_for(chip), question, kind=kind)

    assert set(answers.uncertified) >= {0, 1, 2, 3}
    assert len(answers.uncertified) < 9
    assert_true(question, answers)


@EVERY_CHIP
@pytest.mark.parametrize("kind", ["f16", "s8"])
def test_a_crowd_that_no_split_holds_alone_is_measured_without_looking_at_every_row(chip, kind):
    question = example(1, 9, 1200, 30, k=5, splits=4, places=False)
    rng = np.random.default_rng(3)
    # A split of at most 512 rows meets two of the four groups: 30 rows do not fill its list.
    crowd = np.concatenate([start + rng.permutation(200)[:15] for start in range(0, 1200, 300)])
    question.bank[crowd] = question.bank[0] + 1e-4 * rng.standard_normal((60, 30), np.float32)
    question.patches[0, :4] = question.bank[0] + 0.1

    (answers,) = search(kernels_for(chip), question, kind=kind)

    assert len(answers.uncertified) == 0
    assert_true(question, answers)


@EVERY_CHIP
@pytest.mark.parametrize("kind", ["f16", "s8"])
def test_a_patch_is_certified_if_its_32nd_candidate_lies_beyond_the_error_and_only_then(chip, kind):
    """Crowds of 40 rows, from far smaller than the error to far larger, and a patch beside each."""
    question = example(1, 24, 960, 30, k=3, splits=1, places=False)
    rng = np.random.default_rng(5)
    radii = np.geomspace(1e-4, 0.3, 24).astype(np.float32)
    centres = 1 + rng.standard_normal((24, 30), np.float32)
    crowds = radii[:, None, None] * rng.standard_normal((24, 40, 30), np.float32)
    question.bank[:] = (centres[:, None] + crowds).reshape(960, 30)
    question.patches[0] = centres + 0.3

    (answers,) = search(kernels_for(chip), question, kind=kind)

    approx = answers.approx[0].astype(np.float64)  # (P, S, 32), ascending
    third, last = np.sort(approx.reshape(24, -1), axis=1)[:, 2], approx[:, :, -1].min(axis=1)
    beyond = (last - third) / (2 * approx_error(question, answers)[0])
    clear = np.abs(beyond - 1) > 1e-3
    listed = np.isin(np.arange(24), answers.uncertified)
    assert (listed == (beyond <= 1))[clear].all()
    assert ((beyond > 0.5) & (beyond < 1)).any(), "some just miss it"
    assert ((beyond > 1) & (beyond < 2)).any(), "some just make it"
    assert_true(question, answers)


@EVERY_CHIP
def test_up_to_32_valid_rows_need_no_certificate(chip):
    question = example(1, 9, 300, 30, k=5, splits=2, places=False)
    question.bank[:] = question.bank[0] + 1e-5 * question.bank
    question.valid[:] = False
    question.valid[np.random.default_rng(0).permutation(300)[:32]] = True

    (answers,) = search(kernels_for(chip), question)

    assert len(answers.uncertified) == 0
    assert_true(question, answers)


@EVERY_CHIP
@pytest.mark.parametrize("worth", [1e5, 3e6])
def test_what_overflows_half_precision_is_found_all_the_same(chip, worth):
    question = example(1, 6, 80, 20, k=3, places=False)
    question.bank[7] *= worth
    question.patches[0, 2] *= worth
    question.bank[11] = question.patches[0, 2] * 1.01

    (answers,) = search(kernels_for(chip), question)

    assert_true(question, answers)
    assert answers.neighbours[0, 2, 0] == 11


@EVERY_CHIP
@pytest.mark.parametrize("exhaustively", [False, True])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_patch_that_is_no_number_has_no_evidence_and_spoils_no_other(chip, exhaustively, broken):
    question = example(2, 20, 90, 20, k=3)
    whole = question.patches.copy()
    question.patches[0, 7, 3] = question.patches[1, 0, 19] = broken

    (answers,) = search(kernels_for(chip), question, exhaustively=exhaustively)

    for frame, patch in ((0, 7), (1, 0)):
        assert np.isnan(answers.evidence[frame, patch])
        assert np.isnan(answers.residual[frame, patch]).all()
        assert np.isnan(answers.distances[frame, patch]).all()
        assert (answers.neighbours[frame, patch] == -1).all()
    question.patches = whole
    (expected,) = search(kernels_for(chip), question, exhaustively=exhaustively)
    others = np.ones((2, 20), bool)
    others[0, 7] = others[1, 0] = False
    for name in ("distances", "neighbours", "residual", "evidence"):
        np.testing.assert_array_equal(
            getattr(answers, name)[others], getattr(expected, name)[others]
        )


def test_a_patch_too_far_for_fp32_has_no_evidence():
    question = example(1, 4, 60, 20, k=3, places=False)
    question.patches[0, 1] = 1e30

    (answers,) = search(kernels_for((9, 0)), question)

    assert np.isnan(answers.evidence[0, 1])
    assert np.isinf(answers.distances[0, 1]).all()
    assert np.isfinite(answers.evidence[0, [0, 2, 3]]).all()


@EVERY_CHIP
@pytest.mark.parametrize("exhaustively", [False, True])
def test_fewer_valid_rows_than_neighbours_are_given_and_no_evidence(chip, exhaustively):
    question = example(3, 10, 100, 20, k=5)
    question.valid[:] = True
    question.valid[40:50] = False
    question.ranges = np.array([[38, 10], [17, 0], [0, 100]])

    (answers,) = search(kernels_for(chip), question, exhaustively=exhaustively)

    assert (np.sort(answers.neighbours[0], axis=1) == [-1, -1, -1, 0, 1]).all()
    assert np.isfinite(answers.distances[0, :, :2]).all()
    assert np.isposinf(answers.distances[0, :, 2:]).all()
    assert (answers.neighbours[1] == -1).all()
    assert np.isposinf(answers.distances[1]).all()
    assert np.isnan(answers.evidence[:2]).all()
    assert np.isnan(answers.residual[:2]).all()
    assert_true(question, answers, frames=[2])


@EVERY_CHIP
def test_a_row_that_is_no_number_is_never_found(chip):
    question = example(1, 10, 100, 20, k=3)
    question.bank[13, 4] = np.nan

    (answers,) = search(kernels_for(chip), question)

    assert len(answers.uncertified) == 10, "its norm bounds nothing"
    assert np.isfinite(answers.evidence).all()
    question.valid[13] = False
    assert_true(question, answers)


@EVERY_CHIP
def test_an_invalid_row_is_never_found_however_near(chip):
    question = example(1, 10, 200, 20, k=3, places=False)
    question.bank[100:110] = question.patches[0]
    question.valid[100:110] = False

    (answers,) = search(kernels_for(chip), question)

    assert_true(question, answers)
    assert not np.isin(answers.neighbours, np.arange(100, 110)).any()
