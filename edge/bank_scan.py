"""Both memory banks in device memory, and one search of them for a batch of frames.

Everything here only puts work on a stream; nothing waits but what says so. What the kernels do and
how they are called is in `edge/kernels/README.md`; what the answers mean, in
`inspection/retrieval.py`. Letters: N bank rows, B frames, P patches a frame, M = B·P, D feature
dimensions, W columns of a row, K neighbours, S splits of a bank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.device import Device, DeviceArray, device_arrays, open_event, page_locked
from edge.device_bank import DeviceBank
from edge.kernels import arguments
from edge.streams import Event, Stream
from inspection.errors import InputError

WARPS = 8
"""Warps of a block that prepares or finishes patches: one each."""

EXHAUSTIVE_WARPS = 16
"""Warps that look through the rows for one patch together: a lone patch waits for memory."""

LEAST_SPLIT_TILES = 4
"""Tiles of rows of a split at least: below that, its 32 candidates cost more than its search."""


@dataclass(frozen=True, slots=True)
class ScanShape:
    """What a search is opened for, and cannot be changed after.

    Attributes:
        frames: B, at most as many are asked about at once.
        patches: P, of each frame.
        k: K, neighbours asked of each bank.
        half_patches: Whether patches come as float16, and not as float32.
    """

    frames: int
    patches: int
    k: int
    half_patches: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """What one bank says of every patch: arrays in device memory, overwritten by the next search.

    Attributes:
        distances: (M, K) float32 Euclidean, ascending; NaN for a patch that is not finite.
        neighbours: (M, K) int32, rows counted within the frame's range; -1 where there is none.
        residual: (M, D) float32 q - r(q), without the places.
        evidence: (M,) float32 ‖q - r(q)‖, places included.
        uncertified: (1 + M,) int32: how many patches were searched exhaustively, then which.
    """

    distances: DeviceArray
    neighbours: DeviceArray
    residual: DeviceArray
    evidence: DeviceArray
    uncertified: DeviceArray


def splits_for(device: Device, shape: ScanShape, rows: int, searches: int) -> int:
    """Choose S: the chip filled about once, for each split costs candidates of its own."""
    tile = arguments.tile_of(device.capability)
    blocks = -(-shape.patches // tile.patches) * shape.frames * searches
    # The small tile shares a multiprocessor between two blocks: one multiplies, the other merges.
    room = device.multiprocessors * (1 if tile.threads == 256 else 2)
    tiles = -(-rows // tile.rows)
    wanted = min(room // blocks, tiles // LEAST_SPLIT_TILES)
    return max(1, wanted, -(-rows // arguments.MOST_SPLIT_ROWS))


class BankScan:
    """One search after another of the same banks; made by `open_scan`, one for each slot.

    Attributes:
        patches: (M, D) float32 or float16, what is asked; whoever fills it does so on the stream
            of the search, or lets that stream wait.
        answers: One for each bank, in their order.
        done: Behind the last search: wait for it before reading answers on another stream.
    """

    def __init__(
        self,
        device: Device,
        banks: Sequence[DeviceBank],
        shape: ScanShape,
        memory: Sequence[dict[str, DeviceArray]],
        patches: DeviceArray,
        staging: Sequence[dict[str, NDArray[Any]]],
        events: tuple[Event, Event],
    ) -> None:
        self.banks, self.shape, self.patches = tuple(banks), shape, patches
        self.done, self._aimed = events
        self.answers = tuple(
            Answers(**{name: held[name] for name in Answers.__slots__}) for held in memory
        )
        self._device = device
        self._memory, self._staging = memory, staging
        self._versions: tuple[int, ...] = ()
        self._tile = arguments.tile_of(device.capability)
        self._task = self._make_task()
        kernel = {
            name: device.kernel(f"{name}_{kind}", arguments.SEARCHES)
            for name, kind in self._entry_points().items()
        }
        self._kernels = kernel
        if "scan" in kernel:
            kernel["scan"].allow_shared(self._tile.shared_bytes)

    def aim(
        self,
        stream: Stream,
        categories: Sequence[str | None],
        position: NDArray[np.integer],
        weights: Sequence[float] | None = None,
    ) -> None:
        """Say whose rows each frame is compared with, and where its patches lie.

        Needed before the first search and whenever a bank was replaced. Blocks until an earlier aim
        has reached the device, because both use the same page-locked memory.

        Args:
            stream: Of the searches to come.
            categories: Of each of the B frames; None searches all rows, by constants of its own.
            position: (B, P, 2) or (P, 2) row and column of each patch in the map of its frame.
            weights: w of `inspection.scoring.fuse` of each frame; the second bank is not searched
                for a frame of weight 0, and says nothing of it. None searches it for all.

        Raises:
            InputError: A bank does not know a category or holds fewer than K valid rows of it, or
                there are other numbers of frames, patches or neighbours than the search was opened
                for.
        """
        B, P, k = self.shape.frames, self.shape.patches, self.shape.k
        if len(categories) != B or position.shape not in ((P, 2), (B, P, 2)):
            raise InputError(
                f"expected {B} categories and positions ({B}, {P}, 2) or ({P}, 2), got "
                f"{len(categories)} and {position.shape}"
            )
        ranges = [self._ranges(number, categories, weights) for number in range(len(self.banks))]
        scorings = [[bank.scoring_of(category) for category in categories] for bank in self.banks]
        if others := {each.k for some in scorings for each in some} - {k}:
            raise InputError(f"the search was opened for k = {k}, got banks for k = {others}")
        self._aimed.wait()
        for each, constants, staging, memory in zip(
            ranges, scorings, self._staging, self._memory, strict=True
        ):
            staging["first"][:] = [rows.start for rows in each]
            staging["count"][:] = [rows.stop - rows.start for rows in each]
            staging["temperature"][:] = [scoring.temperature for scoring in constants]
            if "places" in staging:
                costs = np.array([scoring.position_weight for scoring in constants])
                staging["places"].reshape(B, P, 2)[...] = costs[:, None, None] * position
            for name, array in staging.items():
                self._device.copy_in(stream, memory[name], array)
        self._aimed.record(stream)
        self._versions = tuple(bank.fence.version for bank in self.banks)

    def _ranges(
        self, number: int, categories: Sequence[str | None], weights: Sequence[float] | None
    ) -> list[slice]:
        """Find the kept rows of one bank that each frame searches."""
        bank, k = self.banks[number], self.shape.k
        if number == 0 or weights is None:
            weights = [1.0] * len(categories)
        return [
            bank.rows_of(category, k) if weight > 0 else slice(0, 0)
            for category, weight in zip(categories, weights, strict=True)
        ]

    def scan(self, stream: Stream) -> None:
        """Put the search of all banks on a stream: four launches, of which the host waits for none.

        Raises:
            InputError: A bank was replaced since the last `aim`.
        """
        if self._versions != tuple(bank.fence.version for bank in self.banks):
            raise InputError("a bank was replaced, or never aimed at: call aim() before scan()")
        for bank in self.banks:
            stream.wait_for(bank.fence.ready)
        self.launch(stream)
        self.done.record(stream)

    def launch(self, stream: Stream) -> None:
        """Put only the kernels on a stream: what a graph captures. Fences are the caller's."""
        searches, B, P = len(self.banks), self.shape.frames, self.shape.patches
        warps = -(-B * P // WARPS)
        if "scan" in self._kernels:
            splits = int(self._task["search"]["splits"][:searches].max())
            tiles = -(-P // self._tile.patches)
            self._launch("prepare_queries", stream, (warps, searches))
            self._kernels["scan"].launch(
                stream,
                self._task,
                (tiles, splits, B * searches),
                (self._tile.threads,),
                self._tile.shared_bytes,
            )
            self._launch("finish", stream, (warps, searches))
        # Blocks stride over the patches that are left: there are usually none.
        self._kernels["exhaustive"].launch(
            stream,
            self._task,
            (4 * self._device.multiprocessors, searches),
            (32 * EXHAUSTIVE_WARPS,),
        )

    def _launch(self, name: str, stream: Stream, grid: tuple[int, ...]) -> None:
        self._kernels[name].launch(stream, self._task, grid, (32 * WARPS,))

    def _entry_points(self) -> dict[str, str]:
        """Which kind of each kernel the banks' precision asks for."""
        precision = self.banks[0].shape.precision
        slow = "s8" if precision == "s8" else "f32"
        if precision == "f32":
            return {"exhaustive": slow}
        queries = "bf16" if precision == "bf16" else "f16"
        return {
            "prepare_queries": queries,
            "scan": precision,
            "finish": slow,
            "exhaustive": slow,
        }

    def _make_task(self) -> NDArray[np.void]:
        task = np.zeros((), arguments.SEARCHES)
        task["searches"], task["frames"] = len(self.banks), self.shape.frames
        task["patches"] = self.shape.patches
        task["every_patch"] = self.banks[0].shape.precision == "f32"
        task["half_patches"] = self.shape.half_patches
        for i, (bank, memory) in enumerate(zip(self.banks, self._memory, strict=True)):
            search = task["search"][i]
            for name, array in {**bank.arrays, **memory, "patches": self.patches}.items():
                search[name] = array.address
            search["dimensions"], search["padded"] = bank.shape.dimensions, bank.shape.padded
            search["k"] = self.shape.k
            search["splits"] = splits_for(
                self._device, self.shape, bank.shape.rows, len(self.banks)
            )
        return task


@contextmanager
def open_scan(
    device: Device,
    banks: Sequence[DeviceBank],
    shape: ScanShape,
    patches: DeviceArray | None = None,
) -> Iterator[BankScan]:
    """Hold the workspace and the answers of a search; at the end, wait for what is still running.

    Args:
        device: Holds everything.
        banks: One or two, of the same D and precision; they outlive the search.
        shape: How much is asked at once.
        patches: (M, D) where patches will be, for instance what a network writes; None makes room.

    Raises:
        InputError: Banks do not go together, or K is more than the kernels can.
        DeviceError: Not enough memory is left.
    """
    M, D = shape.frames * shape.patches, banks[0].shape.dimensions
    dtype = np.dtype(np.float16 if shape.half_patches else np.float32)
    _check(banks, shape)
    if patches is not None and (patches.shape, patches.dtype) != ((M, D), dtype):
        raise InputError(
            f"expected patches ({M}, {D}) {dtype}, got {patches.shape} {patches.dtype}"
        )
    with ExitStack() as held:
        if patches is None:
            patches = held.enter_context(device_arrays(device, {"it": ((M, D), dtype)}))["it"]
        splits = [splits_for(device, shape, bank.shape.rows, len(banks)) for bank in banks]
        memory = [
            held.enter_context(device_arrays(device, _wanted(bank, shape, S)))
            for bank, S in zip(banks, splits, strict=True)
        ]
        staging = [
            {
                name: held.enter_context(page_locked(device, array.shape, array.dtype))
                for name, array in arrays.items()
                if name in ("first", "count", "temperature", "places")
            }
            for arrays in memory
        ]
        done, aimed = held.enter_context(open_event(device)), held.enter_context(open_event(device))
        scan = BankScan(device, banks, shape, memory, patches, staging, (done, aimed))
        for bank in banks:
            bank.fence.readers.append(done)
            held.callback(bank.fence.readers.remove, done)
        # Memory goes only after what uses it.
        held.callback(done.synchronize)
        held.callback(aimed.synchronize)
        yield scan


def _wanted(
    bank: DeviceBank, shape: ScanShape, splits: int
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Everything that one bank's search writes, and where its frames look."""
    B, M, k = shape.frames, shape.frames * shape.patches, shape.k
    work: dict[str, tuple[tuple[int, ...], Any]] = {
        "queries": ((M, bank.shape.padded), np.uint16),
        "query_bounds": ((M, 2), np.float32),
        "approx": ((M, splits, arguments.CANDIDATES), np.float32),
        "candidates": ((M, splits, arguments.CANDIDATES), np.int32),
    }
    return {
        **({} if bank.shape.precision == "f32" else work),
        **({"places": ((M, 2), np.float32)} if bank.shape.placed else {}),
        "first": ((B,), np.int32),
        "count": ((B,), np.int32),
        "temperature": ((B,), np.float32),
        "uncertified": ((1 + M,), np.int32),
        "distances": ((M, k), np.float32),
        "neighbours": ((M, k), np.int32),
        "residual": ((M, bank.shape.dimensions), np.float32),
        "evidence": ((M,), np.float32),
    }


def _check(banks: Sequence[DeviceBank], shape: ScanShape) -> None:
    kinds = {(bank.shape.dimensions, bank.shape.precision) for bank in banks}
    if not 1 <= len(banks) <= 2 or len(kinds) != 1:
        raise InputError(f"expected one or two banks of one D and precision, got {sorted(kinds)}")
    if not 1 <= shape.k <= arguments.MOST_NEIGHBOURS:
        raise InputError(
            f"the GPU finds 1 to {arguments.MOST_NEIGHBOURS} neighbours, got k = {shape.k}; "
            "train with a smaller k, or score on the CPU"
        )
    if shape.frames < 1 or shape.patches < 1:
        raise InputError(f"expected at least one frame and one patch, got {shape}")
