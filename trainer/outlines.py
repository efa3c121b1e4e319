"""Where a defect is: its outline in pixels of the image, and how much of each patch it covers."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.coco import Box


def boxes_outline(boxes: Sequence[Box], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Draw boxes as (H, W) float32: how much of each pixel they cover, 0 to 1.

    Where boxes overlap, the pixel has what the one that covers it most has of it.
    """
    outline = np.zeros(shape, np.float32)
    for box in boxes:
        rows = _shares(shape[0], np.array([box.y_px, box.y_px + box.height_px]))
        columns = _shares(shape[1], np.array([box.x_px, box.x_px + box.width_px]))
        # _shares are shares of the box; times its sides they are pixels.
        covered = np.outer(rows[0] * box.height_px, columns[0] * box.width_px)
        np.maximum(outline, covered, out=outline, casting="same_kind")
    return outline


def covered_share(outline: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Average an outline over every patch of a map, which lies over the whole image.

    The averages are exact, so that a region of a single pixel still gives its patch more than 0;
    area interpolation of a resize would be linear where an image is smaller than the map.

    Args:
        outline: (H, W), how much of each pixel is defect, 0 to 1.
        shape: (Mh, Mw), from `inspection.preprocessing.map_shape`.

    Returns:
        (Mh, Mw) float32, 0 to 1.
    """
    rows, columns = (
        _shares(pixels, np.arange(patches + 1) * pixels / patches)
        for pixels, patches in zip(outline.shape, shape, strict=True)
    )
    return np.asarray(np.clip(rows @ outline.astype(np.float64) @ columns.T, 0.0, 1.0), np.float32)


def marked_patches(share: NDArray[np.floating], least: float) -> NDArray[np.bool_]:
    """Choose patches that show a defect: covered enough, or more than any of their 8 neighbours.

    So a region smaller than a patch marks one too, beside larger ones in the same image.

    Args:
        share: (Mh, Mw), from `covered_share`.
        least: Share from which a patch is marked, above 0, at most 1.
    """
    highest = cv2.dilate(share.astype(np.float32), np.ones((3, 3), np.uint8))
    return np.asarray((share >= least) | ((share > 0) & (share >= highest)))


def _shares(pixels: int, edges: NDArray[np.floating]) -> NDArray[np.float64]:
    """(cells, pixels) float64: which part of each cell between two edges lies in each pixel."""
    low, high = edges[:-1, None], edges[1:, None]
    first = np.arange(pixels)[None, :]
    overlap = np.minimum(first + 1, high) - np.maximum(first, low)
    return np.asarray(np.maximum(overlap, 0.0) / (high - low), np.float64)
