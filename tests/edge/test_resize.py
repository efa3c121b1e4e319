"""The canvas of a grey frame, resized as one channel, is that of its three, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.resize import prepare_frame
from inspection.preprocessing import Preprocessing

SPECS = [
    Preprocessing(size_px=256),
    Preprocessing(size_px=224),
    Preprocessing(size_px=256, fit="letterbox"),
    Preprocessing(size_px=64, fit="tiles", overlap_px=16, shrink=2),
]


def frame_of(height_px: int, width_px: int, *, is_grey: bool = False) -> NDArray[np.uint8]:
    channels = 1 if is_grey else 3
    rng = np.random.default_rng(height_px)
    pixels = rng.integers(0, 256, (height_px, width_px, channels), dtype=np.uint8)
    return np.broadcast_to(pixels, (height_px, width_px, 3)) if is_grey else pixels


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.fit} {spec.size_px}")
@pytest.mark.parametrize("shape", [(1080, 1920), (1200, 1600), (1000, 900), (1081, 1921)])
def test_a_frame_of_one_channel_has_the_canvas_of_three(
    shape: tuple[int, int], spec: Preprocessing
) -> None:
    frame = frame_of(*shape, is_grey=True)

    assert np.array_equal(prepare_frame(frame, spec), prepare_frame(frame.copy(), spec))


def test_a_small_frame_that_fits_already_is_the_canvas() -> None:
    frame = frame_of(256, 256)

    assert prepare_frame(frame, SPECS[0]) is frame


def test_the_canvas_of_a_grey_frame_can_be_written_to_even_if_it_fits_already() -> None:
    frame = frame_of(256, 256, is_grey=True)

    canvas = prepare_frame(frame, SPECS[0])

    assert np.array_equal(canvas, frame)
    assert canvas.flags.c_contiguous
    assert canvas.flags.writeable
