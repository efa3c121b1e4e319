"""Mask images of users, and the patches that they leave to inspect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inspection.errors import DatasetError
from inspection.foreground import Foreground
from inspection.preprocessing import PATCH_PX, Preprocessing, prepare
from inspection.views import map_of_canvas
from trainer.dataset import Category, read_image, resize

WHITE = 128
"""A pixel of the network's input is inspected if the mask, resized like a frame, is as bright."""

LEAST_PATCHES = 16
"""What a mask must leave to inspect: fewer patches of four images would not fill a bank."""

ASPECT_TOLERANCE = 0.02
"""How far width over height of a mask may be from that of the frames: rounding of a small mask."""


def read_foregrounds(
    folder: Path, categories: Sequence[Category], spec: Preprocessing
) -> dict[str, Foreground]:
    """Read `<category>.png` of every category that has one, white where parts are inspected.

    A mask is resized to the canvas of the frames, so it fits whatever its size; over the map of a
    frame of another shape it is stretched. A patch is inspected if any of its pixels is.

    Args:
        folder: Holds the masks and nothing else; hidden files are passed over. The mask of a
            category `a/b` is `a/b.png`.
        categories: Whose frames they are laid over; the first training image gives the aspect.
        spec: How frames are prepared.

    Raises:
        DatasetError: No such folder, a file that is no category's mask, a mask that cannot be read,
            has another aspect than the frames, or leaves too little to inspect.
    """
    if not folder.is_dir():
        raise DatasetError(f"expected a folder of masks, got {folder}, which is not a folder")
    places = {folder / f"{category.name}.png": category for category in categories}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and not path.is_dir() and path not in places:
            raise DatasetError(
                f"{path} is the mask of no category; expected "
                f"{', '.join(f'{category.name}.png' for category in categories)}"
            )
    return {
        category.name: _foreground(path, category, spec)
        for path, category in places.items()
        if path.is_file()
    }


def _foreground(path: Path, category: Category, spec: Preprocessing) -> Foreground:
    mask, frame = read_image(path), read_image(category.train[0])
    aspects = [image.shape[1] / image.shape[0] for image in (mask, frame)]
    if abs(aspects[0] / aspects[1] - 1) > ASPECT_TOLERANCE:
        raise DatasetError(
            f"mask {path} is {mask.shape[:2]}, but {category.train[0]} is {frame.shape[:2]}, "
            "(height, width) in px; draw it at the aspect of the frames"
        )
    foreground = _inspected(prepare(mask, spec, resize, frame.shape))
    if foreground.sum() < LEAST_PATCHES:
        raise DatasetError(
            f"mask {path} leaves {foreground.sum()} patches of {foreground.size} to inspect, "
            f"expected at least {LEAST_PATCHES}; paint white what is to be inspected"
        )
    return foreground


def _inspected(prepared: NDArray[np.uint8]) -> Foreground:
    """(8 · Mh, 8 · Mw, 3) → (Mh, Mw): whether any pixel of a patch is white."""
    height, width = map_of_canvas(prepared)
    cells = (prepared.max(axis=2) >= WHITE).reshape(height, PATCH_PX, width, PATCH_PX)
    return np.asarray(cells.any(axis=(1, 3)), np.uint8)
