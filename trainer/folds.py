"""Which good images are held out together, and the banks without them.

A good part that calibrates or teaches is scored by a bank that has not seen it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.errors import NotEnoughSamplesError
from trainer.banks import Evidence
from trainer.coreset import greedy_k_centre

FOLDS = 4
LEAST_IMAGES = 4
"""One for each fold. A threshold from so few is the highest score seen, and says so."""

LONGEST_BLOCK = 8
"""Consecutive images that are held out together."""


def check_enough(category: str, images: int) -> None:
    """Refuse a category too small to calibrate.

    Raises:
        NotEnoughSamplesError: Fewer than `LEAST_IMAGES` images.
    """
    if images < LEAST_IMAGES:
        raise NotEnoughSamplesError(
            f"category {category} has {images} good images to learn from, expected at least "
            f"{LEAST_IMAGES}; add good parts"
        )


def folds_of(images: int) -> NDArray[np.int64]:
    """Number the fold of each image: short blocks of consecutive images, dealt out in turn.

    Frames taken one after the other are often twins, and a twin in the bank would make a held out
    part look better than a new one will. But a fold must not be a whole lot either: the bank that
    ships knows every lot, and a bank without one calls all of it defective. With quarters of the
    list as folds, the threshold of one product came out so high that 91 % of its defects passed.
    """
    block = max(1, min(LONGEST_BLOCK, images // (2 * FOLDS)))
    return np.arange(images) // block % FOLDS


def fold_rows(
    evidence: Evidence,
    folds: NDArray[np.int64],
    rows: int,
    seed: int,
    advance: Callable[[int], None],
) -> list[Tensor]:
    """Choose, for every fold, a bank from the candidates of the others: FOLDS × (N, D + 2)."""
    banks, fold_of_each = [], folds[evidence.image[evidence.candidates]]
    for fold in range(FOLDS):
        others = evidence.candidates[fold_of_each != fold]
        rng = np.random.default_rng([seed, fold])
        chosen = greedy_k_centre(evidence.located, rows, rng, advance, others)
        banks.append(torch.from_numpy(evidence.located[chosen]))
    return banks
