"""COCO files are read for their boxes, and what cannot be meant is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from inspection.errors import DatasetError, InputError
from trainer.coco import Box, read_boxes

IMAGES = [{"id": 4, "file_name": "dent/0.png"}, {"id": 7, "file_name": "dent/1.png"}]


def document(path: Path, images: Any = IMAGES, boxes: Any = ((4, [1, 2, 3, 4]),)) -> Path:
    annotations = [
        {"id": i, "image_id": image, "bbox": box, "category_id": 1, "iscrowd": 0}
        for i, (image, box) in enumerate(boxes)
    ]
    content = {"images": images, "annotations": annotations, "categories": [], "info": {}}
    path.write_text(json.dumps(content))
    return path


def test_boxes_are_read_with_their_images(tmp_path: Path) -> None:
    images = [{**IMAGES[0], "width": 30, "height": 20, "license": 1}, IMAGES[1]]
    boxes = [(4, [1, 2, 3, 4]), (4, [0.5, 0, 1.25, 1])]

    first, second = read_boxes(document(tmp_path / "a.json", images, boxes))

    assert (first.file_name, first.shape) == ("dent/0.png", (20, 30))
    assert first.boxes == (Box(1, 2, 3, 4), Box(0.5, 0, 1.25, 1))
    assert (second.boxes, second.shape) == ((), None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"images": [], "images": [], "annotations": []}', "twice"),
        ("[]", "is no COCO file"),
        ('{"images": []}', "annotations: Field required"),
        ('{"annotations": []}', "images: Field required"),
        ('{"images": {}, "annotations": []}', "images: "),
        ('{"images": [{"id": 1}], "annotations": []}', "images.0.file_name: Field required"),
        ('{"images": [{"id": 1, "file_name": ""}], "annotations": []}', "images.0.file_name"),
        ('{"images": [{"id": "1", "file_name": "a"}], "annotations": []}', "images.0.id"),
    ],
)
def test_what_is_no_coco_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)

    with pytest.raises(DatasetError, match=said) as refused:
        read_boxes(tmp_path / "a.json")

    assert "a.json" in str(refused.value)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([1, 2, 3], "annotations.0.bbox"),
        ([1, 2, 3, 4, 5], "annotations.0.bbox"),
        ([1, 2, 3, "4"], "annotations.0.bbox"),
        ([1, 2, 3, True], "annotations.0.bbox"),
        ([1, 2, 3, None], "annotations.0.bbox"),
        ("1234", "annotations.0.bbox"),
        ([1, 2, 0, 4], "annotation 0: expected a box with an area"),
        ([1, 2, 3, -4], "annotation 0: expected a box with an area"),
        ([math.nan, 2, 3, 4], "annotation 0: expected a box of finite numbers"),
        ([1, 2, math.inf, 4], "annotation 0: expected a box of finite numbers"),
    ],
)
def test_a_box_that_is_none_is_named(tmp_path: Path, box: Any, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        read_boxes(document(tmp_path / "a.json", boxes=[(4, box)]))


def test_a_number_beyond_all_bounds_is_refused(tmp_path: Path) -> None:
    path = document(tmp_path / "a.json")
    path.write_text(path.read_text().replace("[1, 2, 3, 4]", f"[1, 2, 3, 1{'0' * 400}]"))

    with pytest.raises(DatasetError, match=r"a\.json"):
        read_boxes(path)


@pytest.mark.parametrize("key", ["id", "file_name"])
def test_an_image_that_is_listed_twice_is_refused(tmp_path: Path, key: str) -> None:
    images = [IMAGES[0], {**IMAGES[1], key: IMAGES[0][key]}]

    with pytest.raises(DatasetError, match="lists an image twice"):
        read_boxes(document(tmp_path / "a.json", images))


def test_an_annotation_of_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="annotation 1 is of image 5"):
        read_boxes(document(tmp_path / "a.json", boxes=[(4, [1, 2, 3, 4]), (5, [1, 2, 3, 4])]))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read .*a\.json"):
        read_boxes(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        (Box(0, 0, 30, 20), True),
        (Box(-0.5, -0.5, 31, 21), True),
        (Box(-0.6, 0, 5, 5), False),
        (Box(0, -1, 5, 5), False),
        (Box(0, 0, 31, 5), False),
        (Box(0, 0, 5, 21), False),
        (Box(-0.4, 0, 0.3, 5), False),
        (Box(30.1, 0, 0.3, 5), False),
        (Box(29, 19, 1, 1), True),
    ],
)
def test_a_box_lies_in_its_image_or_not(box: Box, inside: bool) -> None:
    assert box.lies_in((20, 30)) is inside


def test_a_box_without_an_area_cannot_be_made() -> None:
    with pytest.raises(InputError):
        Box(0, 0, 0, 1)
