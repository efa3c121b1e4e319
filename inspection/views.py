"""How a canvas is cut into what the network sees, and how the answers become one map again.

The network sees squares of S × S px. A canvas that is larger is covered by several, which overlap;
one that is smaller is padded. Every patch of the canvas belongs to one view, the one in which it
lies deepest: next to a border the network sees padding where the neighbours should be. So nothing
is blended, each patch score is one that the network gave, and no patch of the padding is ever used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from inspection.foreground import Foreground
from inspection.preprocessing import PATCH_PX, Preprocessing

RECOGNISED_VIEWS = 16
"""Views that a product is recognised by, at most: a line scan has hundreds."""

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class View:
    """A square of the canvas; all numbers count patches of the canvas.

    Attributes:
        top: Where its first row lies.
        left: Where its first column lies.
        rows: Rows that belong to it.
        columns: Columns that belong to it.
    """

    top: int
    left: int
    rows: slice
    columns: slice

    @property
    def own(self) -> tuple[slice, slice]:
        """What belongs to it, counted from its own first row and column."""
        return (
            slice(self.rows.start - self.top, self.rows.stop - self.top),
            slice(self.columns.start - self.left, self.columns.stop - self.left),
        )

    def inspected(self, foreground: Foreground, spec: Preprocessing) -> Foreground:
        """Mark what belongs to it and is inspected: (Mh, Mw) of the canvas → (Gh, Gw)."""
        marked = np.zeros(spec.grid, np.uint8)
        marked[self.own] = foreground[self.rows, self.columns]
        return marked

    def pixels(self, canvas: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.uint8]:
        """Cut it out, (S, S, 3) uint8; beyond the canvas lies its mirror image."""
        top, left, size = self.top * PATCH_PX, self.left * PATCH_PX, spec.size_px
        cut = canvas[top : top + size, left : left + size]
        missing = [(0, size - side) for side in cut.shape[:2]]
        # The 8 patches next to the padding are off by 0.11 on magnetic_tile (0.19 on screw) from
        # what they are if the picture goes on; by 0.24 (0.22) if the border is repeated, and by
        # 0.31 (0.24) next to plain grey. Neighbouring patches differ by 0.39 (0.34).
        return np.pad(cut, (*missing, (0, 0)), mode="symmetric")


def views_of(shape: tuple[int, ...], spec: Preprocessing) -> list[View]:
    """List the views that cover a map of (Mh, Mw, …) patches, row by row."""
    side, overlap = spec.grid[0], spec.overlap_px // PATCH_PX
    rows, columns = (_along(patches, side, overlap) for patches in shape[:2])
    return [
        View(top, left, own_rows, own_columns)
        for top, own_rows in rows
        for left, own_columns in columns
    ]


def over_views(
    canvas: NDArray[np.uint8],
    spec: Preprocessing,
    see: Callable[[NDArray[np.uint8], View], NDArray[T]],
) -> NDArray[T]:
    """Show the network one view after the other, and put together what it says of each.

    Memory beside the canvas is what one view takes, and the result.

    Args:
        canvas: (8 · Mh, 8 · Mw, 3) uint8, from `inspection.preprocessing.prepare`.
        spec: Which prepared it.
        see: Given a view's pixels (S, S, 3) uint8 and the view, answers (Gh, Gw, …).

    Returns:
        (Mh, Mw, …) of the same dtype.
    """
    shape = map_of_canvas(canvas)
    views = views_of(shape, spec)
    first = see(views[0].pixels(canvas, spec), views[0])
    if len(views) == 1:
        return first[views[0].own]
    merged = np.empty((*shape, *first.shape[2:]), first.dtype)
    merged[views[0].rows, views[0].columns] = first[views[0].own]
    for view in views[1:]:
        merged[view.rows, view.columns] = see(view.pixels(canvas, spec), view)[view.own]
    return merged


def map_of_canvas(canvas: NDArray[Any]) -> tuple[int, int]:
    """(Mh, Mw): the patches of a canvas."""
    return canvas.shape[0] // PATCH_PX, canvas.shape[1] // PATCH_PX


def recognised_patches(
    canvas: NDArray[np.uint8],
    spec: Preprocessing,
    see: Callable[[NDArray[np.uint8]], NDArray[T]],
) -> NDArray[T]:
    """Gather the patches that tell which product a frame shows.

    Args:
        canvas: The prepared frame.
        spec: Which prepared it.
        see: Given a view's pixels (S, S, 3) uint8, answers (Gh, Gw, D).

    Returns:
        (n, D): what belongs to the views of `recognised_by`.
    """
    views = recognised_by(views_of(map_of_canvas(canvas), spec))
    seen = [see(view.pixels(canvas, spec))[view.own] for view in views]
    return np.concatenate([part.reshape(-1, part.shape[-1]) for part in seen])


def recognised_by(views: Sequence[View]) -> list[View]:
    """Choose the views that tell which product a frame shows, spread over all of them."""
    chosen = np.linspace(0, len(views) - 1, min(len(views), RECOGNISED_VIEWS)).round().astype(int)
    return [views[i] for i in chosen]


def _along(patches: int, side: int, overlap: int) -> list[tuple[int, slice]]:
    """Place views along one axis: the first patch of each, and the patches that belong to it.

    As few as can overlap enough, spread evenly. Between two neighbours the patches in the middle of
    the overlap change hands, where they lie equally deep in both.
    """
    if patches <= side:
        return [(0, slice(0, patches))]
    steps = -(-(patches - side) // (side - overlap))
    starts = [i * (patches - side) // steps for i in range(steps + 1)]
    # start of the later + end of the earlier, halved
    middles = [(after + start + side) // 2 for start, after in pairwise(starts)]
    edges = [0, *middles, patches]
    return [
        (start, slice(first, last))
        for start, (first, last) in zip(starts, pairwise(edges), strict=True)
    ]
