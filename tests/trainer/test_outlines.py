"""Outlines become shares of patches."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.coco import Box
from trainer.outlines import boxes_outline, covered_share, marked_patches


def share_of(outline: np.ndarray) -> np.ndarray:
    return covered_share(outline, (8, 8))


@pytest.mark.parametrize("shape", [(64, 64), (80, 96), (8, 640), (11, 9), (1024, 100)])
def test_the_shares_of_all_patches_are_the_share_of_the_image(shape: tuple[int, int]) -> None:
    outline = (np.random.default_rng(1).random(shape) < 0.3).astype(np.float32)

    share = share_of(outline)

    assert (share.shape, share.dtype) == ((8, 8), np.float32)
    assert share.mean() == pytest.approx(outline.mean(), abs=1e-6)
    assert np.all((share >= 0) & (share <= 1))
    assert np.all(share_of(np.ones(shape, np.float32)) == pytest.approx(1))
    assert not share_of(np.zeros(shape, np.float32)).any()


def test_the_map_lies_over_the_whole_image() -> None:
    outline = np.zeros((80, 160), np.float32)
    outline[10:20, 40:60] = 1  # second row, third column of patches of 10 × 20 px

    share = share_of(outline)

    assert share[1, 2] == pytest.approx(1)
    assert share.sum() == pytest.approx(1)


def test_a_single_pixel_of_a_large_image_is_not_lost() -> None:
    outline = np.zeros((2000, 3000), np.float32)
    outline[1999, 0] = 1

    share = share_of(outline)

    assert np.flatnonzero(share).tolist() == [56]
    assert share[7, 0] == pytest.approx(64 / 6_000_000)


def test_boxes_cover_parts_of_pixels_and_overlaps_count_once() -> None:
    outline = boxes_outline([Box(1.5, 2, 2, 1), Box(2, 2, 1, 1)], (10, 12))

    assert outline.shape == (10, 12)
    assert outline[2, 1:4].tolist() == [0.5, 1, 0.5]
    assert outline.sum() == 2


def test_a_box_smaller_than_a_pixel_is_not_lost() -> None:
    assert boxes_outline([Box(3.2, 4.2, 0.1, 0.1)], (10, 12))[4, 3] == pytest.approx(0.01)


def test_a_box_over_the_edge_by_rounding_is_cut_off_there() -> None:
    outline = boxes_outline([Box(-0.4, 8, 2.4, 2.4)], (10, 12))

    assert outline.sum() == pytest.approx(4)
    assert outline.max() <= 1


def test_every_region_marks_a_patch_however_small() -> None:
    share = np.zeros((8, 8), np.float32)
    share[0:3, 0:3] = 0.9
    share[2, 2] = 0.2
    share[6, 6], share[6, 7] = 0.02, 0.01

    marked = marked_patches(share, 0.5)

    assert marked[6].tolist() == [False] * 6 + [True, False]
    assert marked.sum() == 8 + 1
    assert not marked_patches(np.zeros((8, 8)), 0.5).any()
