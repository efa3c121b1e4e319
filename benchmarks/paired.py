"""Two systems on the same test images: each one's figures, and those of every draw of the images.

The figures are those of `inspection.metrics` and `inspection.pixel_metrics`, maps and masks
compared at the size of the images. All systems are measured on the same draws, so that an image
which is hard for both moves neither ahead.

Letters: n test images, R draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.bootstrap import Draws, drawn_auroc, drawn_pixel_figures
from inspection.metrics import auroc
from inspection.pixel_metrics import MapCounts, PixelCurves
from trainer.dataset import Sample, read_image, read_mask

Floats = NDArray[np.float64]
Map = NDArray[np.float32]
Regions = NDArray[np.int32]
"""(H, W): 0 for a good pixel, else the number of its region, from 1."""


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """How good the answers are.

    Attributes:
        image_auroc: In [0, 1].
        aupro: In [0, 1]; None without masks or maps.
        drawn_image_auroc: (R,), of every draw.
        drawn_aupro: (R,), or None.
    """

    image_auroc: float
    aupro: float | None
    drawn_image_auroc: Floats
    drawn_aupro: Floats | None


def measure(
    answers: Answers,
    defects: NDArray[np.bool_],
    truth: Sequence[Regions] | None,
    draws: Draws,
) -> Figures:
    """Compare answers with what is known.

    Args:
        answers: Of a system.
        defects: (n,) whether an image shows a defect.
        truth: From `regions_of`; None if defects are not outlined.
        draws: (R, n), from `inspection.bootstrap.draw`.

    Raises:
        InputError: A class is missing, a score is no number, or all maps are constant.
    """
    aupro, drawn_aupro = None, None
    if truth is not None and len(answers.maps):
        curves, counts = _compare(answers, truth)
        aupro = curves.aupro()
        _, drawn_aupro = drawn_pixel_figures(counts, draws)
    drawn_image_auroc = drawn_auroc(answers.scores, defects, draws)
    return Figures(auroc(answers.scores, defects), aupro, drawn_image_auroc, drawn_aupro)


def regions_of(samples: Sequence[Sample]) -> list[Regions]:
    """Number the outlined regions of each image, at its size."""
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


def _compare(answers: Answers, truth: Sequence[Regions]) -> tuple[PixelCurves, list[MapCounts]]:
    low = min(float(each.min()) for each in answers.maps)
    high = max(float(each.max()) for each in answers.maps)
    curves = PixelCurves(low, high)
    counts = []
    for anomaly_map, regions in zip(answers.maps, truth, strict=True):
        height, width = regions.shape
        full = answers.full_size(anomaly_map, (height, width))
        # Interpolation and smoothing average, so only rounding can leave the range.
        counts.append(curves.add(np.clip(full, low, high), regions))
    return curves, counts
