"""What is learned from good parts alone: features, banks, and the units of every product's score.

It is learned once. What labelled defects teach, and thresholds, stand on it: see `trainer.fit`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.bank import MemoryBank
from inspection.bundle import ANY_PRODUCT
from inspection.errors import InputError
from inspection.foreground import Foreground, everywhere, laid_over
from inspection.preprocessing import Preprocessing, prepare
from inspection.scoring import Scoring
from trainer.backbones.catalogue import load_backbone
from trainer.banks import Evidence, gather, normal_bank
from trainer.dataset import Category, read_prepared, resize
from trainer.features import FeatureStore, feature_store
from trainer.folds import FOLDS, check_enough, fold_rows, folds_of
from trainer.gaps import temperature
from trainer.progress import Progress
from trainer.search import nearest
from trainer.settings import FitSettings
from trainer.trunk import Trunk

LENGTH_IMAGES = 64
"""Good images from which the trunk learns how long each layer's features usually are."""

UNSEEN = 2_000
"""Good patches of each category that say how far a patch is from a bank without its image."""


@dataclass(frozen=True, slots=True)
class GoodParts:
    """Everything that good images say; all but the trunk by category.

    Attributes:
        trunk: With the lengths of its layers.
        spec: How frames are prepared.
        stores: Patch features, on disk.
        folds: Fold of each image.
        evidence: The patches, and which are candidates of a bank.
        fold_banks: For each fold a bank without it, (N, D + 2) located rows.
        normal: The bank that ships.
        scorings: The constants, and for `ANY_PRODUCT`.
        foregrounds: Where a product is inspected.
    """

    trunk: Trunk
    spec: Preprocessing
    stores: Mapping[str, FeatureStore]
    folds: Mapping[str, NDArray[np.int64]]
    evidence: Mapping[str, Evidence]
    fold_banks: Mapping[str, list[Tensor]]
    normal: MemoryBank
    scorings: Mapping[str, Scoring]
    foregrounds: Mapping[str, Foreground]


@contextmanager
def learn_good_parts(
    categories: Sequence[Category],
    settings: FitSettings,
    progress: Progress,
    masked: Mapping[str, Foreground],
) -> Iterator[GoodParts]:
    """Learn from the good training images; features lie on disk until the block ends.

    Args:
        categories: Each with at least `trainer.folds.LEAST_IMAGES` training images.
        settings: The same for every category.
        progress: Shows how far the work is.
        masked: From `trainer.foreground`, by category; those without are inspected everywhere.

    Raises:
        DatasetError: An image cannot be used; it is named.
        InputError: The backbone or its weights cannot be used, all images are copies of one, or
            copies would be turned away from under their foreground.
        NotEnoughSamplesError: A category is too small.
    """
    for category in categories:
        check_enough(category.name, len(category.train))
    if masked and settings.augmentation.turns:
        raise InputError(
            "copies that are turned do not lie under the masks of the foreground; leave out one of "
            "them"
        )
    spec = settings.preprocessing
    foregrounds = {each.name: everywhere(spec.grid) for each in categories} | dict(masked)
    rng = np.random.default_rng(settings.seed)
    backbone = load_backbone(settings.backbone, settings.weights, settings.size_px)
    trunk = Trunk(backbone, settings.recipe).eval()
    trunk.learn_lengths(torch.from_numpy(_first_look(categories, spec, settings.seed)))
    with ExitStack() as held:
        stores = _extract_all(categories, trunk, spec, settings, progress, held)
        folds = {name: folds_of(len(store.images)) for name, store in stores.items()}
        rows_each = _rows_each(stores, settings)
        evidence = _candidates(stores, foregrounds, folds, rows_each, settings, progress, rng)
        with progress.task("normal bank", rows_each * len(stores)) as advance:
            sources = {category.name: category.train for category in categories}
            normal = normal_bank(evidence, sources, rows_each, rng, advance)
        fold_banks = _fold_banks(evidence, folds, rows_each, settings.seed, progress)
        scorings = _scorings(evidence, folds, fold_banks, settings, rng)
        yield GoodParts(
            *(trunk, spec, stores, folds, evidence, fold_banks, normal, scorings, foregrounds)
        )


def _rows_each(stores: Mapping[str, FeatureStore], settings: FitSettings) -> int:
    share = settings.recipe.rows_share
    if share is None:
        return settings.rows_each
    return max(settings.k, math.ceil(share * max(len(each.features) for each in stores.values())))


