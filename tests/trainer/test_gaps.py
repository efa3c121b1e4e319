"""The units of a product's score follow from how its good parts differ, and from nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inspection.errors import InputError
from trainer.gaps import POSITION_SHARE, SAME, TEMPERATURE_FACTOR, position_weight, temperature

SIDE, D, IMAGES = 8, 16, 8
PLACES = np.argwhere(np.ones((SIDE, SIDE)))
FOLDS = np.arange(IMAGES) % 2


def anchors() -> NDArray[np.float32]:
    """(64, D): what each place of a part looks like."""
    return np.random.default_rng(1).normal(0, 1, (SIDE**2, D)).astype(np.float32)


def weight_of(shown: NDArray[np.integer], grain: float = 0.02, seed: int = 0) -> float:
    """λ of images that show, at each of their places, the place of the part with that number.

    Args:
        shown: (IMAGES, 64).
        grain: How much two looks at one place differ.
        seed: Of the grain.
    """
    features = anchors()[shown.ravel()]
    features = features + np.random.default_rng(seed).normal(0, grain, features.shape)
    image = np.repeat(np.arange(IMAGES), SIDE**2)
    position, rng = np.tile(PLACES, (IMAGES, 1)), np.random.default_rng(2)
    return position_weight(features.astype(np.float32), image, position, FOLDS, rng)


def in_place() -> NDArray[np.int64]:
    return np.tile(np.arange(SIDE**2), (IMAGES, 1))


def usual_gap(grain: float) -> float:
    """Between two looks at one place, as D dimensions differ by N(0, 2 · grain²)."""
    return float(grain * (2 * D) ** 0.5)


def test_in_parts_that_lie_in_a_fixture_a_patch_of_displacement_costs_half_a_usual_gap() -> None:
    weight = weight_of(in_place())

    # The nearest of four looks is nearer than a usual one.
    assert 0.5 < weight / (POSITION_SHARE * usual_gap(0.02)) < 1.0


def test_parts_that_lie_anywhere_are_hardly_compared_by_place() -> None:
    rng = np.random.default_rng(3)
    anywhere = np.stack([rng.permutation(SIDE**2) for _ in range(IMAGES)])

    assert weight_of(anywhere) < weight_of(in_place()) / 8


def test_the_cost_falls_with_the_square_of_the_usual_displacement() -> None:
    moved = in_place().reshape(IMAGES, SIDE, SIDE)
    moved[1::2] = np.roll(moved[1::2], 2, axis=2)  # the images of one fold by two columns

    found = weight_of(moved.reshape(IMAGES, -1))

    assert found == pytest.approx(weight_of(in_place()) / 2**2, rel=0.1)


def test_the_weight_is_in_units_of_feature_distance() -> None:
    assert weight_of(in_place(), 0.04) == pytest.approx(2 * weight_of(in_place(), 0.02), rel=0.01)


def test_a_patch_does_not_find_its_like_in_its_own_image() -> None:
    # Both halves of an image are the very same, and none is like that of another image.
    rng = np.random.default_rng(4)
    half = rng.normal(0, 1, (IMAGES, SIDE**2 // 2, D)).astype(np.float32)
    features = np.concatenate([half, half], axis=1).reshape(-1, D)
    image = np.repeat(np.arange(IMAGES), SIDE**2)

    assert position_weight(features, image, np.tile(PLACES, (IMAGES, 1)), FOLDS, rng) > 0


def test_copies_of_one_image_say_nothing_of_places() -> None:
    assert weight_of(in_place(), grain=0.0) == 0.0


def test_the_temperature_is_the_median_squared_gap_of_what_differs() -> None:
    gaps = torch.tensor([0.0, SAME / 2, 0.3, 0.5, 0.9])

    assert temperature("nut", gaps) == pytest.approx(TEMPERATURE_FACTOR * 0.25)


def test_a_background_that_is_always_the_same_does_not_set_the_temperature() -> None:
    gaps = torch.cat([torch.zeros(900), torch.full((100,), 0.4)])

    assert temperature("nut", gaps) == pytest.approx(TEMPERATURE_FACTOR * 0.16)


def test_good_parts_that_are_copies_of_one_image_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="images of category nut are copies of one another"):
        temperature("nut", torch.zeros(100))
