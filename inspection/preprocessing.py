"""How a camera frame becomes a canvas: one resize, defined here, the same on every host.

The canvas is what the network looks at, in one view or in several: `inspection.views`. This module
holds the definition and a plain numpy version of it. Programs run `resize_plan` with OpenCV, which
agrees to `TOLERANCE_LEVELS`; normalisation happens inside the trunk and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from inspection.errors import ImageError, InputError

# OpenCV may round a pass the other way, one level off, and a frame that shrinks along one axis and
# grows along the other takes two passes: 5 % of 26,816 such shapes had a pixel two levels off.
TOLERANCE_LEVELS = 2

MIN_SIDE_PX = 8

PATCH_PX = 8
"""Side of a patch in the network's input."""

Fit = Literal["stretch", "letterbox", "tiles"]

MOST_SHRINK = 16


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to a frame before the trunk sees it; part of the bundle.

    Attributes:
        size_px: S, side of the square network input, a multiple of 16 from 32 to 4096.
        fit: How frames come to fit it. "stretch": resized to S × S, whatever their aspect.
            "letterbox": resized until the longer side is S, and padded. "tiles": at their own
            resolution, cut into squares of S.
        overlap_px: By which neighbouring tiles overlap at least, a multiple of 8, at most S / 2.
        shrink: Pixels of the frame to one of the tiles, along each axis, from 1 to 16.
    """

    size_px: int = 256
    fit: Fit = "stretch"
    overlap_px: int = 0
    shrink: int = 1

    def __post_init__(self) -> None:
        if self.size_px % 16 or not 32 <= self.size_px <= 4096:
            raise InputError(
                f"size_px must be a multiple of 16 from 32 to 4096, got {self.size_px}"
            )
        if self.fit not in get_args(Fit):
            raise InputError(f"fit must be one of {', '.join(get_args(Fit))}, got {self.fit!r}")
        if self.fit != "tiles" and (self.overlap_px, self.shrink) != (0, 1):
            raise InputError(
                f"only tiles overlap and shrink, got overlap_px = {self.overlap_px} and shrink = "
                f"{self.shrink} with {self.fit!r}; leave them out, or choose tiles"
            )
        if self.overlap_px % PATCH_PX or not 0 <= self.overlap_px <= self.size_px // 2:
            raise InputError(
                f"overlap_px must be a multiple of {PATCH_PX} from 0 to {self.size_px // 2}, half "
                f"of size_px, got {self.overlap_px}"
            )
        if not 1 <= self.shrink <= MOST_SHRINK:
            raise InputError(f"shrink must be from 1 to {MOST_SHRINK}, got {self.shrink}")

    @property
    def grid(self) -> tuple[int, int]:
        """(Gh, Gw): one patch for every 8 × 8 pixels of the network's input."""
        return self.size_px // PATCH_PX, self.size_px // PATCH_PX

    @property
    def patches(self) -> int:
        """P: patches of the network's input."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, slots=True)
class ResizePass:
    """One separable pass: to (height_px, width_px), by box filter or by linear interpolation."""

    height_px: int
    width_px: int
    shrinks: bool


Resize = Callable[[NDArray[np.uint8], ResizePass], NDArray[np.uint8]]


def to_rgb8(image: NDArray[Any], channels: str = "rgb") -> NDArray[np.uint8]:
    """Bring a decoded image to three 8-bit channels.

    Grey is repeated, alpha is dropped, and 16 bits keep their upper 8, so that the same part gives
    the same pixels whatever the camera's depth was set to.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or uint16.
        channels: Order of the first three channels, "rgb" or "bgr".

    Returns:
        (H, W, 3) uint8, RGB, contiguous; may be the image itself.

    Raises:
        ImageError: Another shape or dtype, or a side shorter than 8 px.
    """
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ImageError(f"expected (H, W) or (H, W, 1, 3 or 4) pixels, got shape {image.shape}")
    if min(image.shape[:2]) < MIN_SIDE_PX:
        raise ImageError(f"expected sides of at least {MIN_SIDE_PX} px, got {image.shape[:2]}")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ImageError(f"expected uint8 or uint16 pixels, got {image.dtype}; convert the image")
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    image = image[:, :, :3]
    return np.ascontiguousarray(image[:, :, ::-1] if channels == "bgr" else image)


def map_shape(shape: tuple[int, ...], spec: Preprocessing) -> tuple[int, int]:
    """Say how many patches a frame of (H, W, …) px has: (Mh, Mw), the shape of its anomaly map.

    A canvas has whole patches, so that its map lies over the whole frame and over nothing else:
    patch (r, c) shows rows r · H / Mh to (r + 1) · H / Mh. The price is an aspect that is off by
    less than half a patch along the shorter side, or along both for tiles.
    """
    if spec.fit == "stretch":
        return spec.grid
    # In whole numbers: a rounding that differs between hosts would be another map.
    cells, per = (spec.grid[0], max(shape[:2])) if spec.fit == "letterbox" else (1, PATCH_PX)
    height, width = (
        max(1, (2 * side * cells + per * spec.shrink) // (2 * per * spec.shrink))
        for side in shape[:2]
    )
    return height, width


def resize_plan(
    shape: tuple[int, ...], spec: Preprocessing, frame_shape: tuple[int, ...] | None = None
) -> list[ResizePass]:
    """List the passes that bring (H, W, …) to a canvas; none when it fits already.

    The canvas is that of a frame of `frame_shape`, or of the image itself.

    An axis that shrinks is averaged over the exact area of each output pixel (nothing aliases);
    an axis that grows is interpolated linearly between pixel centres. OpenCV has one mode for both
    axes at once, hence two passes when one shrinks and the other grows.
    """
    rows, columns = (PATCH_PX * patches for patches in map_shape(frame_shape or shape, spec))
    height, width = shape[:2]
    passes = []
    if height > rows or width > columns:
        height, width = min(height, rows), min(width, columns)
        passes.append(ResizePass(height, width, shrinks=True))
    if height < rows or width < columns:
        passes.append(ResizePass(rows, columns, shrinks=False))
    return passes


def prepare(
    image: NDArray[np.uint8],
    spec: Preprocessing,
    resize: Resize,
    frame_shape: tuple[int, ...] | None = None,
) -> NDArray[np.uint8]:
    """Bring an (H, W, 3) uint8 RGB frame to its canvas by the plan of this module.

    Args:
        image: From `to_rgb8`.
        spec: The bundle's preprocessing.
        resize: Runs one pass: `resize_exactly`, or the same in OpenCV.
        frame_shape: (H, W, …) of the frame that a mask lies over; None for a frame.

    Returns:
        (8 · Mh, 8 · Mw, 3) uint8, (S, S, 3) if frames are stretched; may be the image itself.
    """
    for step in resize_plan(image.shape, spec, frame_shape):
        image = resize(image, step)
    return image


def resize_exactly(image: NDArray[np.uint8], step: ResizePass) -> NDArray[np.uint8]:
    """Run one pass in float64, (H, W, C) → (height_px, width_px, C); rounds half up, once."""
    rows = _weights(image.shape[0], step.height_px, step.shrinks)
    columns = _weights(image.shape[1], step.width_px, step.shrinks)
    mixed = np.einsum("yh,hwc->ywc", rows, image.astype(np.float64), optimize=True)
    mixed = np.einsum("xw,ywc->yxc", columns, mixed, optimize=True)
    rounded: NDArray[np.uint8] = np.clip(np.floor(mixed + 0.5), 0, 255).astype(np.uint8)
    return rounded


def _weights(source: int, target: int, shrinks: bool) -> NDArray[np.float64]:
    """(target, source) float64, rows that sum to 1: each output pixel's share of the input's."""
    if source == target:
        return np.eye(source)
    scale = source / target
    out = np.arange(target)[:, None]
    pixels = np.arange(source)[None, :]
    if shrinks:
        overlap = np.minimum(pixels + 1, (out + 1) * scale) - np.maximum(pixels, out * scale)
        return np.asarray(np.maximum(overlap, 0.0) / scale)
    centre = np.clip((out + 0.5) * scale - 0.5, 0, source - 1)
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(centre - pixels)))
