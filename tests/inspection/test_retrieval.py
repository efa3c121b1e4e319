"""Search and attention against the most naive form in float64: every pair, one at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.errors import InputError
from inspection.retrieval import EVEN_SHARE, Neighbours, attend, nearest

# Awkward on purpose: nothing here is a multiple of a warp, a tile or a vector width.
# (P patches, N rows, D dimensions, K neighbours)
SHAPES = [(1, 1, 1, 1), (3, 7, 5, 2), (13, 31, 17, 9), (5, 257, 33, 5), (1, 3, 1, 3)]

# Both sides take float64 differences of the same numbers: only the order of a sum of D squares
# differs, which costs at most D units in the last place.
EXACT = 1e-13

claim = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def naive_nearest(patches, features, valid, k):
    """Sort all pairs by (distance, row): the definition, without a trick."""
    distances, rows = [], []
    for patch in np.asarray(patches, np.float64):
        pairs = sorted(
            (math.dist(patch, feature), row)
            for row, feature in enumerate(np.asarray(features, np.float64))
            if valid[row]
        )
        distances.append([distance for distance, _ in pairs[:k]])
        rows.append([row for _, row in pairs[:k]])
    return np.array(distances), np.array(rows)


def naive_attend(distances, rows, features, temperature):
    """The weights of `attend`'s docstring written out, for one patch after the other."""
    rebuilt = []
    for patch_distances, patch_rows in zip(distances, rows, strict=True):
        likeness = [math.exp(-(distance**2) / temperature) for distance in patch_distances]
        weights = [one - likeness[-1] + EVEN_SHARE * likeness[0] for one in likeness]
        rebuilt.append(
            sum(
                w / sum(weights) * features[row] for w, row in zip(weights, patch_rows, strict=True)
            )
        )
    return np.array(rebuilt)


def unit_rows(rng, n, d):
    """(n, d) float32 of unit L2 norm."""
    rows = rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("p", "n", "d", "k"), SHAPES)
def test_the_neighbours_are_those_of_the_naive_search(p, n, d, k):
    rng = np.random.default_rng(p * n + d)
    patches, features = rng.normal(size=(p, d)), rng.normal(size=(n, d))
    valid = np.ones(n, np.bool_)

    found = nearest(patches, features, valid, k)

    distances, rows = naive_nearest(patches, features, valid, k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, rtol=EXACT, atol=0)


@given(
    patches=st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=4),
    features=st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=12),
    data=st.data(),
)
@claim
def test_ties_go_to_the_lower_row_in_banks_full_of_duplicates(patches, features, data):
    # Small integers: squares and sums are exact, so ties are real ties.
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=len(features))))[: len(features)]
    valid[data.draw(st.integers(0, len(features) - 1))] = True
    k = data.draw(st.integers(1, int(valid.sum())))

    found = nearest(np.array(patches, np.float32), np.array(features, np.float32), valid, k)

    distances, rows = naive_nearest(patches, features, valid, k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, rtol=EXACT, atol=0)


@pytest.mark.parametrize("d", [1, 7, 33, 384])
def test_identical_rows_far_apart_in_the_bank_tie_exactly(d):
    rng = np.random.default_rng(d)
    features = unit_rows(rng, 65, d)
    features[[9, 40, 64]] = features[3]

    found = nearest(unit_rows(rng, 4, d), features, np.ones(65, np.bool_), 65)

    where = np.sort(np.argwhere(np.isin(found.rows, [3, 9, 40, 64]))[:, 1].reshape(4, 4), axis=1)
    np.testing.assert_array_equal(found.rows[np.arange(4)[:, None], where], [[3, 9, 40, 64]] * 4)


def test_a_patch_that_is_a_row_of_the_bank_is_at_distance_zero_of_it():
    features = unit_rows(np.random.default_rng(1), 129, 384)

    found = nearest(features, features, np.ones(129, np.bool_), 1)

    np.testing.assert_array_equal(found.rows[:, 0], np.arange(129))
    np.testing.assert_array_equal(found.distances, 0.0)


