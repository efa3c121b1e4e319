"""What a folder of labelled defects is understood as, and that nothing odd in it is skipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspection.errors import DatasetError
from tests.trainer.parts import write_image
from tests.trainer.test_labelled import SHAPE, category, noise
from trainer.coco import Box
from trainer.dataset import Category
from trainer.labelled import LabelledDefect
from trainer.labelled_folder import find_labelled

MASK = np.full(SHAPE, 255, np.uint8)


@pytest.fixture
def products(tmp_path: Path) -> tuple[Category, ...]:
    category(tmp_path / "data", "bolt", masks=False, dent=2)
    return category(tmp_path / "data", "washer", masks=False, dent=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two dents and a crack on bolts, without outlines."""
    for i, name in enumerate(("dent/0.png", "dent/1.png", "crack/0.png")):
        write_image(tmp_path / "labels" / "bolt" / name, noise(i))
    return tmp_path / "labels"


def annotate(folder: Path, *images: Any, name: str = "annotations.json") -> None:
    """Write a COCO file of (file name, *boxes)."""
    document = {
        "images": [{"id": i, "file_name": image} for i, (image, *_) in enumerate(images)],
        "annotations": [
            {"image_id": i, "bbox": box} for i, (_, *boxes) in enumerate(images) for box in boxes
        ],
        "categories": [],
    }
    (folder / name).write_text(json.dumps(document))


def regions(defects: tuple[LabelledDefect, ...]) -> dict[str, str]:
    return {f"{each.defect}/{each.image.name}": each.regions for each in defects}


# --- what is read ---------------------------------------------------------------------------------


def test_masks_boxes_and_images_alone_may_be_mixed(
    root: Path, products: tuple[Category, ...]
) -> None:
    mask = write_image(root / "bolt" / "ground_truth" / "dent" / "0_mask.png", MASK)
    annotate(root / "bolt", ("dent/0.png", [0, 0, 9, 9]), ("dent/1.png", [1, 2, 3, 4]))

    found = find_labelled(root, products)

    crack, masked, boxed = found["bolt"]
    assert list(found) == ["bolt"]
    assert (crack.regions, crack.mask, crack.boxes) == ("image", None, ())
    assert (masked.regions, masked.mask, masked.boxes) == ("mask", mask, ())
    assert (boxed.regions, boxed.boxes) == ("boxes", (Box(1, 2, 3, 4),))
    assert len({defect.sha256 for defect in found["bolt"]}) == 3


def test_one_file_may_annotate_all_categories(root: Path, products: tuple[Category, ...]) -> None:
    write_image(root / "washer" / "dent" / "0.png", noise(9))
    annotate(root, ("bolt/dent/1.png", [0, 0, 9, 9]), ("washer/dent/0.png", [0, 0, 9, 9]))

    found = find_labelled(root, products)

    assert regions(found["washer"]) == {"dent/0.png": "boxes"}
    assert regions(found["bolt"])["dent/1.png"] == "boxes"


def test_the_folder_of_one_category_may_be_given(
    root: Path, products: tuple[Category, ...]
) -> None:
    annotate(root / "bolt", ("dent/1.png", [0, 0, 9, 9]))

    assert find_labelled(root / "bolt", products) == find_labelled(root, products)


def test_an_image_listed_without_a_box_is_labelled_alone(
    root: Path, products: tuple[Category, ...]
) -> None:
    annotate(root / "bolt", ("dent/1.png",))

    assert regions(find_labelled(root, products)["bolt"])["dent/1.png"] == "image"


def test_categories_with_longer_names_have_longer_paths(tmp_path: Path) -> None:
    category(tmp_path / "data" / "left", "bolt", masks=False)
    products = category(tmp_path / "data" / "right", "bolt", masks=False)
    products = (Category("left/bolt", products[0].train, (), False),)
    write_image(tmp_path / "labels" / "left" / "bolt" / "dent" / "0.png", noise(1))

    assert list(find_labelled(tmp_path / "labels", products)) == ["left/bolt"]


