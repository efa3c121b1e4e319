"""Pixels on the device: a frame to its canvas, a view to the network's input, scores to a map.

Each is opened for arrays of fixed shapes and then only puts its kernels on a stream. What they
compute, and to which tolerance, is in `edge/kernels/README.md`. Letters: H, W a frame's sides in
px; Mh, Mw the sides of its anomaly map, in patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def normalise(
    device: Device,
    canvas: DeviceArray,
    corner: tuple[int, int],
    planes: DeviceArray,
    mean: Sequence[float],
    std: Sequence[float],
) -> PixelPasses:
    """Cut a view out of a canvas and bring it to the network's input: (x / 255 - mean) / std.

    Args:
        device: Holds both.
        canvas: (8 · Mh, 8 · Mw, 3) uint8.
        corner: Row and column of the view's first pixel.
        planes: (3, S, S) float16, to be written; sides may differ.
        mean: Of each channel, in parts of 1.
        std: Of each channel.

    Raises:
        InputError: The view reaches beyond the canvas, or the arrays are no such arrays.
    """
    (top, left), (height, width) = corner, planes.shape[1:]
    right_kind = canvas.dtype == np.uint8 and planes.dtype == np.float16
    inside = top >= 0 and left >= 0
    inside &= top + height <= canvas.shape[0] and left + width <= canvas.shape[1]
    if not right_kind or not inside or (canvas.shape[2], planes.shape[0]) != (3, 3):
        raise InputError(
            f"expected a uint8 canvas with a view {height} x {width} px at {corner} inside and "
            f"float16 planes, got {canvas.shape} {canvas.dtype} and {planes.shape} {planes.dtype}"
        )
    stride_px = canvas.shape[1]
    task = np.zeros((), arguments.NORMALISE)
    task["canvas"] = canvas.address + (top * stride_px + left) * 3
    task["planes"], task["mean"], task["std"] = planes.address, mean, std
    task["height"], task["width"], task["stride_px"] = height, width, stride_px
    kernel = device.kernel("normalise", arguments.NORMALISE)
    return PixelPasses(canvas, planes, (_Pass(kernel, task, height, width),))


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
