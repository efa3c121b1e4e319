"""The two memory banks: normal rows from good images, abnormal rows from what good parts never are.

Every category gets the same number of rows, so that capacity is known before any image is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.bank import MemoryBank, empty_bank
from inspection.foreground import Foreground, laid_over
from trainer.coreset import candidates, greedy_k_centre
from trainer.features import FeatureStore
from trainer.search import nearest

CANDIDATES = 80_000
"""Patches of a category among which its normal rows are chosen. Measured, mean image AUROC: 92.7 %
with 20,000, 93.6 % with 40,000, 94.1 % with all (up to 256,000); random rows give 86.7 %."""

FUSION_RANGE = (0.2, 0.8)
"""λ of a pseudo-abnormal row (1−λ) q_n + λ q_f: neither end is left to itself."""

LEAST_SHARE = 0.1
"""Share of the fusions that is kept at least, the farthest: good parts may be so diverse that
hardly any fusion lies beyond the floor, and a bank needs rows."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Candidate patches of one category, and where each was.

    Attributes:
        features: (n, D) float32.
        image: (n,) int64, number of the training image.
        position: (n, 2) int64, row and column of the patch in its map.
    """

    features: NDArray[np.float32]
    image: NDArray[np.int64]
    position: NDArray[np.int64]


def gather(store: FeatureStore, rng: np.random.Generator, foreground: Foreground) -> Evidence:
    """Draw the candidates of a category, evenly over its images, where it is inspected."""
    # Most images share one shape, and so one list.
    places = {shape: np.argwhere(laid_over(foreground, shape)) for shape in set(store.shapes)}
    image, number = candidates([len(places[shape]) for shape in store.shapes], CANDIDATES, rng)
    position = np.concatenate(
        [places[shape][number[image == i]] for i, shape in enumerate(store.shapes)]
    )
    width = np.array(store.shapes)[image, 1]
    return Evidence(store.rows(image, position[:, 0] * width + position[:, 1]), image, position)


def normal_bank(
    evidence: Mapping[str, Evidence],
    images: Mapping[str, Sequence[Path]],
    rows_each: int,
    rng: np.random.Generator,
    advance: Callable[[int], None],
) -> MemoryBank:
    """Choose each category's rows by greedy k-centre selection.

    Args:
        evidence: By category, in the order of the bank.
        images: The training images that `Evidence.image` counts into.
        rows_each: Capacity of each category; rows without evidence stay invalid.
        rng: For the selection.
        advance: Told how many rows were chosen.
    """
    names = tuple(evidence)
    dimensions = next(iter(evidence.values())).features.shape[1]
    bank = empty_bank(names, rows_each, dimensions)
    features, valid = bank.features.copy(), bank.valid.copy()
    source, position = bank.source.copy(), bank.position.copy()
    sources: list[str] = []
    for number, (name, pool) in enumerate(evidence.items()):
        chosen = greedy_k_centre(pool.features, rows_each, rng, advance)
        rows = slice(number * rows_each, number * rows_each + len(chosen))
        features[rows] = pool.features[chosen]
        valid[rows] = True
        source[rows] = len(sources) + pool.image[chosen]
        position[rows] = pool.position[chosen]
        sources.extend(f"{name}/{path.name}" for path in images[name])
    return replace(
        bank,
        sources=tuple(sources),
        features=features,
        valid=valid,
        source=source,
        position=position,
    )


def pseudo_abnormal(
    normal: NDArray[np.float32],
    foreign: NDArray[np.float32],
    bank_rows: NDArray[np.float32],
    floor: float,
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Make features that no good part has, by fusing normal with foreign ones.

    Args:
        normal: (n, D) patches of the category.
        foreign: (m, D) patches of anything else.
        bank_rows: (N, D) valid normal rows of the category.
        floor: Distance from the bank that normal patches hardly ever reach: fusions nearer than it
            could be normal and are dropped, but for `LEAST_SHARE`.
        count: How many to draw before dropping.
        rng: Draws pairs and λ.

    Returns:
        (at most count, D) float32, in the order drawn, as long as the patches they were made of.

    Source: DMAD, sec. III-B.
    """
    share = rng.uniform(*FUSION_RANGE, (count, 1)).astype(np.float32)
    first = normal[rng.integers(len(normal), size=count)]
    second = foreign[rng.integers(len(foreign), size=count)]
    fused = (1 - share) * first + share * second
    # A mean of two directions is shorter than either, and its length alone would betray it.
    length = (1 - share) * _lengths(first) + share * _lengths(second)
    fused *= length / (_lengths(fused) + 1e-12)
    distance, _ = nearest(torch.from_numpy(fused), torch.from_numpy(bank_rows), 1)
    gap = distance[:, 0].numpy()
    farthest = np.sort(gap)[-max(1, int(LEAST_SHARE * count))]
    return np.asarray(fused[gap > floor] if farthest > floor else fused[gap >= farthest])


def abnormal_bank(
    rows_by_category: Mapping[str, NDArray[np.float32]], rows_each: int, rng: np.random.Generator
) -> MemoryBank:
    """Keep the most different pseudo-abnormal rows of each category, `rows_each` at most."""
    names = tuple(rows_by_category)
    dimensions = next(iter(rows_by_category.values())).shape[1]
    bank = empty_bank(names, rows_each, dimensions)
    features, valid = bank.features.copy(), bank.valid.copy()
    for number, pool in enumerate(rows_by_category.values()):
        chosen = greedy_k_centre(pool, rows_each, rng)
        rows = slice(number * rows_each, number * rows_each + len(chosen))
        features[rows], valid[rows] = pool[chosen], True
    return replace(bank, features=features, valid=valid)


def _lengths(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.linalg.norm(features, axis=1, keepdims=True))


def textures(count: int, size_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw images of things that are no product: coloured noise of many scales, with hard edges.

    Foreign material for a data set of a single category.

    Returns:
        (count, S, S, 3) uint8.
    """
    pictures = np.zeros((count, size_px, size_px, 3), np.float32)
    for picture in pictures:
        for cells in (2, 4, 8, 16, 32, 64):
            if rng.random() < 0.5:
                noise = rng.normal(0, 60, (cells, cells, 3)).astype(np.float32)
                repeat = -(-size_px // cells)
                picture += noise.repeat(repeat, 0).repeat(repeat, 1)[:size_px, :size_px]
        picture += rng.uniform(0, 255, 3).astype(np.float32)
        picture += rng.normal(0, rng.uniform(0, 20), picture.shape).astype(np.float32)
    return np.asarray(np.clip(pictures, 0, 255), np.uint8)
