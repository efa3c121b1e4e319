"""What the greedy selection promises, against brute force where that is possible."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.coreset import PROJECTED_DIMENSIONS, candidates, greedy_k_centre


def points(n: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, dimensions)).astype(np.float32)


def choose(features: NDArray[np.float32], rows: int, seed: int = 0) -> NDArray[np.int64]:
    return greedy_k_centre(features, rows, np.random.default_rng(seed))


def radius(features: NDArray[np.float32], chosen: NDArray[np.int64]) -> float:
    """Distance of the worst covered candidate."""
    gaps = np.linalg.norm(features[:, None] - features[None, chosen], axis=2)
    return float(gaps.min(axis=1).max())


@pytest.mark.parametrize(("n", "rows"), [(1, 1), (7, 7), (7, 9), (3, 64)])
def test_everything_is_kept_where_there_is_room_for_it(n: int, rows: int) -> None:
    assert sorted(choose(points(n, 5), rows)) == list(range(n))


@pytest.mark.parametrize("dimensions", [1, 5, PROJECTED_DIMENSIONS, 232])
def test_no_row_is_chosen_twice_even_among_duplicates(dimensions: int) -> None:
    features = np.repeat(points(3, dimensions), 50, axis=0)

    chosen = choose(features, 101)

    assert len(set(chosen.tolist())) == 101
    assert len(np.unique(features[chosen[:3]], axis=0)) == 3  # what differs comes first


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n", "rows", "dimensions"), [(9, 1, 3), (11, 3, 2), (10, 4, 64)])
def test_no_gap_is_more_than_twice_the_best_possible(
    n: int, rows: int, dimensions: int, seed: int
) -> None:
    features = points(n, dimensions, seed)

    found = radius(features, choose(features, rows, seed))

    best = min(radius(features, np.array(each)) for each in itertools.combinations(range(n), rows))
    assert found <= 2 * best + 1e-5


def test_selection_covers_better_than_chance() -> None:
    features = points(2000, 8)

    found = radius(features, choose(features, 40))

    chance = [
        radius(features, np.random.default_rng(seed).choice(2000, 40, replace=False))
        for seed in range(5)
    ]
    assert found < min(chance)


def test_a_part_that_is_seen_once_is_kept_through_the_projection() -> None:
    features = 0.01 * points(3000, 232)
    features[1234] += 0.5

    assert 1234 in choose(features, 5)


def test_one_seed_gives_one_selection_and_another_seed_another() -> None:
    features = points(300, 100)

    assert choose(features, 70).tolist() == choose(features, 70).tolist()
    assert choose(features, 70).tolist() != choose(features, 70, seed=1).tolist()


@pytest.mark.parametrize(("n", "rows"), [(5, 9), (300, 1), (300, 63), (300, 64), (300, 200)])
def test_the_progress_told_adds_up_to_the_rows_chosen(n: int, rows: int) -> None:
    told: list[int] = []

    greedy_k_centre(points(n, 3), rows, np.random.default_rng(0), told.append)

    assert sum(told) == min(n, rows)


@pytest.mark.parametrize(
    ("images", "patches", "most"), [(3, 7, 100), (3, 7, 21), (5, 16, 33), (40, 16, 40)]
)
def test_every_image_gives_the_same_number_of_candidates(
    images: int, patches: int, most: int
) -> None:
    image, patch = candidates([patches] * images, most, np.random.default_rng(0))

    assert set(np.bincount(image, minlength=images)) == {min(patches, most // images)}
    assert len(set(zip(image.tolist(), patch.tolist(), strict=True))) == len(image) <= most
    assert patch.max() < patches


def test_more_images_than_candidates_still_keep_to_the_bound() -> None:
    image, patch = candidates([16] * 1000, 64, np.random.default_rng(0))

    assert len(image) == len(patch) == len(set(image.tolist())) == 64
