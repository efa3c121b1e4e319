"""A memory bank in device memory, at addresses that stay while its rows are replaced.

Whoever searches it is fenced: a search begins when the rows are whole, and rows are replaced when
the searches that were put on a stream before are over. Searching is `edge.bank_scan`. Letters: N
bank rows, D feature dimensions, W columns of a row, Wp padded columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.device import Device, DeviceArray, device_arrays, open_event, page_locked
from edge.kernels import arguments
from edge.streams import Event, Fence, Stream
from inspection.bank import MemoryBank
from inspection.errors import DeviceError, InputError
from inspection.scoring import Scoring, locate

Precision = Literal["f16", "bf16", "s8", "f32"]
"""What tensor cores multiply rows as, before the exact search among candidates.

`s8` keeps int8 rows with a scale each and nothing else: these are then the bank, a quarter of the
memory. `f32` does without tensor cores: for checking.
"""

OLDEST_BRAIN_FLOAT = (8, 0)

STAGING_BYTES = 16 << 20
"""Page-locked memory that rows pass through on their way to the device."""

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


class DeviceBank:
    """One bank on the device; made by `open_bank`, empty until the first `replace`.

    Attributes:
        shape: What room was made for.
        arrays: By the names of `Search` in `edge/kernels/README.md`.
        fence: Between those who replace rows and those who search them.
    """

    def __init__(
        self,
        device: Device,
        shape: BankShape,
        arrays: dict[str, DeviceArray],
        staging: dict[str, NDArray[Any]],
        passing: DeviceArray | None,
        events: tuple[Event, Event],
    ) -> None:
        self.shape, self.arrays = shape, arrays
        ready, self._sent = events
        self.fence = Fence(ready)
        self._device, self._staging, self._passing = device, staging, passing
        self._held: MemoryBank | None = None
        self._scorings: dict[str | None, Scoring] = {}
        precision = shape.precision
        self._prepare = (
            None
            if precision == "f32"
            else device.kernel(f"prepare_rows_{precision}", arguments.PREPARE_ROWS)
        )

    def replace(
        self, stream: Stream, bank: MemoryBank, scorings: Mapping[str | None, Scoring]
    ) -> None:
        """Put other rows in place of the ones that are there.

        Blocks while rows pass through the staging memory; the last of them may still be on their
        way when it returns, so that others wait for `fence.ready`.

        Args:
            stream: Anyone's; it waits for the searches that are under way.
            bank: Of the capacity and D that room was made for.
            scorings: Constants of each of the bank's categories, and under None those of frames of
                no known product, if such are asked about.

        Raises:
            InputError: The bank is of another shape, or a category lacks its constants.
            DeviceError: The device failed; the bank holds rows of both.
        """
        expected = (self.shape.rows, self.shape.dimensions)
        if bank.features.shape != expected:
            raise InputError(
                f"there is room for a bank {expected}, got {bank.features.shape}; a bank never "
                "changes its capacity: load its bundle anew"
            )
        weights = self._position_weights(bank, scorings)
        # From here on rows are mixed: nobody may search with what was aimed before.
        self.fence.begin_writing(stream)
        self._held = None
        self._sent.synchronize()
        kept = np.arange(self.shape.kept) % self.shape.rows
        self._staging["valid"][:] = bank.valid[kept]
        self._device.copy_in(stream, self.arrays["valid"], self._staging["valid"])
        if self._prepare:
            self._staging["mean"][:] = self._mean(bank, kept, weights)
            self._device.copy_in(stream, self.arrays["mean"], self._staging["mean"])
            self._device.zero(stream, self.arrays["bounds"])
        for begin in range(0, self.shape.kept, self.shape.staged_rows):
            end = min(self.shape.kept, begin + self.shape.staged_rows)
            self._send(stream, bank, slice(begin, end), kept[begin:end], weights[begin:end])
        self.fence.ready.record(stream)
        self._held, self._scorings = bank, dict(scorings)

    def rows_of(self, category: str | None, k: int) -> slice:
        """Find a category's range of kept rows, which must hold K valid ones.

        Args:
            category: None for a frame of no known product: all rows.
            k: K.

        Raises:
            InputError: It does not, or there is no such category, or no such frames are provided
                for, or there are no rows yet.
        """
        if self._held is None:
            raise InputError("this bank holds no rows yet: call replace() first")
        if category is None and self.shape.placed and not self.shape.any_product:
            raise InputError(
                "this bank has no room for frames of no known product: open it with any_product"
            )
        rows = self._held.rows_of(category)
        valid = int(self._held.valid[rows].sum())
        if valid < k:
            raise InputError(f"k must lie between 1 and the {valid} valid rows, got {k}")
        if category is None:
            return slice(self.shape.kept - self.shape.rows, self.shape.kept)
        return rows

    def scoring_of(self, category: str | None) -> Scoring:
        """Give the constants that a category, or None, came with.

        Raises:
            InputError: It came with none.
        """
        if category not in self._scorings:
            raise InputError(f"this bank was given no constants for category {category!r}")
        return self._scorings[category]

    def _position_weights(
        self, bank: MemoryBank, scorings: Mapping[str | None, Scoring]
    ) -> NDArray[np.float64]:
        """λ of every kept row."""
        any_product = [None] if self.shape.kept > self.shape.rows else []
        missing = [name for name in (*bank.categories, *any_product) if name not in scorings]
        if missing:
            raise InputError(f"expected constants for each category, got none for {missing}")
        by_category = np.array([scorings[name].position_weight for name in bank.categories])
        weights = by_category[bank.category]
        others = [np.full(len(weights), scorings[name].position_weight) for name in any_product]
        return np.concatenate([weights, *others])

    def _mean(
        self, bank: MemoryBank, kept: NDArray[np.integer], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(W,) of the valid rows; centring keeps norms small, and with them rounding errors."""
        if not bank.valid.any():
            return np.zeros(self.shape.width)
        features = bank.features[bank.valid].mean(axis=0, dtype=np.float64)
        if not self.shape.placed:
            return np.asarray(features)
        places = (weights[:, None] * bank.position[kept])[bank.valid[kept]].mean(axis=0)
        return np.concatenate([features, places])

    def _send(
        self,
        stream: Stream,
        bank: MemoryBank,
        rows: slice,
        kept: NDArray[np.integer],
        weights: NDArray[np.float64],
    ) -> None:
        """Send kept rows through the staging memory, which is waited for first; prepare them."""
        n = rows.stop - rows.start
        located: NDArray[np.floating] = bank.features[kept]
        if self.shape.placed:
            located = locate(located, bank.position[kept], weights[:, None])
        self._sent.synchronize()
        self._staging["located"][:n] = located
        target = self.arrays.get("located")
        to = rows_within(target, rows) if target else rows_within(self._passing, slice(0, n))
        self._device.copy_in(stream, to, self._staging["located"][:n])
        self._sent.record(stream)
        if not self._prepare:
            return
        task = np.zeros((), arguments.PREPARE_ROWS)
        task["located"], task["mean"] = to.address, self.arrays["mean"].address
        task["bounds"] = self.arrays["bounds"].address
        for name in ("valid", "rows", "norms", *(["scale"] if "scale" in self.arrays else [])):
            task[name] = rows_within(self.arrays[name], rows).address
        task["n"], task["width"], task["padded"] = n, self.shape.width, self.shape.padded
        self._prepare.launch(stream, task, (-(-n // ROWS_OF_A_BLOCK),), (32 * ROWS_OF_A_BLOCK,))


@contextmanager
def open_bank(device: Device, shape: BankShape) -> Iterator[DeviceBank]:
    """Hold a bank's room; whoever searches it is closed before.

    Raises:
        InputError: The shape is empty.
        DeviceError: Not enough memory is left, or the chip does not know the precision.
    """
    if shape.rows < 1 or shape.dimensions < 1:
        raise InputError(f"expected a bank with rows and dimensions, got {shape}")
    if shape.precision == "bf16" and device.capability < OLDEST_BRAIN_FLOAT:
        raise DeviceError(f"{device.name} does not know bfloat16: keep the bank as f16")
    staged = (shape.staged_rows, shape.width)
    with ExitStack() as held:
        arrays = held.enter_context(device_arrays(device, _wanted(shape)))
        passing = None
        if "located" not in arrays:
            it = {"it": (staged, np.float32)}
            passing = held.enter_context(device_arrays(device, it))["it"]
        staging: dict[str, NDArray[Any]] = {
            "located": held.enter_context(page_locked(device, staged, np.float32)),
            "valid": held.enter_context(page_locked(device, (shape.kept,), np.uint8)),
            "mean": held.enter_context(page_locked(device, (shape.width,), np.float32)),
        }
        events = held.enter_context(open_event(device)), held.enter_context(open_event(device))
        bank = DeviceBank(device, shape, arrays, staging, passing, events)
        # Memory goes only after what uses it.
        for event in events:
            held.callback(event.synchronize)
        yield bank


def rows_within(array: DeviceArray | None, rows: slice) -> DeviceArray:
    """Narrow an array to some of its rows."""
    if array is None:
        raise DeviceError("there is no room for rows to pass through")
    row_bytes = array.nbytes // array.shape[0]
    shape = (rows.stop - rows.start, *array.shape[1:])
    return DeviceArray(array.address + rows.start * row_bytes, shape, array.dtype)


def _wanted(shape: BankShape) -> dict[str, tuple[tuple[int, ...], Any]]:
    N = shape.kept
    located = {"located": ((N, shape.width), np.float32)}
    wanted: dict[str, tuple[tuple[int, ...], Any]] = {"valid": ((N,), np.uint8)}
    if shape.precision == "f32":
        return {**wanted, **located}
    is_int8 = shape.precision == "s8"
    return {
        **wanted,
        "rows": ((N, shape.padded), np.int8 if is_int8 else np.uint16),
        "norms": ((N,), np.float32),
        "mean": ((shape.width,), np.float32),
        "bounds": ((2,), np.float32),
        **({"scale": ((N,), np.float32)} if is_int8 else located),
    }
