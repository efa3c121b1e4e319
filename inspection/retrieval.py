"""Search and attention over a memory bank in plain numpy: the slow truth for all fast code.

Letters: N bank rows, P patches, D dimensions, K neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspection.errors import InputError

EVEN_SHARE = 1e-6
"""Weight that every neighbour keeps, so that K equally distant rows are simply averaged."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Each patch's K nearest rows, nearest first; equal distances put the lower row first.

    Attributes:
        distances: (P, K) float64, Euclidean.
        rows: (P, K) int64, counted within the rows that were searched.
    """

    distances: NDArray[np.float64]
    rows: NDArray[np.int64]


def nearest(
    patches: NDArray[np.floating],
    features: NDArray[np.floating],
    valid: NDArray[np.bool_],
    k: int,
) -> Neighbours:
    """Find each patch's K nearest valid rows.

    Args:
        patches: (P, D), finite.
        features: (N, D), the rows to search.
        valid: (N,); a row that is not valid is never found.
        k: How many neighbours, 1 <= k <= valid rows.

    Raises:
        InputError: Shapes differ, k is out of range, or a patch is not finite.
    """
    patches, features = np.asarray(patches, np.float64), np.asarray(features, np.float64)
    if patches.ndim != 2 or features.ndim != 2 or patches.shape[1] != features.shape[1]:
        raise InputError(
            f"expected patches (P, D) and rows (N, D) of one D, "
            f"got {patches.shape} and {features.shape}"
        )
    if valid.shape != features.shape[:1]:
        raise InputError(f"expected valid of shape {features.shape[:1]}, got {valid.shape}")
    kept = np.flatnonzero(valid)
    if not 1 <= k <= len(kept):
        raise InputError(f"k must lie between 1 and the {len(kept)} valid rows, got {k}")
    if not np.isfinite(patches).all():
        raise InputError("patches must be finite; a patch feature holds NaN or infinity")

    distances = np.empty((len(patches), k))
    rows = np.empty((len(patches), k), np.int64)
    bank = features[kept]
    # |a|² − 2ab + |b|² finds who may be a neighbour, the direct form says who is. In float64 the
    # first is off by about 1e-13 of |a|² + |b|²: whoever lies within 1e-9 of the K-th is looked at.
    bank_norms = np.einsum("nd,nd->n", bank, bank)
    for p, patch in enumerate(patches):
        norm = patch @ patch
        squared = norm - 2.0 * (bank @ patch) + bank_norms
        kth = np.partition(squared, k - 1)[k - 1]
        near = np.flatnonzero(squared <= kth + 1e-9 * (norm + bank_norms.max() + 1.0))
        gaps = np.linalg.norm(patch - bank[near], axis=1)
        order = np.argsort(gaps, kind="stable")[:k]
        distances[p], rows[p] = gaps[order], kept[near[order]]
    return Neighbours(distances, rows)


def attend(
    neighbours: Neighbours, features: NDArray[np.floating], temperature: float
) -> NDArray[np.float64]:
    """Rebuild each patch from its neighbours: r(q) = Σ_j w_j b_j / Σ_j w_j.

    w_j = exp(−d_j²/τ) − exp(−d_K²/τ) + 10⁻⁶ exp(−d_1²/τ): softmax attention from which the weight
    of the farthest neighbour is taken off. A row so enters and leaves the K nearest with no weight,
    and the result moves smoothly. With plain softmax the K-th and the (K+1)-th row change places,
    and all their weight with them, whenever two runtimes round differently: `docs/decisions/0003`.

    Args:
        neighbours: (P, K) of `nearest`.
        features: (N, D), the rows that were searched.
        temperature: τ > 0, in squared units of feature distance.

    Returns:
        (P, D) float64. With K = 1 it is the nearest row itself, the form of the DMAD paper.

    Raises:
        InputError: The temperature is not positive.
    """
    if not temperature > 0:
        raise InputError(f"temperature must be positive, got {temperature}")
    squared = np.square(neighbours.distances)
    # Taking the nearest row's logit off before the division keeps every exponent at or below zero,
    # however small the temperature is.
    weights = np.exp((squared[:, :1] - squared) / temperature)
    weights += EVEN_SHARE - weights[:, -1:]
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(
        np.einsum("pk,pkd->pd", weights, np.asarray(features, np.float64)[neighbours.rows])
    )
