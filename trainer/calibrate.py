"""Scores of good parts by a bank that has not seen them: the raw material of thresholds.

Training images are divided into folds; each fold is scored by banks built from the others. So every
good image calibrates, and none is taken from the bank that ships.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from inspection.bundle import ANY_PRODUCT
from inspection.foreground import Foreground, laid_over
from inspection.scoring import Scoring, image_score
from inspection.thresholds import Calibration, calibration_of
from trainer.features import FeatureStore
from trainer.folds import folds_of
from trainer.lessons import see
from trainer.search import locate
from trainer.teaching import AbnormalSide

ANY_PRODUCT_IMAGES = 300
"""Images, spread over all categories, that calibrate the route of unknown products: as many as an
FRR of 1 % needs. Each searches the rows of all categories, so a number for each category would take
time with the square of theirs."""


def calibrate(
    stores: Mapping[str, FeatureStore],
    banks: Mapping[str, list[Tensor]],
    sides: Mapping[str, AbnormalSide],
    scorings: Mapping[str, Scoring],
    foregrounds: Mapping[str, Foreground],
    advance: Callable[[int], None],
) -> tuple[dict[str, Calibration], Calibration]:
    """Score every good image by the bank of its fold.

    Args:
        stores: Patch features by category.
        banks: `fold_rows` by category.
        sides: By category; not asked where the weight is 0.
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
            bank = banks[name][folds[image]]
            scores.append(
                _image_score(store, image, bank, sides[name], scorings[name], foregrounds[name])
            )
            if image in picked and len(stores) > 1:
                every = torch.cat([rows[folds[image]] for rows in banks.values()])
                # What shows no product has neither a foreground nor known defects.
                unknown.append(_image_score(store, image, every, None, scorings[ANY_PRODUCT], None))
            advance(1)
        known[name] = calibration_of(scores)
    # With a single product there is nothing to be in doubt about.
    only = next(iter(known.values())) if len(known) == 1 else None
    return known, only or calibration_of(unknown)


def patch_scores(
    located: Tensor, normal: Tensor, side: AbnormalSide | None, scoring: Scoring
) -> Tensor:
    """Score patches in torch, (P, D + 2) → (P,); see `inspection.scoring.patch_scores`.

    Args:
        located: Patches, from `trainer.search.locate`.
        normal: (N, D + 2) located rows.
        side: What may raise them; None for nothing.
        scoring: The constants.
    """
    seen = see(located, normal, scoring)
    return seen.evidence if side is None else side.raised(seen, scoring)


def _image_score(
    store: FeatureStore,
    image: int,
    bank: Tensor,
    side: AbnormalSide | None,
    scoring: Scoring,
    foreground: Foreground | None,
) -> float:
    """Score an image of a store where its product is inspected; everywhere without a foreground."""
    patches, shape, most = store.patches_of(image), store.shapes[image], store.spec.patches
    position = torch.from_numpy(np.argwhere(np.ones(shape, np.bool_)))
    rows = bank if scoring.position_weight else locate(bank[:, :-2], bank[:, -2:], 0.0)
    # As many at once as the network sees: a line scan has hundreds of thousands.
    scores = [
        patch_scores(
            locate(
                torch.from_numpy(patches[i : i + most].astype(np.float32)),
                position[i : i + most],
                scoring.position_weight,
            ),
            *(rows, side, scoring),
        ).numpy()
        for i in range(0, len(patches), most)
    ]
    inspected = 1 if foreground is None else laid_over(foreground, shape).ravel()
    return image_score(np.concatenate(scores) * inspected, scoring, most)
