"""What the head of one product learns from: patches of labelled defects and of good parts.

A patch that met itself in a bank would have a residual of 0 in training and never on the line. So
good patches are seen by banks without their image, and a labelled defect by abnormal rows that were
made without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.scoring import Scoring
from trainer.clusters import gaps, k_means
from trainer.coreset import greedy_k_centre
from trainer.search import attend, enhance, nearest

CENTRES = 8
"""Anomaly centres of a product, at most."""

CENTRE_SHARE = 0.25
"""Share of the abnormal rows that are drawn around anomaly centres; more if defects are small."""

PIECE = 2048
"""Patches that are rebuilt together."""

HARD, RANDOM = 30, 20
"""Patches that the head learns from in each good image: the worst, and some at random. Without the
worst it would not know which good patches it must not raise."""

MOST = 4096
"""Patches kept of one image: all of a frame of 512 px. In tiles it has hundreds of thousands."""

CLEAN = 100
"""Patches beside its defect, at random and beside the worst, in each labelled image."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Patches of one image, and what the normal bank knows of them.

    Attributes:
        patches: (n, D) float32.
        memory: (n, D) float32, what attention makes of the nearest normal rows.
        distances: (n, K) float32 to the nearest normal rows, position counted.
        evidence: (n,) float32, the score by the normal bank alone.
    """

    patches: Tensor
    memory: Tensor
    distances: Tensor
    evidence: Tensor

    def __getitem__(self, chosen: Tensor) -> Seen:
        """Keep some of the patches, by numbers or by a mask."""
        return Seen(
            self.patches[chosen],
            self.memory[chosen],
            self.distances[chosen],
            self.evidence[chosen],
        )

    def enhanced(self, abnormal: Tensor, scoring: Scoring) -> Tensor:
        """Put beside it what abnormal rows, (A, D) with A >= K, know: (n, Z)."""
        distances, index = nearest(self.patches, abnormal, scoring.k)
        memory = attend(distances, index, abnormal, scoring.temperature)
        return enhance(self.patches, self.distances, self.memory, distances, memory)


def see(located: Tensor, normal: Tensor, scoring: Scoring) -> Seen:
    """Ask the normal bank.

    Args:
        located: (n, D + 2), from `trainer.search.locate`.
        normal: (N, D + 2), located rows that have not seen the image.
        scoring: The constants.
    """
    distances, index = nearest(located, normal, scoring.k)
    # Piece by piece: the neighbours of a patch are K times as large as it is.
    memory = torch.cat(
        [
            attend(*some, normal, scoring.temperature)
            for some in zip(torch.split(distances, PIECE), torch.split(index, PIECE), strict=True)
        ]
    )
    evidence = (located - memory).square().sum(1).sqrt()
    return Seen(located[:, :-2], memory[:, :-2], distances, evidence)


def telling(seen: Seen, rng: np.random.Generator, kept: Tensor | None = None) -> Tensor:
    """Choose at most `MOST` patches of an image, ascending: the worst half, and others at random.

    Args:
        seen: All its patches.
        rng: Draws.
        kept: (n,) bool, patches to choose first of all.
    """
    count = len(seen.evidence)
    if count <= MOST:
        return torch.arange(count)
    order = torch.from_numpy(rng.permutation(count))
    worst = seen.evidence.topk(MOST // 2).indices
    first = torch.cat([torch.arange(0) if kept is None else kept.nonzero()[:, 0], worst, order])
    # The first of each, in order of importance.
    unique, index = np.unique(first.numpy(), return_index=True)
    chosen = unique[np.argsort(index)[:MOST]]
    return torch.from_numpy(np.sort(chosen))


def joined(parts: Sequence[Seen]) -> Seen:
    """Put patches of several images into one; at least one part."""
    names = [field.name for field in fields(Seen)]
    return Seen(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, slots=True)
class Lesson:
    """One labelled image.

    Attributes:
        seen: All its inspected patches.
        defect: (n,) bool, patches that show the defect; at least one.
        clean: (n,) bool, patches that show none of it. Those at the rim are neither.
        kind: Name of the defect type.
        shifted: Of copies that lie a few pixels aside, the patches that show the defect: the grid
            cuts it otherwise. None without copies.
    """

    seen: Seen
    defect: Tensor
    clean: Tensor
    kind: str
    shifted: Seen | None = None

    @property
    def shown(self) -> Seen:
        """All patches that show the defect."""
        own = self.seen[self.defect]
        return own if self.shifted is None else joined([own, self.shifted])


@dataclass(frozen=True, slots=True)
class Examples:
    """What the head is fitted to.

    Attributes:
        normal: (n, Z) float32.
        abnormal: (m, Z) float32.
        weight: (m,) float32 of each abnormal example, 1 in the mean: every labelled image counts
            alike, however large its defect is.
    """

    normal: Tensor
    abnormal: Tensor
    weight: Tensor


def defects_of(lessons: Sequence[Lesson]) -> list[NDArray[np.float32]]:
    """Patches of the defect in each labelled image, (m, D) each."""
    return [np.asarray(each.shown.patches.numpy()) for each in lessons]


def abnormal_rows(
    defects: Sequence[NDArray[np.float32]], rows: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Make abnormal rows of labelled defects: their patches, and samples around anomaly centres.

    A sample is c + ε, c a centre of k-means over the patches, ε ~ N(0, σ²) with the σ of each
    dimension in c's cluster. Few patches so become as many rows as there is room for, and what lies
    between two of them is not left to chance.

    Args:
        defects: (m, D) of each labelled image; together at least one patch.
        rows: How many.
        rng: For the selection, the centres and ε.

    Returns:
        (rows, D) float32: patches first.

    Source: anomaly-centre sampling, DMAD, arXiv 2403.12362, sec. III-B.
    """
    patches = np.concatenate(defects)
    most = rows - int(CENTRE_SHARE * rows)
    kept = patches[greedy_k_centre(patches, most, rng)]
    centres = k_means(patches.astype(np.float64), CENTRES, rng)
    nearest_centre = gaps(patches, centres).argmin(axis=1)
    spread = np.stack(
        [
            patches[nearest_centre == i].std(axis=0)
            if (nearest_centre == i).any()
            else np.zeros(patches.shape[1])
            for i in range(len(centres))
        ]
    )
    drawn = rng.choice(nearest_centre, rows - len(kept))
    samples = centres[drawn] + spread[drawn] * rng.standard_normal((len(drawn), patches.shape[1]))
    return np.concatenate([kept, samples.astype(np.float32)])


