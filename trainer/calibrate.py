"""Scores of good parts by a bank that has not seen them: the raw material of thresholds.

Training images are divided into folds; each fold is scored by banks built from the others. So every
good image calibrates, and none is taken from the bank that ships.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.bank import MemoryBank
from inspection.bundle import ANY_PRODUCT
from inspection.errors import NotEnoughSamplesError
from inspection.foreground import Foreground, laid_over
from inspection.scoring import Scoring, image_score
from inspection.thresholds import Calibration, calibration_of
from trainer.banks import Evidence
from trainer.coreset import greedy_k_centre
from trainer.features import FeatureStore
from trainer.head import HeadNet
from trainer.search import attend, enhance, nearest

FOLDS = 4
LEAST_IMAGES = 4
"""One for each fold. A threshold from so few is the highest score seen, and says so."""

LONGEST_BLOCK = 8
"""Consecutive images that are held out together."""

ANY_PRODUCT_IMAGES = 300
"""Images, spread over all categories, that calibrate the route of unknown products: as many as an
FRR of 1 % needs. Each searches the rows of all categories, so a number for each category would take
time with the square of theirs."""


@dataclass(frozen=True, slots=True)
class AbnormalSide:
    """What raises suspicion beside the normal bank: rows, head, and how much it may raise."""

    rows: Tensor
    head: HeadNet
    weight: float


def abnormal_sides(bank: MemoryBank, head: HeadNet, weight: float) -> dict[str, AbnormalSide]:
    """Give every category, and the route of unknown products, the abnormal rows it searches."""
    return {
        category or ANY_PRODUCT: AbnormalSide(
            torch.from_numpy(bank.evidence_of(category)), head, weight
        )
        for category in (*bank.categories, None)
    }


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
    """Choose, for every fold, a bank from the candidates of the other folds: FOLDS × (N, D)."""
    banks, fold_of_each = [], folds[evidence.image[evidence.candidates]]
    for fold in range(FOLDS):
        others = evidence.candidates[fold_of_each != fold]
        rng = np.random.default_rng([seed, fold])
        chosen = greedy_k_centre(evidence.features, rows, rng, advance, others)
        banks.append(torch.from_numpy(evidence.features[chosen]))
    return banks


def calibrate(
    stores: Mapping[str, FeatureStore],
    banks: Mapping[str, list[Tensor]],
    abnormal: Mapping[str, AbnormalSide],
    scorings: Mapping[str, Scoring],
    foregrounds: Mapping[str, Foreground],
    advance: Callable[[int], None],
) -> tuple[dict[str, Calibration], Calibration]:
    """Score every good image by the bank of its fold.

    Args:
        stores: Patch features by category.
        banks: `fold_rows` by category.
        abnormal: By category, and for `ANY_PRODUCT`; not searched where its weight is 0.
        scorings: The constants, by category and for `ANY_PRODUCT`.
        foregrounds: By category, where it is inspected.
        advance: Told how many images were scored.

    Returns:
        One calibration for each category, and one for frames of unknown product.

    Raises:
        NotEnoughSamplesError: A category has fewer than `LEAST_IMAGES` good images.
    """
    known: dict[str, Calibration] = {}
    unknown: list[float] = []
    for name, store in stores.items():
        count = len(store.images)
        folds = folds_of(count)
        some = min(count, -(-ANY_PRODUCT_IMAGES // len(stores)))
        picked = set(np.linspace(0, count - 1, some).astype(int))
        scores = []
        for image in range(count):
            patches = store.patches_of(image)
            seen = laid_over(foregrounds[name], store.shapes[image]).ravel()
            bank, each = banks[name][folds[image]], store.spec.patches
            scores.append(_image_score(patches, bank, abnormal[name], scorings[name], seen, each))
            if image in picked and len(stores) > 1:
                every = torch.cat([rows[folds[image]] for rows in banks.values()])
                side, scoring = abnormal[ANY_PRODUCT], scorings[ANY_PRODUCT]
                # What shows no product has no foreground either.
                all_seen = np.ones_like(seen)
                unknown.append(_image_score(patches, every, side, scoring, all_seen, each))
            advance(1)
        known[name] = calibration_of(scores)
    # With a single product there is nothing to be in doubt about.
    only = next(iter(known.values())) if len(known) == 1 else None
    return known, only or calibration_of(unknown)


def patch_scores(patches: Tensor, normal: Tensor, side: AbnormalSide, scoring: Scoring) -> Tensor:
    """Score patches in torch, (P, D) → (P,); see `inspection.scoring.patch_scores`."""
    distances, memory = _knowledge(patches, normal, scoring)
    evidence = (patches - memory).square().sum(1).sqrt()
    if side.weight == 0:
        return evidence
    known_defects = _knowledge(patches, side.rows, scoring)
    logits = side.head(enhance(patches, distances, memory, *known_defects))
    return evidence * (1.0 + side.weight * torch.relu(logits))


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


def _knowledge(patches: Tensor, rows: Tensor, scoring: Scoring) -> tuple[Tensor, Tensor]:
    distances, index = nearest(patches, rows, scoring.k)
    return distances, attend(distances, index, rows, scoring.temperature)


def _image_score(
    patches: NDArray[np.float16],
    bank: Tensor,
    side: AbnormalSide,
    scoring: Scoring,
    seen: NDArray[np.uint8],
    view_patches: int,
) -> float:
    """Score an image, (n, D), whose patches are inspected where `seen`, (n,), is 1."""
    # As many at once as the network sees: a line scan has hundreds of thousands.
    scores = [
        patch_scores(
            torch.from_numpy(patches[i : i + view_patches].astype(np.float32)), bank, side, scoring
        ).numpy()
        for i in range(0, len(patches), view_patches)
    ]
    return image_score(np.concatenate(scores) * seen, scoring, view_patches)
