"""Copies of a labelled image that lie a few pixels aside: the grid of patches cuts them otherwise.

The next defect of its kind will not lie on the grid as the labelled one does, and a small one fills
a patch, or touches four. Copies are looked at by the same bank: for half a patch, it holds.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inspection.preprocessing import PATCH_PX
from inspection.views import map_of_canvas
from trainer.outlines import covered_share

SHIFTS = 7
"""Copies of each labelled image."""

REACH_PX = PATCH_PX // 2
"""How far they lie aside along each axis, at most: farther is another patch."""


def draw_shifts(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw `SHIFTS` different shifts, (down, right) px, none of them in place."""
    reach = range(-REACH_PX, REACH_PX + 1)
    every = [shift for shift in itertools.product(reach, reach) if shift != (0, 0)]
    return [every[i] for i in rng.choice(len(every), SHIFTS, replace=False)]


def shifted_canvas(canvas: NDArray[np.uint8], shift: tuple[int, int]) -> NDArray[np.uint8]:
    """Move a canvas, (8 · Mh, 8 · Mw, 3) uint8; what it leaves bare is mirrored."""
    return _moved(canvas, shift, "reflect")


def shifted_share(outline: NDArray[np.float32], shift: tuple[int, int]) -> NDArray[np.float32]:
    """Say how much of every patch a moved outline covers.

    Args:
        outline: (8 · Mh, 8 · Mw), how much of each pixel of the canvas is defect, 0 to 1.
        shift: (down, right) px.

    Returns:
        (Mh, Mw) float32, 0 to 1.
    """
    return covered_share(_moved(outline, shift, "constant"), map_of_canvas(outline))


def _moved(
    picture: NDArray[Any], shift: tuple[int, int], beyond: Literal["reflect", "constant"]
) -> NDArray[Any]:
    reach, (down, right) = REACH_PX, shift
    height, width = picture.shape[:2]
    around = [(reach, reach), (reach, reach), *[(0, 0)] * (picture.ndim - 2)]
    padded = np.pad(picture, around, mode=beyond)
    return np.ascontiguousarray(
        padded[reach - down : reach - down + height, reach - right : reach - right + width]
    )
