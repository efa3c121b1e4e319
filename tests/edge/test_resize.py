"""Two threads and one channel make the canvas that one thread makes of three, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import edge.resize
from edge.resize import Resizer, prepare_frame
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


@pytest.mark.parametrize("is_grey", [False, True])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.fit} {spec.size_px}")
@pytest.mark.parametrize("shape", [(1080, 1920), (1200, 1600), (1000, 900), (1081, 1921)])
def test_a_large_frame_has_the_canvas_that_the_trainer_makes(
    shape: tuple[int, int], spec: Preprocessing, is_grey: bool
) -> None:
    frame = frame_of(*shape, is_grey=is_grey)

    assert np.array_equal(Resizer().canvas_of(frame, spec), prepare_frame(frame.copy(), spec))


def test_a_frame_is_cut_nowhere_that_a_pixel_would_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.resize, "LARGE_PX", 0)
    resizer, spec = Resizer(), Preprocessing(size_px=96)

    for height_px in range(16, 700):
        frame = frame_of(height_px, 41)
        assert np.array_equal(resizer.canvas_of(frame, spec), prepare_frame(frame, spec)), height_px


def test_a_half_is_made_by_another_thread_where_rows_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    shrink = edge.resize._shrink

    def watched(image: NDArray[np.uint8], half: NDArray[np.uint8]) -> None:
        made.append((image.shape[0], half.shape[0]))
        shrink(image, half)

    monkeypatch.setattr(edge.resize, "_shrink", watched)

    Resizer().canvas_of(frame_of(1080, 1920), SPECS[0])

    assert made == [(540, 128), (540, 128)]


def test_a_small_frame_that_fits_already_is_the_canvas() -> None:
    frame = frame_of(256, 256)

    assert Resizer().canvas_of(frame, SPECS[0]) is frame


def test_the_canvas_of_a_grey_frame_can_be_written_to_even_if_it_fits_already() -> None:
    frame = frame_of(256, 256, is_grey=True)

    canvas = Resizer().canvas_of(frame, SPECS[0])

    assert np.array_equal(canvas, frame)
    assert canvas.flags.c_contiguous
    assert canvas.flags.writeable
