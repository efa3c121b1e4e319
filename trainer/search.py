"""Retrieval and scoring in torch: the twin of `inspection.retrieval` and `inspection.scoring` that
training needs, because it is differentiable and fast over many frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inspection.retrieval import EVEN_SHARE

# Rows of (chunk, N) distances held at once: 2,048 × 65,536 float32 is 512 MiB.
CHUNK = 2048


def nearest(
    patches: Tensor, rows: Tensor, k: int, excluded: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find each patch's K nearest rows; see `inspection.retrieval.nearest`.

    Args:
        patches: (P, D) float32.
        rows: (N, D) float32, all valid.
        k: 1 <= k <= N.
        excluded: (P, N) bool, rows that a patch must not find, or None.

    Returns:
        Distances (P, K) float32 and row numbers (P, K) int64, nearest first.
    """
    distances, found = [], []
    norms = rows.square().sum(1)
    for start in range(0, len(patches), CHUNK):
        part = patches[start : start + CHUNK]
        # The product form only chooses; distances are then taken directly, because the product form
        # puts identical unit vectors up to 1.1e-3 apart in float32.
        partial = torch.addmm(norms, part, rows.T, alpha=-2.0)
        if excluded is not None:
            partial = partial.masked_fill(excluded[start : start + CHUNK], torch.inf)
        # A minimum takes a third of the time of a top-K of one.
        index = partial.argmin(1, keepdim=True) if k == 1 else _lowest(partial, k)
        gaps = (part[:, None, :] - rows[index]).square().sum(-1).sqrt()  # (chunk, K)
        gaps, order = gaps.sort(dim=1, stable=True)
        distances.append(gaps)
        found.append(index.gather(1, order))
    return torch.cat(distances), torch.cat(found)


def _lowest(values: Tensor, k: int) -> Tensor:
    return values.topk(k, largest=False).indices


def attend(distances: Tensor, index: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Rebuild each patch from its neighbours; see `inspection.retrieval.attend`. → (P, D)."""
    return (attention(distances, temperature)[:, :, None] * rows[index]).sum(1)


def attention(distances: Tensor, temperature: float) -> Tensor:
    """Weights of neighbours, (P, K) → (P, K), rows that sum to 1; nearest first."""
    squared = distances.square()
    weights = torch.exp((squared[:, :1] - squared) / temperature)
    weights = weights - weights[:, -1:] + EVEN_SHARE
    return weights / weights.sum(1, keepdim=True)


def enhance(
    patches: Tensor,
    normal_distances: Tensor,
    normal_memory: Tensor,
    abnormal_distances: Tensor,
    abnormal_memory: Tensor,
) -> Tensor:
    """Put beside each patch what both banks know; see `inspection.scoring.enhance`. → (P, Z)."""
    mean = normal_distances.mean(1, keepdim=True)
    return torch.cat(
        [
            patches,
            patches - normal_memory,
            patches - abnormal_memory,
            normal_distances,
            abnormal_distances,
            normal_distances[:, :1] / (mean + 1e-6),
        ],
        dim=1,
    )
