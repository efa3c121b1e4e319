"""Whether a frame can be judged at all: dark, washed out, blurred, or the same picture again.

What is measured, what a product's good parts say of it, and the decision. Plain numpy on whole
numbers, so that trainer and station measure alike to the last bit: there is no resize to agree on.
Who remembers the frame before: `edge.plausibility`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from inspection.errors import InputError, NotEnoughSamplesError
from inspection.preprocessing import PATCH_PX, Preprocessing, map_shape
from inspection.verdicts import Reason

SAMPLES = 96
"""Samples a side, at most: a frame of 1080p takes 0.3 ms of a core, with 128 it takes 0.5."""

CELL = 4
"""Samples a side whose sum is one cell of the thumbnail: so many leave of sensor noise and of an
encoder's errors too little to be taken for another part."""

WHITE_LEVEL = 250
"""A sample whose brightest channel reaches it is white: encoders and filters blur 255 a little."""

FAR = 8
"""Over so many pixels of the canvas coarse differences are taken; fine ones over one."""

SMOOTHEST, SHARPEST = 1.0, float(FAR**2)
"""Ends of sharpness: without any detail finer than `FAR` pixels, and noise without any coarser."""

TELLING, AGREED = 4.0, 1 / 3
"""Squared levels of coarse differences, and share of them that neighbours agree in, below which a
picture shows too little, or too much noise, to be called blurred. On both limits at once sharpness
has an error of about 1."""

EXTREME = 0.01
"""Share of good parts whose extremes are left out: one bad picture among hundreds of good ones
must not switch a check off."""

FEW = 20
"""Good parts that tell half of how they vary: with so many, margins that rest on them are doubled.
Limits of 16 images at random refused 6.3 % of the others of our most varied category without it;
with it 3.3, and of 64, 0.7 %."""

DARKER, LESS_SHARP = 2.0, 1.25
"""Factors that limits lie beyond the extremes of good parts, at least; of few, the latter more."""

WHITER = 0.15
"""Share of the image by which more of it may be white than of any good part, at least."""

ALIKE = 0.5
"""Two frames in turn may differ by this share of the least that good parts in turn differed by."""

HARDLY = 2.0
"""Levels; what differs by more is not the same picture, whatever the product."""


@dataclass(frozen=True, slots=True)
class FrameMeasures:
    """What is measured of a frame; light is the brightest of a pixel's three channels.

    Attributes:
        shape: (H, W) of the frame, px.
        brightness: Mean light, levels from 0 to 255.
        white_share: Share of samples that are white, from 0 to 1.
        sharpness: From `SMOOTHEST` to `SHARPEST`, see `sharpness`.
        sharpness_one_way: The same of the direction, rows or columns, that has less of it.
        thumbnail: (rows, columns) uint16, light summed over `CELL` × `CELL` samples.
    """

    shape: tuple[int, int]
    brightness: float
    white_share: float
    sharpness: float
    sharpness_one_way: float
    thumbnail: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """Beyond them a frame cannot be judged; a measure on a limit is within. Part of the bundle.

    Attributes:
        least_brightness: Levels from 0 to 255.
        most_white_share: From 0 to 1; 1 allows anything.
        least_sharpness: From `SMOOTHEST`, which allows anything, to `SHARPEST`.
        least_sharpness_one_way: Likewise.
        least_change: Mean difference from the frame before, levels from 0, which allows anything.
    """

    least_brightness: float
    most_white_share: float
    least_sharpness: float
    least_sharpness_one_way: float
    least_change: float

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("least_brightness", self.least_brightness, 0.0, 255.0),
            ("most_white_share", self.most_white_share, 0.0, 1.0),
            ("least_sharpness", self.least_sharpness, SMOOTHEST, SHARPEST),
            ("least_sharpness_one_way", self.least_sharpness_one_way, SMOOTHEST, SHARPEST),
            ("least_change", self.least_change, 0.0, 255.0),
        ):
            if not low <= value <= high:
                raise InputError(f"{name} must be from {low:g} to {high:g}, got {value}")


