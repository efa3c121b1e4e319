"""Centres of a few clusters: what is typical of a set of points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 25
"""Most rounds of k-means; it usually settles in fewer than 10."""


def k_means(
    points: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Find centres by Lloyd's rounds from points drawn at random: (n, E) → (min(count, n), E).

    A centre that no point is nearest to stays where it is.

    Source: Lloyd, IEEE Transactions on Information Theory 28, 1982.
    """
    drawn = rng.choice(len(points), min(count, len(points)), replace=False)
    centres: NDArray[np.float64] = points[drawn].copy()
    settled = np.full(len(points), -1)
    for _ in range(ROUNDS):
        nearest = gaps(points, centres).argmin(axis=1)
        if np.array_equal(nearest, settled):
            break
        settled = nearest
        for number in np.unique(nearest):
            centres[number] = points[nearest == number].mean(axis=0)
    return centres


def gaps(points: NDArray[np.floating], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances, (n, E) and (R, E) → (n, R); one centre at a time, or it would take n·R·E."""
    return np.stack([np.linalg.norm(points - centre, axis=1) for centre in centres], axis=1)
