"""The torch twins against `inspection.retrieval` and `inspection.scoring`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inspection import retrieval, scoring
from inspection.bank import empty_bank
from inspection.scoring import Scoring
from trainer.calibrate import patch_scores
from trainer.head import HeadNet, head_net, head_weights
from trainer.search import attend, attention, enhance, locate, nearest
from trainer.teaching import AbnormalSide

# Awkward on purpose: P, N, D, K. The second chunk of the search begins at 2048 patches.
SHAPES = [(1, 1, 1, 1), (3, 7, 5, 2), (13, 31, 17, 9), (2061, 33, 3, 5), (9, 64, 232, 12)]

DIMENSIONS = 232

# float32 against float64 on features no longer than 1: an ulp of a difference, summed over D.
DISTANCE = 2e-6


def case(P: int, N: int, D: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Patches and rows of length up to 1; some patches are rows, and some rows are twins."""
    rng = np.random.default_rng([P, N, D])
    patches, rows = (rng.normal(size=(n, D)).astype(np.float32) for n in (P, N))
    patches /= np.linalg.norm(patches, axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[N // 2 :][: N // 4] = rows[: N // 4]
    patches[::4] = rows[np.arange(len(patches[::4])) % N]
    return patches, rows


@pytest.mark.parametrize(("P", "N", "D", "K"), SHAPES)
def test_the_nearest_rows_are_the_oracles(P: int, N: int, D: int, K: int) -> None:
    patches, rows = case(P, N, D)

    distances, index = nearest(torch.from_numpy(patches), torch.from_numpy(rows), K)

    expected = retrieval.nearest(patches, rows, np.ones(N, bool), K)
    assert np.abs(distances.numpy() - expected.distances).max() < DISTANCE
    # Twins may change places: what is found must be as far as it says, and found once.
    gaps = np.linalg.norm(patches[:, None] - rows[index.numpy()], axis=2)
    assert np.abs(gaps - distances.numpy()).max() < DISTANCE
    assert all(len(set(found)) == K for found in index.tolist())


def test_an_identical_row_is_at_no_distance_at_all() -> None:
    patches, rows = case(400, 90, 232)

    distances, _ = nearest(torch.from_numpy(patches[::4]), torch.from_numpy(rows), 3)

    assert np.array_equal(distances[:, 0].numpy(), np.zeros(100))


def test_neighbours_come_nearest_first_where_the_product_form_cannot_tell() -> None:
    rng = np.random.default_rng(6)
    patch = rng.normal(size=(1, 232)).astype(np.float32)
    patch /= np.linalg.norm(patch)
    # Twelve rows 1e-5 apart from one another; |b|² − 2qb of them differs by less than it is off.
    steps = rng.permutation(12)[:, None] * 1e-5
    rows = (patch + (1e-4 + steps) * rng.choice([-1, 1], (12, 232)) / 232**0.5).astype(np.float32)

    distances, _ = nearest(torch.from_numpy(patch), torch.from_numpy(rows), 12)

    found = distances[0].numpy()
    assert (np.diff(found) >= 0).all()
    assert found[-1] - found[0] > 5e-5


def test_a_row_that_is_excluded_is_not_found() -> None:
    patches, rows = case(40, 30, 6)
    excluded = torch.zeros(40, 30, dtype=torch.bool)
    excluded[:, ::3] = True

    distances, index = nearest(torch.from_numpy(patches), torch.from_numpy(rows), 4, excluded)

    expected = retrieval.nearest(patches, rows, np.arange(30) % 3 > 0, 4)
    assert (index % 3).min() > 0
    assert np.abs(distances.numpy() - expected.distances).max() < DISTANCE


@pytest.mark.parametrize("temperature", [1e-6, 0.05, 30.0])
@pytest.mark.parametrize(("P", "N", "D", "K"), SHAPES)
def test_attention_rebuilds_patches_as_the_oracle_does(
    P: int, N: int, D: int, K: int, temperature: float
) -> None:
    patches, rows = case(P, N, D)
    near = retrieval.nearest(patches, rows, np.ones(N, bool), K)
    distances, index = torch.from_numpy(near.distances), torch.from_numpy(near.rows)

    # In float64, so that only the formula is compared: at τ = 1e-6 a float32 ulp is 12 % of τ.
    found = attend(distances, index, torch.from_numpy(rows).double(), temperature)

    assert np.allclose(found, retrieval.attend(near, rows, temperature), rtol=0, atol=1e-12)


@pytest.mark.parametrize("distances", [[[0.3]], [[0.2, 0.2, 0.2]], [[0.0, 1e3, 1e6]]])
def test_weights_of_neighbours_are_shares_whatever_the_distances(
    distances: list[list[float]],
) -> None:
    weights = attention(torch.tensor(distances), 1e-3)

    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    assert float(weights.min()) >= 0


@pytest.mark.parametrize(("P", "N", "D", "K"), SHAPES)
def test_the_enhanced_representation_is_the_oracles(P: int, N: int, D: int, K: int) -> None:
    patches, rows = case(P, N, D)
    near = retrieval.nearest(patches, rows, np.ones(N, bool), K)
    far = retrieval.Neighbours(near.distances * 2 + 0.1, near.rows)
    memories = retrieval.attend(near, rows, 0.1), retrieval.attend(far, rows, 0.1)

    found = enhance(
        *(
            torch.from_numpy(np.asarray(each, np.float64))
            for each in (patches, near.distances, memories[0], far.distances, memories[1])
        )
    )

    expected = scoring.enhance(patches, near, memories[0], far, memories[1])
    assert found.shape == (P, 3 * D + 2 * K + 1)
    assert np.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("position_weight", [0.0, 0.2])
@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize(("P", "N", "K"), [(1, 1, 1), (16, 40, 5), (33, 65, 12)])
def test_patch_scores_are_the_oracles(
    P: int, N: int, K: int, weight: float, position_weight: float
) -> None:
    patches, rows = case(P, N, DIMENSIONS)
    _, defects = case(1, N, DIMENSIONS + 1)
    defects = np.ascontiguousarray(defects[:, :DIMENSIONS])
    torch.manual_seed(3)
    net = head_net(head_weights(HeadNet(3 * DIMENSIONS + 2 * K + 1).requires_grad_(False)))
    constants = Scoring(K, 0.3, position_weight=position_weight)
    places = [np.stack(np.divmod(np.arange(n), 5), axis=1) for n in (P, N)]

    found = patch_scores(
        *(
            locate(torch.from_numpy(shown), torch.from_numpy(place), position_weight)
            for shown, place in zip((patches, rows), places, strict=True)
        ),
        AbnormalSide(torch.from_numpy(defects), net, weight),
        constants,
    )

    expected = scoring.patch_scores(
        *(patches, places[0], _bank(rows, places[1]), _bank(defects, places[1])),
        *(head_weights(net), constants),
        category=None,
        weight=weight,
    )
    assert float(expected.max()) > 0.1 or N == 1
    # Ten times what a distance is off: attention and a head of 64 units come on top.
    assert np.abs(found.numpy() - expected).max() < 10 * DISTANCE * max(1.0, expected.max())


def _bank(rows: NDArray[np.float32], position: NDArray[np.int64]) -> scoring.MemoryBank:
    empty = empty_bank(("only",), len(rows), rows.shape[1])
    columns = {name: getattr(empty, name) for name in empty.__slots__}
    filled = {"features": rows, "valid": np.ones(len(rows), bool)}
    return scoring.MemoryBank(**{**columns, **filled, "position": position.astype(np.int32)})
