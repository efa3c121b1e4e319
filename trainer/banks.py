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
from torch import Tensor

from inspection.bank import MemoryBank, empty_bank
from inspection.foreground import Foreground, laid_over
from inspection.scoring import Scoring, locate
from trainer.coreset import Rows, candidates, greedy_k_centre
from trainer.features import FeatureStore
from trainer.gaps import position_weight
from trainer.search import nearest

FUSION_RANGE = (0.2, 0.8)
"""λ of a pseudo-abnormal row (1−λ) q_n + λ q_f: neither end is left to itself."""

LEAST_SHARE = 0.1
"""Share of the fusions that is kept at least, the farthest: good parts may be so diverse that
hardly any fusion lies beyond the floor, and a bank needs rows."""


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Patches that stay in a store until they are asked for, as `trainer.coreset.Rows`.

    Attributes:
        store: Holds the features.
        patch: (n,) int64, number of the patch in the store.
    """

    store: FeatureStore
    patch: NDArray[np.int64]

    def __len__(self) -> int:
        """n."""
        return len(self.patch)

    def __getitem__(self, numbers: NDArray[np.int64], /) -> NDArray[np.float32]:
        """(m,) → (m, D), read from disk."""
        return np.asarray(self.store.features[self.patch[numbers]], np.float32)


@dataclass(frozen=True, slots=True)
class LocatedRows:
    """Patches with their positions beside them, as `inspection.scoring.locate` says."""

    features: Rows
    position: NDArray[np.integer]
    weight: float

    def __len__(self) -> int:
        """n."""
        return len(self.features)

    def __getitem__(self, numbers: NDArray[np.int64], /) -> NDArray[np.float32]:
        """(m,) → (m, D + 2)."""
        located = locate(self.features[numbers], self.position[numbers], self.weight)
        return located.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Patches of the good images of one category, and where each was.

    Attributes:
        features: n patches of D dimensions, on disk or in memory.
        image: (n,) integers, number of the training image.
        position: (n, 2) integers, row and column in the map of its image.
        position_weight: λ of `inspection.scoring.locate`.
        candidates: Numbers of the patches among which bank rows are chosen, ascending.
    """

    features: Rows
    image: NDArray[np.integer]
    position: NDArray[np.integer]
    position_weight: float
    candidates: NDArray[np.int64]

    @property
    def located(self) -> LocatedRows:
        """The patches with their positions beside them."""
        return LocatedRows(self.features, self.position, self.position_weight)


def gather(
    store: FeatureStore,
    foreground: Foreground,
    folds: NDArray[np.int64],
    rows: int,
    rng: np.random.Generator,
    advance: Callable[[int], None],
    *,
    locates: bool = True,
) -> Evidence:
    """Take every patch of a category where it is inspected.

    All of them: image AUROC of magnetic_tile and screw was 87.4 and 86.5 % with rows chosen among
    20,000 patches drawn at random, 89.9 and 92.4 % among 80,000, 90.4 and 93.3 % among all
    (256,000 and 102,400), and 84.0 and 57.6 % with rows drawn at random.

    Args:
        store: Patch features of its images.
        foreground: Where it is inspected.
        folds: Fold of each image, which candidates can be left out with.
        rows: How many bank rows will be chosen.
        rng: For what blocks of very many patches keep, and for the weight of positions.
        advance: Told how many patches were gone through.
        locates: Whether positions count, where all frames are of one size.
    """
    # Most images share one shape, and so one list.
    inspected = {shape: laid_over(foreground, shape) for shape in set(store.shapes)}
    places = {shape: np.argwhere(each).astype(np.int32) for shape, each in inspected.items()}
    numbers = {shape: np.flatnonzero(each) for shape, each in inspected.items()}
    position = np.concatenate([places[shape] for shape in store.shapes])
    patch = np.concatenate(
        [start + numbers[shape] for start, shape in zip(store.starts, store.shapes, strict=True)]
    )
    # A copy is held out with its image.
    entry = np.arange(len(store.shapes), dtype=np.int32) % len(store.images)
    image = np.repeat(entry, [len(numbers[shape]) for shape in store.shapes])
    features = StoredRows(store, patch)
    # In frames of other sizes a place means something else, and larger ones have unknown places.
    placed = locates and len(inspected) == 1
    weight = position_weight(features, image, position, folds, rng) if placed else 0.0
    located = LocatedRows(features, position, weight)
    kept = candidates(located, folds[image], rows, rng, advance)
    return Evidence(features, image, position, weight, kept)


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
    chosen = {
        name: greedy_k_centre(pool.located, rows_each, rng, advance, pool.candidates)
        for name, pool in evidence.items()
    }
    kept = [pool.features[chosen[name]] for name, pool in evidence.items()]
    bank = empty_bank(tuple(evidence), rows_each, kept[0].shape[1])
    features, valid = bank.features.copy(), bank.valid.copy()
    source, position = bank.source.copy(), bank.position.copy()
    sources: list[str] = []
    for number, (name, pool) in enumerate(evidence.items()):
        rows = slice(number * rows_each, number * rows_each + len(kept[number]))
        features[rows] = kept[number]
        valid[rows] = True
        source[rows] = len(sources) + pool.image[chosen[name]]
        position[rows] = pool.position[chosen[name]]
        sources.extend(f"{name}/{path.name}" for path in images[name])
    return replace(
        bank,
        sources=tuple(sources),
        features=features,
        valid=valid,
        source=source,
        position=position,
    )


def located_rows(bank: MemoryBank, category: str | None, scoring: Scoring) -> Tensor:
    """Give the valid rows that a route searches, located: (n, D + 2) float32."""
    rows = bank.rows_of(category)
    valid = bank.valid[rows]
    located = locate(
        bank.features[rows][valid], bank.position[rows][valid], scoring.position_weight
    )
    return torch.from_numpy(located.astype(np.float32))


def pseudo_abnormal(
    normal: Rows,
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
    rows_by_category: Mapping[str, NDArray[np.float32]], rows_each: int
) -> MemoryBank:
    """Lay out abnormal rows, at most `rows_each` of each category; they belong to no place."""
    names = tuple(rows_by_category)
    dimensions = next(iter(rows_by_category.values())).shape[1]
    bank = empty_bank(names, rows_each, dimensions)
    features, valid = bank.features.copy(), bank.valid.copy()
    for number, made in enumerate(rows_by_category.values()):
        rows = slice(number * rows_each, number * rows_each + len(made))
        features[rows], valid[rows] = made, True
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
