"""What a frame is refused for is what is wrong with it, and nothing that a part may differ in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inspection.errors import InputError, NotEnoughSamplesError
from inspection.frame_checks import (
    SHARPEST,
    SMOOTHEST,
    FrameLimits,
    FrameMeasures,
    change,
    check,
    limits_of,
    loosest,
    measure,
)
from inspection.preprocessing import Preprocessing
from inspection.verdicts import Reason

Image = NDArray[np.uint8]

SPEC = Preprocessing(256)
SIDE = 300
WITHIN = FrameMeasures((64, 64), 100.0, 0.1, 8.0, 6.0, np.full((4, 4), 1600, np.uint16))
LIMITS = FrameLimits(50.0, 0.3, 4.0, 3.0, 1.0)


def part(seed: int, tilt: float = 0.0, height: int = SIDE, width: int = SIDE) -> Image:
    """(height, width, 3) uint8: dark discs at random on a ground that may be tilted."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    light = 90.0 + tilt * x / width
    for _ in range(12):
        centre_y, centre_x, radius = (
            rng.random() * height,
            rng.random() * width,
            rng.integers(6, 40),
        )
        light += rng.integers(20, 70) * ((y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2)
    return np.repeat(np.clip(light, 0, 240).astype(np.uint8)[:, :, None], 3, axis=2)


def blurred(image: Image, sigma_px: float, axes: tuple[int, ...] = (0, 1)) -> Image:
    reach = np.arange(-int(3 * sigma_px), int(3 * sigma_px) + 1)
    kernel = np.exp(-0.5 * (reach / sigma_px) ** 2)
    smooth = image.astype(np.float64)
    for axis in axes:
        padded = np.pad(smooth, [(len(reach) // 2,) * 2 if i == axis else (0, 0) for i in range(3)],
                        mode="edge")  # fmt: skip
        smooth = np.apply_along_axis(np.convolve, axis, padded, kernel / kernel.sum(), "valid")
    return np.rint(smooth).astype(np.uint8)


def noisy(image: Image, levels: float, seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).normal(0, levels, image.shape)
    return np.asarray(np.clip(np.rint(image + noise), 0, 255), np.uint8)


def good_parts(count: int = 40) -> list[FrameMeasures]:
    return [measure(noisy(part(seed), 1.0, seed), SPEC) for seed in range(count)]


def reason_of(image: Image, limits: FrameLimits) -> Reason | None:
    found = check(measure(image, SPEC), None, limits)
    return found[0] if found else None


# --- the measures ---------------------------------------------------------------------------------


def measured_slowly(image: Image, size_px: int) -> dict[str, Any]:
    """The measures as `docs/bundle.md` has them, place by place, of a frame that is stretched."""
    light = image.max(axis=2).astype(int)
    height, width = light.shape
    step = (math.ceil(height / 96), math.ceil(width / 96))
    sampled = light[:: step[0], :: step[1]]
    rows, columns = sampled.shape[0] // 4, sampled.shape[1] // 4
    energies = np.zeros((2, 3))
    for axis, turned in enumerate((light, light.T)):
        sides = turned.shape
        near = max(1, sides[0] // size_px)
        aside = (max(1, sides[1] // size_px) + 1) // 2
        high, wide = sides[0] - 8 * near, sides[1] - aside
        places = [
            (y, x)
            for y in range(0, high, max(1, math.ceil(high / 96)))
            for x in range(0, wide, max(1, math.ceil(wide / 96)))
        ]
        for y, x in places:
            fine, coarse = (
                (turned[y, x] - turned[y + far, x])
                * (turned[y, x + aside] - turned[y + far, x + aside])
                for far in (near, 8 * near)
            )
            power = (turned[y, x] - turned[y + 8 * near, x]) ** 2
            energies[axis] += np.array([fine, coarse, power]) / len(places)

    def ratio(fine: float, coarse: float, power: float) -> float:
        if coarse < 4 or coarse < power / 3:
            return 64.0
        return min(max(64 * fine / coarse, 1.0), 64.0)

    return {
        "brightness": sampled.mean(),
        "white_share": (sampled >= 250).mean(),
        "sharpness": ratio(*energies.sum(axis=0)),
        "sharpness_one_way": min(ratio(*energies[0]), ratio(*energies[1])),
        "thumbnail": [
            [int(sampled[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].sum()) for c in range(columns)]
            for r in range(rows)
        ],
    }


# Awkward on purpose: no multiple of a sample, a cell or a canvas, and too small for any of them.
@pytest.mark.parametrize(("height", "width"), [(97, 203), (301, 145), (24, 31), (8, 9), (570, 40)])
@pytest.mark.parametrize("size_px", [32, 64])
def test_the_measures_are_those_of_the_document(height: int, width: int, size_px: int) -> None:
    rng = np.random.default_rng([height, width])
    image = noisy(blurred(rng.integers(0, 256, (height, width, 3), np.uint8), 2.0), 1.0)
    image[: height // 3, : width // 3, 0] = 255

    found = measure(image, Preprocessing(size_px))

    for name, expected in measured_slowly(image, size_px).items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-12)
    assert found.shape == (height, width)


def test_a_view_with_other_strides_measures_as_its_copy() -> None:
    image = noisy(part(0), 2.0)
    turned = np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2)

    one, other = measure(image, SPEC), measure(turned, SPEC)

    np.testing.assert_array_equal(one.thumbnail, other.thumbnail)
    assert dataclasses.replace(one, thumbnail=None) == dataclasses.replace(other, thumbnail=None)  # type: ignore[arg-type]


def test_light_is_the_brightest_channel_so_that_a_red_lamp_exposes_too() -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[:, :, 0] = 255

    assert (measure(red, SPEC).brightness, measure(red, SPEC).white_share) == (255.0, 1.0)


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(lambda image: (image * 0.4).astype(np.uint8), id="less contrast"),
        pytest.param(lambda image: image // 2 + 100, id="another offset"),
        pytest.param(lambda image: noisy(image, 4.0), id="noise"),
        pytest.param(lambda image: np.ascontiguousarray(image[::-1, ::-1]), id="turned"),
    ],
)
def test_sharpness_does_not_depend_on(same: Callable[[Image], Image]) -> None:
    before, after = (measure(each, SPEC).sharpness for each in (part(3), same(part(3))))

    assert after == pytest.approx(before, rel=0.15)  # blur of 2 px changes it by a factor of 4


@pytest.mark.parametrize("levels", [0.0, 2.0, 4.0])
def test_a_blurred_part_is_less_sharp_than_any_other_part_whatever_the_noise(levels: float) -> None:
    sharp = [measure(noisy(part(seed), levels, seed), SPEC).sharpness for seed in range(12)]
    soft = [
        measure(noisy(blurred(part(seed), 3.0), levels, seed), SPEC).sharpness for seed in range(12)
    ]

    assert max(soft) * 2 < min(sharp)


@pytest.mark.parametrize("axis", [0, 1])
def test_motion_along_one_axis_shows_in_that_direction_alone(axis: int) -> None:
    still, moved, soft = (
        measure(each, SPEC)
        for each in (part(5), blurred(part(5), 3.0, (axis,)), blurred(part(5), 3.0))
    )

    assert moved.sharpness_one_way < still.sharpness_one_way / 2
    assert moved.sharpness > 1.5 * soft.sharpness


@pytest.mark.parametrize(
    "nothing",
    [
        pytest.param(np.full((SIDE, SIDE, 3), 120, np.uint8), id="one colour"),
        pytest.param(noisy(np.full((SIDE, SIDE, 3), 120, np.uint8), 5.0), id="noise alone"),
        pytest.param(part(0, height=8, width=8), id="the smallest frame"),
    ],
)
def test_what_shows_too_little_to_tell_is_not_called_blurred(nothing: Image) -> None:
    found = measure(nothing, SPEC)

    assert (found.sharpness, found.sharpness_one_way) == (SHARPEST, SHARPEST)


def test_tiles_are_looked_at_as_finely_as_the_network_sees_them() -> None:
    # Out of focus by 2 px of a frame of 1024: in one view of 256 px that is half a pixel.
    large = np.repeat(np.repeat(part(1), 4, axis=0), 4, axis=1)[:1024, :1024]
    soft = blurred(large, 2.0)
    tiles = Preprocessing(256, "tiles")

    assert measure(soft, SPEC).sharpness > measure(large, SPEC).sharpness / 2
    assert measure(soft, tiles).sharpness < measure(large, tiles).sharpness / 2


# --- the limits -----------------------------------------------------------------------------------


def test_parts_that_differ_from_those_learned_are_within() -> None:
    limits = limits_of(good_parts())

    assert limits.least_sharpness > SMOOTHEST
    for seed in range(100, 160):
        assert reason_of(noisy(part(seed), 1.0, seed), limits) is None
        assert reason_of(noisy(part(seed, tilt=60.0), 1.0, seed), limits) is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(lambda image: noisy((image * 0.02).astype(np.uint8), 2.0), Reason.TOO_DARK,
                     id="black"),
        pytest.param(lambda image: image // 4, Reason.TOO_DARK, id="under-exposed"),
        pytest.param(lambda image: np.clip(image * 3.0, 0, 255).astype(np.uint8),
                     Reason.OVEREXPOSED, id="over-exposed"),
        pytest.param(lambda image: noisy(blurred(image, 3.0), 2.0), Reason.BLURRED, id="defocus"),
        pytest.param(lambda image: noisy(blurred(image, 3.0, (1,)), 2.0), Reason.BLURRED,
                     id="motion"),
    ],
)  # fmt: skip
def test_every_fault_is_found_and_called_by_its_name(
    spoil: Callable[[Image], Image], reason: Reason
) -> None:
    limits = limits_of(good_parts())

    for seed in range(100, 120):
        assert reason_of(spoil(part(seed)), limits) is reason


@pytest.mark.parametrize("name", ["brightness", "sharpness", "sharpness_one_way"])
def test_one_bad_picture_among_hundreds_does_not_switch_a_check_off(name: str) -> None:
    good = good_parts(1) * 200
    spoilt = [*good[1:], dataclasses.replace(good[0], **{name: 1.0})]

    assert limits_of(spoilt) == limits_of(good)


def test_products_that_vary_more_have_wider_limits() -> None:
    steady = [dataclasses.replace(WITHIN, brightness=100.0 + i) for i in range(80)]
    varied = [dataclasses.replace(WITHIN, brightness=4.0 * 2 ** (i / 10)) for i in range(80)]

    assert limits_of(steady).least_brightness == pytest.approx(50.0)
    # Half of the way from the median down to the lowest, as factors: 2 to the power of 3.95 / 2.
    # That of 80 parts is a quarter longer.
    assert limits_of(varied).least_brightness == pytest.approx(4.0 / 2 ** (1.25 * 3.95 / 2))


def test_the_least_change_is_half_of_what_good_parts_in_turn_differed_by() -> None:
    def at(level: float) -> FrameMeasures:
        return dataclasses.replace(WITHIN, thumbnail=np.full((4, 4), 16 * level, np.uint16))

    other = dataclasses.replace(at(9), shape=(64, 65))

    assert limits_of([at(10), at(13), other, at(12), at(20)]).least_change == 1.5
    assert limits_of([at(10), at(60), at(10)]).least_change == 2.0  # `HARDLY`
    assert limits_of([at(10), other]).least_change == 0.0  # nothing is known


def test_few_good_parts_have_wider_limits_than_many_that_vary_alike() -> None:
    def varied(count: int) -> FrameLimits:
        return limits_of(
            [
                FrameMeasures((64, 64), 20.0 * f, 0.1 * f, 4.0 * f, 3.0 * f, WITHIN.thumbnail)
                for f in np.linspace(0.4, 4.0, count).tolist()
            ]
        )

    few, many = varied(8), varied(400)

    assert few.least_brightness < many.least_brightness
    assert few.most_white_share > many.most_white_share
    assert few.least_sharpness <= many.least_sharpness


def test_without_good_parts_there_are_no_limits() -> None:
    with pytest.raises(NotEnoughSamplesError, match="at least one good part"):
        limits_of([])


def test_the_loosest_limits_refuse_only_what_every_product_refuses() -> None:
    other = FrameLimits(30.0, 0.5, 5.0, 2.0, 0.5)

    assert loosest([LIMITS, other]) == FrameLimits(30.0, 0.5, 4.0, 2.0, 0.5)
    assert loosest([LIMITS]) == LIMITS


@pytest.mark.parametrize("name", list(LIMITS.__slots__))
@pytest.mark.parametrize("value", [-1.0, 256.0, math.nan, math.inf])
def test_a_limit_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be from"):
        dataclasses.replace(LIMITS, **{name: value})


# --- the decision ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "on", "beyond", "reason", "said"),
    [
        ("brightness", 50.0, 49.9, Reason.TOO_DARK, ("49.9", "50.0")),
        ("white_share", 0.3, 0.301, Reason.OVEREXPOSED, ("30.1%", "30.0%")),
        ("sharpness", 4.0, 3.9, Reason.BLURRED, ("3.90", "4.00")),
        ("sharpness_one_way", 3.0, 2.9, Reason.BLURRED, ("2.90", "3.00", "one direction")),
    ],
)
def test_a_measure_on_a_limit_is_within_and_one_beyond_is_told_with_both(
    name: str, on: float, beyond: float, reason: Reason, said: tuple[str, ...]
) -> None:
    assert check(dataclasses.replace(WITHIN, **{name: on}), None, LIMITS) is None

    found = check(dataclasses.replace(WITHIN, **{name: beyond}), None, LIMITS)

    assert found is not None
    assert found[0] is reason
    assert all(each in found[1] for each in said)


def test_a_frame_that_hardly_differs_from_the_one_before_is_frozen() -> None:
    nearly = dataclasses.replace(WITHIN, thumbnail=WITHIN.thumbnail + np.uint16(15))
    enough = dataclasses.replace(WITHIN, thumbnail=WITHIN.thumbnail + np.uint16(16))

    assert change(nearly, WITHIN) == change(WITHIN, nearly) == 15 / 16
    assert check(enough, WITHIN, LIMITS) is None
    assert check(nearly, None, LIMITS) is None
    found = check(nearly, WITHIN, LIMITS)
    assert found is not None
    assert found[0] is Reason.FROZEN
    assert "0.94" in found[1]
    assert "1.00" in found[1]


def test_frames_of_different_shapes_are_not_the_same_picture() -> None:
    wider = dataclasses.replace(WITHIN, shape=(64, 65))

    assert change(WITHIN, wider) is None
    assert check(WITHIN, wider, LIMITS) is None


def test_a_new_part_is_not_frozen_and_the_same_part_with_other_noise_is() -> None:
    limits = limits_of(good_parts())
    shown = measure(noisy(part(200), 2.0, 1), SPEC)

    again = check(measure(noisy(part(200), 2.0, 2), SPEC), shown, limits)

    assert again is not None
    assert again[0] is Reason.FROZEN
    assert check(measure(noisy(part(201), 2.0, 2), SPEC), shown, limits) is None
