"""Copies that lie aside show the same defect, where the grid cuts it otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.shifts import REACH_PX, SHIFTS, draw_shifts, shifted_canvas, shifted_share

SIDE = 32


def speck(row: int, column: int, side: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A canvas with a white square, and its outline."""
    outline = np.zeros((SIDE, SIDE), np.float32)
    outline[row : row + side, column : column + side] = 1.0
    canvas = np.repeat((255 * outline).astype(np.uint8)[:, :, None], 3, axis=2)
    return canvas, outline


def test_shifts_differ_and_none_is_in_place_or_farther_than_half_a_patch() -> None:
    for seed in range(20):
        shifts = draw_shifts(np.random.default_rng(seed))

        assert len(set(shifts)) == SHIFTS
        assert (0, 0) not in shifts
        assert max(abs(step) for shift in shifts for step in shift) <= REACH_PX


@pytest.mark.parametrize("shift", [(1, 0), (-3, 2), (4, -4)])
def test_the_outline_moves_with_the_picture(shift: tuple[int, int]) -> None:
    canvas, outline = speck(14, 15)
    down, right = shift

    moved = shifted_canvas(canvas, shift)

    shown = np.argwhere(moved[:, :, 0] == 255)
    assert shown.min(axis=0).tolist() == [14 + down, 15 + right]
    assert len(shown) == 4
    expected = np.zeros((4, 4))
    np.add.at(expected, tuple((shown // 8).T), 1 / 64)
    assert shifted_share(outline, shift) == pytest.approx(expected, abs=1e-6)


def test_a_speck_on_one_patch_touches_others_in_some_copy() -> None:
    _, outline = speck(8, 8)
    alone = shifted_share(outline, (2, 2))

    aside = shifted_share(outline, (-1, -1))

    assert (alone > 0).sum() == 1
    assert (aside > 0).sum() == 4


def test_what_leaves_the_picture_is_no_defect_and_what_is_bare_is_mirrored() -> None:
    canvas, outline = speck(0, 0)
    canvas[4, :, 0] = 100

    moved = shifted_canvas(canvas, (-2, 0))
    bare = shifted_canvas(canvas, (2, 0))

    assert not shifted_share(outline, (-2, 0)).any()
    assert not (moved == 255).any()
    assert bare.shape == canvas.shape
    assert (bare[6, :, 0] == 100).all()
    # Rows 2, 1 of the picture lie above its row 0, and its speck is mirrored with its row 1.
    assert bare[1, 0, 0] == 255
