"""Whether a frame can be judged at all: dark, washed out, blurred, or the same picture again.

What is measured, what a product's good parts say of it, and the decision. Plain numpy on whole
numbers, so that trainer and station measure alike to the last bit: there is no resize to agree on.
Who remembers the frame before: `edge.plausibility`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from inspection.errors import InputError, NotEnoughSamplesError
from inspection.preprocessing import PATCH_PX, Preprocessing, map_shape
from inspection.verdicts import Reason

SAMPLES = 128
"""Samples a side, at most: more tell no more, and a frame of 1080p must cost less than 0.5 ms."""

CELL = 4
"""Samples a side whose sum is one cell of the thumbnail: so many leave of sensor noise and of an
encoder's errors too little to be taken for another part."""

WHITE_LEVEL = 250
"""A sample whose brightest channel reaches it is white: encoders and filters blur 255 a little."""

FAR = 8
"""Over so many pixels of the canvas coarse differences are taken; fine ones over one."""

SMOOTHEST, SHARPEST = 1.0, float(FAR**2)
"""Ends of sharpness: without any detail finer than `FAR` pixels, and noise without any coarser."""

TELLING = 4.0
"""Coarse differences, squared levels, below which a picture shows too little to be called blurred:
noise of 4 levels leaves an error of 0.3 in the mean of the products."""

EXTREME = 0.01
"""Share of good parts whose extremes are left out: one bad picture among hundreds of good ones
must not switch a check off."""

DARKER, LESS_SHARP = 2.0, 1.25
"""Factors that limits lie beyond the extremes of good parts, at least."""

WHITER = 0.1
"""Share of the image by which more of it may be white than of any good part, at least."""

ALIKE = 0.5
"""Two frames in turn may differ by this share of the least that good parts in turn differed by."""

HARDLY = 2.0
"""Levels; what differs by more is not the same picture, whatever the product."""


@dataclass(frozen=True, slots=True)
class FrameMeasures:
    """What is measured of a frame; light is the brightest of a pixel's three channels.

    Attributes:
        brightness: Mean light, levels from 0 to 255.
        white_share: Share of samples that are white, from 0 to 1.
        sharpness: From `SMOOTHEST` to `SHARPEST`, see `sharpness`.
        thumbnail: (rows, columns) uint16, light summed over `CELL` × `CELL` samples.
    """

    brightness: float
    white_share: float
    sharpness: float
    thumbnail: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """Beyond them a frame cannot be judged; a measure on a limit is within. Part of the bundle.

    Attributes:
        least_brightness: Levels from 0 to 255.
        most_white_share: From 0 to 1; 1 allows anything.
        least_sharpness: From `SMOOTHEST`, which allows anything, to `SHARPEST`.
        least_change: Mean difference from the frame before, levels from 0, which allows anything.
    """

    least_brightness: float
    most_white_share: float
    least_sharpness: float
    least_change: float

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("least_brightness", self.least_brightness, 0.0, 255.0),
            ("most_white_share", self.most_white_share, 0.0, 1.0),
            ("least_sharpness", self.least_sharpness, SMOOTHEST, SHARPEST),
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
    return FrameMeasures(
        brightness=float(light.mean()),
        white_share=float((light >= WHITE_LEVEL).mean()),
        sharpness=sharpness(image, spec),
        thumbnail=cells.sum(axis=(1, 3), dtype=np.uint16),
    )


def sharpness(image: NDArray[np.uint8], spec: Preprocessing) -> float:
    """Compare differences over one pixel of the canvas with those over `FAR` of them.

    It is a ratio of energies at two scales of the same picture, so neither contrast nor the amount
    of detail counts: what is smooth differs over `FAR` pixels by `FAR` times as much, whatever it
    shows, and an edge in focus by little more than over one. Each difference is multiplied with
    that of the same place a little aside. Noise there is another, so noise does not count either:
    without that, noise of 2 levels made hazelnuts out of focus, σ = 3 px of 256, as sharp as any.
    The direction with less counts, as motion blurs along one.

    Returns:
        From `SMOOTHEST` to `SHARPEST`, which is also said of what shows too little to tell.
    """
    ratios = [
        FAR**2 * max(fine, 0.0) / coarse
        for fine, coarse in (_differences(image, spec, axis) for axis in (0, 1))
        if coarse >= TELLING
    ]
    return min(max(min(ratios, default=SHARPEST), SMOOTHEST), SHARPEST)