def _scorings(
    evidence: Mapping[str, Evidence],
    folds: Mapping[str, NDArray[np.int64]],
    fold_banks: Mapping[str, list[Tensor]],
    settings: FitSettings,
    rng: np.random.Generator,
) -> dict[str, Scoring]:
    gaps = {
        name: _unseen_gaps(pool, folds[name], fold_banks[name], rng)
        for name, pool in evidence.items()
    }
    # Products lie each in their own places: where none is named, positions say nothing.
    weights = {name: pool.position_weight for name, pool in evidence.items()} | {ANY_PRODUCT: 0.0}
    gaps[ANY_PRODUCT] = torch.cat(list(gaps.values()))
    return {
        name: Scoring(settings.k, temperature(name, gap), settings.top_fraction, weights[name])
        for name, gap in gaps.items()
    }


def _unseen_gaps(
    pool: Evidence, folds: NDArray[np.int64], banks: list[Tensor], rng: np.random.Generator
) -> Tensor:
    """Distances of good patches to the nearest row of the bank without their image, (n,)."""
    picked = np.sort(rng.choice(len(pool.image), min(UNSEEN, len(pool.image)), replace=False))
    fold = folds[pool.image[picked]]
    located = torch.from_numpy(pool.located[picked])
    return torch.cat(
        [
            nearest(located[torch.from_numpy(fold == i)], rows, 1)[0][:, 0]
            for i, rows in enumerate(banks)
            if (fold == i).any()
        ]
    )


def _first_look(
    categories: Sequence[Category], spec: Preprocessing, seed: int
) -> NDArray[np.uint8]:
    """Read a few good images of every category, spread over its files, each as (S, S, 3)."""
    each, rng = max(1, LENGTH_IMAGES // len(categories)), np.random.default_rng(seed)
    return np.stack(
        [
            _piece(read_prepared(category.train[i], spec), spec.size_px, rng)
            for category in categories
            for i in np.linspace(0, len(category.train) - 1, each).astype(int)
        ]
    )


def _piece(canvas: NDArray[np.uint8], size_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Cut S × S somewhere out of a canvas; a smaller one is stretched, as padding has no length."""
    top, left = (rng.integers(max(0, side - size_px) + 1) for side in canvas.shape[:2])
    cut = canvas[top : top + size_px, left : left + size_px]
    # A copy: a piece that fits as it is would keep its whole canvas alive.
    return prepare(cut.copy(), Preprocessing(size_px), resize)


def _extract_all(
    categories: Sequence[Category],
    trunk: Trunk,
    spec: Preprocessing,
    settings: FitSettings,
    progress: Progress,
    held: ExitStack,
) -> dict[str, FeatureStore]:
    images = sum(len(category.train) for category in categories)
    with progress.task("patch features", images * (1 + settings.augmentation.copies)) as advance:
        return {
            category.name: held.enter_context(
                feature_store(
                    trunk, category.train, spec, advance, settings.augmentation, settings.seed
                )
            )
            for category in categories
        }


def _candidates(
    stores: Mapping[str, FeatureStore],
    foregrounds: Mapping[str, Foreground],
    folds: Mapping[str, NDArray[np.int64]],
    rows_each: int,
    settings: FitSettings,
    progress: Progress,
    rng: np.random.Generator,
) -> dict[str, Evidence]:
    patches = sum(
        int(np.count_nonzero(laid_over(foregrounds[name], shape)))
        for name, store in stores.items()
        for shape in store.shapes
    )
    with progress.task("candidates", patches) as advance:
        return {
            name: gather(
                *(store, foregrounds[name], folds[name], rows_each, rng, advance),
                # A turned copy shows a part in another place.
                locates=settings.recipe.locates and not settings.augmentation.turns,
            )
            for name, store in stores.items()
        }


def _fold_banks(
    evidence: Mapping[str, Evidence],
    folds: Mapping[str, NDArray[np.int64]],
    rows_each: int,
    seed: int,
    progress: Progress,
) -> dict[str, list[Tensor]]:
    rows = rows_each * FOLDS * len(evidence)
    with progress.task("banks without each fold", rows) as advance:
        return {
            name: fold_rows(pool, folds[name], rows_each, seed, advance)
            for name, pool in evidence.items()
        }
