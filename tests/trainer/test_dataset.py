"""What folders are understood as, and that nothing odd in them is skipped in silence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspection.errors import DatasetError
from inspection.preprocessing import Preprocessing
from tests.trainer.parts import touch, write_image
from trainer.dataset import Category, Sample, find_categories, read_image, read_mask, read_prepared

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)


def only(root: Path, **options: Any) -> Category:
    (category,) = find_categories(root, **options)
    return category


def mvtec(folder: Path, *more: str) -> Path:
    return touch(folder, "train/good/0.png", "test/good/0.png", "test/dent/0.png", *more)


def plain(folder: Path, *more: str) -> Path:
    return touch(folder, *(f"good/{i:02}.png" for i in range(12)), *more)


def stems(paths: tuple[Path, ...]) -> list[str]:
    return [path.stem for path in paths]


# --- layouts --------------------------------------------------------------------------------------


def test_the_mvtec_layout_is_read_with_its_masks(tmp_path: Path) -> None:
    folder = mvtec(tmp_path / "bolt", "ground_truth/dent/0_mask.png")

    category = only(tmp_path)

    assert category.name == "bolt"
    assert category.train == (folder / "train/good/0.png",)
    assert category.test == (
        Sample(folder / "test/dent/0.png", "dent", folder / "ground_truth/dent/0_mask.png"),
        Sample(folder / "test/good/0.png"),
    )
    assert category.has_masks


def test_a_mask_may_also_be_called_like_its_image(tmp_path: Path) -> None:
    folder = mvtec(tmp_path / "bolt", "ground_truth/dent/0.png")

    assert only(tmp_path).test[0].mask == folder / "ground_truth/dent/0.png"


def test_a_defect_without_its_mask_is_named_where_others_have_one(tmp_path: Path) -> None:
    mvtec(tmp_path / "bolt", "test/dent/1.png", "ground_truth/dent/0_mask.png")

    with pytest.raises(DatasetError, match=r"dent/1\.png has no mask.*1_mask\.png"):
        find_categories(tmp_path)


@pytest.mark.parametrize("left", [[], ["ground_truth/.DS_Store"]], ids=["absent", "only hidden"])
def test_a_category_without_ground_truth_has_no_masks(tmp_path: Path, left: list[str]) -> None:
    mvtec(tmp_path / "bolt", *left)
    if not left:
        (tmp_path / "bolt" / "ground_truth").mkdir()

    category = only(tmp_path)

    assert not category.has_masks
    assert [sample.mask for sample in category.test] == [None, None]


def test_images_of_one_name_in_two_subfolders_have_each_its_own_mask(tmp_path: Path) -> None:
    folder = touch(
        tmp_path / "bolt",
        "train/good/0.png",
        *(f"test/dent/{camera}/0.png" for camera in ("left", "right")),
        *(f"ground_truth/dent/{camera}/0_mask.png" for camera in ("left", "right")),
    )

    masks = [sample.mask for sample in only(tmp_path).test]

    truth = folder / "ground_truth" / "dent"
    assert masks == [truth / "left" / "0_mask.png", truth / "right" / "0_mask.png"]


def test_the_plain_layout_keeps_every_fifth_good_image_for_the_test(tmp_path: Path) -> None:
    plain(tmp_path / "bolt", "defect/x.png")

    category = only(tmp_path)

    assert stems(category.train) == [f"{i:02}" for i in range(12) if i not in (4, 9)]
    assert [(sample.image.stem, sample.defect) for sample in category.test] == [
        ("04", None),
        ("09", None),
        ("x", "defect"),
    ]
    assert not category.has_masks


@pytest.mark.parametrize("other", ["bad", "defects", "NG"])
def test_images_beside_good_and_defect_are_refused_and_not_forgotten(
    tmp_path: Path, other: str
) -> None:
    plain(tmp_path / "bolt", f"{other}/0.png")

    with pytest.raises(DatasetError, match=f"bolt/{other} holds images, but is neither"):
        find_categories(tmp_path)


def test_notes_beside_the_images_are_nobodys_business(tmp_path: Path) -> None:
    plain(tmp_path / "bolt", "readme.txt", "notes/today.txt")
    mvtec(tmp_path / "nut", "license.txt", "readme.txt")

    assert [category.name for category in find_categories(tmp_path)] == ["bolt", "nut"]


def test_categories_are_found_at_any_depth_in_the_order_of_their_names(tmp_path: Path) -> None:
    plain(tmp_path / "x" / "y" / "nut")
    mvtec(tmp_path / "z" / "bolt")
    plain(tmp_path / "pin")

    assert [category.name for category in find_categories(tmp_path)] == ["bolt", "nut", "pin"]


def test_two_folders_of_one_name_are_called_by_their_path(tmp_path: Path) -> None:
    for folder in ("line1/bolt", "line2/bolt", "line2/nut"):
        plain(tmp_path / folder)

    names = [category.name for category in find_categories(tmp_path)]

    assert names == ["line1/bolt", "line2/bolt", "nut"]


@pytest.mark.parametrize("given", [".", "../bolt", "../nut/../bolt"])
def test_a_category_given_itself_is_called_like_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    plain(tmp_path / "bolt")
    (tmp_path / "nut").mkdir()
    monkeypatch.chdir(tmp_path / "bolt")

    assert only(Path(given)).name == "bolt"


def test_a_category_only_to_test_on_is_not_learned_from(tmp_path: Path) -> None:
    touch(tmp_path / "bolt", "test/good/0.png", "test/dent/0.png")

    tested = only(tmp_path, need_train=False)

    assert (tested.name, tested.train, len(tested.test)) == ("bolt", (), 2)
    with pytest.raises(DatasetError, match="bolt has no good images to learn from"):
        find_categories(tmp_path)


def test_what_plants_have_in_their_folders_is_read(tmp_path: Path) -> None:
    names = ["A 1.PNG", "b.JPEG", "c.jpg", "Größe.tif", "d.TIFF", "e.bmp", "line 2/shift b/f.png"]
    touch(tmp_path / "Mutter M8", *(f"train/good/{name}" for name in names))

    category = only(tmp_path)

    assert category.name == "Mutter M8"
    good = tmp_path / "Mutter M8" / "train" / "good"
    assert [path.relative_to(good).as_posix() for path in category.train] == sorted(names)


# --- links ----------------------------------------------------------------------------------------


def test_links_to_images_folders_and_categories_are_followed(tmp_path: Path) -> None:
    store = touch(tmp_path / "store", "0.png", "1.png", "loose.png")
    good = tmp_path / "data" / "bolt" / "train" / "good"
    good.mkdir(parents=True)
    (good / "a.png").symlink_to(store / "loose.png")
    (tmp_path / "data" / "nut" / "train").mkdir(parents=True)
    (tmp_path / "data" / "nut" / "train" / "good").symlink_to(store)
    (tmp_path / "data" / "pin").symlink_to(plain(tmp_path / "elsewhere"))

    found = {
        category.name: stems(category.train) for category in find_categories(tmp_path / "data")
    }

    assert found["bolt"] == ["a"]
    assert found["nut"] == ["0", "1", "loose"]
    assert len(found["pin"]) == 10


def test_a_category_given_as_a_link_is_called_like_the_link(tmp_path: Path) -> None:
    (tmp_path / "bolt").symlink_to(plain(tmp_path / "2024-11-scans"))

    assert only(tmp_path / "bolt").name == "bolt"


@pytest.mark.parametrize("inside", [".", "bolt", "bolt/train/good", "bolt/test"])
def test_a_link_back_to_a_folder_above_neither_ends_nor_adds_anything(
    tmp_path: Path, inside: str
) -> None:
    mvtec(tmp_path / "bolt")
    before = find_categories(tmp_path)

    (tmp_path / inside / "loop").symlink_to(tmp_path)
    (tmp_path / inside / "loop2").symlink_to(tmp_path / "bolt")

    after = find_categories(tmp_path)
    assert [c.train for c in after] == [c.train for c in before]
    assert [c.test for c in after] == [c.test for c in before]


def test_a_folder_that_links_lead_to_twice_is_learned_from_once(tmp_path: Path) -> None:
    plain(tmp_path / "bolt")
    (tmp_path / "bolt" / "good" / "again").symlink_to(touch(tmp_path / "more", "x.png"))
    (tmp_path / "bolt" / "good" / "twice").symlink_to(tmp_path / "more")

    category = only(tmp_path)

    assert [*stems(category.train), *(sample.image.stem for sample in category.test)].count(
        "x"
    ) == 1


def test_of_two_links_to_one_category_the_first_by_name_counts(tmp_path: Path) -> None:
    real = plain(tmp_path / "elsewhere")
    for name in ("m", "b", "z"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(real)

    assert only(tmp_path / "data").name == "b"


# --- what is odd ----------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["0.pdf", "labels.csv", "0", "0.png.part", "Thumbs.db.bak"])
@pytest.mark.parametrize("where", ["train/good", "test/dent", "test"])
def test_a_file_that_is_no_image_is_named_and_refused(tmp_path: Path, where: str, odd: str) -> None:
    mvtec(tmp_path / "bolt", f"{where}/{odd}")

    with pytest.raises(DatasetError, match=f"{where}/{odd} is not an image"):
        find_categories(tmp_path)


def test_a_dangling_link_to_a_folder_is_named(tmp_path: Path) -> None:
    mvtec(tmp_path / "bolt")
    (tmp_path / "bolt" / "train" / "good" / "shift2").symlink_to(tmp_path / "gone")

    with pytest.raises(DatasetError, match="good/shift2 is not an image"):
        find_categories(tmp_path)


@pytest.mark.parametrize(
    "left",
    [
        "Thumbs.db",
        "desktop.ini",
        ".DS_Store",
        "._0.png",
        ".ipynb_checkpoints/0.png",
        "__MACOSX/0.x",
    ],
)
@pytest.mark.parametrize("where", ["train/good", "test/dent", "test", "."])
def test_what_file_managers_leave_behind_is_no_image(tmp_path: Path, where: str, left: str) -> None:
    mvtec(tmp_path / "bolt", f"{where}/{left}")

    category = only(tmp_path)

    assert stems(category.train) == ["0"]
    assert [sample.defect for sample in category.test] == ["dent", None]


def test_hidden_folders_are_no_categories(tmp_path: Path) -> None:
    plain(tmp_path / "bolt")
    plain(tmp_path / ".Trash-1000" / "nut")
    plain(tmp_path / "__MACOSX" / "pin")

    assert only(tmp_path).name == "bolt"


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mvtec(tmp_path / "bolt", "train/good/shift2/1.png")
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if os.fspath(path).endswith("shift2"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)

    with pytest.raises(DatasetError, match=r"cannot list .*shift2: Permission denied"):
        find_categories(tmp_path)


@pytest.mark.parametrize("name", ["*", "bolt-\udcfc"], ids=["reserved", "not UTF-8"])
def test_a_name_that_no_bundle_can_hold_is_refused_before_training(
    tmp_path: Path, name: str
) -> None:
    plain(tmp_path / name)

    with pytest.raises(DatasetError, match="rename"):
        find_categories(tmp_path)


@pytest.mark.parametrize("made", [[], ["images/0.png"], ["Good/0.png"], ["bolt/train/ok/0.png"]])
def test_a_folder_without_a_category_says_what_was_expected(
    tmp_path: Path, made: list[str]
) -> None:
    touch(tmp_path, *made)

    with pytest.raises(DatasetError, match=r"no category below .* train/good .* good"):
        find_categories(tmp_path)


@pytest.mark.parametrize("name", ["missing", "file.png"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file.png")

    with pytest.raises(DatasetError, match=f"{name}, which is not a folder"):
        find_categories(tmp_path / name)


def test_an_empty_good_folder_is_refused_to_learn_from(tmp_path: Path) -> None:
    plain(tmp_path / "bolt")
    (tmp_path / "nut" / "good").mkdir(parents=True)

    with pytest.raises(DatasetError, match="category nut has no good images"):
        find_categories(tmp_path)


# --- images ---------------------------------------------------------------------------------------

GREY = PIXELS[:, :, 0]
WHOLE = {
    "rgb.png": PIXELS,
    "rgb.bmp": PIXELS,
    "RGB.TIF": PIXELS,
    "grey.png": np.stack([GREY] * 3, axis=2),
    "deep.png": PIXELS,
    "deep.tiff": PIXELS,
    "alpha.png": PIXELS,
}


def write_kind(path: Path) -> Path:
    kind = path.stem.lower()
    if kind == "grey":
        return write_image(path, GREY)
    if kind == "deep":
        return write_image(path, (PIXELS.astype(np.uint16) << 8) + 77)
    if kind == "alpha":
        alpha = np.full((30, 41, 1), 9, np.uint8)
        path.write_bytes(cv2.imencode(".png", np.dstack([PIXELS[:, :, ::-1], alpha]))[1].tobytes())
        return path
    return write_image(path, PIXELS)


@pytest.mark.parametrize("name", list(WHOLE))
def test_every_kind_of_image_becomes_the_same_rgb(tmp_path: Path, name: str) -> None:
    image = read_image(write_kind(tmp_path / name))

    assert image.dtype == np.uint8
    assert np.array_equal(image, WHOLE[name])


def test_images_of_one_category_may_differ_in_size_and_shape(tmp_path: Path) -> None:
    shapes = [(8, 300), (64, 64), (65, 63), (500, 31)]
    for i, shape in enumerate(shapes):
        write_image(tmp_path / f"{i}.png", np.full((*shape, 3), 77, np.uint8))

    prepared = [read_prepared(tmp_path / f"{i}.png", Preprocessing(64)) for i in range(len(shapes))]

    assert {each.shape for each in prepared} == {(64, 64, 3)}
    assert all((each == 77).all() for each in prepared)


def encoded(suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, PIXELS)[1].tobytes())


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        pytest.param("0.png", encoded(".png")[:-20], "truncated", id="truncated PNG"),
        pytest.param("0.jpg", encoded(".jpg")[:-20], "truncated", id="truncated JPEG"),
        pytest.param("0.bmp", encoded(".jpg")[:-20], "truncated", id="truncated JPEG called BMP"),
        pytest.param("0.bmp", encoded(".bmp")[:-200], "decode", id="truncated BMP"),
        pytest.param("0.tif", encoded(".tif")[:-200], "decode", id="truncated TIFF"),
        pytest.param("0.png", b"", "0 bytes", id="empty PNG"),
        pytest.param("0.tif", b"", "decode", id="empty TIFF"),
        pytest.param("0.png", b"not an image\n" * 9, "something else", id="text"),
        pytest.param("0.bmp", b"not an image\n" * 9, "decode", id="text called BMP"),
        pytest.param("0.png", encoded(".bmp"), "something else", id="BMP called PNG"),
    ],
)
def test_a_damaged_image_is_named_with_its_reason(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(DatasetError, match=rf"cannot use .*{name}: .*{said}"):
        read_image(tmp_path / name)


def test_floating_point_pixels_and_slivers_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "float.tiff", GREY.astype(np.float32))
    write_image(tmp_path / "sliver.png", PIXELS[:7])

    for name, said in (("float.tiff", "float32"), ("sliver.png", "at least 8 px")):
        with pytest.raises(DatasetError, match=f"{name}.*{said}"):
            read_image(tmp_path / name)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")

    for name in ("folder.png", "link.png"):
        with pytest.raises(DatasetError, match=f"cannot use .*{name}"):
            read_image(tmp_path / name)


# --- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_value_above_zero_is_defect(tmp_path: Path, dtype: type) -> None:
    mask = np.zeros((30, 41), dtype)
    mask[3:5, 7:9], mask[10, 10] = 255, 1
    write_image(tmp_path / "m.png", mask)

    found = read_mask(tmp_path / "m.png", (30, 41))

    assert np.array_equal(found, mask > 0)


@pytest.mark.parametrize("keep", [slice(None, -20), slice(0, 0)], ids=["truncated", "empty"])
def test_a_damaged_mask_is_named(tmp_path: Path, keep: slice) -> None:
    path = write_image(tmp_path / "m.png", GREY)
    path.write_bytes(path.read_bytes()[keep])

    with pytest.raises(DatasetError, match=r"cannot use the mask .*m\.png"):
        read_mask(path, (30, 41))


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = write_image(tmp_path / "m.png", GREY)

    with pytest.raises(DatasetError, match=r"\(30, 41\), but its image is \(41, 30\)"):
        read_mask(path, (41, 30))


@pytest.mark.parametrize(
    ("stray", "said"),
    [
        pytest.param("washer/0.png", "belongs to no category", id="beside the categories"),
        pytest.param("bolt/0.PNG", "no part of category bolt", id="directly in a category"),
        pytest.param("bolt/train/0.png", "neither good nor a defect", id="directly in train"),
        pytest.param("bolt/train/bad/0.png", "only good parts are learned from", id="train/bad"),
    ],
)
def test_images_where_nothing_reads_them_are_named(tmp_path: Path, stray: str, said: str) -> None:
    touch(tmp_path, *(f"bolt/train/good/{i}.png" for i in range(4)), stray)

    with pytest.raises(DatasetError, match=said) as refused:
        find_categories(tmp_path)

    assert str(Path(stray).parent) in str(refused.value)


def test_notes_and_thumbnails_beside_the_layout_are_nobodys_business(tmp_path: Path) -> None:
    touch(tmp_path, "bolt/train/good/0.png", "bolt/readme.txt", "notes/licence.txt")
    touch(tmp_path, "bolt/.DS_Store", "bolt/.hidden.png", "Thumbs.db")

    assert len(only(tmp_path).train) == 1


def test_a_product_that_no_camera_could_name_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, f"{'b' * 128}/train/good/0.png")
    assert len(only(tmp_path).name) == 128

    touch(tmp_path, f"{'c' * 129}/train/good/0.png")
    with pytest.raises(DatasetError, match="129 characters"):
        find_categories(tmp_path)
