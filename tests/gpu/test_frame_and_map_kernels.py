"""The kernels at both ends: frame to canvas to views of it, patch scores to a full-size map.

Held to `inspection.preprocessing` in float64 and to what OpenCV does in `trainer.pictures`.
"""

from __future__ import annotations

import numpy as np
import pytest

from edge.kernels import arguments
from inspection.preprocessing import (
    TOLERANCE_LEVELS,
    Preprocessing,
    ResizePass,
    prepare,
    resize_exactly,
)
from inspection.views import map_of_canvas, views_of
from tests.gpu.kernels_on_cpu import Buffers, kernels_for, record
from trainer.pictures import SMOOTHING_PX, full_size_map

CHIP = (8, 6)


def launch(name, buffers, task, height, width):
    kernels_for(CHIP).launch(name, task, (-(-width // 32), -(-height // 8)), (32, 8))
    buffers.check()


def resized(image, step: ResizePass):
    buffers = Buffers()
    height, width = image.shape[:2]
    rows = arguments.resize_table(height, step.height_px, step.shrinks)
    columns = arguments.resize_table(width, step.width_px, step.shrinks)
    target = buffers.empty((step.height_px, step.width_px, 3), np.uint8)
    names = ("row_first", "row_weights", "column_first", "column_weights")
    tables = [buffers.hold(table) for table in (*rows, *columns)]
    task = record(
        arguments.RESIZE,
        source=buffers.hold(image),
        target=target,
        **dict(zip(names, tables, strict=True)),
        height=height,
        width=width,
        rows=step.height_px,
        columns=step.width_px,
        row_taps=rows[1].shape[1],
        column_taps=columns[1].shape[1],
    )
    launch("resize_pass", buffers, task, step.height_px, step.width_px)
    return target.copy()


@pytest.mark.parametrize(
    "shape",
    [(32, 32), (64, 96), (100, 75), (33, 31), (8, 9), (1000, 40), (31, 70), (20, 500), (97, 97)],
    ids=str,
)
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_frame_is_resized_as_it_is_defined(shape, fit):
    image = np.random.default_rng(0).integers(256, size=(*shape, 3), dtype=np.uint8)
    spec = Preprocessing(size_px=32, fit=fit)

    canvas = prepare(image, spec, resized)

    expected = prepare(image, spec, resize_exactly)
    off = np.abs(canvas.astype(int) - expected)
    # A pass that rounds another way is one level off, and a second pass may do so again.
    assert off.max() <= TOLERANCE_LEVELS
    assert (off > 0).mean() <= 0.05


@pytest.mark.parametrize(
    ("shape", "step"),
    [
        # Thirds and sixths: many sums that lie on a half but for the last bit.
        ((64, 96), ResizePass(32, 32, shrinks=True)),
        ((97, 53), ResizePass(32, 48, shrinks=True)),
        ((512, 9), ResizePass(32, 9, shrinks=True)),
        ((20, 31), ResizePass(32, 64, shrinks=False)),
    ],
    ids=str,
)
def test_a_pixel_is_off_only_where_the_definition_lies_on_a_half(shape, step):
    image = np.random.default_rng(2).integers(256, size=(*shape, 3), dtype=np.uint8)

    off = np.abs(resized(image, step).astype(int) - resize_exactly(image, step))

    mixed = image.astype(np.float64)
    for axis, target in enumerate((step.height_px, step.width_px)):
        first, shares = arguments.resize_table(shape[axis], target, step.shrinks)
        matrix = np.zeros((target, shape[axis] + shares.shape[1]))
        np.put_along_axis(matrix, first[:, None] + np.arange(shares.shape[1]), shares, axis=1)
        mixed = np.moveaxis(np.tensordot(matrix[:, : shape[axis]], mixed, (1, axis)), 0, axis)
    from_half = np.abs(mixed - np.floor(mixed) - 0.5)
    assert off.max() <= 1
    assert (from_half[off > 0] < 1e-4).all()


def test_halving_a_frame_is_exact_for_every_sum():
    """Four pixels sum to a half in one of four cases: all must round up, none down."""
    image = np.random.default_rng(1).integers(256, size=(64, 64, 3), dtype=np.uint8)
    step = ResizePass(32, 32, shrinks=True)

    assert (resized(image, step) == resize_exactly(image, step)).all()


@pytest.mark.parametrize(
    "shape", [(32, 32), (40, 72), (96, 64), (8, 8), (8, 200), (24, 16)], ids=str
)
def test_a_view_is_cut_out_of_the_canvas_and_mirrored_beyond_it(shape):
    canvas = np.random.default_rng(0).integers(256, size=(*shape, 3), dtype=np.uint8)
    spec = Preprocessing(size_px=32, fit="tiles", overlap_px=8)

    for view in views_of(map_of_canvas(canvas), spec):
        buffers = Buffers()
        cut = buffers.empty((32, 32, 3), np.uint8)
        task = record(
            arguments.CUT,
            canvas=buffers.hold(canvas),
            view=cut,
            height=shape[0],
            width=shape[1],
            top=8 * view.top,
            left=8 * view.left,
            side=32,
        )
        launch("cut_view", buffers, task, 32, 32)

        np.testing.assert_array_equal(cut, view.pixels(canvas, spec))


def enlarged(source, height, width):
    buffers = Buffers()
    target = buffers.empty((height, width), np.float32)
    rows, columns = source.shape
    sizes = {"rows": rows, "columns": columns, "height": height, "width": width}
    task = record(arguments.UPSAMPLE, source=buffers.hold(source), target=target, **sizes)
    launch("upsample", buffers, task, height, width)
    return target.copy()


def blurred(source, sigma_px, vertical):
    buffers = Buffers()
    target, weights = buffers.empty(source.shape, np.float32), arguments.blur_weights(sigma_px)
    task = record(
        arguments.BLUR,
        source=buffers.hold(source),
        target=target,
        weights=buffers.hold(weights),
        height=source.shape[0],
        width=source.shape[1],
        radius=len(weights) // 2,
        vertical=vertical,
    )
    launch("blur", buffers, task, *source.shape)
    return target.copy()


@pytest.mark.parametrize(
    ("grid", "shape"),
    [((4, 4), (32, 32)), ((4, 6), (77, 101)), ((1, 5), (9, 33)), ((5, 2), (20, 9))],
)
def test_a_full_size_map_is_that_of_opencv(grid, shape):
    scores = np.random.default_rng(0).random(grid, np.float32)
    spec = Preprocessing(size_px=32)
    sigma = SMOOTHING_PX * spec.size_px / 256

    canvas = enlarged(scores, 8 * grid[0], 8 * grid[1])
    smooth = blurred(blurred(canvas, sigma, vertical=0), sigma, vertical=1)
    drawn = enlarged(smooth, *shape)

    # OpenCV's own weights and coordinates are FP32 too.
    np.testing.assert_allclose(drawn, full_size_map(scores, spec, shape), atol=2e-6)
    assert np.ptp(drawn) > 0.01, "an even map would pass as well"
