"""What the head learns from: good patches and pseudo-abnormal ones, with what the banks know.

A patch that met itself in a bank would have a residual of 0 in training and never on the line. So
good patches look only into banks built without their own image, and the abnormal examples are other
draws than the abnormal rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.bank import MemoryBank
from inspection.bundle import ANY_PRODUCT
from inspection.errors import InputError
from trainer.banks import Evidence, abnormal_bank, pseudo_abnormal
from trainer.search import attention, enhance, nearest

EXAMPLES = 12_000
"""Good patches for the head, shared equally by the categories; as many abnormal ones are drawn."""

FLOOR_QUANTILE = 0.99
"""A pseudo-abnormal row lies farther from the bank than this share of unseen good patches."""

TEMPERATURE_FACTOR = 1.0
"""τ over the median squared distance of an unseen good patch to its nearest row. Measured with
K = 12, mean image AUROC: 93.6 % with 1, 93.6 % with 2, 93.4 % with 0.5, 92.3 % with 0.25."""

SAME = 1e-3
"""A patch nearer than this to its nearest row shows the very same pixels, as a background does that
is painted black. Usual gaps between good parts are 0.34 to 0.47 in our six categories."""

DRAWS_PER_ROW = 4
"""Features drawn for each row of the abnormal bank, which keeps the most different ones."""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Patches and their neighbours in one bank.

    Attributes:
        patches: (n, D) float32.
        distances: (n, K) float32, nearest first.
        near: (n, K, D) float32, the neighbours themselves.
    """

    patches: Tensor
    distances: Tensor
    near: Tensor

    def memory(self, temperature: float) -> Tensor:
        """Attention over the neighbours, (n, D); see `inspection.retrieval.attend`."""
        return (attention(self.distances, temperature)[:, :, None] * self.near).sum(1)


@dataclass(frozen=True, slots=True)
class Contrast:
    """Examples for the head, and what was made on the way.

    Attributes:
        normal: (n, Z) float32, enhanced good patches.
        abnormal: (m, Z) float32, enhanced pseudo-abnormal features.
        bank: The abnormal bank.
        temperatures: τ of the attention by category, and over all for `ANY_PRODUCT`.
    """

    normal: Tensor
    abnormal: Tensor
    bank: MemoryBank
    temperatures: Mapping[str, float]


def look_up(patches: Tensor, rows: Tensor, k: int) -> Neighbourhood:
    """Find the neighbours of patches, (n, D), among rows, (N, D)."""
    distances, index = nearest(patches, rows, k)
    return Neighbourhood(patches, distances, rows[index])


def contrast(
    evidence: Mapping[str, Evidence],
    folds: Mapping[str, NDArray[np.int64]],
    fold_banks: Mapping[str, list[Tensor]],
    foreign: Mapping[str, NDArray[np.float32]],
    *,
    rows_each: int,
    k: int,
    rng: np.random.Generator,
) -> Contrast:
    """Make the abnormal bank and the head's examples.

    Args:
        evidence: Candidate patches by category.
        folds: Fold of each training image, by category.
        fold_banks: For each category and fold, a normal bank without that fold's images.
        foreign: By category, patches of anything else.
        rows_each: Abnormal rows of each category.
        k: Neighbours.
        rng: Draws patches, pairs and λ.

    Raises:
        InputError: The images of a category are copies of one another.
    """
    each = EXAMPLES // len(evidence)
    seen = {
        name: _unseen(pool, folds[name], fold_banks[name], each, k, rng)
        for name, pool in evidence.items()
    }
    fused = {}
    for name, hood in seen.items():
        floor = float(torch.quantile(hood.distances[:, 0], FLOOR_QUANTILE))
        count = each + DRAWS_PER_ROW * rows_each
        rows = fold_banks[name][0].numpy()
        fused[name] = pseudo_abnormal(
            evidence[name].features, foreign[name], rows, floor, count, rng
        )
    kept = {
        name: _for_the_head(len(rows), each / (each + DRAWS_PER_ROW * rows_each), rows_each)
        for name, rows in fused.items()
    }
    bank = abnormal_bank({name: rows[kept[name] :] for name, rows in fused.items()}, rows_each, rng)
    gaps = {name: hood.distances[:, 0] for name, hood in seen.items()}
    gaps[ANY_PRODUCT] = torch.cat(list(gaps.values()))
    temperatures = {name: _temperature(name, gap) for name, gap in gaps.items()}
    normal, abnormal = [], []
    for name, hood in seen.items():
        defects = torch.from_numpy(bank.evidence_of(name))
        pseudo = look_up(torch.from_numpy(fused[name][: kept[name]]), fold_banks[name][0], k)
        normal.append(_enhanced(hood, look_up(hood.patches, defects, k), temperatures[name]))
        abnormal.append(_enhanced(pseudo, look_up(pseudo.patches, defects, k), temperatures[name]))
    return Contrast(torch.cat(normal), torch.cat(abnormal), bank, temperatures)


def _for_the_head(rows: int, share: float, rows_each: int) -> int:
    """How many fusions are the head's: its share, unless it left the bank short of rows."""
    return min(int(rows * share), max(rows - rows_each, rows // 2))


def _temperature(name: str, gaps: Tensor) -> float:
    """τ from the gaps of unseen good patches, (n,); what never differs tells nothing of it."""
    differing = gaps[gaps > SAME]
    if len(differing) > 0:
        return TEMPERATURE_FACTOR * float(differing.square().median())
    raise InputError(
        f"all good images of category {name} are copies of one another, so that nothing can be "
        "learned of how good parts differ; take every image of another part"
    )


def _unseen(
    pool: Evidence,
    folds: NDArray[np.int64],
    banks: list[Tensor],
    count: int,
    k: int,
    rng: np.random.Generator,
) -> Neighbourhood:
    """Look up good patches, each in the bank that was built without its image."""
    picked = rng.choice(len(pool.features), min(count, len(pool.features)), replace=False)
    fold = folds[pool.image[picked]]
    found = [
        look_up(torch.from_numpy(pool.features[picked[fold == number]]), rows, k)
        for number, rows in enumerate(banks)
    ]
    return Neighbourhood(
        torch.cat([hood.patches for hood in found]),
        torch.cat([hood.distances for hood in found]),
        torch.cat([hood.near for hood in found]),
    )


def _enhanced(normal: Neighbourhood, abnormal: Neighbourhood, temperature: float) -> Tensor:
    return enhance(
        normal.patches,
        normal.distances,
        normal.memory(temperature),
        abnormal.distances,
        abnormal.memory(temperature),
    )
