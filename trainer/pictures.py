"""Maps as people see them: as large as the image, and laid over it. Never for the score."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.preprocessing import PATCH_PX, Preprocessing
from inspection.thresholds import Thresholds
from inspection.verdicts import Region, Verdict

SMOOTHING_PX = 4.0
"""σ of the Gaussian, in pixels of a 256 px network input; it grows with the input."""

COLOURS = {
    Verdict.PASS: (60, 160, 60),
    Verdict.REVIEW: (230, 160, 0),
    Verdict.FAIL: (210, 40, 40),
    Verdict.UNKNOWN: (120, 120, 120),
}


def full_size_map(
    anomaly_map: NDArray[np.float32], spec: Preprocessing, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Enlarge a map to its image: (Mh, Mw) → (H, W) float32.

    Args:
        anomaly_map: (Mh, Mw) patch scores.
        spec: Of the model that made it.
        shape: (H, W, …) of the image, px.
    """
    height, width = anomaly_map.shape
    canvas = (PATCH_PX * width, PATCH_PX * height)
    enlarged = cv2.resize(anomaly_map, canvas, interpolation=cv2.INTER_LINEAR)
    sigma = SMOOTHING_PX * spec.size_px / 256
    smooth = cv2.GaussianBlur(enlarged, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(smooth, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR))


def overlay(
    image: NDArray[np.uint8],
    standardised: NDArray[np.float32],
    thresholds: Thresholds,
    regions: tuple[Region, ...],
    verdict: Verdict,
) -> NDArray[np.uint8]:
    """Lay a map over its image, box the regions, and frame it in the verdict's colour.

    Nothing is coloured that does not speak against the part: colour begins at half the review
    threshold and is full at twice the reject threshold, on the same scale for every image of a
    product, so that two overlays can be compared.

    Args:
        image: (H, W, 3) uint8 RGB.
        standardised: (Mh, Mw) float32 standardised patch scores.
        thresholds: Standardised.
        regions: To box.
        verdict: For the frame.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    # Not smoothed: a part may fail by a single patch, and that patch must be seen.
    size = (image.shape[1], image.shape[0])
    scores = np.asarray(cv2.resize(standardised, size, interpolation=cv2.INTER_LINEAR))
    low, high = 0.5 * thresholds.review, 2.0 * max(thresholds.reject, 1e-6)
    heat = np.clip((scores - low) / max(high - low, 1e-6), 0.0, 1.0)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    share = (0.6 * np.sqrt(heat))[:, :, None]
    drawn = np.ascontiguousarray((image * (1 - share) + colours * share).astype(np.uint8))
    line = max(1, min(image.shape[:2]) // 200)
    for region in regions:
        corner = (region.x_px + region.width_px - 1, region.y_px + region.height_px - 1)
        cv2.rectangle(drawn, (region.x_px, region.y_px), corner, (255, 255, 255), line)
    last = (image.shape[1] - 1, image.shape[0] - 1)
    frame = max(1, min(4 * line, min(image.shape[:2]) // 20))
    cv2.rectangle(drawn, (0, 0), last, COLOURS[verdict], frame)
    return drawn
