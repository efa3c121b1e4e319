"""Where a defect is: its outline in pixels of the image, and how much of each patch it covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.preprocessing import Preprocessing
from trainer.coco import Box


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image comes to lie in the network's square input, in network px.

    Attributes:
        top_px: Of its upper edge; below 0 if the square shows only a part of it.
        left_px: Of its left edge, likewise.
        height_px: After the resize, above 0.
        width_px: After the resize, above 0.
    """

    top_px: float
    left_px: float
    height_px: float
    width_px: float


def placement(shape: tuple[int, int], spec: Preprocessing) -> Placement:
    """Say where an image of (height, width) px comes to lie: today it always fills the square."""
    return Placement(0.0, 0.0, spec.size_px, spec.size_px)


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


def covered_share(
    outline: NDArray[np.floating], place: Placement, spec: Preprocessing
) -> NDArray[np.float32]:
    """Average an outline over every patch.

    The averages are exact, so that a region of a single pixel still gives its patch more than 0;
    area interpolation of a resize would be linear where an image is smaller than the grid.

    Args:
        outline: (H, W), how much of each pixel is defect, 0 to 1.
        place: Where the image lies in the network's input.
        spec: Gives the grid.

    Returns:
        (Gh, Gw) float32, 0 to 1; what lies outside the image is not covered.
    """
    height, width = outline.shape
    grid_height, grid_width = spec.grid
    patch_px = spec.size_px / grid_height
    edges_y = (np.arange(grid_height + 1) * patch_px - place.top_px) * height / place.height_px
    edges_x = (np.arange(grid_width + 1) * patch_px - place.left_px) * width / place.width_px
    shares = _shares(height, edges_y) @ outline.astype(np.float64) @ _shares(width, edges_x).T
    return np.asarray(np.clip(shares, 0.0, 1.0), np.float32)


def marked_patches(share: NDArray[np.floating], least: float) -> NDArray[np.bool_]:
    """Choose patches that show a defect: covered enough, or more than any of their 8 neighbours.

    So a region smaller than a patch marks one too, beside larger ones in the same image.

    Args:
        share: (Gh, Gw), from `covered_share`.
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
