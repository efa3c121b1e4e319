"""Good images in, bundle out: the whole of training on one page, and its steps below.

There is one schedule and one outcome: nothing is chosen by looking at test images, which are not
opened here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.bank import MemoryBank
from inspection.bundle import ANY_PRODUCT
from inspection.errors import InputError
from inspection.foreground import Foreground, everywhere, laid_over
from inspection.lineage import NOTHING_LABELLED, Lineage
from inspection.preprocessing import PATCH_PX, Fit, Preprocessing, prepare
from inspection.routing import Router
from inspection.scoring import Head, Scoring
from inspection.thresholds import Calibration
from trainer.augment import AS_THEY_ARE, Augmentation
from trainer.backbones.catalogue import DEFAULT, load_backbone
from trainer.banks import Evidence, gather, normal_bank, textures
from trainer.calibrate import (
    FOLDS,
    abnormal_sides,
    calibrate,
    check_enough,
    fold_rows,
    folds_of,
)
from trainer.contrast import contrast
from trainer.coreset import Rows
from trainer.dataset import Category, read_prepared, resize
from trainer.features import FeatureStore, extract, feature_store
from trainer.head import EPOCHS, head_weights, train_head
from trainer.labelled import Labelled, lineage_of
from trainer.progress import Progress
from trainer.routing import learn_router
from trainer.trunk import Trunk

LENGTH_IMAGES = 64
"""Good images from which the trunk learns how long each layer's features usually are."""

TEXTURES = 24
"""Drawn pictures that stand for foreign material."""

FOREIGN = 40_000
"""Foreign patches of all categories together, about; as many examples are drawn from them as the
head has and the abnormal banks need."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """What a fit may be told, checked at once; the defaults are what BENCHMARKS.md reports.

    Attributes:
        size_px: Side of the network input; of a tile, if frames are cut into tiles.
        fit: How frames come to fit it, see `inspection.preprocessing.Preprocessing`.
        overlap_px: Of tiles; None for a quarter of their side.
        shrink: Of tiles.
        rows_each: Normal rows of each category.
        abnormal_rows_each: Abnormal rows of each category.
        k: Neighbours for the attention.
        top_fraction: Share of the patches whose mean is the image score.
        abnormal_weight: How much the abnormal side may raise a patch. 0 without labelled defects:
            pseudo-abnormal rows alone were measured to make rankings worse, never better.
        seed: Of every random draw.
        backbone: As `trainer.backbones.catalogue.load_backbone` takes it.
        weights: Checkpoint of the backbone; None for that of the installed package.
        augmentation: In what copies of good pictures differ, that the normal bank learns from too.
    """

    size_px: int = 256
    fit: Fit = "stretch"
    overlap_px: int | None = None
    shrink: int = 1
    rows_each: int = 2048
    abnormal_rows_each: int = 512
    k: int = 12
    top_fraction: float = 0.01
    abnormal_weight: float = 0.0
    seed: int = 0
    backbone: str = DEFAULT
    weights: Path | None = None
    augmentation: Augmentation = AS_THEY_ARE

    def __post_init__(self) -> None:
        if self.rows_each < 16 or self.abnormal_rows_each < 16 or not 1 <= self.k <= 16:
            raise InputError(
                "expected at least 16 rows a category in both banks and 1 <= k <= 16, got "
                f"{self.rows_each}, {self.abnormal_rows_each} and {self.k}"
            )
        if not 0 <= self.abnormal_weight < math.inf:
            raise InputError(
                f"abnormal_weight must be 0 or more and finite, got {self.abnormal_weight}"
            )
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"expected a seed from 0 to 2^63 - 1, got {self.seed}")
        # What they refuse is better refused now than after hours.
        _ = self.preprocessing
        Scoring(self.k, 1.0, self.top_fraction)

    @property
    def preprocessing(self) -> Preprocessing:
        """How frames are prepared."""
        overlap_px = self.overlap_px
        if overlap_px is None:
            # A patch 32 px from the border of a tile is off by 0.16 of what the middle of a larger
            # one makes of it, against 0.41 to its neighbour; at the border it is 0.51.
            overlap_px = self.size_px // 32 * PATCH_PX if self.fit == "tiles" else 0
        return Preprocessing(self.size_px, self.fit, overlap_px, self.shrink)


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that training found out; `trainer.packing` makes a bundle of it."""

    trunk: Trunk
    preprocessing: Preprocessing
    scorings: Mapping[str, Scoring]
    normal: MemoryBank
    abnormal: MemoryBank
    head: Head
    calibrations: Mapping[str, Calibration]
    router: Router
    foregrounds: Mapping[str, Foreground]
    settings: FitSettings
    lineage: Lineage = NOTHING_LABELLED


