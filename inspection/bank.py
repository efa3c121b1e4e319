"""What a memory bank is: a fixed number of patch features, who each row came from, and its bytes.

Capacity never changes after birth, so engines, device buffers and captured graphs never change
shape: a category owns a fixed range of rows, and rows not in use are marked invalid.
Which rows deserve a place is decided elsewhere: see `trainer.coreset`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from inspection.errors import BundleError, InputError

FROM_TRAINING = 0
"""`MemoryBank.label` of a row that no person admitted: it came with the training images."""


@dataclass(frozen=True, slots=True)
class MemoryBank:
    """Evidence to compare patches with; rows are sorted by category. Arrays are read-only.

    Attributes:
        categories: Names; `category` counts into them.
        sources: Names of the frames that rows came from; `source` counts into them.
        features: (N, D) float32, finite.
        valid: (N,) bool; an invalid row is room to grow and is never a neighbour.
        category: (N,) int32, ascending; invalid rows belong to a category too.
        source: (N,) int32; -1 where a row is no patch of any frame.
        position: (N, 2) int32, (row, column) in the patch grid; -1 where there is none.
        label: (N,) int64, number of the label that admitted the row, or `FROM_TRAINING`.
        admitted_unix_s: (N,) int64, when; 0 for rows from training, so that a fit is reproducible.
        hits: (N,) int64, how often the row was a nearest neighbour of an inspected patch.
    """

    categories: tuple[str, ...]
    sources: tuple[str, ...]
    features: NDArray[np.float32]
    valid: NDArray[np.bool_]
    category: NDArray[np.int32]
    source: NDArray[np.int32]
    position: NDArray[np.int32]
    label: NDArray[np.int64]
    admitted_unix_s: NDArray[np.int64]
    hits: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) for name in (*self.categories, *self.sources)):
            raise InputError("categories and sources of a bank must be texts")
        if len(set(self.categories)) < len(self.categories):
            raise InputError(f"categories of a bank must differ, got {self.categories}")
        n = len(self.features)
        if self.features.ndim != 2 or self.features.dtype != np.float32:
            raise InputError(
                f"bank features must be (N, D) float32, got {self.features.shape} "
                f"{self.features.dtype}"
            )
        if not np.isfinite(self.features).all():
            raise InputError("bank features must be finite; a row holds NaN or infinity")
        for name, (dtype, width) in _COLUMNS.items():
            column = getattr(self, name)
            expected = (n, width) if width else (n,)
            if column.shape != expected or column.dtype != dtype:
                raise InputError(
                    f"bank column {name} must be {expected} {np.dtype(dtype)}, got "
                    f"{column.shape} {column.dtype}"
                )
        if n and (np.any(np.diff(self.category) < 0) or self.category[0] < 0):
            raise InputError("bank rows must be sorted by category")
        if n and self.category[-1] >= len(self.categories):
            raise InputError(
                f"bank rows name category {self.category[-1]}, "
                f"but there are {len(self.categories)} categories"
            )
        if n and (self.source.min() < -1 or self.source.max() >= len(self.sources)):
            raise InputError(f"bank rows name sources outside -1 … {len(self.sources) - 1}")
        for name in ("features", *_COLUMNS):
            getattr(self, name).setflags(write=False)

    @property
    def dimensions(self) -> int:
        """D, the length of a patch feature."""
        return int(self.features.shape[1])

    def rows_of(self, category: str | None) -> slice:
        """Find the range of rows that a category owns; all rows for None.

        Raises:
            InputError: The bank does not know the category.
        """
        if category is None:
            return slice(0, len(self.features))
        if category not in self.categories:
            raise InputError(
                f"category {category!r} is not in this bank; it knows {', '.join(self.categories)}"
            )
        number = self.categories.index(category)
        return slice(
            int(np.searchsorted(self.category, number, "left")),
            int(np.searchsorted(self.category, number, "right")),
        )

    def evidence_of(self, category: str | None) -> NDArray[np.float32]:
        """Gather the valid rows that a category owns, (n, D); all valid rows for None.

        Raises:
            InputError: The bank does not know the category.
        """
        rows = self.rows_of(category)
        return np.asarray(self.features[rows][self.valid[rows]])


_COLUMNS: dict[str, tuple[Any, int]] = {
    "valid": (np.bool_, 0),
    "category": (np.int32, 0),
    "source": (np.int32, 0),
    "position": (np.int32, 2),
    "label": (np.int64, 0),
    "admitted_unix_s": (np.int64, 0),
    "hits": (np.int64, 0),
}


def empty_bank(categories: tuple[str, ...], rows_each: int, dimensions: int) -> MemoryBank:
    """Make a bank of `rows_each` invalid rows for every category: capacity without evidence."""
    n = rows_each * len(categories)
    return MemoryBank(
        categories=categories,
        sources=(),
        features=np.zeros((n, dimensions), np.float32),
        valid=np.zeros(n, np.bool_),
        category=np.repeat(np.arange(len(categories), dtype=np.int32), rows_each),
        source=np.full(n, -1, np.int32),
        position=np.full((n, 2), -1, np.int32),
        label=np.full(n, FROM_TRAINING, np.int64),
        admitted_unix_s=np.zeros(n, np.int64),
        hits=np.zeros(n, np.int64),
    )


def bank_to_bytes(bank: MemoryBank) -> bytes:
    """Write a bank as safetensors; equal banks give equal bytes."""
    # safetensors 0.8 writes an array that is not C-contiguous in the wrong order, and says nothing.
    arrays = {
        field.name: np.ascontiguousarray(getattr(bank, field.name))
        for field in fields(bank)
        if field.name not in ("categories", "sources")
    }
    names = json.dumps({"categories": bank.categories, "sources": bank.sources})
    return bytes(safetensors.numpy.save(arrays, metadata={"names": names}))


def bank_from_bytes(data: bytes) -> MemoryBank:
    """Read what `bank_to_bytes` wrote.

    Raises:
        BundleError: Not a bank: damaged, incomplete, or its parts contradict each other.
    """
    try:
        arrays = safetensors.numpy.load(data)
        names = json.loads(safetensors_metadata(data)["names"])
        return MemoryBank(tuple(names["categories"]), tuple(names["sources"]), **arrays)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"this is not a memory bank: {error}") from error


def safetensors_metadata(data: bytes) -> dict[str, str]:
    """Read the text entries of safetensors bytes, which the library gives only for files."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    return {str(key): str(value) for key, value in metadata.items()}
