"""Masks of users: how they are laid over patches, and which are refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from inspection.errors import DatasetError
from inspection.preprocessing import Preprocessing
from tests.trainer.conftest import SMALL
from tests.trainer.parts import write_category, write_image
from trainer.cli import main
from trainer.dataset import Category, find_categories
from trainer.foreground import read_foregrounds

SPEC = Preprocessing(64)  # 8 x 8 patches


@pytest.fixture
def bolts(tmp_path: Path) -> tuple[Category, ...]:
    """One category of frames of 80 x 96 px, and an empty folder `masks`."""
    write_category(tmp_path / "parts" / "bolt", "bolt", train=4, test=0)
    (tmp_path / "masks").mkdir()
    return find_categories(tmp_path / "parts")


def a_mask(height: int, width: int) -> NDArray[np.uint8]:
    """White in the lower right quarter."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :, width // 2 :] = 255
    return mask


@pytest.mark.parametrize("size", [(80, 96), (40, 48), (800, 960), (10, 12)])
def test_a_mask_of_any_size_covers_the_same_patches(
    bolts: tuple[Category, ...], tmp_path: Path, size: tuple[int, int]
) -> None:
    write_image(tmp_path / "masks" / "bolt.png", a_mask(*size))

    found = read_foregrounds(tmp_path / "masks", bolts, SPEC)

    expected = np.zeros((8, 8), np.uint8)
    expected[4:, 4:] = 1
    np.testing.assert_array_equal(found["bolt"], expected)


@pytest.mark.parametrize("size", [(80, 96), (40, 48)])
@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        pytest.param(Preprocessing(96, "letterbox"), (10, 12), id="letterbox"),
        pytest.param(Preprocessing(32, "tiles"), (10, 12), id="tiles"),
    ],
)
def test_a_mask_covers_the_map_of_the_frames(
    bolts: tuple[Category, ...],
    tmp_path: Path,
    size: tuple[int, int],
    spec: Preprocessing,
    shape: tuple[int, int],
) -> None:
    mask = np.zeros(size, np.uint8)
    mask[:, size[1] // 2 :] = 255
    write_image(tmp_path / "masks" / "bolt.png", mask)

    found = read_foregrounds(tmp_path / "masks", bolts, spec)["bolt"]

    assert found.shape == shape
    assert not found[:, : shape[1] // 2].any()
    assert found[:, shape[1] // 2 :].all()


def test_one_white_pixel_of_a_patch_is_enough(bolts: tuple[Category, ...], tmp_path: Path) -> None:
    mask = a_mask(80, 96)
    mask[12:14, 13:15] = 255  # inside the second patch of the second row

    write_image(tmp_path / "masks" / "bolt.png", mask)

    assert read_foregrounds(tmp_path / "masks", bolts, SPEC)["bolt"][1, 1] == 1


def test_a_category_without_a_mask_is_not_named(
    bolts: tuple[Category, ...], tmp_path: Path
) -> None:
    (tmp_path / "masks" / ".hidden").touch()

    assert read_foregrounds(tmp_path / "masks", bolts, SPEC) == {}


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        pytest.param(np.zeros((80, 96), np.uint8), "leaves 0 patches of 64", id="all black"),
        pytest.param(np.full((80, 96), 90, np.uint8), "leaves 0 patches", id="dark grey"),
        pytest.param(a_mask(80, 80), "at the aspect of the frames", id="another aspect"),
        pytest.param(a_mask(96, 80), "at the aspect of the frames", id="turned"),
        pytest.param(a_mask(4, 5), "cannot use", id="too small to be an image"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused(
    bolts: tuple[Category, ...], tmp_path: Path, mask: NDArray[np.uint8], said: str
) -> None:
    path = write_image(tmp_path / "masks" / "bolt.png", mask)

    with pytest.raises(DatasetError, match=said) as caught:
        read_foregrounds(tmp_path / "masks", bolts, SPEC)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["nut.png", "bolt.jpg", "more/bolt.png"])
def test_a_file_that_is_no_categorys_mask_is_refused(
    bolts: tuple[Category, ...], tmp_path: Path, name: str
) -> None:
    (tmp_path / "masks" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "masks" / name).touch()

    with pytest.raises(DatasetError, match=r"is the mask of no category; expected bolt\.png"):
        read_foregrounds(tmp_path / "masks", bolts, SPEC)


def test_a_mask_that_is_cut_short_is_refused(bolts: tuple[Category, ...], tmp_path: Path) -> None:
    path = write_image(tmp_path / "masks" / "bolt.png", a_mask(80, 96))
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(DatasetError, match="cannot use"):
        read_foregrounds(tmp_path / "masks", bolts, SPEC)


def test_the_command_refuses_a_folder_that_is_not_there_before_it_learns(
    bolts: tuple[Category, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["fit", str(tmp_path / "parts"), "--out", str(tmp_path / "b"), *SMALL]

    assert main([*call, "--foreground", str(tmp_path / "nowhere")]) == 1

    assert "expected a folder of masks" in capsys.readouterr().err
    assert "b" not in os.listdir(tmp_path)


def test_copies_that_are_turned_are_refused_where_masks_say_what_is_inspected(
    bolts: tuple[Category, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "masks" / "bolt.png", a_mask(80, 96))
    call = ["fit", str(tmp_path / "parts"), "--out", str(tmp_path / "b"), *SMALL]

    assert main([*call, "--foreground", str(tmp_path / "masks"), "--augment", "turn"]) == 1

    assert "turned do not lie under the masks" in capsys.readouterr().err
