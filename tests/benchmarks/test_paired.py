"""A system's figures, and those of every draw, are those of the images that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.paired import Answers, measure, regions_of
from inspection.bootstrap import draw
from inspection.metrics import auroc
from inspection.pixel_metrics import COARSE_BINS, PixelCurves
from trainer.dataset import Sample

IMAGES, SIDE = 12, 16
DEFECTS = np.arange(IMAGES) % 3 == 0


def unchanged(anomaly_map: NDArray[np.float32], _: tuple[int, int]) -> NDArray[np.float32]:
    return anomaly_map


def regions() -> list[NDArray[np.int32]]:
    """Two squares in each defective image, none in a good one."""
    numbered = []
    for defective in DEFECTS:
        image = np.zeros((SIDE, SIDE), np.int32)
        if defective:
            image[2:5, 2:5], image[8:14, 9:12] = 1, 2
        numbered.append(image)
    return numbered


def answers(rng: np.random.Generator) -> Answers:
    """Better than chance; some scores are equal, and every value is the middle of a bin."""
    scores = rng.normal(size=IMAGES) + DEFECTS
    scores[1::4] = scores[0]
    maps = []
    for image in regions():
        noise = rng.integers(0, COARSE_BINS // 2, image.shape) + (image > 0) * rng.integers(
            0, COARSE_BINS // 2
        )
        maps.append(((noise + 0.5) / COARSE_BINS).astype(np.float32))
    maps[0][0, 0], maps[1][0, 0] = 0.0, 1.0
    return Answers(scores, maps, unchanged)


def again(counts: NDArray[np.int64]) -> Sequence[int]:
    """Images of one draw, as often as they were drawn."""
    return [i for i, count in enumerate(counts) for _ in range(int(count))]


def test_the_figures_of_a_draw_are_those_of_the_drawn_images() -> None:
    rng = np.random.default_rng(2)
    said, truth, draws = answers(rng), regions(), draw(DEFECTS, 20, rng)

    figures = measure(said, DEFECTS, truth, draws)

    drawn = [auroc(said.scores[again(each)], DEFECTS[again(each)]) for each in draws]
    assert figures.drawn_image_auroc == pytest.approx(drawn)
    expected = []
    for each in draws:
        curves = PixelCurves(0.0, 1.0, bins=COARSE_BINS)
        for i in again(each):
            curves.add(said.maps[i], truth[i])
        expected.append(curves.aupro())
    assert figures.drawn_aupro == pytest.approx(expected, abs=1e-9)
    assert np.ptp(expected) > 0


def test_the_figures_themselves_are_of_the_images_as_they_are() -> None:
    rng = np.random.default_rng(3)
    said, truth = answers(rng), regions()

    figures = measure(said, DEFECTS, truth, draw(DEFECTS, 20, rng))

    curves = PixelCurves(0.0, 1.0)
    for anomaly_map, numbered in zip(said.maps, truth, strict=True):
        curves.add(anomaly_map, numbered)
    assert figures.image_auroc == auroc(said.scores, DEFECTS)
    assert figures.aupro == curves.aupro()


@pytest.mark.parametrize("maps", [True, False])
def test_without_maps_or_without_masks_there_is_no_aupro(maps: bool) -> None:
    rng = np.random.default_rng(4)
    said = answers(rng)
    said = said if maps else Answers(said.scores, [], unchanged)

    figures = measure(said, DEFECTS, None if maps else regions(), draw(DEFECTS, 20, rng))

    assert figures.aupro is None
    assert figures.drawn_aupro is None


def test_regions_are_numbered_at_the_size_of_the_image(tmp_path: Path) -> None:
    image, mask = np.full((10, 20, 3), 90, np.uint8), np.zeros((10, 20), np.uint8)
    mask[1:3, 1:3], mask[6:9, 12:15] = 255, 255
    cv2.imwrite(str(tmp_path / "part.png"), image)
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    samples = [
        Sample(tmp_path / "part.png"),
        Sample(tmp_path / "part.png", "hole", tmp_path / "mask.png"),
    ]

    good, defective = regions_of(samples)

    assert good.shape == (10, 20)
    assert not good.any()
    assert sorted(np.unique(defective)) == [0, 1, 2]
    assert ((defective > 0) == (mask > 0)).all()