@pytest.mark.parametrize("k", [1, 3, 11])
@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9])
def test_tiny_distances_between_near_identical_unit_vectors_are_exact(gap, k):
    rng = np.random.default_rng(2)
    patch = unit_rows(rng, 1, 384).astype(np.float64)
    # Rows around a patch at steps of the gap: |a|² − 2ab + |b|² cannot tell them apart, in float32
    # from 1e-3 on, in float64 from 1e-8 on.
    steps = rng.permutation(np.arange(1, 12))
    directions = rng.normal(size=(11, 384))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    features = patch + gap * steps[:, None] * directions

    found = nearest(patch, features, np.ones(11, np.bool_), k)

    np.testing.assert_array_equal(found.rows[0], np.argsort(steps)[:k])
    # Adding a step to a component of the patch rounds it by up to 1e-17, hence the share of it.
    np.testing.assert_allclose(found.distances[0], gap * np.arange(1, k + 1), rtol=1e-14 / gap)


def test_a_row_that_is_not_valid_is_never_found_however_near_it_is():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(31, 5))
    valid = rng.random(31) < 0.5
    patches = features[~valid]

    found = nearest(patches, features, valid, int(valid.sum()))

    assert set(found.rows.ravel()) == set(np.flatnonzero(valid))
    assert (found.distances > 0).all()


def test_values_in_rows_that_are_not_valid_do_not_matter():
    features = np.array([[0.0, 0.0], [np.nan, np.inf], [3.0, 4.0]])

    found = nearest(np.zeros((1, 2)), features, np.array([True, False, True]), 2)

    assert found.rows.tolist() == [[0, 2]]
    assert found.distances.tolist() == [[0.0, 5.0]]


def test_no_patches_have_no_neighbours():
    found = nearest(np.zeros((0, 3)), np.ones((4, 3)), np.ones(4, np.bool_), 2)

    assert found.distances.shape == found.rows.shape == (0, 2)


@pytest.mark.parametrize("k", [-1, 0, 3, 4])
def test_k_beyond_the_valid_rows_is_refused(k):
    valid = np.array([True, False, True])

    with pytest.raises(InputError, match=f"2 valid rows, got {k}"):
        nearest(np.zeros((1, 2)), np.zeros((3, 2)), valid, k)


