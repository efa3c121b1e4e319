"""The one resize: the numpy definition against OpenCV, and what must hold whatever computes it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.errors import ImageError, InputError
from inspection.preprocessing import (
    MIN_SIDE_PX,
    TOLERANCE_LEVELS,
    Preprocessing,
    ResizePass,
    map_shape,
    prepare,
    resize_exactly,
    resize_plan,
    to_rgb8,
)

# (H, W) → side: integer and odd factors, one axis shrinking while the other grows, thin strips.
SHAPES = [
    pytest.param((64, 64), 64, id="identity"),
    pytest.param((128, 192), 64, id="integer factors"),
    pytest.param((65, 67), 64, id="hardly smaller"),
    pytest.param((63, 61), 64, id="hardly larger"),
    pytest.param((331, 97), 48, id="odd factors down"),
    pytest.param((9, 13), 80, id="odd factors up"),
    pytest.param((8, 301), 48, id="rows grow, columns shrink"),
    pytest.param((257, 11), 48, id="rows shrink, columns grow"),
    pytest.param((8, 64), 48, id="the same, and every fourth pixel is a rounding tie"),
    pytest.param((48, 129), 48, id="rows stay, columns shrink"),
    pytest.param((17, 48), 48, id="rows grow, columns stay"),
    pytest.param((1023, 8), 32, id="a strip"),
]


def with_opencv(image, step):
    """A pass as programs run it."""
    mode = cv2.INTER_AREA if step.shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (step.width_px, step.height_px), interpolation=mode)


def noise(shape, seed):
    """(H, W, 3) uint8 that uses every level: the hardest case for rounding."""
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def levels_apart(one, other):
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def directly(image, size):
    """Average or interpolate pixel by pixel, axis by axis, with loops: no matrix, no shortcut."""

    def shrink(line):
        step = len(line) / size
        out = []
        for i in range(size):
            total = np.zeros_like(line[0])
            for j, pixel in enumerate(line):
                share = min(j + 1, (i + 1) * step) - max(j, i * step)
                total = total + max(share, 0) * pixel
            out.append(total / step)
        return np.array(out)

    def grow(line):
        out = []
        for i in range(size):
            where = min(max((i + 0.5) * len(line) / size - 0.5, 0), len(line) - 1)
            low = min(int(where), len(line) - 2)
            out.append(line[low] + (where - low) * (line[low + 1] - line[low]))
        return np.array(out)

    resized = image.astype(np.float64)
    for _ in range(2):
        if len(resized) != size:
            resized = shrink(resized) if len(resized) > size else grow(resized)
        resized = resized.swapaxes(0, 1)
    return resized


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_opencv_agrees_with_the_definition(shape, size):
    image, spec = noise(shape, seed=size), Preprocessing(size)

    exact = prepare(image, spec, resize_exactly)
    fast = prepare(image, spec, with_opencv)

    assert exact.shape == fast.shape == (size, size, 3)
    assert exact.dtype == fast.dtype == np.uint8
    assert levels_apart(exact, fast) <= TOLERANCE_LEVELS


@pytest.mark.parametrize("step", [ResizePass(48, 48, True), ResizePass(331, 97, False)])
def test_one_pass_is_rounded_once_and_is_one_level_off_at_the_most(step):
    image = noise((64, 97), seed=8) if step.shrinks else noise((48, 33), seed=8)

    apart = levels_apart(resize_exactly(image, step), with_opencv(image, step))

    assert apart <= 1


@given(height=st.integers(8, 150), width=st.integers(8, 150), seed=st.integers(0, 99))
@settings(derandomize=True, database=None, deadline=None, max_examples=150)
def test_opencv_agrees_on_any_shape(height, width, seed):
    image, spec = noise((height, width), seed), Preprocessing(48)

    apart = levels_apart(prepare(image, spec, resize_exactly), prepare(image, spec, with_opencv))

    assert apart <= TOLERANCE_LEVELS


@pytest.mark.parametrize(
    ("shape", "size"), [((41, 37), 32), ((8, 11), 32), ((8, 45), 32), ((33, 9), 32)]
)
def test_the_definition_is_area_down_and_linear_up(shape, size):
    image = noise(shape, seed=1)

    prepared = prepare(image, Preprocessing(size), resize_exactly)

    # One rounding puts a pixel half a level off, a rounding for each of two passes one level.
    off = 0.5 if (min(shape) > size or max(shape) < size) else 1.0
    assert np.abs(prepared - directly(image, size)).max() <= off + 1e-9


@pytest.mark.parametrize(("shape", "size"), SHAPES)
@pytest.mark.parametrize("resize", [resize_exactly, with_opencv])
@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_a_constant_image_stays_constant(shape, size, resize, level):
    image = np.full((*shape, 3), level, np.uint8)

    prepared = prepare(image, Preprocessing(size), resize)

    assert set(prepared.ravel()) == {level}


@pytest.mark.parametrize("resize", [resize_exactly, with_opencv])
@pytest.mark.parametrize("period", [5, 7, 9])
def test_shrinking_keeps_the_mean_of_lines_thinner_than_a_pixel(resize, period):
    # One white row in every few: a resize that samples instead of averaging sees none, or too many.
    image = np.zeros((315, 320, 3), np.uint8)
    image[::period] = 255

    prepared = prepare(image, Preprocessing(32), resize)

    # Every pixel may be rounded by up to half a level; sampling is off by tens of levels.
    assert abs(prepared.mean() - image.mean()) <= 0.5


@pytest.mark.parametrize("resize", [resize_exactly, with_opencv])
def test_a_frame_that_fits_is_passed_on_untouched(resize):
    image = noise((64, 64), seed=2)

    prepared = prepare(image, Preprocessing(64), resize)

    assert prepared is image


def test_channels_do_not_mix():
    image = noise((41, 97), seed=3)
    only_green = image * np.array([0, 1, 0], np.uint8)

    prepared = prepare(only_green, Preprocessing(48), resize_exactly)

    assert not prepared[:, :, [0, 2]].any()
    np.testing.assert_array_equal(
        prepared[:, :, 1], prepare(image, Preprocessing(48), resize_exactly)[:, :, 1]
    )


def test_turning_the_frame_turns_the_result():
    image, spec = noise((97, 31), seed=4), Preprocessing(48)

    turned = prepare(image.swapaxes(0, 1), spec, resize_exactly)

    np.testing.assert_array_equal(turned, prepare(image, spec, resize_exactly).swapaxes(0, 1))


@pytest.mark.parametrize(
    ("shape", "plan"),
    [
        pytest.param((256, 256), [], id="fits"),
        pytest.param((512, 300, 3), [ResizePass(256, 256, True)], id="both shrink"),
        pytest.param((512, 256), [ResizePass(256, 256, True)], id="one shrinks, one fits"),
        pytest.param((100, 255), [ResizePass(256, 256, False)], id="both grow"),
        pytest.param(
            (512, 100),
            [ResizePass(256, 100, True), ResizePass(256, 256, False)],
            id="rows shrink first, then columns grow",
        ),
    ],
)
def test_the_plan_never_shrinks_and_grows_in_one_pass(shape, plan):
    assert resize_plan(shape, Preprocessing(256)) == plan


@pytest.mark.parametrize("size", [0, -32, 16, 31, 33, 40, 4112, 1 << 20])
def test_a_side_that_the_trunk_cannot_take_is_refused(size):
    with pytest.raises(InputError, match=f"got {size}"):
        Preprocessing(size)


@pytest.mark.parametrize("size", [32, 48, 256, 4096])
def test_the_grid_has_a_patch_for_every_eight_pixels(size):
    assert Preprocessing(size).grid == (size // 8, size // 8)


@pytest.mark.parametrize("channels", [None, 1])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_grey_is_repeated(channels, order):
    grey = noise((9, 13), seed=5)[:, :, 0]

    rgb = to_rgb8(grey if channels is None else grey[:, :, None], order)

    np.testing.assert_array_equal(rgb, np.stack([grey] * 3, axis=2))


def test_sixteen_bits_keep_their_upper_eight():
    grey = np.array([[0, 255, 256, 257, 65279, 65280, 65534, 65535]] * 8, np.uint16)

    rgb = to_rgb8(grey)

    assert rgb.dtype == np.uint8
    assert rgb[0, :, 0].tolist() == [0, 0, 1, 1, 254, 255, 255, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_dropped_and_bgr_is_turned(dtype):
    bgra = np.random.default_rng(6).integers(0, 256, (9, 13, 4)).astype(dtype)
    bgra *= dtype(256 if dtype is np.uint16 else 1)

    rgb = to_rgb8(bgra, "bgr")

    expected = (bgra >> 8 if dtype is np.uint16 else bgra)[:, :, [2, 1, 0]]
    np.testing.assert_array_equal(rgb, expected)
    assert rgb.flags.c_contiguous


def test_an_rgb_frame_is_given_back_without_a_copy():
    image = noise((9, 13), seed=7)

    assert np.shares_memory(to_rgb8(image), image)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros(64, np.uint8), id="a line"),
        pytest.param(np.zeros((9, 9, 2), np.uint8), id="two channels"),
        pytest.param(np.zeros((9, 9, 5), np.uint8), id="five channels"),
        pytest.param(np.zeros((9, 9, 0), np.uint8), id="no channel"),
        pytest.param(np.zeros((1, 9, 9, 3), np.uint8), id="a batch"),
        pytest.param(np.zeros((MIN_SIDE_PX - 1, 64, 3), np.uint8), id="too low"),
        pytest.param(np.zeros((64, MIN_SIDE_PX - 1, 3), np.uint8), id="too narrow"),
        pytest.param(np.zeros((0, 64, 3), np.uint8), id="empty"),
        pytest.param(np.zeros((9, 9, 3), np.float32), id="float32"),
        pytest.param(np.zeros((9, 9, 3), np.int16), id="int16"),
        pytest.param(np.zeros((9, 9, 3), np.bool_), id="bool"),
        pytest.param(np.zeros((9, 9, 3), ">u2"), id="16 bits in the other byte order"),
    ],
)
def test_what_is_no_frame_is_refused_with_what_was_expected(image):
    with pytest.raises(ImageError, match=r"expected .* got"):
        to_rgb8(image)


def test_the_smallest_frame_is_taken():
    assert to_rgb8(np.zeros((MIN_SIDE_PX, MIN_SIDE_PX), np.uint8)).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("shape", "spec", "expected"),
    [
        pytest.param((480, 640), Preprocessing(64), (8, 8), id="stretched"),
        pytest.param((480, 640), Preprocessing(64, "letterbox"), (6, 8), id="letterbox"),
        pytest.param((640, 480), Preprocessing(64, "letterbox"), (8, 6), id="upright"),
        pytest.param((20, 30), Preprocessing(64, "letterbox"), (5, 8), id="enlarged"),
        pytest.param((100, 8000), Preprocessing(64, "letterbox"), (1, 8), id="a patch at least"),
        pytest.param((2000, 8000), Preprocessing(64, "tiles"), (250, 1000), id="whole patches"),
        pytest.param((3036, 4024), Preprocessing(64, "tiles"), (380, 503), id="half a patch"),
        pytest.param((2000, 8000), Preprocessing(64, "tiles", 0, 2), (125, 500), id="shrunk"),
        pytest.param((8, 9), Preprocessing(64, "tiles", 0, 16), (1, 1), id="shrunk to nothing"),
    ],
)
def test_a_map_has_as_many_patches_as_the_page_of_the_bundle_says(shape, spec, expected):
    canvas = prepare(
        np.zeros((*shape, 3), np.uint8),
        spec,
        lambda image, step: np.zeros((step.height_px, step.width_px, 3), np.uint8),
    )

    assert map_shape(shape, spec) == expected
    assert canvas.shape == (8 * expected[0], 8 * expected[1], 3)


@settings(derandomize=True, database=None, deadline=None)
@given(height=st.integers(8, 5000), width=st.integers(8, 5000))
def test_a_letterbox_keeps_the_aspect_to_half_a_patch(height, width):
    rows, columns = map_shape((height, width), Preprocessing(256, "letterbox"))

    assert max(rows, columns) == 32
    scale = 32 / max(height, width)
    assert abs(rows - max(1, height * scale)) <= 0.5
    assert abs(columns - max(1, width * scale)) <= 0.5


def test_tiles_of_whole_patches_are_the_pixels_of_the_frame():
    frame = noise((72, 136), 3)

    assert prepare(frame, Preprocessing(64, "tiles"), resize_exactly) is frame


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({"fit": "crop"}, "fit must be one of stretch", id="a fit there is not"),
        pytest.param({"overlap_px": 16}, "only tiles overlap", id="overlap of nothing"),
        pytest.param({"fit": "letterbox", "shrink": 2}, "only tiles", id="shrink of nothing"),
        pytest.param({"fit": "tiles", "overlap_px": 12}, "multiple of 8", id="part of a patch"),
        pytest.param({"fit": "tiles", "overlap_px": 136}, "from 0 to 128", id="more than half"),
        pytest.param({"fit": "tiles", "overlap_px": -8}, "from 0 to 128", id="gaps"),
        pytest.param({"fit": "tiles", "shrink": 0}, "from 1 to 16", id="grown"),
    ],
)
def test_preprocessing_that_cannot_be_done_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        Preprocessing(**settings)