def test_subfolders_links_and_hidden_files_are_as_in_a_data_set(
    root: Path, products: tuple[Category, ...], tmp_path: Path
) -> None:
    write_image(tmp_path / "elsewhere" / "7.png", noise(7))
    (root / "bolt" / "linked").symlink_to(tmp_path / "elsewhere")
    write_image(root / "bolt" / "dent" / "monday" / "0.png", noise(8))
    write_image(root / "bolt" / "ground_truth" / "dent" / "monday" / "0_mask.png", MASK)
    (root / "bolt" / "dent" / ".hidden").touch()
    (root / "bolt" / "dent" / "Thumbs.db").touch()
    (root / ".hidden").mkdir()
    (root / "bolt" / "ground_truth" / ".keep").touch()

    found = find_labelled(root, products)["bolt"]

    assert [each.image.relative_to(root / "bolt").as_posix() for each in found] == [
        *("crack/0.png", "dent/0.png", "dent/1.png", "dent/monday/0.png", "linked/7.png")
    ]
    assert [each.regions for each in found].index("mask") == 3


# --- what is refused ------------------------------------------------------------------------------


def refused(root: Path, products: tuple[Category, ...], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        find_labelled(root, products)


def test_an_unknown_category_is_named_with_the_known_ones(
    root: Path, products: tuple[Category, ...]
) -> None:
    (root / "blot").mkdir()

    refused(root, products, r"blot is of no category that is learned: bolt, washer")


@pytest.mark.parametrize("what", ["gone", "a file", "empty", "category", "type"])
def test_a_folder_without_images_is_named(
    tmp_path: Path, products: tuple[Category, ...], what: str
) -> None:
    root = tmp_path / "none"
    if what == "a file":
        root.touch()
    elif what != "gone":
        (root / {"empty": "", "category": "bolt", "type": "bolt/dent"}[what]).mkdir(parents=True)
    said = {"gone": "which is none", "a file": "which is none", "empty": "no labelled defects"}

    refused(root, products, said.get(what, "bolt has no images"))


@pytest.mark.parametrize("name", ["good", "test", "train"])
def test_a_data_set_is_not_a_folder_of_labelled_defects(
    root: Path, products: tuple[Category, ...], name: str
) -> None:
    write_image(root / "bolt" / name / "0.png", noise(5))

    refused(root, products, f"{name} is no defect type")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("0.png", "belongs to no category"),
        ("bolt/0.png", "belongs to no defect type"),
        ("bolt/dent/notes.txt", r"notes\.txt is not an image"),
        ("bolt/_annotations.coco.json", r"is not read; call it annotations\.json"),
        ("boxes.json", r"is not read; call it annotations\.json"),
        ("bolt/dent/3.png", "cannot use .*content is not an image|cannot use .*0 bytes|cannot use"),
        ("bolt/ground_truth/dent/0_mask.png", "cannot use the mask"),
        ("bolt/ground_truth/dent/7_mask.png", "is the mask of no labelled image"),
        ("bolt/ground_truth/0_mask.png", "is the mask of no labelled image"),
        ("bolt/annotations.json", r"annotations\.json is not JSON"),
    ],
)
def test_a_file_that_is_empty_or_belongs_to_nothing_is_named(
    root: Path, products: tuple[Category, ...], name: str, said: str
) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()

    refused(root, products, said)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros(SHAPE, np.uint8), r"0_mask\.png is all black"),
        (MASK[1:], r"0_mask\.png is \(15, 24\), but its image is \(16, 24\)"),
    ],
)
def test_a_mask_that_outlines_nothing_or_another_image_is_named(
    root: Path, products: tuple[Category, ...], pixels: np.ndarray, said: str
) -> None:
    write_image(root / "bolt" / "ground_truth" / "dent" / "0_mask.png", pixels)

    refused(root, products, said)


