"""The heads of all products in device memory, and what they make of a search: patch scores.

A frame is judged by the head of its product, whatever the other frames of its batch show. What a
head does is `inspection.scoring`; the kernel, `edge/kernels/judge.cuh`. Letters: H heads, B frames,
P patches a frame, M = B·P, D feature dimensions, K neighbours, U hidden units, Z as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bank_scan import BankScan
from edge.device import Device, DeviceArray, device_arrays, open_event, page_locked
from edge.kernels import arguments
from edge.streams import Event, Fence, Stream
from inspection.errors import InputError
from inspection.heads import head_arrays
from inspection.scoring import Head, enhanced_length

JUDGED = 16
"""Patches of a block."""

THREADS = 256


@dataclass(frozen=True, slots=True)
class HeadsShape:
    """What room is made for; it never changes.

    Attributes:
        heads: H, one for each product.
        dimensions: D.
        k: K.
        units: U, of the largest.
    """

    heads: int
    dimensions: int
    k: int
    units: int

    @property
    def arrays(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights, all heads side by side, by the names of `head_arrays`."""
        H, U = self.heads, self.units
        return {
            "hidden_weight": (H, enhanced_length(self.dimensions, self.k), U),
            "hidden_bias": (H, U),
            "output_weight": (H, U),
            "output_bias": (H, 1),
        }


class DeviceHeads:
    """The heads on the device; made by `open_heads`, empty until the first `replace`.

    Attributes:
        shape: What room was made for.
        arrays: The weights, by name.
        fence: Between those who replace heads and those who judge by them.
    """

    def __init__(
        self,
        device: Device,
        shape: HeadsShape,
        arrays: dict[str, DeviceArray],
        staging: dict[str, NDArray[Any]],
        events: tuple[Event, Event],
    ) -> None:
        self.shape, self.arrays = shape, arrays
        ready, self._sent = events
        self.fence = Fence(ready)
        self._device, self._staging = device, staging
        self._products: tuple[str, ...] = ()

    def replace(self, stream: Stream, heads: Mapping[str, Head]) -> None:
        """Put other heads in place of the ones that are there; others wait for `fence.ready`.

        Args:
            stream: Anyone's; it waits for those who judge now.
            heads: By product; they pass `check`.

        Raises:
            InputError: They do not.
        """
        self.check(heads)
        self.fence.begin_writing(stream)
        # The copies of the last time read the same page-locked memory.
        self._sent.wait()
        for name, room in self._staging.items():
            # Units that a head has not got say nothing: they are 0 throughout.
            room[...] = 0
            for number, head in enumerate(heads.values()):
                array = head_arrays(head)[name]
                room[number][tuple(map(slice, array.shape))] = array
            self._device.copy_in(stream, self.arrays[name], room)
        self._sent.record(stream)
        self.fence.ready.record(stream)
        self._products = tuple(heads)

    def check(self, heads: Mapping[str, Head]) -> None:
        """Make sure that there is room for heads: as many, of no more units than room was made for.

        Raises:
            InputError: There is not.
        """
        if len(heads) != self.shape.heads:
            raise InputError(f"there is room for {self.shape.heads} heads, got {len(heads)}")
        Z = enhanced_length(self.shape.dimensions, self.shape.k)
        for product, head in heads.items():
            inputs, units = head.hidden_weight.shape
            if inputs != Z or units > self.shape.units:
                raise InputError(
                    f"there is room for heads of {Z} inputs and up to {self.shape.units} units, "
                    f"got {inputs} and {units} of {product!r}: load its bundle anew"
                )

    def number_of(self, product: str) -> int:
        """Say which of the heads is a product's.

        Raises:
            InputError: It has none.
        """
        if product not in self._products:
            known = ", ".join(self._products) or "none yet"
            raise InputError(f"product {product!r} has no head on the device; there are: {known}")
        return self._products.index(product)


