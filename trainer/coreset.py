"""Which patches a bank keeps: greedy k-centre selection under a fixed number of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

PROJECTED_DIMENSIONS = 64
"""Distances during selection are taken on a random projection of this many dimensions."""


def candidates(
    patches: Sequence[int], most: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the patches among which a coreset is chosen, the same number from every image.

    Args:
        patches: How many each image has.
        most: How many are drawn at the most.
        rng: Draws them.

    Returns:
        Image numbers (n,) and patch numbers (n,), n <= most.
    """
    each = max(1, most // len(patches))
    chosen = [np.sort(rng.choice(count, min(count, each), replace=False)) for count in patches]
    image = np.repeat(np.arange(len(patches)), [len(some) for some in chosen])
    patch = np.concatenate(chosen)
    if len(image) > most:
        kept = np.sort(rng.choice(len(image), most, replace=False))
        image, patch = image[kept], patch[kept]
    return image, patch


def greedy_k_centre(
    features: NDArray[np.float32],
    rows: int,
    rng: np.random.Generator,
    advance: Callable[[int], None] = lambda done: None,
) -> NDArray[np.int64]:
    """Choose rows so that every candidate lies close to one: each next row is the farthest so far.

    The largest gap left is at most twice the best possible (in the projected distance).

    Args:
        features: (n, D) float32 candidates.
        rows: How many to choose; all, when there are no more candidates than that.
        rng: Draws the projection and the first row.
        advance: Told how many rows were chosen since the last call.

    Returns:
        (min(rows, n),) int64, in order of choice.

    Source: Gonzalez, Theoretical Computer Science 38, 1985; for patches: PatchCore, sec. 3.2.
    """
    n, dimensions = features.shape
    if n <= rows:
        advance(n)
        return np.arange(n)
    points = torch.from_numpy(features)
    if dimensions > PROJECTED_DIMENSIONS:
        scale = PROJECTED_DIMENSIONS**-0.5
        matrix = rng.standard_normal((dimensions, PROJECTED_DIMENSIONS)) * scale
        points = points @ torch.from_numpy(matrix.astype(np.float32))
    norms = points.square().sum(1)
    chosen = np.empty(rows, np.int64)
    chosen[0] = rng.integers(n)
    gap, distance = torch.full((n,), torch.inf), torch.empty(n)
    for i in range(rows):
        # |a|² − 2ab + |b|² in one pass over the candidates, into memory that is used again. Its
        # rounding only blurs which of two nearly equal gaps is the larger.
        row = int(chosen[i])
        torch.addmv(norms, points, points[row], alpha=-2.0, out=distance)
        torch.minimum(gap, distance.add_(norms[row]), out=gap)
        # A chosen row is never chosen again, even among duplicates.
        gap[row] = -torch.inf
        if i + 1 < rows:
            chosen[i + 1] = int(gap.argmax())
        if i % 64 == 63:
            advance(64)
    advance(rows % 64)
    return chosen
