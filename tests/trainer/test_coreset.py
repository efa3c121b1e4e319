"""What the greedy selection promises, against brute force where that is possible."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer import coreset
from trainer.coreset import PROJECTED_DIMENSIONS, candidates, greedy_k_centre


def points(n: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, dimensions)).astype(np.float32)


def choose(features: NDArray[np.float32], rows: int, seed: int = 0) -> NDArray[np.int64]:
    return greedy_k_centre(features, rows, np.random.default_rng(seed))


def choose_in_blocks(
    features: NDArray[np.float32], rows: int, size: int, seed: int = 0
) -> NDArray[np.int64]:
    rng, one_group = np.random.default_rng(seed), np.zeros(len(features), np.int64)
    kept = candidates(features, one_group, rows, rng, exact=size)
    return greedy_k_centre(features, rows, rng, among=kept)


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


def gaps_when_chosen(
    features: NDArray[np.float32], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By the slow rule, in float64: each next row's gap when it was chosen, and the largest."""
    gap = np.full(len(features), np.inf)
    own, largest = [], []
    for before, row in itertools.pairwise(chosen):
        gap = np.minimum(gap, np.linalg.norm(features.astype(float) - features[before], axis=1))
        own.append(gap[row])
        largest.append(gap.max())
    return np.array(own), np.array(largest)


@pytest.mark.parametrize("pool", [1, 3, 40, 4096])
@pytest.mark.parametrize("tail", [1.0, 3.0], ids=["even", "with far outliers"])
@pytest.mark.parametrize(("n", "rows", "dimensions"), [(150, 149, 2), (700, 90, 5), (600, 70, 64)])
def test_each_row_is_the_farthest_from_those_before_however_few_gaps_are_kept_up_to_date(
    n: int, rows: int, dimensions: int, tail: float, pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = points(n, dimensions)
    features *= np.abs(features) ** (tail - 1)
    monkeypatch.setattr(coreset, "POOL", pool)
    monkeypatch.setattr(coreset, "CHUNK", 7)

    chosen = choose(features, rows)

    own, largest = gaps_when_chosen(features, chosen)
    # The product form in float32: relative to the largest length, squared.
    blur = 1e-3 * float(np.square(features).sum(1).max()) ** 0.5
    assert len(set(chosen.tolist())) == rows
    assert own == pytest.approx(largest, abs=blur)


# --- more patches than are candidates together ----------------------------------------------------


class OnDisk:
    """Candidates that count how many of them are read together."""

    def __init__(self, features: NDArray[np.float32]) -> None:
        self.features, self.most = features, 0

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, numbers: NDArray[np.int64], /) -> NDArray[np.float32]:
        self.most = max(self.most, len(numbers))
        return self.features[numbers]


def test_candidates_are_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = OnDisk(points(1000, 100))
    monkeypatch.setattr(coreset, "READ", 64)

    chosen = greedy_k_centre(stored, 30, np.random.default_rng(0))

    assert stored.most == 64
    assert chosen.tolist() == choose(stored.features, 30).tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n", "rows", "dimensions"), [(12, 1, 3), (13, 3, 2), (14, 2, 64)])
def test_in_blocks_no_gap_is_more_than_four_times_the_best_possible(
    n: int, rows: int, dimensions: int, seed: int
) -> None:
    features = points(n, dimensions, seed)

    found = radius(features, choose_in_blocks(features, rows, 6, seed))

    best = min(radius(features, np.array(each)) for each in itertools.combinations(range(n), rows))
    assert found <= 4 * best + 1e-5


@pytest.mark.parametrize("exact", [1, 10, 25, 99])
def test_every_block_keeps_its_rows_or_all_and_no_block_has_two_groups(exact: int) -> None:
    features, groups, told = points(100, 4), np.arange(100) % 3, list[int]()

    kept = candidates(features, groups, 5, np.random.default_rng(0), told.append, exact)

    for group in range(3):
        members = int((groups == group).sum())
        blocks = np.array_split(np.arange(members), -(-members // exact))
        assert (groups[kept] == group).sum() == sum(min(5, len(block)) for block in blocks)
    assert (np.diff(kept) > 0).all()
    assert sum(told) == 100


def test_up_to_the_size_of_a_block_everything_is_a_candidate() -> None:
    kept = candidates(points(99, 4), np.zeros(99, int), 5, np.random.default_rng(0), exact=99)

    assert kept.tolist() == list(range(99))


def test_blocks_cover_nearly_as_well_as_choosing_from_all_and_better_than_a_sample() -> None:
    features = np.random.default_rng(0).standard_t(3, (4000, 6)).astype(np.float32)
    at_once = radius(features, choose(features, 60))
    sample = np.random.default_rng(1).choice(4000, 500, replace=False)

    in_blocks = radius(features, choose_in_blocks(features, 60, 500))

    assert in_blocks < 1.15 * at_once
    assert in_blocks < radius(features, sample[choose(features[sample], 60)])


def test_only_candidates_are_chosen() -> None:
    features, among, rng = points(300, 4), np.arange(1, 300, 2), np.random.default_rng(0)

    chosen = greedy_k_centre(features, 20, rng, among=among)
    everything = greedy_k_centre(features, 200, rng, among=among)

    assert len(set(chosen.tolist())) == 20
    assert set(chosen.tolist()) < set(among.tolist()) == set(everything.tolist())