class Judge:
    """Makes scores of what a search says; made by `open_judge`, one for each slot.

    Attributes:
        scores: (M,) float32 in units of feature distance, overwritten by the next `judge`.
        done: Behind the last judgement.
    """

    def __init__(
        self,
        device: Device,
        heads: DeviceHeads,
        scan: BankScan,
        memory: dict[str, DeviceArray],
        staging: dict[str, NDArray[Any]],
        events: tuple[Event, Event],
    ) -> None:
        self.scores = memory["scores"]
        self.done, self._aimed = events
        self._device, self._heads, self._scan = device, heads, scan
        self._memory, self._staging = memory, staging
        self._version = 0
        self._kernel = device.kernel("judge", arguments.JUDGE)
        self._task = self._make_task()

    def aim(
        self,
        stream: Stream,
        products: Sequence[str | None],
        weights: Sequence[float],
        foreground: NDArray[np.floating] | NDArray[np.integer],
    ) -> None:
        """Say whose head judges each frame, how much it may raise, and where frames are inspected.

        Needed before the first judgement and whenever heads were replaced. Blocks until an earlier
        aim has reached the device, because both use the same page-locked memory.

        Args:
            stream: Of the judgements to come.
            products: Of each of the B frames; None for one of no known product, whose weight is 0.
            weights: w of `inspection.scoring.fuse` of each frame; with 0 no head is asked.
            foreground: (B, P) or (P,), 1 where patches are inspected and 0 elsewhere.

        Raises:
            InputError: A product has no head, a weight is negative or not finite, or there are
                other numbers of frames or patches than the search was opened for.
        """
        B, P = self._scan.shape.frames, self._scan.shape.patches
        if (len(products), len(weights)) != (B, B) or foreground.shape not in ((P,), (B, P)):
            raise InputError(
                f"expected {B} products, {B} weights and a foreground ({B}, {P}) or ({P},), got "
                f"{len(products)}, {len(weights)} and {foreground.shape}"
            )
        for product, weight in zip(products, weights, strict=True):
            if not 0 <= weight < np.inf or (product is None and weight):
                raise InputError(
                    "expected weights that are finite and 0 or more, and 0 without a product, got "
                    f"{weight} for {product!r}"
                )
        numbers = [
            self._heads.number_of(product) if product is not None else 0 for product in products
        ]
        self._aimed.wait()
        self._staging["head"][:], self._staging["weight"][:] = numbers, weights
        self._staging["foreground"].reshape(B, P)[...] = foreground
        for name, array in self._staging.items():
            self._device.copy_in(stream, self._memory[name], array)
        self._aimed.record(stream)
        self._version = self._heads.fence.version

    def judge(self, stream: Stream) -> None:
        """Put the judgement of the last search on a stream, which must be that of the search.

        Raises:
            InputError: Heads were replaced since the last `aim`.
        """
        if self._version != self._heads.fence.version or not self._version:
            raise InputError("heads were replaced, or never aimed at: call aim() before judge()")
        stream.wait_for(self._heads.fence.ready)
        self.launch(stream)
        self.done.record(stream)

    def launch(self, stream: Stream) -> None:
        """Put only the kernel on a stream: what a graph captures. Fences are the caller's."""
        shape = self._scan.shape
        grid = (-(-shape.patches // JUDGED), shape.frames)
        self._kernel.launch(stream, self._task, grid, (THREADS,))

    def _make_task(self) -> NDArray[np.void]:
        task = np.zeros((), arguments.JUDGE)
        normal, abnormal = self._scan.answers
        for name, array in {**self._heads.arrays, **self._memory}.items():
            task[name] = array.address
        task["patches"] = self._scan.patches.address
        task["normal_residual"] = normal.residual.address
        task["abnormal_residual"] = abnormal.residual.address
        task["normal_distances"] = normal.distances.address
        task["abnormal_distances"] = abnormal.distances.address
        task["evidence"] = normal.evidence.address
        shape = self._heads.shape
        task["dimensions"], task["k"], task["units"] = shape.dimensions, shape.k, shape.units
        task["per_frame"] = self._scan.shape.patches
        task["half_patches"] = self._scan.shape.half_patches
        return task


@contextmanager
def open_heads(device: Device, shape: HeadsShape) -> Iterator[DeviceHeads]:
    """Hold room for heads; whoever judges by them is closed before.

    Raises:
        DeviceError: Not enough memory is left.
    """
    with ExitStack() as held:
        wanted = {name: (each, np.float32) for name, each in shape.arrays.items()}
        arrays = held.enter_context(device_arrays(device, wanted))
        staging = {
            name: held.enter_context(page_locked(device, *each)) for name, each in wanted.items()
        }
        events = held.enter_context(open_event(device)), held.enter_context(open_event(device))
        # Memory goes only after what uses it.
        for event in events:
            held.callback(event.synchronize)
        yield DeviceHeads(device, shape, arrays, staging, events)


@contextmanager
def open_judge(device: Device, heads: DeviceHeads, scan: BankScan) -> Iterator[Judge]:
    """Hold what judging one search takes; at the end, wait for what is still running.

    Args:
        device: Holds everything.
        heads: Outlive the judge.
        scan: Of both banks, the normal one first; outlives the judge.

    Raises:
        InputError: The search is of one bank, or of another D or K than the heads.
        DeviceError: Not enough memory is left.
    """
    B, M = scan.shape.frames, scan.shape.frames * scan.shape.patches
    found = (len(scan.banks), scan.banks[0].shape.dimensions, scan.shape.k)
    if found != (2, heads.shape.dimensions, heads.shape.k):
        raise InputError(
            f"expected a search of 2 banks with D = {heads.shape.dimensions}, K = {heads.shape.k}, "
            f"got one of {found[0]} with D = {found[1]}, K = {found[2]}"
        )
    wanted: dict[str, tuple[tuple[int, ...], Any]] = {
        "head": ((B,), np.int32),
        "weight": ((B,), np.float32),
        "foreground": ((M,), np.float32),
    }
    with ExitStack() as held:
        memory = held.enter_context(device_arrays(device, {**wanted, "scores": ((M,), np.float32)}))
        staging = {
            name: held.enter_context(page_locked(device, *each)) for name, each in wanted.items()
        }
        done, aimed = held.enter_context(open_event(device)), held.enter_context(open_event(device))
        heads.fence.readers.append(done)
        held.callback(heads.fence.readers.remove, done)
        held.callback(done.synchronize)
        held.callback(aimed.synchronize)
        yield Judge(device, heads, scan, memory, staging, (done, aimed))
