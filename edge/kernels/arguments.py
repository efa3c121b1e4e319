"""What the kernels are told, as the host sees it: struct layouts, tile sizes, small tables.

No device here: pointers are plain numbers. The kernels' own view of the structs is `arguments.cuh`.
Letters: N bank rows, W columns of a row, K neighbours, S splits of the bank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CANDIDATES = 32
"""Candidates that a patch keeps in each split."""

MOST_NEIGHBOURS = 16
"""K at most."""

WIDTH_STEP = 32
"""Rows and queries are padded with zeros to a multiple of it."""

MOST_SPLIT_ROWS = 65_280
"""Rows of one split at most: 65,536 less one tile, for a split is cut between tiles."""


def _of_kind(kind: str, names: str) -> list[tuple[str, str]]:
    return [(name, kind) for name in names.split()]


def _struct(pointers: str, **numbers: str) -> np.dtype[np.void]:
    """Lay out pointers, then numbers given as `type=names`, as a C++ compiler does."""
    fields = _of_kind("u8", pointers)
    for kind, names in numbers.items():
        fields += _of_kind(kind, names)
    return np.dtype(fields, align=True)


PREPARE_ROWS = _struct("located valid mean rows norms scale bounds", i4="n width padded")

SEARCH = _struct(
    "rows located valid norms scale mean bounds first count temperature patches places queries "
    "query_bounds approx candidates uncertified distances neighbours residual evidence",
    i4="dimensions padded splits k",
)

SEARCHES = np.dtype(
    [
        ("search", SEARCH, (2,)),
        *_of_kind("i4", "searches frames patches every_patch half_patches"),
    ],
    align=True,
)

JUDGE = _struct(
    "patches normal_residual abnormal_residual normal_distances abnormal_distances evidence "
    "hidden_weight hidden_bias output_weight output_bias head weight foreground scores",
    i4="dimensions k units per_frame half_patches",
)

RESIZE = _struct(
    "source target row_first row_weights column_first column_weights",
    i4="height width rows columns row_taps column_taps",
)

CUT = _struct("canvas view", i4="height width top left side")

UPSAMPLE = _struct("source target", i4="rows columns height width")

BLUR = _struct("source target weights", i4="height width radius vertical")


@dataclass(frozen=True, slots=True)
class Tile:
    """What `scan` was built for on a chip.

    Attributes:
        patches: Patches of a block.
        rows: Bank rows that a block looks at in one step.
        threads: Threads of a block.
        shared_bytes: Dynamic shared memory of a block.
    """

    patches: int
    rows: int
    threads: int
    shared_bytes: int


def tile_of(capability: tuple[int, int]) -> Tile:
    """Say what `scan` was built for, by compute capability: `tile.cuh` in numbers."""
    wide = capability in ((8, 0), (8, 7), (9, 0))
    patches, rows, threads = (128, 256, 256) if wide else (64, 128, 128)
    stages = (4 if capability == (9, 0) else 3) if wide else 2
    waiting = 64 if wide else 32
    lists = patches * (CANDIDATES + waiting) * 6 + patches * 8
    return Tile(patches, rows, threads, stages * (patches + rows) * 64 + lists + rows * 4)


def padded_width(width: int) -> int:
    """Wp: the next multiple of `WIDTH_STEP`."""
    return -(-width // WIDTH_STEP) * WIDTH_STEP


def resize_table(
    source: int, target: int, shrinks: bool
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Tell each pixel of one axis which pixels of the source it is made of, and in what shares.

    The shares are those of `inspection.preprocessing.resize_exactly`, made in float64.

    Args:
        source: Pixels of the source along the axis.
        target: Pixels of the target along it.
        shrinks: Of the pass: box filter, or linear interpolation.

    Returns:
        (target,) int32 first pixel, and (target, taps) float32 shares from there on; pixels past
        the end of the source have share 0.
    """
    scale = source / target
    out = np.arange(target, dtype=np.float64)
    if source == target:
        return out.astype(np.int32), np.ones((target, 1), np.float32)
    if shrinks:
        first = np.floor(out * scale).astype(np.int64)
        taps = math.ceil(scale) + 1
    else:
        centre = np.clip((out + 0.5) * scale - 0.5, 0, source - 1)
        first, taps = np.floor(centre).astype(np.int64), 2
    pixels = first[:, None] + np.arange(taps)
    if shrinks:
        ends = np.minimum(pixels + 1, (out[:, None] + 1) * scale)
        shares = np.maximum(ends - np.maximum(pixels, out[:, None] * scale), 0.0) / scale
    else:
        shares = np.maximum(0.0, 1.0 - np.abs(centre[:, None] - pixels))
    shares[pixels >= source] = 0.0
    return first.astype(np.int32), shares.astype(np.float32)


def blur_weights(sigma_px: float) -> NDArray[np.float32]:
    """(2·radius + 1,) float32 that sum to 1: a Gaussian cut off at 4σ, as OpenCV cuts it."""
    radius = (round(sigma_px * 8 + 1) | 1) // 2
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    return np.asarray(weights / weights.sum(), np.float32)
