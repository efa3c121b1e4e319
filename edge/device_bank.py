"""A memory bank in device memory, at addresses that stay while its rows are replaced.

New rows are staged beside the ones in use, piece by piece, while frames go on; then they take their
place in one copy within the device. Whoever searches is fenced: a search begins when the rows are
whole, and rows are replaced when the searches that were put on a stream before are over. Searching
is `edge.bank_scan`. Letters: N bank rows, D feature dimensions, W columns of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bank_rows import ROWS_OF_A_BLOCK, BankShape, LocatedRows, locate_rows
from edge.device import Device, DeviceArray, device_arrays, open_event, page_locked
from edge.kernels import arguments
from edge.streams import Event, Fence, Stream
from inspection.bank import MemoryBank
from inspection.errors import DeviceError, InputError
from inspection.scoring import Scoring

OLDEST_BRAIN_FLOAT = (8, 0)

Arrays = dict[str, DeviceArray]


class DeviceBank:
    """One bank on the device; made by `open_bank`, empty until the first swap.

    Attributes:
        shape: What room was made for.
        arrays: What is searched, by the names of `Search` in `edge/kernels/README.md`.
        fence: Between those who replace rows and those who search them.
    """

    def __init__(
        self,
        device: Device,
        shape: BankShape,
        rooms: tuple[Arrays, Arrays],
        staging: dict[str, NDArray[Any]],
        passing: DeviceArray | None,
        events: tuple[Event, Event],
    ) -> None:
        self.shape = shape
        self.arrays, self._staged_arrays = rooms
        ready, self._sent = events
        self.fence = Fence(ready)
        self._device, self._staging, self._passing = device, staging, passing
        self._staged: LocatedRows | None = None
        self._held: LocatedRows | None = None
        precision = shape.precision
        self._prepare = (
            None
            if precision == "f32"
            else device.kernel(f"prepare_rows_{precision}", arguments.PREPARE_ROWS)
        )

    def stage(self, stream: Stream, rows: LocatedRows) -> Iterator[None]:
        """Bring rows beside the ones in use, a piece at each step of the iterator.

        Nothing that is searched changes. A step blocks until the piece before it has passed the
        staging memory. Only rows whose last step was taken can be swapped in.

        Args:
            stream: Of the swap to come.
            rows: From `locate_rows` of this bank's shape.
        """
        self._staged = None
        # A swap that is still under way reads the staged rows.
        stream.wait_for(self.fence.ready)
        self._sent.wait()
        self._staging["valid"][:], self._staging["mean"][:] = rows.valid, rows.mean
        for name in ("valid", "mean"):
            if name in self._staged_arrays:
                self._device.copy_in(stream, self._staged_arrays[name], self._staging[name])
        if self._prepare:
            self._device.zero(stream, self._staged_arrays["bounds"])
        for begin in range(0, self.shape.kept, self.shape.staged_rows):
            piece = slice(begin, min(self.shape.kept, begin + self.shape.staged_rows))
            self._send(stream, rows.located[piece], piece)
            yield
        self._staged = rows

    def swap(self, stream: Stream) -> None:
        """Put the staged rows in place of the ones that are there; others wait for `fence.ready`.

        Args:
            stream: That they were staged on; it waits for the searches that are under way.

        Raises:
            InputError: No rows are staged, or not all of them.
        """
        if self._staged is None:
            raise InputError("no rows are staged: take every step of stage() before swap()")
        # From here on rows are mixed: nobody may search with what was aimed before.
        self._held = None
        self.fence.begin_writing(stream)
        for name, array in self.arrays.items():
            self._device.copy_within(stream, array, self._staged_arrays[name])
        self.fence.ready.record(stream)
        self._held, self._staged = self._staged, None

    def replace(
        self, stream: Stream, bank: MemoryBank, scorings: Mapping[str | None, Scoring]
    ) -> None:
        """Stage a bank and swap it in; blocks while rows pass through the staging memory.

        Raises:
            InputError: As `locate_rows`; the bank that was there stays.
        """
        for _ in self.stage(stream, locate_rows(self.shape, bank, scorings)):
            pass
        self.swap(stream)

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
        if category not in self._held.ranges:
            if category is None:
                raise InputError(
                    "this bank has no room for frames of no known product: open it with any_product"
                )
            known = ", ".join(name for name in self._held.ranges if name is not None)
            raise InputError(f"category {category!r} is not in this bank; it has {known}")
        rows, valid = self._held.ranges[category]
        if valid < k:
            raise InputError(f"k must lie between 1 and the {valid} valid rows, got {k}")
        return rows

    def scoring_of(self, category: str | None) -> Scoring:
        """Give the constants that a category, or None, came with.

        Raises:
            InputError: It came with none.
        """
        if self._held is None or category not in self._held.scorings:
            raise InputError(f"this bank was given no constants for category {category!r}")
        return self._held.scorings[category]

    def _send(self, stream: Stream, located: NDArray[np.float32], rows: slice) -> None:
        """Send kept rows through the staging memory, which is waited for first; prepare them."""
        n, staged = len(located), self._staged_arrays
        self._sent.wait()
        self._staging["located"][:n] = located
        target = staged.get("located")
        to = rows_within(target, rows) if target else rows_within(self._passing, slice(0, n))
        self._device.copy_in(stream, to, self._staging["located"][:n])
        self._sent.record(stream)
        if not self._prepare:
            return
        task = np.zeros((), arguments.PREPARE_ROWS)
        task["located"], task["mean"] = to.address, staged["mean"].address
        task["bounds"] = staged["bounds"].address
        for name in ("valid", "rows", "norms", *(["scale"] if "scale" in staged else [])):
            task[name] = rows_within(staged[name], rows).address
        task["n"], task["width"], task["padded"] = n, self.shape.width, self.shape.padded
        self._prepare.launch(stream, task, (-(-n // ROWS_OF_A_BLOCK),), (32 * ROWS_OF_A_BLOCK,))


@contextmanager
def open_bank(device: Device, shape: BankShape) -> Iterator[DeviceBank]:
    """Hold a bank's room, once for what is searched and once for what is staged.

    Whoever searches it is closed before.

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
        beside = held.enter_context(device_arrays(device, _wanted(shape)))
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
        bank = DeviceBank(device, shape, (arrays, beside), staging, passing, events)
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