def test_a_bank_without_a_valid_row_is_refused():
    with pytest.raises(InputError, match="0 valid rows"):
        nearest(np.zeros((1, 2)), np.zeros((3, 2)), np.zeros(3, np.bool_), 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_patch_that_is_not_finite_is_refused_rather_than_ranked(bad):
    patches = np.zeros((3, 2))
    patches[2, 1] = bad

    with pytest.raises(InputError, match="finite"):
        nearest(patches, np.zeros((3, 2)), np.ones(3, np.bool_), 1)


@pytest.mark.parametrize(
    ("patches", "features", "valid"),
    [
        pytest.param((2, 3), (4, 5), (4,), id="D differs"),
        pytest.param((3,), (4, 3), (4,), id="one patch without its axis"),
        pytest.param((2, 3), (12,), (12,), id="a flat bank"),
        pytest.param((2, 3), (4, 3), (5,), id="more flags than rows"),
        pytest.param((2, 3), (4, 3), (4, 1), id="flags with an axis too many"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(patches, features, valid):
    with pytest.raises(InputError, match="expected"):
        nearest(np.zeros(patches), np.zeros(features), np.ones(valid, np.bool_), 1)


@pytest.mark.parametrize(("p", "n", "d", "k"), SHAPES)
@pytest.mark.parametrize("temperature", [0.05, 1.0, 30.0])
def test_attention_is_the_weighted_mean_written_by_hand(p, n, d, k, temperature):
    rng = np.random.default_rng(n)
    features = rng.normal(size=(n, d))
    found = nearest(rng.normal(size=(p, d)), features, np.ones(n, np.bool_), k)
    # By hand the exponents are not shifted: near rows only, or they underflow to 0 / 0.
    scaled = Neighbours(found.distances / found.distances.max(), found.rows)

    rebuilt = attend(scaled, features, temperature)

    expected = naive_attend(scaled.distances, scaled.rows, features, temperature)
    # Where all weights cancel but their even share of 1e-6, ten of sixteen digits are left.
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-9, atol=1e-9)


def test_one_neighbour_is_given_back_as_it_is_at_any_temperature():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(31, 17)).astype(np.float32)
    found = nearest(rng.normal(size=(13, 17)), features, np.ones(31, np.bool_), 1)

    for temperature in (1e-320, 1e-3, 1e9, math.inf):
        rebuilt = attend(found, features, temperature)

        np.testing.assert_array_equal(rebuilt, features[found.rows[:, 0]])


@pytest.mark.parametrize("temperature", [1e-6, 1e-300])
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_cold_attention_is_the_nearest_row_even_where_the_quotient_overflows(temperature):
    rng = np.random.default_rng(5)
    features = 10.0 * rng.normal(size=(31, 17))
    found = nearest(10.0 * rng.normal(size=(13, 17)), features, np.ones(31, np.bool_), 5)

    rebuilt = attend(found, features, temperature)

    # The other four keep their even share, of rows that are some tens apart.
    np.testing.assert_allclose(rebuilt, features[found.rows[:, 0]], atol=4 * EVEN_SHARE * 100)


@pytest.mark.parametrize("temperature", [1e15, math.inf])
def test_a_hot_attention_is_the_mean_of_the_neighbours(temperature):
    rng = np.random.default_rng(6)
    features = rng.normal(size=(31, 17))
    found = nearest(rng.normal(size=(13, 17)), features, np.ones(31, np.bool_), 5)

    rebuilt = attend(found, features, temperature)

    # At 1e15 what distances leave of the weights, some 1e-14, is weighed against 1e-6.
    np.testing.assert_allclose(rebuilt, features[found.rows].mean(axis=1), atol=1e-6)


def test_neighbours_at_the_same_distance_share_a_cold_attention():
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 5.0]])
    found = nearest(np.zeros((1, 2)), features, np.ones(3, np.bool_), 3)

    rebuilt = attend(found, features, 1e-9)

    np.testing.assert_allclose(rebuilt, [[0.0, 0.0]], atol=3 * EVEN_SHARE * 5)


def test_equally_distant_neighbours_are_averaged():
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 9.0]])
    found = nearest(np.zeros((1, 2)), features, np.ones(4, np.bool_), 3)

    rebuilt = attend(found, features, 0.1)

    np.testing.assert_allclose(rebuilt, [[0.0, 1 / 3]], atol=1e-9)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 10.0])
def test_which_of_two_equally_distant_rows_is_the_last_neighbour_hardly_matters(temperature):
    # The third and the fourth row are equally near, and lie on opposite sides.
    features = np.array([[0.1, 0.0], [0.5, 0.0], [0.0, 1.0], [0.0, -1.0]])
    every, patch = np.ones(4, np.bool_), np.zeros((1, 2))

    def swapped(features):
        return attend(nearest(patch, features, every, 3), features, temperature)

    apart = np.linalg.norm(swapped(features) - swapped(features[[0, 1, 3, 2]]))

    # Runtimes that round differently choose differently. Plain softmax would give the last of the
    # three at least 2 % of the weight, and the rebuilt patch would jump by as much.
    assert 0 < apart < 1e-4


def test_far_patches_do_not_underflow_to_nothing():
    features = np.array([[100.0], [101.0]])
    found = nearest(np.zeros((1, 1)), features, np.ones(2, np.bool_), 2)

    rebuilt = attend(found, features, 1.0)  # exp(-10000) is 0, twice

    np.testing.assert_allclose(rebuilt, [[100.0]], rtol=2 * EVEN_SHARE)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    found = nearest(np.zeros((1, 1)), np.ones((1, 1)), np.ones(1, np.bool_), 1)

    with pytest.raises(InputError, match="temperature"):
        attend(found, np.ones((1, 1)), temperature)