def examples_of(
    lessons: Sequence[Lesson],
    good: Sequence[Seen],
    scoring: Scoring,
    rows: int,
    rng: np.random.Generator,
) -> Examples:
    """Gather examples: what labelled images show, and the hard patches of good ones.

    Args:
        lessons: At least one.
        good: Images of good parts; what the head must not raise.
        scoring: The constants.
        rows: Abnormal rows, as `abnormal_rows` is told for the bank.
        rng: Draws patches and rows.
    """
    everything = torch.from_numpy(abnormal_rows(defects_of(lessons), rows, rng))
    normal = [_hard(each, RANDOM, rng).enhanced(everything, scoring) for each in good]
    abnormal, weight = [], []
    for i, lesson in enumerate(lessons):
        others = defects_of([*lessons[:i], *lessons[i + 1 :]])
        # A single labelled image has no others; its own rows are all that is known.
        known = torch.from_numpy(abnormal_rows(others, rows, rng)) if others else everything
        if lesson.clean.any():
            clean = _hard(lesson.seen[lesson.clean], CLEAN, rng)
            normal.append(clean.enhanced(known, scoring))
        found = lesson.shown.enhanced(known, scoring)
        abnormal.append(found)
        weight.append(torch.full((len(found),), 1.0 / len(found)))
    counts = torch.cat(weight)
    return Examples(torch.cat(normal), torch.cat(abnormal), counts / counts.mean())


def _hard(seen: Seen, random: int, rng: np.random.Generator) -> Seen:
    """Choose the worst patches of an image, and some at random."""
    count = len(seen.evidence)
    worst = seen.evidence.topk(min(HARD, count)).indices
    some = torch.from_numpy(rng.choice(count, min(random, count), replace=False))
    return seen[torch.cat([worst, some])]
