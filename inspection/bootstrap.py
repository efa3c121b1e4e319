"""How far a figure may be off because the test images are few: stratified percentile bootstrap.

Images are drawn again with replacement, good and defective ones apart, as often as there were, and
the figure is computed of each draw. A draw is a row of weights, how often each image is in it, so
that all draws are measured at once and no map is looked at twice. What an interval cannot tell:
whether the test images are like those of the line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspection.errors import InputError
from inspection.metrics import (
    Scores,
    auroc_of_counts,
    average_precision_of_counts,
    check_both_classes,
)
from inspection.pixel_metrics import MapCounts, aupro_of_counts

CONFIDENCE = 0.95
"""Share of draws whose figure lies in an interval."""

# Draws measured together: 64 of 4,096 bins are 2 MiB an array, which stays in the cache.
_TOGETHER = 64

Draws = NDArray[np.int64]
"""(R, N): how often each of N images is in each of R draws."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure would lie in most repetitions of the test.

    Attributes:
        low: The 2.5th percentile over the draws.
        high: The 97.5th.
    """

    low: float
    high: float


def draw(is_defect: NDArray[np.bool_], count: int, rng: np.random.Generator) -> Draws:
    """Draw images again, good and defective ones apart, so that every draw has as many of each.

    Args:
        is_defect: (N,) bool.
        count: How many draws, R.
        rng: Where chance comes from.

    Returns:
        (R, N); each row sums to N.

    Raises:
        InputError: A class is missing, or count < 1.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13.
    """
    defects = int(is_defect.sum())
    check_both_classes(len(is_defect) - defects, defects, "parts")
    if count < 1:
        raise InputError(f"expected at least 1 draw, got {count}; 1000 suit an interval")
    draws = np.zeros((count, len(is_defect)), np.int64)
    for kind in (False, True):
        members = np.flatnonzero(is_defect == kind)
        chances = np.full(len(members), 1 / len(members))
        draws[:, members] = rng.multinomial(len(members), chances, size=count)
    return draws


def interval(figures: NDArray[np.float64]) -> Interval | None:
    """Read the interval off a figure's values, (R,), one a draw.

    NaN is a draw that has no such figure, as where no drawn image has an outlined region; it is
    left out. None if no draw has the figure.
    """
    known = figures[~np.isnan(figures)]
    if not len(known):
        return None
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(known, [tail, 100 - tail])
    return Interval(float(low), float(high))


def drawn_auroc(scores: Scores, is_defect: NDArray[np.bool_], draws: Draws) -> NDArray[np.float64]:
    """`inspection.metrics.auroc` of each draw: (N,) scores, (N,) bool, (R, N) → (R,)."""
    return auroc_of_counts(*_counts_per_score(scores, is_defect, draws))


def drawn_average_precision(
    scores: Scores, is_defect: NDArray[np.bool_], draws: Draws
) -> NDArray[np.float64]:
    """`inspection.metrics.average_precision` of each draw; shapes as for `drawn_auroc`."""
    return average_precision_of_counts(*_counts_per_score(scores, is_defect, draws))


def drawn_rate(
    flagged: NDArray[np.bool_], among: NDArray[np.bool_], draws: Draws
) -> NDArray[np.float64]:
    """Share of flagged images among those of one class in each draw.

    Args:
        flagged: (N,) bool, for instance what did not pass.
        among: (N,) bool, the class; at least one image.
        draws: (R, N).

    Returns:
        (R,) in [0, 1].
    """
    inside = draws[:, among]
    return np.asarray(inside @ flagged[among] / inside.sum(axis=1))


def drawn_pixel_figures(
    maps: Sequence[MapCounts], draws: Draws, max_fpr: float = 0.3
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`auroc` and `aupro` of `PixelCurves` for each draw of whole images with their regions.

    Args:
        maps: N, one an image, from the same `PixelCurves`; their bins are all that is known of a
            score.
        draws: (R, N).
        max_fpr: As for `PixelCurves.aupro`.

    Returns:
        (R,) pixel AUROC and (R,) AUPRO, in [0, 1]; NaN where a draw has no region.
    """
    # float64 so that sums are matrix products; the highest scores first.
    good, defect, overlap = (
        np.stack([getattr(each, name)[::-1] for each in maps]).astype(np.float64)  # (N, B)
        for name in ("good", "defect", "overlap")
    )
    pixel_auroc, aupro = [], []
    for some in _in_parts(draws):
        weights = some.astype(np.float64)
        drawn_good = weights @ good  # (r, N) @ (N, B) -> (r, B)
        pixel_auroc.append(auroc_of_counts(drawn_good, weights @ defect))
        aupro.append(aupro_of_counts(drawn_good, weights @ overlap, max_fpr))
    return np.concatenate(pixel_auroc), np.concatenate(aupro)


def _in_parts(draws: Draws) -> Iterator[Draws]:
    for start in range(0, len(draws), _TOGETHER):
        yield draws[start : start + _TOGETHER]


def _counts_per_score(
    scores: Scores, is_defect: NDArray[np.bool_], draws: Draws
) -> tuple[NDArray[Any], NDArray[Any]]:
    """How many good parts and defects of each draw have each distinct score, highest first."""
    descending = np.argsort(scores)[::-1]
    ordered = scores[descending]
    firsts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    drawn, kinds = draws[:, descending], is_defect[descending]
    good, defect = (
        np.add.reduceat(np.where(kinds == kind, drawn, 0), firsts, axis=1)  # (R, N) -> (R, U)
        for kind in (False, True)
    )
    return good, defect
