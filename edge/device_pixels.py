"""Pixels on the device: a frame to its canvas, a canvas to its views, scores to a map.

Each is opened for arrays of fixed shapes and then only puts its kernels on a stream. What they
compute, and to which tolerance, is in `edge/kernels/README.md`. Letters: H, W a frame's sides in
px; Mh, Mw the sides of its anomaly map, in patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.device import Device, DeviceArray, Kernel, Shape, device_array, page_locked
from edge.kernels import arguments
from edge.streams import Stream
from inspection.errors import InputError
from inspection.preprocessing import PATCH_PX, Preprocessing, ResizePass, resize_plan

BLOCK = (32, 8)
"""Pixels of a block, across and down: a thread each."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """One kernel over the (height, width) of its target."""

    kernel: Kernel
    argument: NDArray[np.void]
    height: int
    width: int

    def launch(self, stream: Stream) -> None:
        across, down = BLOCK
        grid = (-(-self.width // across), -(-self.height // down))
        self.kernel.launch(stream, self.argument, grid, BLOCK)


@dataclass(frozen=True, slots=True)
class PixelPasses:
    """Kernels that run one after another, from one fixed array to another.

    Attributes:
        source: What is read; whoever fills it does so on the stream of `run`, or lets it wait.
        target: What is written; the source itself where there is nothing to do.
    """

    source: DeviceArray
    target: DeviceArray
    passes: tuple[_Pass, ...]

    def run(self, stream: Stream) -> None:
        """Put every pass on a stream; the host waits for none."""
        for each in self.passes:
            each.launch(stream)


@contextmanager
def open_resize(
    device: Device, stream: Stream, shape: Shape, spec: Preprocessing
) -> Iterator[PixelPasses]:
    """Hold room for frames of one shape, (H, W, 3) uint8 RGB, and for their canvas.

    The passes are those of `inspection.preprocessing.resize_plan`. Blocks until their tables are on
    the device. Whoever runs them waits for that before the room goes.

    Args:
        device: Holds everything.
        stream: Anyone's; brings the tables.
        shape: (H, W, …).
        spec: The bundle's preprocessing.

    Raises:
        DeviceError: Not enough memory is left.
    """
    kernel = device.kernel("resize_pass", arguments.RESIZE)
    with ExitStack() as held:
        frame = image = held.enter_context(device_array(device, (*shape[:2], 3), np.uint8))
        passes = []
        for step in resize_plan(shape, spec):
            target_shape = (step.height_px, step.width_px, 3)
            target = held.enter_context(device_array(device, target_shape, np.uint8))
            task = _resize_task(device, stream, held, image, target, step)
            passes.append(_Pass(kernel, task, step.height_px, step.width_px))
            image = target
        yield PixelPasses(frame, image, tuple(passes))


def cut_view(
    device: Device, canvas: DeviceArray, corner: tuple[int, int], view: DeviceArray
) -> PixelPasses:
    """Cut a view out of a canvas; beyond it lies its mirror image, as `inspection.views` pads.

    Args:
        device: Holds both.
        canvas: (8 · Mh, 8 · Mw, 3) uint8.
        corner: Row and column of the view's first pixel, on the canvas.
        view: (S, S, 3) uint8, to be written.

    Raises:
        InputError: The view begins beyond the canvas, or the arrays are no such arrays.
    """
    (top, left), side = corner, view.shape[0]
    right_kind = {canvas.dtype, view.dtype} == {np.dtype(np.uint8)}
    inside = 0 <= top < canvas.shape[0] and 0 <= left < canvas.shape[1]
    if not right_kind or not inside or (canvas.shape[2:], view.shape) != ((3,), (side, side, 3)):
        raise InputError(
            f"expected a uint8 canvas with a square uint8 view that begins at {corner} in it, got "
            f"{canvas.shape} {canvas.dtype} and {view.shape} {view.dtype}"
        )
    task = np.zeros((), arguments.CUT)
    task["canvas"], task["view"] = canvas.address, view.address
    task["height"], task["width"] = canvas.shape[:2]
    task["top"], task["left"], task["side"] = top, left, side
    kernel = device.kernel("cut_view", arguments.CUT)
    return PixelPasses(canvas, view, (_Pass(kernel, task, side, side),))


@contextmanager
def open_full_size_map(
    device: Device, stream: Stream, map_shape: tuple[int, int], shape: Shape, sigma_px: float
) -> Iterator[PixelPasses]:
    """Hold room for anomaly maps of one shape, (Mh, Mw) float32, and as large as their frame.

    Enlarged to the canvas, smoothed, enlarged to (H, W) float32, as people see them.

    Args:
        device: Holds everything.
        stream: Anyone's; brings the table.
        map_shape: (Mh, Mw).
        shape: (H, W, …) of the frame.
        sigma_px: σ of the Gaussian, in pixels of the canvas, > 0.

    Raises:
        InputError: σ is 0 or less, or not a number.
        DeviceError: Not enough memory is left.
    """
    if not 0 < sigma_px < np.inf:
        raise InputError(f"expected a finite sigma_px above 0, got {sigma_px}")
    canvas = (PATCH_PX * map_shape[0], PATCH_PX * map_shape[1])
    with ExitStack() as held:
        scores, enlarged, across, smooth, full_size = (
            held.enter_context(device_array(device, each, np.float32))
            for each in (map_shape, canvas, canvas, canvas, shape[:2])
        )
        table = arguments.blur_weights(sigma_px)
        weights = _sent(device, stream, held, table)
        yield PixelPasses(
            scores,
            full_size,
            (
                _enlarge(device, scores, enlarged),
                _blur(device, enlarged, across, weights, vertical=False),
                _blur(device, across, smooth, weights, vertical=True),
                _enlarge(device, smooth, full_size),
            ),
        )


def _resize_task(
    device: Device,
    stream: Stream,
    held: ExitStack,
    source: DeviceArray,
    target: DeviceArray,
    step: ResizePass,
) -> NDArray[np.void]:
    height, width = source.shape[:2]
    rows = arguments.resize_table(height, step.height_px, step.shrinks)
    columns = arguments.resize_table(width, step.width_px, step.shrinks)
    task = np.zeros((), arguments.RESIZE)
    task["source"], task["target"] = source.address, target.address
    names = ("row_first", "row_weights", "column_first", "column_weights")
    for name, table in zip(names, (*rows, *columns), strict=True):
        task[name] = _sent(device, stream, held, table).address
    task["height"], task["width"] = height, width
    task["rows"], task["columns"] = step.height_px, step.width_px
    task["row_taps"], task["column_taps"] = rows[1].shape[1], columns[1].shape[1]
    return task


def _enlarge(device: Device, source: DeviceArray, target: DeviceArray) -> _Pass:
    task = np.zeros((), arguments.UPSAMPLE)
    task["source"], task["target"] = source.address, target.address
    task["rows"], task["columns"] = source.shape
    task["height"], task["width"] = target.shape
    return _Pass(device.kernel("upsample", arguments.UPSAMPLE), task, *target.shape)


def _blur(
    device: Device,
    source: DeviceArray,
    target: DeviceArray,
    weights: DeviceArray,
    *,
    vertical: bool,
) -> _Pass:
    task = np.zeros((), arguments.BLUR)
    task["source"], task["target"] = source.address, target.address
    task["weights"], task["radius"] = weights.address, weights.shape[0] // 2
    task["height"], task["width"] = target.shape
    task["vertical"] = vertical
    return _Pass(device.kernel("blur", arguments.BLUR), task, *target.shape)


def _sent(device: Device, stream: Stream, held: ExitStack, table: NDArray[Any]) -> DeviceArray:
    """Hold a copy of a table on the device; it is there when this returns."""
    there = held.enter_context(device_array(device, table.shape, table.dtype))
    with page_locked(device, table.shape, table.dtype) as room:
        room[...] = table
        try:
            device.copy_in(stream, there, room)
        finally:
            # Before the room goes, and before anyone on another stream reads the table.
            stream.synchronize()
    return there
