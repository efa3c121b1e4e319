"""Two systems on the same test images: each one's figures, and an interval of their difference.

The figures are those of `inspection.metrics`, maps and masks compared at the size of the images.
For the interval the images are drawn again with replacement, the same draws for every system, so
that an image which is hard for both moves neither ahead. It covers the choice of test images, not
that of training images or of a seed.

Letters: n test images, R draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.metrics import PixelCurves, auroc
from trainer.dataset import Sample, read_image, read_mask

ROUNDS = 1000
"""R: draws behind an interval."""

BINS = 8192
"""Of a histogram that is drawn again; the figure itself has the bins of `PixelCurves`."""

MAX_FPR = 0.3

CHUNK = 50
"""Draws that are weighed together: 50 · 8192 float64 are 3 MB."""

Floats = NDArray[np.float64]
Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a system said of the test images of one category, in their order.

    Attributes:
        scores: (n,) image scores; higher is more anomalous.
        maps: One a test image, of any shape; empty for a system that makes none.
        full_size: Enlarges a map to (H, W) px, with the system's own smoothing.
    """

    scores: Floats
    maps: Sequence[Map]
    full_size: Callable[[Map, tuple[int, int]], Map]


@dataclass(frozen=True, slots=True)
class Figures:
    """How good the answers are.

    Attributes:
        image_auroc: In [0, 1].
        aupro: In [0, 1]; None without masks or maps.
        drawn_image_auroc: (R,) of every draw.
        drawn_aupro: (R,), or None.
    """

    image_auroc: float
    aupro: float | None
    drawn_image_auroc: Floats
    drawn_aupro: Floats | None


def measure(
    answers: Answers,
    defects: NDArray[np.bool_],
    truth: Sequence[NDArray[np.int32]] | None,
    draws: Floats,
) -> Figures:
    """Compare answers with what is known.

    Args:
        answers: Of a system.
        defects: (n,) whether an image shows a defect.
        truth: From `regions_of`; None if defects are not outlined.
        draws: From `draw`.

    Raises:
        InputError: A class is missing, a score is no number, or a map is constant.
    """
    aupro, drawn_aupro = None, None
    if truth is not None and len(answers.maps):
        aupro, drawn_aupro = _aupro(answers, truth, draws)
    return Figures(
        auroc(answers.scores, defects),
        aupro,
        drawn_auroc(answers.scores, defects, draws),
        drawn_aupro,
    )


def draw(defects: NDArray[np.bool_], generator: np.random.Generator) -> Floats:
    """Draw the images again: (R, n), how often each is there.

    There are as many good and as many defective ones in every draw as there were.
    """
    draws = np.zeros((ROUNDS, len(defects)))
    for kind in (np.flatnonzero(defects), np.flatnonzero(~defects)):
        draws[:, kind] = generator.multinomial(len(kind), np.full(len(kind), 1 / len(kind)), ROUNDS)
    return draws


def regions_of(samples: Sequence[Sample]) -> list[NDArray[np.int32]]:
    """Number the outlined regions of each image: (H, W), 0 where it is good."""
    numbered = []
    for sample in samples:
        height, width = read_image(sample.image).shape[:2]
        if sample.mask is None:
            # Takes no memory; good images of 1024 px would take 4 MB each.
            numbered.append(np.broadcast_to(np.int32(0), (height, width)))
            continue
        mask = read_mask(sample.mask, (height, width)).astype(np.uint8)
        numbered.append(np.asarray(cv2.connectedComponents(mask, connectivity=8)[1], np.int32))
    return numbered


def drawn_auroc(scores: Floats, defects: NDArray[np.bool_], draws: Floats) -> Floats:
    """Image AUROC of every draw, (R,): the share of pairs in which the defect scores higher."""
    good, defective = scores[~defects], scores[defects]
    higher = (defective[:, None] > good) + 0.5 * (defective[:, None] == good)
    won = ((draws[:, defects] @ higher) * draws[:, ~defects]).sum(1)
    return np.asarray(won / (draws[:, defects].sum(1) * draws[:, ~defects].sum(1)))


def drawn_aupro(good: NDArray[Any], overlap: NDArray[Any], draws: Floats) -> Floats:
    """AUPRO of every draw, (R,).

    Args:
        good: (n, BINS) good pixels of each image by their score, ascending.
        overlap: (n, BINS) likewise shares of its regions; a region adds 1 in all.
        draws: (R, n).
    """
    found = []
    for some in np.array_split(draws, max(1, len(draws) // CHUNK)):
        rejected = np.cumsum((some @ good)[:, ::-1], axis=1)
        caught = np.cumsum((some @ overlap)[:, ::-1], axis=1)
        found += [
            _area(*curve)
            for curve in zip(rejected / rejected[:, -1:], caught / caught[:, -1:], strict=True)
        ]
    return np.array(found)


def interval(differences: Floats) -> tuple[float, float]:
    """Where the middle 95 % of the drawn differences lie."""
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)


def _aupro(
    answers: Answers, truth: Sequence[NDArray[np.int32]], draws: Floats
) -> tuple[float, Floats]:
    low = min(float(each.min()) for each in answers.maps)
    high = max(float(each.max()) for each in answers.maps)
    curves = PixelCurves(low, high)
    good = np.zeros((len(truth), BINS))
    overlap = np.zeros((len(truth), BINS))
    for i, (anomaly_map, regions) in enumerate(zip(answers.maps, truth, strict=True)):
        height, width = regions.shape
        # Interpolation and smoothing average, so only rounding can leave the range.
        full = np.clip(answers.full_size(anomaly_map, (height, width)), low, high)
        curves.add(full, regions)
        good[i], overlap[i] = _histograms((full.astype(np.float64) - low) / (high - low), regions)
    return curves.aupro(MAX_FPR), drawn_aupro(good, overlap, draws)


def _histograms(share: Floats, regions: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of one map, (H, W) in [0, 1]: good pixels, and shares of regions; (BINS,) each."""
    places = np.minimum((share * BINS).astype(np.intp), BINS - 1)
    inside = regions > 0
    weights = 1.0 / np.bincount(regions.ravel())[regions[inside]]
    return (
        np.bincount(places[~inside], minlength=BINS),
        np.bincount(places[inside], weights=weights, minlength=BINS),
    )


def _area(fpr: Floats, pro: Floats) -> float:
    """Area under the curve from 0 to MAX_FPR, divided by MAX_FPR; both ascend to 1."""
    x, y = np.concatenate(([0.0], fpr)), np.concatenate(([0.0], pro))
    end = int(np.searchsorted(x, MAX_FPR, side="right"))
    last = np.interp(MAX_FPR, x[end - 1 : end + 1], y[end - 1 : end + 1])
    x, y = np.append(x[:end], MAX_FPR), np.append(y[:end], last)
    return float(np.dot(np.diff(x), y[1:] + y[:-1]) / 2 / MAX_FPR)
