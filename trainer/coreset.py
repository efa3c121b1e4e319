"""Which patches a bank keeps: greedy k-centre selection under a fixed number of rows.

The selection is exact. Of more than `EXACT` patches only those are candidates that a selection in
blocks of them keeps: time grows with the number of patches, memory does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PROJECTED_DIMENSIONS = 64
"""Distances during selection are taken on a random projection of this many dimensions."""

EXACT = 1 << 18
"""Patches that are candidates all together, and size of a block beyond: 64 MB projected."""

POOL = 4096
"""Candidates whose gaps are kept up to date; 1,024 to 16,384 take the same time within 20 %."""

CHUNK = 512
"""Gaps brought up to date together: (chunk, rows) distances stay in the cache."""

READ = 1 << 15
"""Candidates read together, 30 MB at D = 232."""


class Rows(Protocol):
    """Patch features to choose from, in memory or on disk; an array (n, D) float32 is such."""

    def __len__(self) -> int:
        """n."""
        ...

    def __getitem__(self, numbers: NDArray[np.int64], /) -> NDArray[np.float32]:
        """(m,) → (m, D), a copy."""
        ...


def candidates(
    features: Rows,
    groups: NDArray[np.integer],
    rows: int,
    rng: np.random.Generator,
    advance: Callable[[int], None] = lambda done: None,
    exact: int = EXACT,
) -> NDArray[np.int64]:
    """Say among which patches rows are chosen: all, or `rows` of each block if they are too many.

    Rows chosen among those of blocks leave a gap of at most four times the best possible, with and
    without some of the groups. Measured with blocks of 65,536, the largest and the mean gap grow by
    1 to 3 %, and image AUROC is as high: `benchmarks/results/coreset.json`.

    Args:
        features: The patches, (n, D).
        groups: (n,) of each patch; no block has patches of two.
        rows: How many will be chosen.
        rng: As for `greedy_k_centre`.
        advance: Told how many patches were gone through since the last call.
        exact: Up to as many patches, all are candidates.

    Returns:
        Their numbers, (at most n,) int64, ascending.

    Source: Malkomes et al., NeurIPS 2015, theorem 1.
    """
    if len(features) <= exact:
        advance(len(features))
        return np.arange(len(features))
    kept = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        for block in np.array_split(members, -(-len(members) // exact)):
            kept.append(greedy_k_centre(features, rows, rng, among=block))
            advance(len(block))
    return np.sort(np.concatenate(kept))


def greedy_k_centre(
    features: Rows,
    rows: int,
    rng: np.random.Generator,
    advance: Callable[[int], None] = lambda done: None,
    among: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Choose rows so that every candidate lies close to one: each next row is the farthest so far.

    The largest gap left is at most twice the best possible (in the projected distance).

    Args:
        features: Patches, (n, D).
        rows: How many to choose; all, when there are no more candidates than that.
        rng: Draws the projection and the first row.
        advance: Told how many rows were chosen since the last call.
        among: Numbers of the candidates; None for all.

    Returns:
        (min(rows, candidates),) int64 numbers, in order of choice.

    Source: Gonzalez, Theoretical Computer Science 38, 1985; for patches: PatchCore, sec. 3.2.
    """
    numbers = np.arange(len(features)) if among is None else among
    if len(numbers) <= rows:
        advance(len(numbers))
        return numbers
    points = _projected(features, numbers, rng)
    return numbers[_farthest_first(points, rows, int(rng.integers(len(points))), advance)]


def _projected(features: Rows, numbers: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Read candidates piece by piece, and project them: (n, at most `PROJECTED_DIMENSIONS`)."""
    dimensions = features[numbers[:1]].shape[1]
    matrix = np.eye(dimensions)
    if dimensions > PROJECTED_DIMENSIONS:
        matrix = rng.standard_normal((dimensions, PROJECTED_DIMENSIONS))
        matrix *= PROJECTED_DIMENSIONS**-0.5
    projection = torch.from_numpy(matrix.astype(np.float32))
    points = torch.empty(len(numbers), projection.shape[1])
    for start in range(0, len(numbers), READ):
        piece = torch.from_numpy(features[numbers[start : start + READ]])
        torch.mm(piece, projection, out=points[start : start + READ])
    return points


def _farthest_first(
    points: Tensor, rows: int, first: int, advance: Callable[[int], None]
) -> NDArray[np.int64]:
    """Greedy k-centre, exact: (n, d) points → (rows,) numbers in order of choice, rows < n.

    The gap of a point can only shrink as rows are chosen, so a gap measured earlier bounds it from
    above. Gaps are kept up to date for the `POOL` points with the largest ones; while the largest
    of them is no smaller than every bound outside, it is the largest of all. Otherwise another pool
    is formed, and what it missed since is made up for in matrix products. Against bringing every
    gap up to date for every row this takes an eighth of the time and half of the arithmetic.
    """
    norms = points.square().sum(1)
    chosen = torch.empty(rows, dtype=torch.int64)
    chosen[0] = first
    gaps = torch.addmv(norms, points, points[first], alpha=-2.0).add_(norms[first])
    gaps[first] = -torch.inf
    seen = torch.ones(len(points), dtype=torch.int32)
    done = 1
    advance(1)
    while done < rows:
        # The largest bound outside of the pool is the one that did not fit in.
        bounds, pool = gaps.topk(min(POOL + 1, len(points)))
        outside = bounds[POOL] if len(pool) > POOL else -torch.inf
        pool = pool[:POOL]
        near, norm = points[pool], norms[pool]
        gap = _caught_up(near, norm, bounds[:POOL], seen[pool], points[chosen[:done]])
        before = done
        while done < rows and gap.max() >= outside:
            row = int(gap.argmax())
            chosen[done] = pool[row]
            done += 1
            # |a|² − 2ab + |b|²; its rounding only blurs which of two nearly equal gaps is larger.
            distance = torch.addmv(norm, near, near[row], alpha=-2.0).add_(norm[row])
            torch.minimum(gap, distance, out=gap)
            # A chosen row is never chosen again, even among duplicates.
            gap[row] = -torch.inf
        gaps[pool], seen[pool] = gap, done
        advance(done - before)
    return np.asarray(chosen.numpy())


def _caught_up(
    points: Tensor, norms: Tensor, gaps: Tensor, seen: Tensor, centres: Tensor
) -> Tensor:
    """Bring gaps, (m,), that count the first `seen` of the centres up to date with all of them."""
    current = gaps.clone()
    squares = centres.square().sum(1)
    # Points that missed about as many rows go together.
    for some in torch.split(seen.argsort(), CHUNK):
        missed = slice(int(seen[some[0]]), len(centres))
        if missed.start < missed.stop:
            distance = torch.addmm(squares[missed], points[some], centres[missed].T, alpha=-2.0)
            current[some] = torch.minimum(current[some], distance.amin(1) + norms[some])
    return current
