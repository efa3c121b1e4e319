"""Rows of a bank as the device will hold them, made on the host: pure numpy, on any thread.

Bringing them to the device is `edge.device_bank`. Letters: N bank rows, D feature dimensions, W
columns of a row, Wp padded columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.kernels import arguments
from inspection.bank import MemoryBank
from inspection.errors import InputError
from inspection.scoring import Scoring

Precision = Literal["f16", "bf16", "s8", "f32"]
"""What tensor cores multiply rows as, before the exact search among candidates.

`s8` keeps int8 rows with a scale each and nothing else: these are then the bank, a quarter of the
memory. `f32` does without tensor cores: for checking.
"""

STAGING_BYTES = 1 << 20
"""Rows pass to the device in pieces of so much, so that nobody waits for long between two."""

ROWS_OF_A_BLOCK = 8


@dataclass(frozen=True, slots=True)
class BankShape:
    """What room is made for; it never changes.

    Attributes:
        rows: N, valid or not.
        dimensions: D.
        placed: Whether where a row lies counts: the normal bank, W = D + 2; else W = D.
        precision: How rows are kept.
        any_product: Whether frames of no known product are searched for in a placed bank. What
            being elsewhere costs them is not what it costs a product, so that rows are kept twice.
    """

    rows: int
    dimensions: int
    placed: bool
    precision: Precision = "f16"
    any_product: bool = False

    @property
    def kept(self) -> int:
        """Rows in device memory: N, or N as products place them and N as no product does."""
        return self.rows * (1 + (self.placed and self.any_product))

    @property
    def width(self) -> int:
        """W."""
        return self.dimensions + 2 * self.placed

    @property
    def padded(self) -> int:
        """Wp."""
        return arguments.padded_width(self.width)

    @property
    def staged_rows(self) -> int:
        """How many rows pass through the staging memory at once."""
        return min(self.kept, max(ROWS_OF_A_BLOCK, STAGING_BYTES // (4 * self.width)))


@dataclass(frozen=True, slots=True)
class LocatedRows:
    """A bank with its places worked in, ready to be sent; made by `locate_rows`.

    Attributes:
        located: (kept, W) float32.
        valid: (kept,) uint8.
        mean: (W,) float32 of the valid rows; centring keeps norms small, and rounding errors.
        ranges: By category, and None for all: the kept rows to search, and how many are valid.
        scorings: Constants of each category, and perhaps of None.
    """

    located: NDArray[np.float32]
    valid: NDArray[np.uint8]
    mean: NDArray[np.float32]
    ranges: Mapping[str | None, tuple[slice, int]]
    scorings: Mapping[str | None, Scoring]


def locate_rows(
    shape: BankShape, bank: MemoryBank, scorings: Mapping[str | None, Scoring]
) -> LocatedRows:
    """Work the places of a bank into its rows, each by the λ of who will search it.

    Args:
        shape: Of the room on the device.
        bank: Of its capacity and D.
        scorings: Constants of each of the bank's categories, and under None those of frames of
            no known product, if such are asked about.

    Raises:
        InputError: The bank is of another shape, or a category lacks its constants.
    """
    expected = (shape.rows, shape.dimensions)
    if bank.features.shape != expected:
        raise InputError(
            f"there is room for a bank {expected}, got {bank.features.shape}; a bank never "
            "changes its capacity: load its bundle anew"
        )
    twice = shape.kept > shape.rows
    missing = [
        name for name in (*bank.categories, *([None] if twice else [])) if name not in scorings
    ]
    if missing:
        raise InputError(f"expected constants for each category, got none for {missing}")
    kept = np.arange(shape.kept) % shape.rows
    located = np.empty((shape.kept, shape.width), np.float32)
    located[:, : shape.dimensions] = bank.features[kept]
    if shape.placed:
        by_category = np.array([scorings[name].position_weight for name in bank.categories])
        weights = by_category[bank.category]
        if twice:
            weights = np.append(weights, np.full(shape.rows, scorings[None].position_weight))
        located[:, shape.dimensions :] = weights[:, None] * bank.position[kept]
    valid = bank.valid[kept]
    mean = np.zeros(shape.width, np.float32)
    if valid.any():
        mean[:] = located.mean(axis=0, dtype=np.float64, where=valid[:, None])
    ranges: dict[str | None, tuple[slice, int]] = {
        name: _counted(bank, bank.rows_of(name)) for name in bank.categories
    }
    if twice or not shape.placed:
        ranges[None] = slice(shape.kept - shape.rows, shape.kept), int(bank.valid.sum())
    return LocatedRows(located, valid.astype(np.uint8), mean, ranges, dict(scorings))


def _counted(bank: MemoryBank, rows: slice) -> tuple[slice, int]:
    return rows, int(bank.valid[rows].sum())