def measure(image: NDArray[np.uint8], spec: Preprocessing) -> FrameMeasures:
    """Measure a frame, by samples that are spread evenly over it.

    Args:
        image: (H, W, 3) uint8 RGB, from `inspection.preprocessing.to_rgb8`.
        spec: The bundle's preprocessing: how fine the network sees.
    """
    light = _light(image, *(-(-side // SAMPLES) for side in image.shape[:2]))
    rows, columns = (side // CELL for side in light.shape)
    cells = light[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    both, less = sharpness(image, spec)
    return FrameMeasures(
        shape=(image.shape[0], image.shape[1]),
        brightness=float(light.mean()),
        white_share=float((light >= WHITE_LEVEL).mean()),
        sharpness=both,
        sharpness_one_way=less,
        thumbnail=cells.sum(axis=(1, 3), dtype=np.uint16),
    )


def sharpness(image: NDArray[np.uint8], spec: Preprocessing) -> tuple[float, float]:
    """Compare differences over one pixel of the canvas with those over `FAR` of them.

    It is a ratio of energies at two scales of the same picture, so neither contrast nor the amount
    of detail counts: what is smooth differs over `FAR` pixels by `FAR` times as much, whatever it
    shows, and an edge in focus by little more than over one. Each difference is multiplied with
    that of the same place a little aside. Noise there is another, so noise does not count either:
    without that, noise of 2 levels made hazelnuts out of focus, σ = 3 px of 256, as sharp as any.

    Returns:
        Of both directions together and of the one with less, which motion along it blurs: from
        `SMOOTHEST` to `SHARPEST`, which is also said of what shows too little to tell.
    """
    down, along = (_energies(image, spec, axis) for axis in (0, 1))
    return _ratio(down + along), min(_ratio(down), _ratio(along))


def limits_of(good: Sequence[FrameMeasures]) -> FrameLimits:
    """State what a product's frames may measure, by one rule for all products.

    A limit lies beyond the extreme of good parts by half of what lies between that and their
    median, by more if they are few, and by a fixed step at least. Levels and sharpness are compared
    as logarithms.

    Args:
        good: Of good parts, in the order in which they were taken.

    Raises:
        NotEnoughSamplesError: There is none.
    """
    if not good:
        raise NotEnoughSamplesError("limits of frames need at least one good part, got none")
    less_sharp = LESS_SHARP ** _few(good)
    gaps = [gap for pair in pairwise(good) if (gap := change(*pair)) is not None]
    return FrameLimits(
        least_brightness=_least([each.brightness for each in good], DARKER),
        most_white_share=_most_white([each.white_share for each in good]),
        least_sharpness=max(_least([each.sharpness for each in good], less_sharp), SMOOTHEST),
        least_sharpness_one_way=max(
            _least([each.sharpness_one_way for each in good], less_sharp), SMOOTHEST
        ),
        least_change=min(ALIKE * _low(np.array(gaps)), HARDLY) if gaps else 0.0,
    )


def loosest(limits: Iterable[FrameLimits]) -> FrameLimits:
    """Allow what any of several products allows; at least one."""
    every = tuple(limits)
    return FrameLimits(
        least_brightness=min(each.least_brightness for each in every),
        most_white_share=max(each.most_white_share for each in every),
        least_sharpness=min(each.least_sharpness for each in every),
        least_sharpness_one_way=min(each.least_sharpness_one_way for each in every),
        least_change=min(each.least_change for each in every),
    )


def check(
    measures: FrameMeasures, previous: FrameMeasures | None, limits: FrameLimits
) -> tuple[Reason, str] | None:
    """Say why a frame cannot be judged, or None if it can.

    Args:
        measures: Of the frame.
        previous: Of the camera's frame before; None if it must not be asked.
        limits: Of the frame's product.
    """
    if measures.brightness < limits.least_brightness:
        return Reason.TOO_DARK, (
            f"the mean brightness is {measures.brightness:.1f} of 255, at least "
            f"{limits.least_brightness:.1f} is expected; look at lamp, exposure and lens cap"
        )
    if measures.white_share > limits.most_white_share:
        return Reason.OVEREXPOSED, (
            f"{measures.white_share:.1%} of the image is white, at most "
            f"{limits.most_white_share:.1%} is expected; look at lamp, exposure and stray light"
        )
    for way, sharp, least in (
        ("", measures.sharpness, limits.least_sharpness),
        (" along one direction", measures.sharpness_one_way, limits.least_sharpness_one_way),
    ):
        if sharp < least:
            return Reason.BLURRED, (
                f"the sharpness{way} is {sharp:.2f}, at least {least:.2f} is expected; look at "
                "focus, lens and motion"
            )
    changed = None if previous is None else change(measures, previous)
    if changed is not None and changed < limits.least_change:
        return Reason.FROZEN, (
            f"the image differs from the one before by {changed:.2f} levels, at least "
            f"{limits.least_change:.2f} is expected; look at camera, cable and part feed"
        )
    return None


def change(one: FrameMeasures, other: FrameMeasures) -> float | None:
    """Mean difference of two frames, levels from 0 to 255; None if their shapes differ."""
    if one.shape != other.shape:
        return None
    return float(np.abs(one.thumbnail.astype(np.int32) - other.thumbnail).mean()) / CELL**2


def _light(image: NDArray[np.uint8], down: int, along: int) -> NDArray[np.uint8]:
    """Sample the brightest channel every `down` rows and `along` columns."""
    some = image[::down, ::along]
    return np.maximum(np.maximum(some[:, :, 0], some[:, :, 1]), some[:, :, 2])


def _energies(image: NDArray[np.uint8], spec: Preprocessing, axis: int) -> NDArray[np.float64]:
    """Energies of differences along an axis, (3,) squared levels: fine, coarse, coarse with noise.

    Zeros if the frame is too small.
    """
    steps = _canvas_pixel(image.shape, spec)
    lies = image if axis == 0 else image.transpose(1, 0, 2)
    # Aside by half a pixel of the canvas: beyond the noise that demosaicing has spread.
    near, aside = steps[axis], (steps[1 - axis] + 1) // 2
    height, width = lies.shape[0] - FAR * near, lies.shape[1] - aside
    if height < 1 or width < 1:
        return np.zeros(3)
    down, along = -(-height // SAMPLES), -(-width // SAMPLES)

    def samples(top: int, left: int) -> NDArray[np.int32]:
        light = _light(lies[top : top + height, left : left + width], down, along)
        return light.ravel().astype(np.int32)

    here, beside = samples(0, 0), samples(0, aside)
    far = here - samples(FAR * near, 0)
    sums = (
        # 96 x 96 x 255 x 255 is less than 2^31: exact, in whatever order a machine adds.
        np.dot(here - samples(near, 0), beside - samples(near, aside)),
        np.dot(far, beside - samples(FAR * near, aside)),
        np.dot(far, far),
    )
    return np.array(sums, np.float64) / len(here)


def _ratio(energies: NDArray[np.float64]) -> float:
    fine, coarse, noisy = map(float, energies)
    if coarse < max(TELLING, AGREED * noisy):
        return SHARPEST
    return min(max(FAR**2 * fine / coarse, SMOOTHEST), SHARPEST)


def _canvas_pixel(shape: tuple[int, ...], spec: Preprocessing) -> tuple[int, int]:
    """How many pixels of a frame make one of its canvas, down and along; at least 1."""
    rows, columns = map_shape(shape, spec)
    return max(1, shape[0] // (PATCH_PX * rows)), max(1, shape[1] // (PATCH_PX * columns))


def _least(values: Sequence[float], factor: float) -> float:
    logs = np.log(np.maximum(values, 1e-3))
    low = _low(logs)
    return math.exp(low - max(math.log(factor), _beyond(logs, low)))


def _most_white(shares: Sequence[float]) -> float:
    high = -_low(-np.array(shares))
    return min(high + max(WHITER, _beyond(np.array(shares), high)), 1.0)


def _beyond(values: NDArray[np.float64], extreme: float) -> float:
    return abs(float(np.median(values)) - extreme) / 2 * _few(values)


def _few(good: Sized) -> float:
    """How much wider limits are for being of few good parts."""
    return 1.0 + FEW / len(good)


def _low(values: NDArray[np.float64]) -> float:
    """The lowest value, but for the `EXTREME` share of them."""
    return float(np.sort(values)[int(EXTREME * len(values))])