def fit(
    categories: Sequence[Category],
    settings: FitSettings,
    progress: Progress,
    labelled: Labelled = MappingProxyType({}),
    masked: Mapping[str, Foreground] | None = None,
) -> Model:
    """Learn one model of all categories from their good training images.

    Args:
        categories: Each with at least `trainer.calibrate.LEAST_IMAGES` training images.
        settings: The same for every category.
        progress: Shows how far the work is.
        labelled: Defects by category; none of them among the test images.
        masked: From `trainer.foreground`, by category; those without are inspected everywhere.

    Raises:
        DatasetError: An image cannot be used; it is named.
        InputError: The backbone or its weights cannot be used, or copies would be turned away from
            under their foreground.
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
    foregrounds = {each.name: everywhere(spec.grid) for each in categories} | dict(masked or {})
    rng = np.random.default_rng(settings.seed)
    trunk = Trunk(load_backbone(settings.backbone, settings.weights, settings.size_px)).eval()
    trunk.learn_lengths(torch.from_numpy(_first_look(categories, spec, settings.seed)))
    with ExitStack() as held:
        stores = _extract_all(categories, trunk, spec, settings, progress, held)
        folds = {name: folds_of(len(store.images)) for name, store in stores.items()}
        evidence = _candidates(stores, foregrounds, folds, settings, progress, rng)
        with progress.task("normal bank", settings.rows_each * len(stores)) as advance:
            sources = {category.name: category.train for category in categories}
            normal = normal_bank(evidence, sources, settings.rows_each, rng, advance)
        fold_banks = _fold_banks(evidence, folds, settings, progress)
        foreign = _foreign(evidence, trunk, spec, rng)
        examples = contrast(
            evidence,
            folds,
            fold_banks,
            foreign,
            rows_each=settings.abnormal_rows_each,
            k=settings.k,
            rng=rng,
        )
        with progress.task("head", EPOCHS) as advance:
            net = train_head(examples.normal, examples.abnormal, settings.seed, advance)
        scorings = {
            name: Scoring(settings.k, temperature, settings.top_fraction)
            for name, temperature in examples.temperatures.items()
        }
        sides = abnormal_sides(examples.bank, net, settings.abnormal_weight)
        with progress.task("scores of good parts", _images(categories)) as advance:
            known, unknown = calibrate(stores, fold_banks, sides, scorings, foregrounds, advance)
        # Of its own, so that the rest of the model does not depend on it.
        router = learn_router(stores, np.random.default_rng(settings.seed))
    return Model(
        trunk=trunk,
        preprocessing=spec,
        scorings=scorings,
        normal=normal,
        abnormal=examples.bank,
        head=head_weights(net),
        calibrations={**known, ANY_PRODUCT: unknown},
        router=router,
        foregrounds=foregrounds,
        settings=settings,
        lineage=lineage_of(labelled),
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
    # A copy, or the whole canvas would live as long as its piece.
    cut = canvas[top : top + size_px, left : left + size_px].copy()
    return prepare(cut, Preprocessing(size_px), resize)


def _images(categories: Sequence[Category]) -> int:
    return sum(len(category.train) for category in categories)


def _extract_all(
    categories: Sequence[Category],
    trunk: Trunk,
    spec: Preprocessing,
    settings: FitSettings,
    progress: Progress,
    held: ExitStack,
) -> dict[str, FeatureStore]:
    entries = _images(categories) * (1 + settings.augmentation.copies)
    with progress.task("patch features", entries) as advance:
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
    settings: FitSettings,
    progress: Progress,
    rng: np.random.Generator,
) -> dict[str, Evidence]:
    patches = sum(
        images * int(laid_over(foregrounds[name], shape).sum())
        for name, store in stores.items()
        for shape, images in Counter(store.shapes).items()
    )
    with progress.task("candidates", patches) as advance:
        return {
            name: gather(store, foregrounds[name], folds[name], settings.rows_each, rng, advance)
            for name, store in stores.items()
        }


def _fold_banks(
    evidence: Mapping[str, Evidence],
    folds: Mapping[str, NDArray[np.int64]],
    settings: FitSettings,
    progress: Progress,
) -> dict[str, list[Tensor]]:
    rows = settings.rows_each * FOLDS * len(evidence)
    with progress.task("banks without each fold", rows) as advance:
        return {
            name: fold_rows(pool, folds[name], settings.rows_each, settings.seed, advance)
            for name, pool in evidence.items()
        }


def _foreign(
    evidence: Mapping[str, Evidence], trunk: Trunk, spec: Preprocessing, rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """Gather, for every category, patches of anything but it: other products and plain textures."""
    drawn = np.concatenate(
        [extract(trunk, some) for some in np.split(textures(TEXTURES, spec.size_px, rng), TEXTURES)]
    ).reshape(-1, trunk.dimensions)
    return {
        name: _thinned(
            [drawn, *(pool.features for other, pool in evidence.items() if other != name)],
            FOREIGN // len(evidence),
        )
        for name in evidence
    }


def _thinned(pools: Sequence[Rows], count: int) -> NDArray[np.float32]:
    """Join pools, each to its share of `count`: whole, C categories would take C² of memory."""
    share = min(1.0, count / sum(map(len, pools)))
    return np.concatenate(
        [pool[np.linspace(0, len(pool) - 1, int(share * len(pool))).astype(int)] for pool in pools]
    )
