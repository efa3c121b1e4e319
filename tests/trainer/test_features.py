"""Features on disk are those of each image, whatever views they were seen in."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from inspection.frame_checks import FrameMeasures, measure
from inspection.preprocessing import Preprocessing
from inspection.views import views_of
from tests.trainer.parts import write_image
from trainer.augment import Augmentation
from trainer.banks import gather
from trainer.dataset import read_image, read_prepared
from trainer.features import extract, feature_store, frame_features
from trainer.trunk import Trunk

TILES = Preprocessing(64, "tiles", overlap_px=16)
SIZES = ((40, 96), (72, 64), (40, 96))
"""(H, W) of the images, px: of two shapes, so that patches cannot be counted in equal shares."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (5, 7, 3), np.uint8) for _ in SIZES]
    return [
        write_image(folder / f"{i}.png", cv2.resize(picture, size[::-1]))
        for i, (picture, size) in enumerate(zip(coarse, SIZES, strict=True))
    ]


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        pytest.param(Preprocessing(64), [(8, 8)] * 3, id="stretch"),
        pytest.param(Preprocessing(64, "letterbox"), [(3, 8), (8, 7), (3, 8)], id="letterbox"),
        pytest.param(TILES, [(5, 12), (9, 8), (5, 12)], id="tiles"),
    ],
)
def test_a_store_holds_the_patches_of_each_image(
    trunk: Trunk, images: list[Path], spec: Preprocessing, shapes: list[tuple[int, int]]
) -> None:
    told: list[int] = []

    with feature_store(trunk, images, spec, told.append) as store:
        assert list(store.shapes) == shapes
        for number, path in enumerate(images):
            expected = frame_features(trunk, read_prepared(path, spec), spec)
            expected = expected.reshape(-1, trunk.dimensions)
            np.testing.assert_array_equal(store.patches_of(number), expected.astype(np.float16))
            start = store.starts[number]
            np.testing.assert_array_equal(
                store.features[start : start + 1][0], expected[0].astype(np.float16)
            )

    assert sum(told) == 3


def test_each_patch_of_a_tiled_image_is_seen_where_it_lies_deepest(
    trunk: Trunk, images: list[Path]
) -> None:
    canvas = read_prepared(images[0], TILES)

    found = frame_features(trunk, canvas, TILES)

    first, second = (
        extract(trunk, view.pixels(canvas, TILES)[None])[0].reshape(8, 8, -1)
        for view in views_of((5, 12), TILES)
    )
    np.testing.assert_array_equal(found[:, :6], first[:5, :6])  # views begin at 0 and 4
    np.testing.assert_array_equal(found[:, 6:], second[:5, 2:])


def test_candidates_say_where_in_their_image_they_were(trunk: Trunk, images: list[Path]) -> None:
    left = np.zeros((2, 2), np.uint8)
    left[:, 0] = 1

    with feature_store(trunk, images, TILES, lambda done: None) as store:
        rng = np.random.default_rng(0)
        found = gather(store, left, np.arange(3), 5, rng, lambda done: None)
        maps = [store.patches_of(i).reshape(*store.shapes[i], -1) for i in range(len(images))]

        features = found.features[np.arange(len(found.features))]

    assert np.bincount(found.image).tolist() == [5 * 6, 9 * 4, 5 * 6]
    for image, (row, column), patch in zip(found.image, found.position, features, strict=True):
        np.testing.assert_array_equal(maps[image][row, column], patch)
    assert found.position[:, 1].max() == 5


def test_every_image_is_measured_as_the_camera_gave_it_and_copies_are_not(
    trunk: Trunk, images: list[Path]
) -> None:
    twice = Augmentation(("brightness",))

    with feature_store(trunk, images, TILES, lambda done: None, twice) as store:
        found = store.measures

    assert len(found) == len(images)
    for path, measures in zip(images, found, strict=True):
        expected = measure(read_image(path), TILES)
        for field in FrameMeasures.__slots__:
            np.testing.assert_array_equal(getattr(measures, field), getattr(expected, field))
