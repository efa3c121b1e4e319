"""Frames and maps on the device: host code and kernels together, and what they refuse.

What each kernel computes is in `test_frame_and_map_kernels.py`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import pixel_check
from edge.device import device_array, open_device, open_stream
from edge.device_pixels import PixelPasses, cut_view, open_full_size_map, open_resize
from inspection.errors import DeviceError, InputError
from inspection.preprocessing import Preprocessing

FRAMES = (
    ((64, 96), Preprocessing(size_px=32)),
    ((20, 90), Preprocessing(size_px=32)),
    ((97, 31), Preprocessing(size_px=64, fit="letterbox")),
    ((90, 70), Preprocessing(size_px=32, fit="tiles", shrink=2)),
)


def test_frames_views_and_maps_agree_with_float64(any_schedule, device, monkeypatch):
    monkeypatch.setattr(pixel_check, "FRAMES", FRAMES)

    found = pixel_check.held_to_float64(device)

    assert len(found) == len(FRAMES)
    assert all(each["right"] for each in found), found


@pytest.mark.parametrize("number", range(3), ids=["canvas", "view", "map"])
def test_a_pass_that_is_left_out_is_seen(device, monkeypatch, number):
    monkeypatch.setattr(pixel_check, "FRAMES", FRAMES[:1])
    run, runs = PixelPasses.run, iter(range(3))

    def all_but_one(self, stream):
        lacking = next(runs) == number
        run(replace(self, passes=self.passes[:-1]) if lacking else self, stream)

    monkeypatch.setattr(PixelPasses, "run", all_but_one)

    assert not pixel_check.held_to_float64(device)[0]["right"]


def test_a_frame_that_fits_is_its_own_canvas(device):
    with (
        open_stream(device) as stream,
        open_resize(device, stream, (32, 32, 3), Preprocessing(size_px=32)) as resize,
    ):
        assert resize.target is resize.source
        assert not resize.passes


@pytest.mark.parametrize(
    ("corner", "view", "dtype"),
    [
        pytest.param((0, 32), (16, 16, 3), np.uint8, id="past the right edge"),
        pytest.param((48, 0), (16, 16, 3), np.uint8, id="past the lower edge"),
        pytest.param((-1, 0), (16, 16, 3), np.uint8, id="before the first row"),
        pytest.param((0, 0), (16, 16, 3), np.float32, id="another type"),
        pytest.param((0, 0), (16, 16, 1), np.uint8, id="grey"),
        pytest.param((0, 0), (16, 24, 3), np.uint8, id="not a square"),
    ],
)
def test_a_view_that_is_none_of_the_canvas_is_refused(device, corner, view, dtype):
    with ExitStack() as held:
        canvas = held.enter_context(device_array(device, (48, 32, 3), np.uint8))
        target = held.enter_context(device_array(device, view, dtype))

        with pytest.raises(InputError, match="expected a uint8 canvas with a square uint8 view"):
            cut_view(device, canvas, corner, target)


@pytest.mark.parametrize("sigma_px", [0.0, -1.0, float("nan"), float("inf")])
def test_a_gaussian_without_a_width_is_refused(device, sigma_px):
    with (
        open_stream(device) as stream,
        pytest.raises(InputError, match="above 0"),
        open_full_size_map(device, stream, (4, 4), (32, 32), sigma_px),
    ):
        pytest.fail("opened")


def test_a_map_that_finds_no_room_gives_back_what_it_took(driver, kernels_folder):
    driver.be(memory_bytes=1 << 20)
    with open_device(kernels=kernels_folder) as device, open_stream(device) as stream:
        before = driver.counters()

        with (
            pytest.raises(DeviceError, match="not enough memory"),
            open_full_size_map(device, stream, (4, 4), (1000, 1000), 1.0),
        ):
            pytest.fail("opened")

        assert driver.counters() == before
