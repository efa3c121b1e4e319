"""Where bank rows come from, where they lie, and what a pseudo-abnormal row must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from inspection import retrieval
from inspection.bank import FROM_TRAINING, MemoryBank
from inspection.foreground import everywhere
from inspection.scoring import Scoring
from tests.trainer.stores import store_of
from trainer.banks import (
    LEAST_SHARE,
    Evidence,
    abnormal_bank,
    gather,
    located_rows,
    normal_bank,
    pseudo_abnormal,
    textures,
)
from trainer.folds import fold_rows, folds_of

GRID_WIDTH = 6
D = 7


def tagged(images: int, patches: int, product: int) -> Evidence:
    """Features that say where they are from: (product, image, patch, then noise)."""
    image = np.repeat(np.arange(images), patches)
    patch = np.tile(np.arange(patches), images)
    noise = np.random.default_rng(product).random((len(image), D - 3))
    features = np.column_stack([np.full(len(image), product), image, patch, noise])
    position = np.stack(np.divmod(patch, GRID_WIDTH), axis=1)
    return Evidence(features.astype(np.float32), image, position, 0.5, np.arange(len(image)))


def tagged_bank(
    rows_each: int = 20,
) -> tuple[dict[str, Evidence], dict[str, list[Path]], MemoryBank]:
    evidence = {"bolt": tagged(4, 30, 0), "nut": tagged(2, 5, 1), "pin": tagged(3, 30, 2)}
    images = {
        name: [Path(f"/data/{name}/{i}.png") for i in range(len(np.unique(pool.image)))]
        for name, pool in evidence.items()
    }
    rng = np.random.default_rng(0)
    bank = normal_bank(evidence, images, rows_each, rng, lambda done: None)
    return evidence, images, bank


def test_every_row_says_truly_where_it_is_from() -> None:
    _, images, bank = tagged_bank()
    names = list(images)

    for row in np.flatnonzero(bank.valid):
        product, image, patch = bank.features[row, :3].astype(int)
        assert names[bank.category[row]] == names[product]
        assert bank.sources[bank.source[row]] == f"{names[product]}/{image}.png"
        assert tuple(bank.position[row]) == divmod(patch, GRID_WIDTH)
        assert bank.label[row] == FROM_TRAINING
        assert bank.admitted_unix_s[row] == 0


def test_every_product_has_one_range_and_what_it_cannot_fill_stays_invalid() -> None:
    _, _, bank = tagged_bank()

    assert [bank.rows_of(name) for name in bank.categories] == [
        slice(0, 20),
        slice(20, 40),
        slice(40, 60),
    ]
    assert [int(bank.valid[bank.rows_of(name)].sum()) for name in bank.categories] == [20, 10, 20]
    assert (bank.source[~bank.valid] == -1).all()
    assert (bank.position[~bank.valid] == -1).all()


def test_no_row_is_there_twice() -> None:
    _, _, bank = tagged_bank()

    kept = bank.features[bank.valid]
    assert len(np.unique(kept[:, :3], axis=0)) == len(kept)


def test_sources_are_names_and_no_paths_of_the_trainers_machine() -> None:
    _, _, bank = tagged_bank()

    assert not any("/data" in source for source in bank.sources)


# --- pseudo-abnormal rows -------------------------------------------------------------------------


def cloud(n: int, centre: float, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 0.05, (n, 16)) + centre * np.eye(16)[seed % 16]).astype(np.float32)


def gap(rows: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float64]:
    return retrieval.nearest(rows, bank, np.ones(len(bank), bool), 1).distances[:, 0]


@pytest.mark.parametrize("floor", [0.0, 0.3, 0.6])
def test_what_could_be_normal_is_dropped(floor: float) -> None:
    normal, foreign = cloud(300, 0.9, 1), cloud(200, 0.7, 2)

    rows = pseudo_abnormal(normal, foreign, normal[:100], floor, 500, np.random.default_rng(0))

    assert LEAST_SHARE * 500 <= len(rows) <= 500
    assert gap(rows, normal[:100]).min() > floor - 1e-6


def test_a_higher_floor_leaves_fewer() -> None:
    normal, foreign = cloud(300, 0.9, 1), cloud(200, 0.7, 2)

    low, high = (
        pseudo_abnormal(normal, foreign, normal[:100], floor, 500, np.random.default_rng(0))
        for floor in (0.3, 0.6)
    )

    assert len(high) < len(low)


def test_where_nothing_lies_beyond_the_floor_the_farthest_are_kept() -> None:
    normal, foreign = cloud(300, 0.9, 1), cloud(200, 0.7, 2)
    bank = normal[:100]

    everything = pseudo_abnormal(normal, foreign, bank, 0.0, 500, np.random.default_rng(0))
    kept = pseudo_abnormal(normal, foreign, bank, 99.0, 500, np.random.default_rng(0))

    assert len(kept) == int(LEAST_SHARE * 500)
    assert gap(kept, bank).min() == pytest.approx(np.sort(gap(everything, bank))[-len(kept)])


def test_a_fusion_is_as_long_as_what_it_is_made_of_and_lies_between() -> None:
    normal, foreign = cloud(300, 0.9, 1), cloud(200, 0.9, 2)

    rows = pseudo_abnormal(normal, foreign, normal[:50], 0.0, 400, np.random.default_rng(0))

    length = np.linalg.norm(rows, axis=1)
    plain = [np.linalg.norm(each, axis=1) for each in (normal, foreign)]
    assert min(each.min() for each in plain) - 1e-5 <= length.min()
    assert length.max() <= max(each.max() for each in plain) + 1e-5
    # λ from 0.2 to 0.8 between axes 1 and 2: neither coordinate is left to itself.
    shares = rows[:, 2] / (rows[:, 1] + rows[:, 2])
    assert 0.1 < shares.min() < 0.35
    assert 0.65 < shares.max() < 0.9


def test_abnormal_rows_lie_in_the_range_of_their_product_and_come_from_no_place() -> None:
    rows = {"bolt": cloud(5, 0.9, 1), "nut": cloud(3, 0.9, 2)}

    bank = abnormal_bank(rows, 5)

    assert bank.valid.tolist() == [True] * 8 + [False] * 2
    assert (bank.features[bank.rows_of("bolt")] == rows["bolt"]).all()
    assert (bank.features[bank.rows_of("nut")][:3] == rows["nut"]).all()
    assert (bank.source == -1).all()
    assert (bank.position == -1).all()


def test_textures_are_all_different_and_fill_the_input() -> None:
    drawn = textures(6, 48, np.random.default_rng(0))

    assert drawn.shape == (6, 48, 48, 3)
    assert drawn.dtype == np.uint8
    assert len({picture.tobytes() for picture in drawn}) == 6
    assert min(picture.std() for picture in drawn) > 0


# --- candidates -----------------------------------------------------------------------------------


def test_every_inspected_patch_is_a_candidate_and_says_truly_where_it_is_from() -> None:
    stored = np.random.default_rng(0).random((5, 16, D)).astype(np.float16)
    foreground = np.zeros((4, 4), np.uint8)
    foreground[[0, 1, 1], [0, 0, 3]] = 1
    told: list[int] = []

    pool = gather(
        store_of(stored), foreground, folds_of(5), 3, np.random.default_rng(0), told.append
    )

    assert len(pool.features) == sum(told) == 15
    assert pool.candidates.tolist() == list(range(15))
    places = set(zip(pool.image.tolist(), map(tuple, pool.position.tolist()), strict=True))
    assert places == {(image, place) for image in range(5) for place in ((0, 0), (1, 0), (1, 3))}
    some = np.array([14, 0, 7])
    patch = pool.position[some] @ (4, 1)
    assert (pool.features[some] == stored[pool.image[some], patch]).all()
    assert pool.features[some].dtype == np.float32


def test_a_copy_of_an_image_is_evidence_of_it_and_held_out_with_it() -> None:
    stored = np.random.default_rng(0).random((3 * 8, 16, D))
    stored[:, :, 0] = np.tile(np.arange(8), 3)[:, None]
    entries, folds, rng = store_of(stored), folds_of(8), np.random.default_rng(0)
    store = replace(entries, images=entries.images[:8])

    pool = gather(store, everywhere((4, 4)), folds, 9, rng, lambda done: None)

    features = pool.features[np.arange(len(pool.features))]
    assert len(features) == 3 * 8 * 16
    assert (features[:, 0] == pool.image).all()
    for fold, bank in enumerate(fold_rows(pool, folds, 9, 0, lambda done: None)):
        assert fold not in folds[bank[:, 0].numpy().astype(int)]


def test_rows_that_a_route_searches_carry_their_place_at_the_weight_of_the_route() -> None:
    _, _, bank = tagged_bank()

    rows = located_rows(bank, "nut", Scoring(1, 1.0, position_weight=0.25)).numpy()

    assert len(rows) == 10  # the others of its range are not valid
    assert (rows[:, :D] == bank.features[bank.rows_of("nut")][:10]).all()
    patch = rows[:, 2].astype(int)
    assert (rows[:, D:] == 0.25 * np.stack(np.divmod(patch, GRID_WIDTH), axis=1)).all()
    assert len(located_rows(bank, None, Scoring(1, 1.0))) == 50


def test_evidence_is_located_where_each_patch_was() -> None:
    pool, some = tagged(4, 30, 0), np.array([31, 7])

    located = pool.located[some]

    assert (located[:, :D] == pool.features[some]).all()
    # λ = 0.5; patches 1 and 7 of a map that is six wide.
    assert located[:, D:].tolist() == [[0.0, 0.5], [0.5, 0.5]]
    assert len(pool.located) == 120
