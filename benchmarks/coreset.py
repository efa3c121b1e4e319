"""What choosing bank rows otherwise than exactly loses, and what it saves.

    python -m benchmarks.coreset DATA [--categories NAME …] [--seeds 3]

Every category is a model of its own. Its rows are chosen from all patches of its good images at
once, in blocks, from patches drawn at random, and at random. Told are the seconds of the selection,
how far the patches lie from their nearest row (in units of feature distance), and the image AUROC
of the test images, scored as `dualbank-train fit` sets it up without labelled defects.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.recording import record
from inspection.foreground import everywhere
from inspection.metrics import auroc
from inspection.preprocessing import Preprocessing
from inspection.scoring import Scoring, image_score, locate
from trainer.backbones.catalogue import DEFAULT, load_backbone
from trainer.banks import Evidence, gather
from trainer.calibrate import patch_scores
from trainer.coreset import candidates, greedy_k_centre
from trainer.dataset import Category, find_categories, read_prepared
from trainer.features import FeatureStore, feature_store
from trainer.folds import fold_rows, folds_of
from trainer.gaps import temperature
from trainer.good_parts import LENGTH_IMAGES
from trainer.search import nearest
from trainer.settings import FitSettings
from trainer.trunk import Trunk

SETTINGS = FitSettings()

Choose = Callable[[Evidence, np.random.Generator], NDArray[np.int64]]


def exactly(pool: Evidence, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose among all patches."""
    return greedy_k_centre(pool.located, SETTINGS.rows_each, rng)


def in_blocks(pool: Evidence, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Choose among what blocks of a size keep."""
    one_group = np.zeros(len(pool.features), np.int8)
    kept = candidates(pool.located, one_group, SETTINGS.rows_each, rng, exact=size)
    return greedy_k_centre(pool.located, SETTINGS.rows_each, rng, among=kept)


def from_drawn(pool: Evidence, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Choose among `count` patches drawn at random."""
    patches = len(pool.features)
    among = np.sort(rng.choice(patches, min(count, patches), replace=False))
    return greedy_k_centre(pool.located, SETTINGS.rows_each, rng, among=among)


def at_random(pool: Evidence, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the rows themselves."""
    return rng.choice(len(pool.features), SETTINGS.rows_each, replace=False)


SCHEMES: Mapping[str, Choose] = {
    "exact": exactly,
    "blocks of 65,536": partial(in_blocks, size=1 << 16),
    "blocks of 16,384": partial(in_blocks, size=1 << 14),
    "exact from 80,000 drawn": partial(from_drawn, count=80_000),
    "exact from 20,000 drawn": partial(from_drawn, count=20_000),
    "random rows": at_random,
}


def main() -> int:
    """Choose, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--categories", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    for category in find_categories(args.data):
        if args.categories is None or category.name in args.categories:
            figures[category.name] = _measure(category, args.seeds)
            print(category.name, json.dumps(figures[category.name], indent=1))
    print(record("coreset", {"rows": SETTINGS.rows_each, "categories": figures}))
    return 0


def _measure(category: Category, seeds: int) -> dict[str, Any]:
    spec = Preprocessing(SETTINGS.size_px)
    trunk = Trunk(load_backbone(DEFAULT, None, SETTINGS.size_px)).eval()
    first = np.linspace(0, len(category.train) - 1, LENGTH_IMAGES).astype(int)
    looked_at = np.stack([read_prepared(category.train[i], spec) for i in first])
    trunk.learn_lengths(torch.from_numpy(looked_at))
    with ExitStack() as held:
        good, tested = (
            held.enter_context(feature_store(trunk, images, spec, silent))
            for images in (category.train, [sample.image for sample in category.test])
        )
        folds = folds_of(len(category.train))
        pool = gather(
            good, everywhere(spec.grid), folds, SETTINGS.rows_each, np.random.default_rng(0), silent
        )
        weight = pool.position_weight
        tau = _temperature(category.name, pool, good)
        scoring = Scoring(SETTINGS.k, tau, SETTINGS.top_fraction, weight)
        defects = np.array([sample.defect is not None for sample in category.test])
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in SCHEMES}
        for seed in range(seeds):
            for name, choose in SCHEMES.items():
                started = time.perf_counter()
                chosen = choose(pool, np.random.default_rng(seed))
                seconds = time.perf_counter() - started
                bank = torch.from_numpy(pool.located[chosen])
                scores = [_score(image, bank, scoring) for image in _images(tested, weight)]
                percent = 100 * auroc(np.array(scores), defects)
                gaps = _gaps(_images(good, weight), bank)
                rows[name].append({"seconds": seconds, **gaps, "auroc": percent})
    return {
        "candidates": len(pool.features),
        **{
            name: {key: round(mean(run[key] for run in runs), 3) for key in runs[0]}
            for name, runs in rows.items()
        },
    }


def silent(done: int) -> None:
    """Show no progress."""


def _images(store: FeatureStore, position_weight: float) -> Iterator[Tensor]:
    """(P, D + 2) of each image, located."""
    for image in range(len(store.images)):
        position = np.argwhere(np.ones(store.shapes[image], np.bool_))
        located = locate(store.patches_of(image), position, position_weight)
        yield torch.from_numpy(located.astype(np.float32))


def _temperature(name: str, pool: Evidence, store: FeatureStore) -> float:
    """τ as a fit sets it, from the patches of one fold and a bank without it."""
    folds = folds_of(len(store.images))
    bank = fold_rows(pool, folds, SETTINGS.rows_each, 0, silent)[0]
    images = zip(_images(store, pool.position_weight), folds, strict=True)
    return temperature(
        name, torch.cat([_nearest_gap(each, bank) for each, fold in images if fold == 0])
    )


def _gaps(images: Iterator[Tensor], bank: Tensor) -> dict[str, float]:
    gaps = np.concatenate([_nearest_gap(image, bank).numpy() for image in images])
    return {
        "largest_gap": float(gaps.max()),
        "gap_p99_9": float(np.quantile(gaps, 0.999)),
        "mean_gap": float(gaps.mean()),
    }


def _nearest_gap(located: Tensor, bank: Tensor) -> Tensor:
    return nearest(located, bank, 1)[0][:, 0]


def _score(located: Tensor, bank: Tensor, scoring: Scoring) -> float:
    scores = patch_scores(located, bank, None, scoring)
    return image_score(scores.numpy(), scoring)


if __name__ == "__main__":
    sys.exit(main())