def test_two_masks_of_one_image_are_refused(root: Path, products: tuple[Category, ...]) -> None:
    for name in ("0.png", "0_mask.png"):
        write_image(root / "bolt" / "ground_truth" / "dent" / name, MASK)

    refused(root, products, r"dent/0\.png has two masks")


def test_two_images_of_one_mask_are_refused(root: Path, products: tuple[Category, ...]) -> None:
    write_image(root / "bolt" / "dent" / "0.bmp", noise(6))
    write_image(root / "bolt" / "ground_truth" / "dent" / "0_mask.png", MASK)

    refused(root, products, r"0_mask\.png is the mask of .*0\.bmp and of .*0\.png")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dent/7.png", "names 'dent/7.png', which does not exist"),
        ("bolt/dent/0.png", "which does not exist"),
        ("../../data/bolt/test/good/0.png", "which is no labelled image"),
        ("dent", "which is no labelled image"),
        ("dent\\0.png", "which does not exist"),
    ],
)
def test_an_annotation_of_another_file_is_refused(
    root: Path, products: tuple[Category, ...], name: str, said: str
) -> None:
    annotate(root / "bolt", (name, [0, 0, 9, 9]))

    refused(root, products, said)


def test_an_image_annotated_twice_is_refused(root: Path, products: tuple[Category, ...]) -> None:
    annotate(root / "bolt", ("dent/0.png", [0, 0, 9, 9]), ("dent/../dent/0.png", [0, 0, 9, 9]))

    refused(root, products, "names 'dent/../dent/0.png' twice")


def test_an_image_in_two_files_of_annotations_is_refused(
    root: Path, products: tuple[Category, ...]
) -> None:
    annotate(root / "bolt", ("dent/0.png", [0, 0, 9, 9]))
    annotate(root, ("bolt/dent/0.png", [0, 0, 9, 9]))

    refused(root, products, r"two files annotations\.json list .*dent/0\.png")


@pytest.mark.parametrize("box", [[20, 0, 5, 2], [0, 0, 24, 17], [-1, 0, 5, 5], [24, 16, 0.2, 0.2]])
def test_a_box_out_of_its_image_is_named(
    root: Path, products: tuple[Category, ...], box: list[float]
) -> None:
    annotate(root / "bolt", ("dent/0.png", box))

    refused(root, products, r"dent/0\.png is \(16, 24\).* but Box.* reaches out of it")


def test_boxes_drawn_on_another_size_are_refused(
    root: Path, products: tuple[Category, ...]
) -> None:
    document = {
        "images": [{"id": 1, "file_name": "dent/0.png", "width": 12, "height": 8}],
        "annotations": [{"image_id": 1, "bbox": [0, 0, 5, 5]}],
    }
    (root / "bolt" / "annotations.json").write_text(json.dumps(document))

    refused(root, products, r"dent/0\.png is \(16, 24\), but its boxes are on \(8, 12\)")


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("bolt/train/good/2.png", "the good ones"),
        ("washer/train/good/1.png", "the good ones"),
        ("bolt/test/good/0.png", "the test ones"),
        ("washer/test/dent/1.png", "the test ones"),
    ],
)
def test_an_image_that_is_shown_elsewhere_is_refused_whatever_it_is_called(
    root: Path, products: tuple[Category, ...], tmp_path: Path, shown: str, said: str
) -> None:
    shutil.copy(tmp_path / "data" / shown, root / "bolt" / "crack" / "other.png")

    refused(root, products, f"other.png is labelled as a defect, but .*{shown} is .*{said}")


def test_an_image_that_is_labelled_twice_is_refused(
    root: Path, products: tuple[Category, ...]
) -> None:
    (root / "washer").mkdir()
    shutil.copytree(root / "bolt" / "crack", root / "washer" / "stain")

    refused(root, products, r"stain/0\.png is the same image as .*crack/0\.png")
