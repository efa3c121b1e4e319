"""The kernels at both ends of the network held to float64 on whatever device is open.

A canvas may be off by the levels that `inspection.preprocessing` allows, a map by what FP32 sums
lose; a view is that of `inspection.views`, pixel by pixel.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.device import Device, DeviceArray, device_array, open_stream, page_locked
from edge.device_pixels import PixelPasses, cut_view, open_full_size_map, open_resize
from edge.kernels import arguments
from edge.streams import Stream
from inspection.preprocessing import (
    PATCH_PX,
    TOLERANCE_LEVELS,
    Preprocessing,
    map_shape,
    prepare,
    resize_exactly,
)
from inspection.views import map_of_canvas, views_of

FRAMES = (
    ((1024, 1024), Preprocessing(size_px=256)),
    ((640, 480), Preprocessing(size_px=256)),
    ((100, 1000), Preprocessing(size_px=256)),
    ((97, 31), Preprocessing(size_px=256, fit="letterbox")),
    ((1500, 700), Preprocessing(size_px=256, fit="tiles", overlap_px=64, shrink=2)),
)
"""(H, W) of frames, and how they are prepared."""

SIGMA_PX = 4.0

MAP_ERROR = 4e-6


def held_to_float64(device: Device) -> list[dict[str, Any]]:
    """Prepare a frame of every kind, and draw the map of one."""
    found = []
    for number, (shape, spec) in enumerate(FRAMES):
        rng = np.random.default_rng(number)
        frame = rng.integers(256, size=(*shape, 3), dtype=np.uint8)
        scores = rng.random(map_shape(shape, spec), np.float32)
        canvas, cut, drawn = _on_device(device, frame, spec, scores)
        expected = prepare(frame, spec, resize_exactly)
        off = np.abs(canvas.astype(int) - expected)
        view = views_of(map_of_canvas(canvas), spec)[-1].pixels(canvas, spec)
        figures: dict[str, Any] = {
            "frame": list(shape),
            "fit": spec.fit,
            "levels_off": int(off.max()),
            "share_off": float((off > 0).mean()),
            "view_equal": bool((cut == view).all()),
            "map_error": float(np.abs(drawn - _full_size(scores, shape)).max()),
        }
        right = figures["levels_off"] <= TOLERANCE_LEVELS and figures["share_off"] <= 0.05
        right &= figures["view_equal"] and figures["map_error"] <= MAP_ERROR
        found.append({**figures, "right": bool(right)})
    return found


def _on_device(
    device: Device, frame: NDArray[np.uint8], spec: Preprocessing, scores: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Canvas, the last view of it, and full-size map."""
    with ExitStack() as held:
        stream = held.enter_context(open_stream(device))
        resize = held.enter_context(open_resize(device, stream, frame.shape, spec))
        canvas = resize.target
        room = held.enter_context(device_array(device, (spec.size_px, spec.size_px, 3), np.uint8))
        last = views_of(map_shape(frame.shape, spec), spec)[-1]
        cut = cut_view(device, canvas, (PATCH_PX * last.top, PATCH_PX * last.left), room)
        drawer = open_full_size_map(device, stream, scores.shape, frame.shape, SIGMA_PX)
        drawn = held.enter_context(drawer)
        held.callback(stream.synchronize)
        _fill(device, stream, held, resize, frame)
        _fill(device, stream, held, drawn, scores)
        for each in (resize, cut, drawn):
            each.run(stream)
        return (
            _read(device, stream, held, canvas),
            _read(device, stream, held, room),
            _read(device, stream, held, drawn.target),
        )


def _fill(
    device: Device, stream: Stream, held: ExitStack, passes: PixelPasses, array: NDArray[Any]
) -> None:
    room = held.enter_context(page_locked(device, array.shape, array.dtype))
    held.callback(stream.synchronize)
    room[...] = array
    device.copy_in(stream, passes.source, room)


def _read(device: Device, stream: Stream, held: ExitStack, array: DeviceArray) -> NDArray[Any]:
    room = held.enter_context(page_locked(device, array.shape, array.dtype))
    device.copy_out(stream, room, array)
    stream.synchronize()
    return np.array(room)


def _full_size(scores: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Draw a map in float64."""
    canvas = (PATCH_PX * scores.shape[0], PATCH_PX * scores.shape[1])
    drawn = _enlarged(scores.astype(np.float64), canvas)
    weights = arguments.blur_weights(SIGMA_PX).astype(np.float64)
    for axis in (0, 1):
        margin = [(len(weights) // 2, len(weights) // 2) if axis == i else (0, 0) for i in (0, 1)]
        padded = np.pad(drawn, margin, mode="edge")
        drawn = np.apply_along_axis(np.convolve, axis, padded, weights, "valid")
    return _enlarged(np.asarray(drawn, np.float64), shape)


def _enlarged(source: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Interpolate linearly between pixel centres, edges repeated, along both axes."""
    for axis, target in enumerate(shape):
        size = source.shape[axis]
        at = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        share = np.expand_dims(at - low, 1 - axis)
        lower, upper = (source.take(np.minimum(low + i, size - 1), axis) for i in (0, 1))
        source = lower + share * (upper - lower)
    return source
