"""Views cover a canvas once, whatever its size, and what is put together lies where it was seen."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.preprocessing import Preprocessing, map_shape, prepare, resize_exactly
from inspection.scoring import Scoring, image_score
from inspection.verdicts import find_regions
from inspection.views import (
    RECOGNISED_VIEWS,
    over_views,
    recognised_by,
    recognised_patches,
    views_of,
)

TILES = Preprocessing(64, "tiles", overlap_px=16)  # 8 × 8 patches
LETTERBOX = Preprocessing(64, "letterbox")

tilings = st.builds(
    lambda cells, overlap: Preprocessing(16 * cells, "tiles", overlap_px=8 * min(overlap, cells)),
    st.integers(2, 6),
    st.integers(0, 6),
)
maps = st.tuples(st.integers(1, 60), st.integers(1, 60))

claim = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def numbered(shape):
    """A canvas whose pixels name their patch: row, column, and which of all it is."""
    rows, columns = np.indices(shape).astype(np.uint8)
    patches = np.stack([rows, columns, rows * 7 + columns], axis=2)
    return patches.repeat(8, axis=0).repeat(8, axis=1)


def first_pixels(pixels, view):
    return pixels[::8, ::8]


@claim
@given(shape=maps, spec=tilings)
def test_every_patch_belongs_to_exactly_one_view_that_shows_it(shape, spec):
    side, owners = spec.grid[0], Counter()

    for view in views_of(shape, spec):
        assert view.top <= view.rows.start < view.rows.stop <= view.top + side
        assert view.left <= view.columns.start < view.columns.stop <= view.left + side
        owners.update(
            (row, column)
            for row in range(view.rows.start, view.rows.stop)
            for column in range(view.columns.start, view.columns.stop)
        )

    assert owners == Counter(np.ndindex(shape))


@claim
@given(patches=st.integers(1, 200), spec=tilings)
def test_neighbours_overlap_enough_and_a_patch_lies_no_deeper_in_any_other_view(patches, spec):
    side, views = spec.grid[0], views_of((1, patches), spec)
    starts = [view.left for view in views]

    def depth(start, patch):
        return min(patch - start, start + side - 1 - patch)

    assert starts[0] == 0
    assert starts[-1] == max(0, patches - side)
    assert all(b - a <= side - spec.overlap_px // 8 for a, b in pairwise(starts))
    for view in views:
        for patch in range(view.columns.start, view.columns.stop):
            # At the border of the canvas no view is deep, and the nearest one has the patch.
            if starts[0] + side // 2 <= patch < starts[-1] + side // 2:
                assert depth(view.left, patch) == max(depth(start, patch) for start in starts)


@claim
@given(shape=maps, spec=tilings)
def test_what_is_put_together_lies_where_it_was_seen(shape, spec):
    canvas = numbered(shape)

    merged = over_views(canvas, spec, first_pixels)

    np.testing.assert_array_equal(merged, canvas[::8, ::8])


@pytest.mark.parametrize("spec", [TILES, LETTERBOX, Preprocessing(64)])
def test_views_that_agree_have_no_seam(spec):
    canvas = prepare(np.full((70, 500, 3), 90, np.uint8), spec, resize_exactly)

    merged = over_views(canvas, spec, lambda pixels, _: pixels[::8, ::8, 0] * 0.5)

    assert merged.shape == map_shape((70, 500), spec)
    assert (merged == 45).all()


def test_a_stretched_frame_is_one_view_of_the_same_pixels():
    spec = Preprocessing(64)
    frame = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    canvas = prepare(frame, spec, resize_exactly)

    (view,) = views_of(spec.grid, spec)

    assert view.pixels(canvas, spec).tobytes() == canvas.tobytes()
    assert view.inspected(np.ones(spec.grid, np.uint8), spec).all()


def test_padding_is_the_mirror_image_and_belongs_to_nobody():
    canvas = numbered((3, 8))
    (view,) = views_of((3, 8), LETTERBOX)

    pixels = view.pixels(canvas, LETTERBOX)
    inspected = view.inspected(np.ones((3, 8), np.uint8), LETTERBOX)

    assert pixels.shape == (64, 64, 3)
    assert pixels.tobytes() == np.concatenate([canvas, canvas[::-1], canvas[:16]]).tobytes()
    assert inspected[:3].all()
    assert not inspected[3:].any()


def test_what_is_not_inspected_is_marked_in_the_view_that_it_belongs_to():
    foreground = np.ones((8, 20), np.uint8)
    foreground[2, 13] = 0

    marked = [view.inspected(foreground, TILES) for view in views_of((8, 20), TILES)]

    assert sum(int(each.sum()) for each in marked) == 8 * 20 - 1


def test_a_product_is_recognised_by_views_from_all_over_the_frame():
    views = views_of((200, 90), TILES)
    chosen = recognised_by(views)

    assert len(chosen) == RECOGNISED_VIEWS < len(views)
    assert (chosen[0], chosen[-1]) == (views[0], views[-1])
    assert recognised_by(views[:3]) == views[:3]


def test_the_patches_a_product_is_recognised_by_are_those_of_the_frame_if_views_are_few():
    canvas = numbered((9, 12))

    seen = recognised_patches(canvas, TILES, lambda pixels: pixels[::8, ::8])

    expected = canvas[::8, ::8].reshape(-1, 3)
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, expected.tolist()))


@claim
@given(
    height=st.integers(40, 600),
    width=st.integers(40, 600),
    place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    fit=st.sampled_from(["stretch", "letterbox", "tiles"]),
)
def test_a_hot_patch_lands_on_the_pixels_that_it_has_seen(height, width, place, fit):
    spec = Preprocessing(64, fit)
    y, x = int(place[0] * height), int(place[1] * width)
    # The patch that most of the pixel goes to is where its own value went.
    shape = map_shape((height, width), spec)
    patch = (2 * y + 1) * shape[0] // (2 * height), (2 * x + 1) * shape[1] // (2 * width)
    anomaly_map = np.zeros(shape)
    anomaly_map[patch] = 1

    (box,) = find_regions(anomaly_map, 0.5, (height, width, 3))

    assert box.x_px <= x < box.x_px + box.width_px <= width
    assert box.y_px <= y < box.y_px + box.height_px <= height
    assert box.width_px <= width / shape[1] + 2
    assert box.height_px <= height / shape[0] + 2


def test_the_score_of_a_tiled_frame_rests_on_as_many_patches_as_that_of_one_view():
    scoring = Scoring(k=1, temperature=1.0, top_fraction=0.1)
    anomaly_map = np.zeros((40, 100))
    anomaly_map[3, 50:56] = 1  # six patches of 64 in a view, of 4000 in the frame

    assert image_score(anomaly_map, scoring, TILES.patches) == 1
    assert image_score(anomaly_map, scoring) == pytest.approx(6 / 400)


def test_patches_that_a_frame_is_short_of_count_as_nothing():
    scoring = Scoring(k=1, temperature=1.0, top_fraction=0.25)  # 16 of 64

    assert image_score(np.ones((1, 8)), scoring, LETTERBOX.patches) == 0.5