def limits_of(good: Sequence[FrameMeasures]) -> FrameLimits:
    """State what a product's frames may measure, by one rule for all products.

    A limit lies beyond the extreme of good parts, by as much as they spread (robust standard
    deviation), and by a fixed step at least. Levels and sharpness are compared as logarithms.

    Args:
        good: Of good parts, in the order in which they were taken.

    Raises:
        NotEnoughSamplesError: There is none.
    """
    if not good:
        raise NotEnoughSamplesError("limits of frames need at least one good part, got none")
    brightness = np.array([each.brightness for each in good])
    white = np.array([each.white_share for each in good])
    sharp = np.array([each.sharpness for each in good])
    gaps = [gap for pair in zip(good, good[1:], strict=False) if (gap := change(*pair)) is not None]
    whitest = -_low(-white)
    return FrameLimits(
        least_brightness=_below(brightness, DARKER),
        # Where hardly anything is not white, that little is what must not be lost.
        most_white_share=min(
            whitest + max(WHITER, _spread(white)), whitest + (1.0 - whitest) / DARKER
        ),
        least_sharpness=max(_below(sharp, LESS_SHARP), SMOOTHEST),
        least_change=min(ALIKE * _low(np.array(gaps)), HARDLY) if gaps else 0.0,
    )


def loosest(limits: Iterable[FrameLimits]) -> FrameLimits:
    """Allow what any of several products allows; at least one."""
    every = tuple(limits)
    return FrameLimits(
        least_brightness=min(each.least_brightness for each in every),
        most_white_share=max(each.most_white_share for each in every),
        least_sharpness=min(each.least_sharpness for each in every),
        least_change=min(each.least_change for each in every),
    )


def check(
    measures: FrameMeasures, previous: NDArray[np.uint16] | None, limits: FrameLimits
) -> tuple[Reason, str] | None:
    """Say why a frame cannot be judged, or None if it can.

    Args:
        measures: Of the frame.
        previous: Thumbnail of the camera's frame before; None if it must not be asked.
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
    if measures.sharpness < limits.least_sharpness:
        return Reason.BLURRED, (
            f"the sharpness is {measures.sharpness:.2f}, at least {limits.least_sharpness:.2f} is "
            "expected; look at focus, lens and motion"
        )
    changed = None if previous is None else _change(measures.thumbnail, previous)
    if changed is not None and changed < limits.least_change:
        return Reason.FROZEN, (
            f"the image differs from the one before by {changed:.2f} levels, at least "
            f"{limits.least_change:.2f} is expected; look at camera, cable and part feed"
        )
    return None


def change(one: FrameMeasures, other: FrameMeasures) -> float | None:
    """Mean difference of two frames, levels from 0 to 255; None if their shapes differ."""
    return _change(one.thumbnail, other.thumbnail)


def _change(one: NDArray[np.uint16], other: NDArray[np.uint16]) -> float | None:
    if one.shape != other.shape:
        return None
    return float(np.abs(one.astype(np.int32) - other).mean()) / CELL**2


def _light(image: NDArray[np.uint8], down: int, along: int) -> NDArray[np.uint8]:
    """Sample the brightest channel every `down` rows and `along` columns."""
    some = image[::down, ::along]
    return np.maximum(np.maximum(some[:, :, 0], some[:, :, 1]), some[:, :, 2])


def _differences(
    image: NDArray[np.uint8], spec: Preprocessing, axis: int
) -> tuple[float, float]:
    """Mean products of neighbouring differences along an axis: fine and coarse, squared levels."""
    steps = _canvas_pixel(image.shape, spec)
    lies = image if axis == 0 else image.transpose(1, 0, 2)
    # Aside by half a pixel of the canvas: beyond the noise that demosaicing has spread.
    near, aside = steps[axis], (steps[1 - axis] + 1) // 2
    height, width = lies.shape[0] - FAR * near, lies.shape[1] - aside
    if height < 1 or width < 1:
        return 0.0, 0.0
    down, along = -(-height // SAMPLES), -(-width // SAMPLES)

    def samples(top: int, left: int) -> NDArray[np.int32]:
        return _light(lies[top : top + height, left : left + width], down, along).astype(np.int32)

    here, beside = samples(0, 0), samples(0, aside)
    fine, coarse = (
        float(np.mean((here - samples(far, 0)) * (beside - samples(far, aside))))
        for far in (near, FAR * near)
    )
    return fine, coarse


def _canvas_pixel(shape: tuple[int, ...], spec: Preprocessing) -> tuple[int, int]:
    """How many pixels of a frame make one of its canvas, down and along; at least 1."""
    rows, columns = map_shape(shape, spec)
    return max(1, shape[0] // (PATCH_PX * rows)), max(1, shape[1] // (PATCH_PX * columns))


def _below(values: NDArray[np.float64], factor: float) -> float:
    """Divide the low extreme by a factor, or by how much the values spread if that is more."""
    logs = np.log(np.maximum(values, 1e-3))
    return math.exp(_low(logs) - max(math.log(factor), _spread(logs)))


def _low(values: NDArray[np.float64]) -> float:
    """The lowest value, but for the `EXTREME` share of them."""
    return float(np.sort(values)[int(EXTREME * len(values))])


def _spread(values: NDArray[np.float64]) -> float:
    """Robust standard deviation: 1.4826 median absolute deviations."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
