"""The score: what the head sees, that fusion only ever raises, and how an image gets its number."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inspection.bank import empty_bank
from inspection.errors import InputError
from inspection.retrieval import Neighbours, attend, nearest
from inspection.scoring import (
    Head,
    Scoring,
    enhance,
    enhanced_length,
    fuse,
    image_score,
    locate,
    patch_scores,
    suspicion,
)

claim = settings(derandomize=True, database=None, deadline=None, max_examples=100)

distances = st.floats(0, 1e6)
logits = st.floats(-1e6, 1e6)
weights = st.floats(0, 1e3)


def a_head(dimensions, k, seed=0, units=7):
    """Random weights of the right shapes."""
    rng = np.random.default_rng(seed)
    return Head(
        hidden_weight=rng.normal(size=(enhanced_length(dimensions, k), units)).astype(np.float32),
        hidden_bias=rng.normal(size=units).astype(np.float32),
        output_weight=rng.normal(size=units).astype(np.float32),
        output_bias=float(rng.normal()),
    )


def a_bank(rng, rows_each, dimensions, categories=("a", "b")):
    """A bank full of random rows, a third of them not valid, at least three of a category valid."""
    bank = empty_bank(categories, rows_each, dimensions)
    valid = rng.random(len(bank.features)) < 0.67
    for number in range(len(categories)):
        valid[number * rows_each : number * rows_each + 3] = True
    features = rng.normal(size=bank.features.shape).astype(np.float32)
    position = rng.integers(0, 9, bank.position.shape).astype(np.int32)
    return replace(bank, features=features, valid=valid, position=position)


def at_random(rng, count):
    """(count, 2) positions on a map of 9 × 9 patches."""
    return rng.integers(0, 9, (count, 2))


@pytest.mark.parametrize(("p", "d", "k"), [(1, 1, 1), (3, 5, 2), (13, 17, 9)])
def test_the_enhanced_representation_is_laid_out_as_written(p, d, k):
    rng = np.random.default_rng(d)
    patches, normal_memory, abnormal_memory = rng.normal(size=(3, p, d))
    normal, abnormal = (
        Neighbours(np.sort(rng.random((p, k)), axis=1), np.zeros((p, k), np.int64))
        for _ in range(2)
    )

    z = enhance(patches, normal, normal_memory, abnormal, abnormal_memory)

    assert z.shape == (p, enhanced_length(d, k)) == (p, 3 * d + 2 * k + 1)
    for i in range(p):
        density = normal.distances[i, 0] / (normal.distances[i].mean() + 1e-6)
        by_hand = [
            *patches[i],
            *(patches[i] - normal_memory[i]),
            *(patches[i] - abnormal_memory[i]),
            *normal.distances[i],
            *abnormal.distances[i],
            density,
        ]
        np.testing.assert_allclose(z[i], by_hand, rtol=1e-14)


def test_the_density_of_a_patch_that_is_in_the_bank_is_zero_and_not_undefined():
    zero = Neighbours(np.zeros((1, 3)), np.zeros((1, 3), np.int64))
    patch = np.ones((1, 2))

    z = enhance(patch, zero, patch, zero, patch)

    assert z[0, -1] == 0.0


def test_the_head_is_a_perceptron_with_one_silent_half():
    head = Head(
        hidden_weight=np.array([[1.0, -1.0], [2.0, 0.0]], np.float32),
        hidden_bias=np.array([0.5, -0.25], np.float32),
        output_weight=np.array([10.0, 100.0], np.float32),
        output_bias=-3.0,
    )
    enhanced = np.array([[1.0, 1.0], [-1.0, 0.0], [-9.0, 0.0]])

    found = suspicion(enhanced, head)

    # max(0, [3.5, -1.25]) · [10, 100] - 3; max(0, [-0.5, 0.75]) …; max(0, [-8.5, 8.75]) …
    np.testing.assert_allclose(found, [32.0, 72.0, 872.0], rtol=1e-15)


BAD_SHAPES = {
    "hidden_weight": [(15,), (15, 6), (), (1, 15, 7)],
    "hidden_bias": [(6,), (7, 1)],
    "output_weight": [(8,), (1, 7)],
}


@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for name, shapes in BAD_SHAPES.items() for shape in shapes]
)
def test_head_weights_that_do_not_fit_are_refused(name, shape):
    with pytest.raises(InputError, match=r"must be \(Z, U\), \(U,\) and \(U,\) float32, got"):
        replace(a_head(4, 1, units=7), **{name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize("name", BAD_SHAPES)
def test_head_weights_that_are_not_finite_or_of_another_type_are_refused(name):
    good = a_head(4, 1, units=7)
    weights = getattr(good, name)

    with pytest.raises(InputError, match="must be finite"):
        replace(good, **{name: np.where(weights == weights.max(), np.float32(math.nan), weights)})
    with pytest.raises(InputError, match=r"float32, got .* float64"):
        replace(good, **{name: weights.astype(np.float64)})


@pytest.mark.parametrize("bias", [math.nan, math.inf])
def test_a_bias_that_is_not_finite_is_refused(bias):
    with pytest.raises(InputError, match="must be finite"):
        replace(a_head(4, 1), output_bias=bias)


@given(
    normal=hnp.arrays(np.float64, 5, elements=distances),
    of_head=hnp.arrays(np.float64, 5, elements=logits),
    weight=weights,
)
@claim
def test_fusion_never_falls_below_the_normal_bank_alone(normal, of_head, weight):
    fused = fuse(normal, of_head, weight)

    assert (fused >= normal).all()


@given(
    normal=hnp.arrays(np.float64, 5, elements=distances),
    of_head=hnp.arrays(np.float64, 5, elements=logits),
)
@claim
def test_a_weight_of_zero_is_the_normal_bank_exactly(normal, of_head):
    np.testing.assert_array_equal(fuse(normal, of_head, 0.0), normal)


@given(
    normal=st.tuples(distances, distances),
    of_head=st.tuples(logits, logits),
    weight=st.tuples(weights, weights),
)
@claim
def test_fusion_rises_with_the_distance_the_logit_and_the_weight(normal, of_head, weight):
    low = fuse(np.array([min(normal)]), np.array([min(of_head)]), min(weight))
    high = fuse(np.array([max(normal)]), np.array([max(of_head)]), max(weight))

    assert low <= high


def test_fusion_raises_what_the_head_suspects_and_leaves_what_it_calls_normal():
    fused = fuse(np.array([2.0, 2.0, 2.0]), np.array([-5.0, 0.0, 3.0]), 0.5)

    assert fused.tolist() == [2.0, 2.0, 5.0]


def test_what_is_not_a_number_stays_so_through_the_fusion():
    fused = fuse(np.array([math.nan, 1.0]), np.array([1.0, math.nan]), 1.0)

    assert np.isnan(fused).all()


@pytest.mark.parametrize("weight", [-1e-9, -math.inf, math.nan])
def test_a_weight_that_could_lower_a_score_is_refused(weight):
    with pytest.raises(InputError, match="may only raise"):
        fuse(np.ones(1), np.ones(1), weight)


# --- where patches lie ----------------------------------------------------------------------------

places = hnp.arrays(np.int64, 2, elements=st.integers(0, 4096))
features_of_two = hnp.arrays(np.float64, (2, 3), elements=st.floats(-10, 10))


@given(features=features_of_two, one=places, other=places, weight=st.floats(0, 10))
@claim
def test_being_apart_costs_its_weight_a_patch_beside_what_the_features_differ(
    features, one, other, weight
):
    here, there = locate(features, np.stack([one, other]), weight)

    gap, steps = features[0] - features[1], weight * (one - other)
    expected = math.sqrt(gap @ gap + steps @ steps)
    # λ · 4096 in float64 is off by 1e-11 at most.
    assert np.linalg.norm(here - there) == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_features_stand_before_their_place():
    located = locate(np.array([[5.0, 6.0, 7.0]], np.float32), np.array([[3, 4]]), 0.25)

    assert located.dtype == np.float64
    assert located.tolist() == [[5.0, 6.0, 7.0, 0.75, 1.0]]


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_without_a_position_weight_no_position_is_looked_at(weight):
    rng = np.random.default_rng(6)
    normal, abnormal, head = a_bank(rng, 13, 5), a_bank(rng, 7, 5), a_head(5, 3)
    patches, scoring = rng.normal(size=(11, 5)), Scoring(k=3, temperature=0.7)
    nowhere = replace(normal, position=np.full_like(normal.position, -1))

    scores, of_no_place = (
        patch_scores(patches, at, bank, abnormal, head, scoring, category=None, weight=weight)
        for at, bank in ((at_random(rng, 11), normal), (np.full((11, 2), -1), nowhere))
    )

    np.testing.assert_array_equal(scores, of_no_place)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_patch_that_moved_beyond_all_rows_costs_at_least_its_weight_a_step(k, steps):
    rng = np.random.default_rng(7)
    bank = a_bank(rng, 30, 5)
    seen, at = bank.evidence_of("a"), bank.position[bank.rows_of("a")][bank.valid[:30]]
    moved = np.stack([np.full(len(at), at[:, 0].max() + steps), at[:, 1]], axis=1)

    scores = patch_scores(
        seen,
        moved,
        bank,
        empty_bank(("a", "b"), 1, 5),
        a_head(5, k),
        Scoring(k=k, temperature=0.7, position_weight=0.25),
        category="a",
        weight=0.0,
    )

    assert scores.min() >= 0.25 * steps - 1e-12


def lead_on_board():
    """A board of 5 × 5 patches whose middle shows a lead: (25, 2) features and their positions."""
    board = np.tile(np.array([1.0, 0.0], np.float32), (25, 1))
    board[12] = (0.0, 1.0)
    return board, np.argwhere(np.ones((5, 5), np.bool_))


def test_a_part_that_is_missing_at_its_place_is_found_by_its_place_alone():
    board, at = lead_on_board()
    bank = replace(
        empty_bank(("board",), 25, 2),
        features=board,
        valid=np.ones(25, np.bool_),
        position=at.astype(np.int32),
    )
    bare = np.tile(board[:1], (25, 1))  # the lead leaves bare what the board shows elsewhere

    by_looks, by_place = (
        patch_scores(
            bare,
            at,
            bank,
            bank,
            a_head(2, 1),
            Scoring(k=1, temperature=1.0, position_weight=weight),
            category="board",
            weight=0.0,
        )
        for weight in (0.0, 0.25)
    )

    assert by_looks.max() == 0.0
    assert np.flatnonzero(by_place).tolist() == [12]
    assert by_place[12] == 0.25


# --- the score of a patch and of an image ---------------------------------------------------------


@pytest.mark.parametrize("category", ["a", "b", None])
@pytest.mark.parametrize("weight", [0.3, 2.0])
@pytest.mark.parametrize("step", [0.0, 0.4])
def test_patch_scores_are_the_parts_put_together(category, weight, step):
    rng = np.random.default_rng(1)
    normal, abnormal = a_bank(rng, 13, 5), a_bank(rng, 7, 5)
    # A bias that makes the head suspect something, or fusion would have nothing to do.
    head = replace(a_head(5, 3), output_bias=5.0)
    scoring = Scoring(k=3, temperature=0.7, position_weight=step)
    patches, at = rng.normal(size=(11, 5)), at_random(rng, 11)

    found = patch_scores(
        patches, at, normal, abnormal, head, scoring, category=category, weight=weight
    )

    rows = {"a": slice(0, 13), "b": slice(13, 26), None: slice(0, 26)}[category]
    defects = {"a": slice(0, 7), "b": slice(7, 14), None: slice(0, 14)}[category]
    located, good = (
        np.hstack([features, step * position])
        for features, position in (
            (patches, at),
            (normal.features[rows], normal.position[rows]),
        )
    )
    near = nearest(located, good, normal.valid[rows], 3)
    near_defects = nearest(patches, abnormal.features[defects], abnormal.valid[defects], 3)
    memory = attend(near, good, 0.7)
    evidence = np.linalg.norm(located - memory, axis=1)
    z = enhance(
        patches,
        near,
        memory[:, :5],  # the abnormal side sees what patches show, and not where
        near_defects,
        attend(near_defects, abnormal.features[defects], 0.7),
    )
    np.testing.assert_array_equal(found, fuse(evidence, suspicion(z, head), weight))
    assert (found > evidence).any(), "the head raises nothing: nothing was tested"


def test_without_weight_the_abnormal_bank_may_be_empty():
    rng = np.random.default_rng(2)
    normal, abnormal = a_bank(rng, 13, 5), empty_bank(("a", "b"), 7, 5)
    patches = rng.normal(size=(3, 5))

    found = patch_scores(
        patches,
        at_random(rng, 3),
        normal,
        abnormal,
        a_head(5, 3),
        Scoring(k=3, temperature=1.0),
        category="b",
        weight=0.0,
    )

    near = nearest(patches, normal.features[13:], normal.valid[13:], 3)
    alone = np.linalg.norm(patches - attend(near, normal.features[13:], 1.0), axis=1)
    # Two columns of zeros more in the sums.
    np.testing.assert_allclose(found, alone, rtol=1e-14)


def test_with_one_neighbour_the_normal_bank_says_how_near_its_nearest_row_is():
    rng = np.random.default_rng(4)
    normal, patches = a_bank(rng, 13, 5), rng.normal(size=(7, 5))

    found = patch_scores(
        patches,
        at_random(rng, 7),
        normal,
        empty_bank(("a", "b"), 7, 5),
        a_head(5, 1),
        Scoring(k=1, temperature=1.0),
        category=None,
        weight=0.0,
    )

    near = nearest(patches, normal.features, normal.valid, 1)
    np.testing.assert_allclose(found, near.distances[:, 0], rtol=1e-14)


@pytest.mark.parametrize(
    ("patches", "top_fraction", "count"),
    [
        pytest.param(1024, 0.01, 10, id="one in a hundred"),
        pytest.param(1, 0.01, 1, id="a single patch"),
        pytest.param(49, 0.01, 1, id="never none"),
        pytest.param(7, 1.0, 7, id="all"),
        pytest.param(300, 0.5, 150, id="half"),
    ],
)
def test_the_image_score_is_the_mean_of_the_highest_patches(patches, top_fraction, count):
    scores = np.random.default_rng(patches).permutation(np.arange(patches, dtype=np.float64))
    scoring = Scoring(k=1, temperature=1.0, top_fraction=top_fraction)

    score = image_score(scores, scoring)

    assert scoring.top_patches(patches) == count
    assert score == pytest.approx(np.mean(range(patches - count, patches)), rel=1e-15)


def test_a_map_and_its_patches_have_the_same_image_score():
    scores = np.random.default_rng(3).random((13, 17)).astype(np.float32)
    scoring = Scoring(k=1, temperature=1.0, top_fraction=0.1)

    assert image_score(scores, scoring) == image_score(scores.ravel(), scoring)


def test_one_patch_that_is_not_a_number_makes_the_score_none():
    scores = np.zeros((9, 9))
    scores[4, 5] = math.nan

    assert math.isnan(image_score(scores, Scoring(k=1, temperature=1.0)))


@pytest.mark.parametrize(
    "constants",
    [
        {"k": 0},
        {"k": -1},
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"top_fraction": 0.0},
        {"top_fraction": 1.01},
        {"top_fraction": math.nan},
        {"position_weight": -1e-9},
        {"position_weight": math.nan},
        {"position_weight": math.inf},
    ],
)
def test_constants_out_of_range_are_refused(constants):
    with pytest.raises(InputError, match="scoring needs"):
        Scoring(**{"k": 1, "temperature": 1.0, **constants})
