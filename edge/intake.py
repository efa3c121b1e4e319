"""Frames of one shape on their way in: page-locked room for their pixels, and canvases on the GPU.

Letters: n frames, H, W their sides in px, Mh, Mw the sides of their map, in patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.device import Device, DeviceArray, device_array, page_locked
from edge.device_pixels import PixelPasses, open_resize
from edge.streams import Stream
from inspection.preprocessing import PATCH_PX, Preprocessing


@dataclass(frozen=True, slots=True)
class FrameShape:
    """What frames must have in common to share an intake.

    Attributes:
        height_px: H.
        width_px: W.
        is_canvas: Whether they have been resized already.
    """

    height_px: int
    width_px: int
    is_canvas: bool

    @property
    def nbytes(self) -> int:
        """Bytes of one frame."""
        return 3 * self.height_px * self.width_px


@dataclass(frozen=True, slots=True)
class Intake:
    """Made by `open_intake`.

    Attributes:
        rooms: For each of n frames, (H, W, 3) uint8 RGB in page-locked memory, to be filled.
        canvases: For each, (8 · Mh, 8 · Mw, 3) uint8 on the device.
    """

    device: Device
    rooms: tuple[NDArray[np.uint8], ...]
    canvases: tuple[DeviceArray, ...]
    _raw: tuple[DeviceArray, ...]
    _resizes: tuple[PixelPasses, ...]

    @property
    def map_shape(self) -> tuple[int, int]:
        """(Mh, Mw)."""
        height, width, _ = self.canvases[0].shape
        return height // PATCH_PX, width // PATCH_PX

    def launch(self, stream: Stream) -> None:
        """Put the uploads and the resizes on a stream; until it is done, rooms must not change."""
        for room, raw, resize in zip(self.rooms, self._raw, self._resizes, strict=True):
            self.device.copy_in(stream, raw, room)
            resize.run(stream)


@contextmanager
def open_intake(
    device: Device, stream: Stream, shape: FrameShape, frames: int, spec: Preprocessing
) -> Iterator[Intake]:
    """Hold room for n frames. Whoever launches waits for that before the room goes.

    Raises:
        DeviceError: Not enough memory is left.
    """
    pixels = (shape.height_px, shape.width_px, 3)
    with ExitStack() as held:
        resizes = [_open_one(device, stream, held, pixels, shape, spec) for _ in range(frames)]
        rooms: list[NDArray[Any]] = [
            held.enter_context(page_locked(device, pixels, np.uint8)) for _ in range(frames)
        ]
        yield Intake(
            device,
            tuple(rooms),
            tuple(each.target for each in resizes),
            tuple(each.source for each in resizes),
            tuple(resizes),
        )


def _open_one(
    device: Device,
    stream: Stream,
    held: ExitStack,
    pixels: tuple[int, int, int],
    shape: FrameShape,
    spec: Preprocessing,
) -> PixelPasses:
    if shape.is_canvas:
        canvas = held.enter_context(device_array(device, pixels, np.uint8))
        return PixelPasses(canvas, canvas, ())
    return held.enter_context(open_resize(device, stream, pixels, spec))
