"""Defects are drawn evenly and leave the test, and their outlines become shares of patches."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from inspection.errors import DatasetError, InputError
from inspection.preprocessing import Preprocessing
from tests.trainer.parts import write_image
from trainer.coco import Box
from trainer.dataset import Category, find_categories
from trainer.labelled import LabelledDefect, draw_defects, lineage_of, outline_of, patch_share
from trainer.learned import digest_of, without_learned

SHAPE = (16, 24)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


def category(
    root: Path, name: str = "bolt", *, masks: bool = True, **types: int
) -> tuple[Category, ...]:
    """A category with some defects of each type."""
    folder, mask = root / name, np.zeros(SHAPE, np.uint8)
    mask[4:8, 6:12] = 255
    seed = 1000 * len(name)
    for i in range(4):
        write_image(folder / "train" / "good" / f"{i}.png", noise(seed + i))
        write_image(folder / "test" / "good" / f"{i}.png", noise(seed + 10 + i))
    for number, (kind, count) in enumerate(types.items(), 1):
        for i in range(count):
            write_image(folder / "test" / kind / f"{i}.png", noise(seed + 100 * number + i))
            if masks:
                write_image(folder / "ground_truth" / kind / f"{i}_mask.png", mask)
    return find_categories(root)


def kinds(defects: tuple[LabelledDefect, ...]) -> Counter[str]:
    return Counter(defect.defect for defect in defects)


# --- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_types_are_drawn_as_evenly_as_they_can_be(tmp_path: Path, seed: int) -> None:
    categories = category(tmp_path, dent=5, crack=5, stain=1)

    drawn, _ = draw_defects(categories, 5, seed)

    assert kinds(drawn["bolt"]) == {"dent": 2, "crack": 2, "stain": 1}


def test_what_is_drawn_is_no_longer_tested_and_nothing_else_is_lost(tmp_path: Path) -> None:
    (before,) = categories = category(tmp_path, dent=5, crack=5)

    drawn, (after,) = draw_defects(categories, 3, 0)

    images = {defect.image for defect in drawn["bolt"]}
    assert len(images) == 3
    assert after.test == tuple(each for each in before.test if each.image not in images)
    assert after.train == before.train
    assert {each.sha256 for each in drawn["bolt"]} == {digest_of(image) for image in images}


def test_masks_are_taken_where_there_are_some(tmp_path: Path) -> None:
    category(tmp_path, "bolt", dent=4)
    categories = category(tmp_path, "washer", masks=False, dent=4)

    drawn, _ = draw_defects(categories, 2, 0)

    assert [each.regions for each in drawn["bolt"]] == ["mask", "mask"]
    assert [each.regions for each in drawn["washer"]] == ["image", "image"]


def test_a_draw_depends_on_seed_and_name_alone(tmp_path: Path) -> None:
    bolt, washer = category(tmp_path, "bolt", dent=20) + category(tmp_path, "washer", dent=20)[1:]

    both, _ = draw_defects([washer, bolt], 5, 3)

    assert draw_defects([bolt], 5, 3)[0]["bolt"] == both["bolt"]
    assert draw_defects([bolt], 5, 4)[0]["bolt"] != both["bolt"]
    names = [[each.image.name for each in both[name]] for name in ("bolt", "washer")]
    assert names[0] != names[1]


def test_the_first_of_more_are_those_of_fewer(tmp_path: Path) -> None:
    categories = category(tmp_path, dent=8, crack=8)

    ten, five = (draw_defects(categories, k, 0)[0]["bolt"] for k in (10, 5))

    assert ten[:5] == five


def test_a_type_that_is_excluded_stays_in_the_test(tmp_path: Path) -> None:
    categories = category(tmp_path, dent=6, crack=6, stain=6)

    drawn, (after,) = draw_defects(categories, 4, 0, exclude=["crack"])

    assert kinds(drawn["bolt"]) == {"dent": 2, "stain": 2}
    assert sum(each.defect == "crack" for each in after.test) == 6


def test_a_type_that_nobody_has_cannot_be_excluded(tmp_path: Path) -> None:
    categories = category(tmp_path, dent=6)

    with pytest.raises(InputError, match="no category has defects of type krack; there are dent"):
        draw_defects(categories, 4, 0, exclude=["krack"])


@pytest.mark.parametrize(("count", "drawn"), [(6, 5), (5, 2), (4, 2), (3, 1)])
def test_half_are_kept_where_nothing_would_be_left_to_test_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int, drawn: int
) -> None:
    categories = category(tmp_path, dent=count)

    with caplog.at_level(logging.WARNING):
        found, (after,) = draw_defects(categories, 5, 0)

    assert len(found["bolt"]) == drawn
    assert sum(each.defect is not None for each in after.test) == count - drawn
    said = f"category bolt: {drawn} labelled defects drawn instead of 5: of its {count}"
    assert (said in caplog.text) == (drawn < 5)


@pytest.mark.parametrize("types", [{}, {"dent": 1}])
def test_a_category_with_nothing_to_draw_is_left_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, types: dict[str, int]
) -> None:
    categories = category(tmp_path, masks=False, **types)

    assert draw_defects(categories, 5, 0) == ({}, categories)
    assert "0 labelled defects drawn instead of 5" in caplog.text


def test_a_copy_of_what_is_drawn_is_neither_drawn_nor_tested(tmp_path: Path) -> None:
    category(tmp_path, masks=False, dent=2)
    folder = tmp_path / "bolt" / "test" / "dent"
    for i in range(4):
        shutil.copy(folder / "0.png", folder / f"copy{i}.png")

    drawn, (after,) = draw_defects(find_categories(tmp_path), 2, 0)

    assert len({defect.sha256 for defect in drawn["bolt"]}) == 2
    assert [each.defect for each in after.test] == [None] * 4


def test_a_defect_that_is_a_good_part_too_is_refused(tmp_path: Path) -> None:
    categories = category(tmp_path, masks=False, dent=2)
    shutil.copy(tmp_path / "bolt" / "train" / "good" / "2.png", tmp_path / "bolt/test/dent/0.png")
    shutil.copy(tmp_path / "bolt" / "train" / "good" / "3.png", tmp_path / "bolt/test/dent/1.png")

    with pytest.raises(DatasetError, match=r"dent/\d\.png is labelled .*good/\d\.png is the same"):
        draw_defects(categories, 1, 0)


@pytest.mark.parametrize(("k", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_a_draw_of_nothing_is_refused(tmp_path: Path, k: int, seed: int) -> None:
    with pytest.raises(InputError, match="at least 1 defect and a seed from 0"):
        draw_defects([], k, seed)


@pytest.mark.parametrize(
    ("name", "pixels", "said"),
    [
        ("ground_truth/dent/{}_mask.png", np.zeros(SHAPE, np.uint8), "is all black"),
        ("ground_truth/dent/{}_mask.png", np.ones((8, 8), np.uint8), r"is \(8, 8\), but its image"),
        ("test/dent/{}.png", None, "cannot use"),
    ],
)
def test_a_drawn_defect_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, pixels: np.ndarray | None, said: str
) -> None:
    categories = category(tmp_path, dent=2)
    for i in range(2):
        path = tmp_path / "bolt" / name.format(i)
        if pixels is None:
            path.write_bytes(path.read_bytes()[:-20])
        else:
            write_image(path, pixels)

    with pytest.raises(DatasetError, match=said):
        draw_defects(categories, 1, 0)


# --- leaving out ----------------------------------------------------------------------------------


def test_images_are_left_out_by_content_and_not_by_name(tmp_path: Path) -> None:
    categories = category(tmp_path, masks=False, dent=2)
    first, second = (tmp_path / "bolt" / "test" / "dent" / f"{i}.png" for i in range(2))
    digest = digest_of(first)
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])

    (left,) = without_learned(categories, {digest, "0" * 64})

    assert [each.image for each in left.test if each.defect] == [first]
    assert left.train == categories[0].train


def test_with_nothing_learned_no_file_is_opened(tmp_path: Path) -> None:
    categories = category(tmp_path, masks=False, dent=2)
    shutil.rmtree(tmp_path / "bolt")

    assert without_learned(categories, ()) == categories
    with pytest.raises(DatasetError, match=r"cannot read .*\.png"):
        without_learned(categories, {"0" * 64})


# --- what is known of one -------------------------------------------------------------------------


def test_a_mask_becomes_shares_of_patches(tmp_path: Path) -> None:
    (defect, *_), _ = draw_defects(category(tmp_path, dent=2), 1, 0)[0]["bolt"], None

    share = patch_share(outline_of(defect), Preprocessing(32))  # 4 × 4 patches of 4 × 6 px

    assert share is not None
    assert share.dtype == np.float32
    assert share.tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("spec", "rows", "columns"),
    [
        pytest.param(Preprocessing(48, "letterbox"), 4, 6, id="letterbox: 4 × 4 px a patch"),
        pytest.param(Preprocessing(32, "tiles"), 2, 3, id="tiles: 8 × 8 px a patch"),
    ],
)
def test_shares_follow_the_map_of_the_image(
    tmp_path: Path, spec: Preprocessing, rows: int, columns: int
) -> None:
    (defect,) = draw_defects(category(tmp_path, dent=2), 1, 0)[0]["bolt"]

    share = patch_share(outline_of(defect), spec)

    assert share is not None
    assert share.shape == (rows, columns)
    # The mask has 24 px, whatever they are divided into.
    assert share.sum() * (16 * 24) / share.size == pytest.approx(24)
    assert np.argwhere(share).min(axis=0).tolist() == [4 * rows // 16, 6 * columns // 24]


def test_boxes_become_shares_of_patches_and_an_image_alone_has_none(tmp_path: Path) -> None:
    image = write_image(tmp_path / "0.png", noise(0))
    boxed = LabelledDefect(image, "dent", "0" * 64, boxes=(Box(6, 4, 3, 4), Box(0, 0, 0.1, 0.1)))

    share = patch_share(outline_of(boxed), Preprocessing(32))

    assert share is not None
    assert share[1, 1] == pytest.approx(0.5)
    assert 0 < share[0, 0] < 0.001
    assert (
        patch_share(outline_of(LabelledDefect(image, "dent", "0" * 64)), Preprocessing(32)) is None
    )


def test_a_box_out_of_its_image_is_refused(tmp_path: Path) -> None:
    image = write_image(tmp_path / "0.png", noise(0))

    with pytest.raises(DatasetError, match=r"0\.png is \(16, 24\).*reaches out of it"):
        outline_of(LabelledDefect(image, "d", "0" * 64, boxes=(Box(20, 0, 5, 2),)))


def test_a_defect_has_a_mask_or_boxes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a mask and boxes"):
        LabelledDefect(tmp_path, "d", "0" * 64, tmp_path, (Box(0, 0, 1, 1),))


def test_the_lineage_names_every_image_by_category(tmp_path: Path) -> None:
    mask = tmp_path / "m.png"
    labelled = {
        "nut": [LabelledDefect(tmp_path / "b.png", "dent", "1" * 64)],
        "bolt": [
            LabelledDefect(tmp_path / "a.png", "dent", "2" * 64, mask),
            LabelledDefect(tmp_path / "c\udcff.png", "d", "3" * 64, boxes=(Box(0, 0, 1, 1),)),
        ],
    }

    rows = [tuple(image.model_dump().values()) for image in lineage_of(labelled).labelled]

    assert rows == [
        ("bolt", "a.png", "dent", "2" * 64, "mask"),
        ("bolt", "c?.png", "d", "3" * 64, "boxes"),
        ("nut", "b.png", "dent", "1" * 64, "image"),
    ]
