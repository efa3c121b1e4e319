"""Copies of good pictures: what may change in them, and that one seed draws one copy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inspection.errors import InputError
from trainer.augment import AS_THEY_ARE, COPIES, KINDS, Augmentation, brightened, rotated

S = 48


def picture(seed: int = 0) -> NDArray[np.uint8]:
    """(S, S, 3): a bright corner, and grey values of all sorts."""
    frame = np.random.default_rng(seed).integers(60, 120, (S, S, 3), dtype=np.uint8)
    frame[: S // 4, : S // 4] = 240
    return frame


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_draws_one_copy_and_another_seed_another(kind: str) -> None:
    copy = Augmentation((kind,)).copy

    drawn = {copy(picture(), [0, number]).tobytes() for number in range(12)}

    assert (copy(picture(), [0, 5]) == copy(picture(), [0, 5])).all()
    # There are only three quarter turns.
    assert len(drawn) >= 3
    assert picture().tobytes() not in drawn


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_has_the_form_of_its_picture_which_stays_as_it_is(kind: str) -> None:
    frame = picture()

    copy = Augmentation((kind,)).copy(frame, [1])

    assert copy.shape == frame.shape
    assert copy.dtype == np.uint8
    assert copy.flags.c_contiguous
    assert (frame == picture()).all()


@pytest.mark.parametrize("quarters", range(4))
def test_a_rotation_by_quarters_moves_pixels_and_changes_none(quarters: int) -> None:
    frame = picture()

    assert (rotated(frame, 90.0 * quarters) == np.rot90(frame, quarters)).all()


@pytest.mark.parametrize("degrees", [10.0, 45.0, 200.0])
def test_a_rotation_brings_in_nothing_that_the_picture_does_not_show(degrees: float) -> None:
    frame = np.full((S, S, 3), 90, np.uint8)

    assert (rotated(frame, degrees) == 90).all()


def test_brightness_keeps_the_order_of_grey_values_and_their_range() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)

    for gain, offset in ((0.8, -16.0), (1.25, 16.0), (1.0, 0.0)):
        found = brightened(ramp, gain, offset)[0, :, 0].astype(int)
        assert (np.diff(found) >= 0).all()
        assert found[127] == pytest.approx(127.5 + offset, abs=1.0)
    assert (brightened(ramp, 1.0, 0.0) == ramp).all()


def test_there_are_copies_only_where_they_differ_in_something() -> None:
    assert AS_THEY_ARE.copies == 0
    assert {Augmentation((kind,)).copies for kind in KINDS} == {COPIES}


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="augment by mirror; expected some of rotate"):
        Augmentation(("brightness", "mirror"))
