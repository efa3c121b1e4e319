"""What the abnormal side of a product is where no defect is labelled: made up, and without weight.

Pseudo-abnormal rows were measured to make rankings worse, never better, so that their weight is 0
unless it is asked for: see `docs/decisions/0004`. With labelled defects: see `trainer.teaching`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.scoring import Scoring
from trainer.banks import Evidence, pseudo_abnormal
from trainer.coreset import greedy_k_centre
from trainer.head import train_head
from trainer.lessons import Seen, joined, see
from trainer.search import locate
from trainer.teaching import AbnormalSide, Terms

EXAMPLES = 2_000
"""Good patches for the head; as many pseudo-abnormal ones are drawn."""

FLOOR_QUANTILE = 0.99
"""A pseudo-abnormal row lies farther from the bank than this share of unseen good patches."""

DRAWS_PER_ROW = 4
"""Features drawn for each row of the abnormal bank, which keeps the most different ones."""


def unseen(
    pool: Evidence,
    folds: NDArray[np.int64],
    banks: list[Tensor],
    scoring: Scoring,
    rng: np.random.Generator,
) -> Seen:
    """Look up good patches, each in the bank that was built without its image.

    Args:
        pool: Patches of good images.
        folds: Fold of each image.
        banks: Located rows (N, D + 2), of each fold those without it.
        scoring: The constants.
        rng: Draws `EXAMPLES` patches.
    """
    picked = rng.choice(len(pool.image), min(EXAMPLES, len(pool.image)), replace=False)
    fold = folds[pool.image[picked]]
    found = [
        see(torch.from_numpy(pool.located[picked[fold == number]]), rows, scoring)
        for number, rows in enumerate(banks)
        if (fold == number).any()
    ]
    return joined(found)


def imagine(
    pool: Evidence,
    good: Seen,
    bank: Tensor,
    foreign: NDArray[np.float32],
    terms: Terms,
    weight: float,
) -> AbnormalSide:
    """Make abnormal rows by fusing good with foreign patches, and a head that knows them.

    The head's examples are other draws than the rows.

    Args:
        pool: Patches of good images.
        good: Some of them, from `unseen`.
        bank: Located normal rows, (N, D + 2).
        foreign: (m, D) patches of anything else.
        terms: What is the same for every head of the product.
        weight: How much the rows may raise.
    """
    rng = np.random.default_rng(terms.seed)
    floor = float(torch.quantile(good.distances[:, 0], FLOOR_QUANTILE))
    count = EXAMPLES + DRAWS_PER_ROW * terms.rows
    shown = bank[:, :-2]
    fused = pseudo_abnormal(pool.features, foreign, shown.numpy(), floor, count, rng)
    kept = _for_the_head(len(fused), EXAMPLES / count, terms.rows)
    pseudo, others = torch.from_numpy(fused[:kept]), fused[kept:]
    made = torch.from_numpy(others[greedy_k_centre(others, terms.rows, rng)])
    # What is made up lies nowhere.
    nowhere = locate(pseudo, torch.zeros(len(pseudo), 2), 0.0)
    everywhere = locate(shown, torch.zeros(len(shown), 2), 0.0)
    imagined = see(nowhere, everywhere, terms.scoring)
    normal, abnormal = (each.enhanced(made, terms.scoring) for each in (good, imagined))
    head = train_head(normal, abnormal, terms.seed, recipe=terms.recipe)
    return AbnormalSide(made, head, weight)


def _for_the_head(rows: int, share: float, rows_each: int) -> int:
    """How many fusions are the head's: its share, unless it left the bank short of rows."""
    return min(int(rows * share), max(rows - rows_each, rows // 2))
