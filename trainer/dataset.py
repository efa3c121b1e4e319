"""Folders of images as categories with a train and a test part. Nothing odd is skipped in silence.

Two layouts are read, at any depth, through symbolic links:

- MVTec: `train/good`, `test/good`, `test/<defect>`, `ground_truth/<defect>/<stem>_mask.png`;
- plain: `good` and optionally `defect`; every fifth good image, by name, is kept for the test.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.bundle import ANY_PRODUCT
from inspection.errors import DatasetError, ImageError
from inspection.images import image_format, probe
from inspection.preprocessing import Preprocessing, ResizePass, prepare, to_rgb8

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
"""Files with another ending, in capitals or not, are refused, unless they are hidden."""

# What file managers and archives leave behind, hidden files and folders beside: nobody means them.
IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})

LONGEST_NAME = 128
"""Characters that the wire allows for a product."""

TEST_EVERY = 5
"""In the plain layout every fifth good image, in order of names, is for the test."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a test.

    Attributes:
        image: Its file.
        defect: Name of its defect type; None for a good part.
        mask: File of its pixel mask; None where there is none.
    """

    image: Path
    defect: str | None = None
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class Category:
    """One product: what to learn from and what to test on.

    Attributes:
        name: The folder's name, or its path below the root where two folders share a name.
        train: Good images, sorted by path.
        test: Good and defective images, sorted by path.
        has_masks: Whether defects are outlined pixel by pixel.
    """

    name: str
    train: tuple[Path, ...]
    test: tuple[Sample, ...]
    has_masks: bool


def find_categories(root: Path, *, need_train: bool = True) -> tuple[Category, ...]:
    """List the categories below a folder, or the folder itself when it is one; sorted by name.

    Raises:
        DatasetError: No category, a category without images or with a name that cannot be written
            down, a file that is no image, images where no layout has them, or a defect without its
            mask in a category that has masks.
    """
    if not root.is_dir():
        raise DatasetError(f"expected a folder of images, got {root}, which is not a folder")
    folders, others = _walk(root)
    if not folders:
        raise DatasetError(
            f"no category below {root}: expected folders with train/good (MVTec layout) or with "
            "good (plain layout), in small letters"
        )
    for folder in folders:
        _check_name(folder, _name(folder, root, folders))
    categories = [_read_category(folder, _name(folder, root, folders)) for folder in folders]
    # A pool of images that categories link into may lie beside them.
    used = {
        os.path.realpath(path)
        for category in categories
        for path in (*category.train, *(sample.image for sample in category.test))
    }
    for other in others:
        refuse_loose(other, "no category", used)
    for category in categories:
        if need_train and not category.train:
            raise DatasetError(f"category {category.name} has no good images to learn from")
    return tuple(sorted(categories, key=lambda category: category.name))


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB, by the rules that the station follows too.

    Raises:
        DatasetError: The file cannot be read, is truncated, or is of a kind we refuse.
    """
    try:
        return to_rgb8(_decode(path, cv2.IMREAD_UNCHANGED), "bgr")
    except (OSError, ImageError, cv2.error) as error:
        raise DatasetError(f"cannot use {path}: {error}; replace or remove the file") from error


def read_prepared(path: Path, spec: Preprocessing) -> NDArray[np.uint8]:
    """Read an image file as its canvas, (8 · Mh, 8 · Mw, 3) uint8.

    Raises:
        DatasetError: As `read_image`.
    """
    return prepare(read_image(path), spec, resize)


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a mask as (H, W) bool: any value above 0 is defect, in 8 bits or 16.

    Raises:
        DatasetError: Unreadable, truncated, or of another size than its image.
    """
    try:
        mask = _decode(path, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    except (OSError, ImageError, cv2.error) as error:
        raise DatasetError(f"cannot use the mask {path}: {error}; replace the file") from error
    if mask.shape != shape:
        raise DatasetError(
            f"mask {path} is {mask.shape}, but its image is {shape}, (height, width) in px; "
            "draw it at the size of the image"
        )
    return np.asarray(mask > 0)


def resize(image: NDArray[np.uint8], step: ResizePass) -> NDArray[np.uint8]:
    """Run one pass of the resize plan with OpenCV."""
    mode = cv2.INTER_AREA if step.shrinks else cv2.INTER_LINEAR
    return np.asarray(
        cv2.resize(image, (step.width_px, step.height_px), interpolation=mode), np.uint8
    )


def _decode(path: Path, mode: int) -> NDArray[Any]:
    data = path.read_bytes()
    # Whatever the name says: OpenCV goes by the content, and fills what is missing with grey.
    if path.suffix.lower() in (".png", ".jpg", ".jpeg") or image_format(data) is not None:
        probe(data)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    if image is None:
        raise ImageError("its content is not an image that OpenCV can decode")
    return np.asarray(image)


def _walk(root: Path) -> tuple[list[Path], list[Path]]:
    """List categories below root, through links, sorted, and the folders that lead to them.

    A category is not searched for further ones inside it.
    """
    seen: set[str] = set()
    pending, found, others = [root], [], []
    while pending:
        folder = pending.pop()
        real = os.path.realpath(folder)
        # A link back to a folder above would otherwise be walked for ever.
        if real in seen:
            continue
        seen.add(real)
        if _is_mvtec(folder) or (folder / "good").is_dir():
            found.append(folder)
        else:
            others.append(folder)
            # Sorted, so that of two links to one folder it is always the same that counts.
            children = sorted((p for p in folder.iterdir() if p.is_dir()), reverse=True)
            pending.extend(child for child in children if not is_ignored(child.name))
    return sorted(found), others


def _is_mvtec(folder: Path) -> bool:
    """Whether it has the parts of the MVTec layout; a folder only to test on has no `train`."""
    return any((folder / part / "good").is_dir() for part in ("train", "test"))


def _name(folder: Path, root: Path, folders: list[Path]) -> str:
    if folder == root:
        # Not resolved: a category is called what the link to it is called, here as below.
        return Path(os.path.abspath(root)).name
    if sum(other.name == folder.name for other in folders) > 1:
        return folder.relative_to(root).as_posix()
    return folder.name


def _check_name(folder: Path, name: str) -> None:
    """Refuse a name that a bundle cannot hold, before hours are spent on it."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DatasetError(
            f"the name of category {os.fsencode(folder)!r} is not UTF-8; rename the folder"
        ) from error
    if len(name) > LONGEST_NAME:
        raise DatasetError(
            f"the name of category {name[:40]}… has {len(name)} characters, but a camera can name "
            f"a product with {LONGEST_NAME} at most; rename the folder"
        )
    if name in ("", ANY_PRODUCT):
        raise DatasetError(f"a category cannot be called {name!r}, as {folder} is; rename it")


def _read_category(folder: Path, name: str) -> Category:
    refuse_loose(folder, f"no part of category {name}")
    if _is_mvtec(folder):
        return _read_mvtec(folder, name)
    for other in sorted(p for p in folder.iterdir() if p.is_dir()):
        if other.name not in ("good", "defect") and _holds_images(other):
            raise DatasetError(
                f"{other} holds images, but is neither good nor defect; rename it, or move it out "
                f"of category {name}"
            )
    good = images_below(folder / "good")
    defects = images_below(folder / "defect") if (folder / "defect").is_dir() else []
    test = [Sample(path) for path in good[TEST_EVERY - 1 :: TEST_EVERY]]
    return Category(
        name,
        train=tuple(path for i, path in enumerate(good, 1) if i % TEST_EVERY),
        test=(*test, *(Sample(path, "defect") for path in defects)),
        has_masks=False,
    )


def _read_mvtec(folder: Path, name: str) -> Category:
    truth = folder / "ground_truth"
    has_masks = truth.is_dir() and any(not is_ignored(p.name) for p in truth.iterdir())
    test: list[Sample] = []
    kinds = sorted((folder / "test").iterdir()) if (folder / "test").is_dir() else []
    for kind in kinds:
        if is_ignored(kind.name):
            continue
        if not kind.is_dir():
            _refuse(kind)
        for image in images_below(kind):
            if kind.name == "good":
                test.append(Sample(image))
            else:
                # In the subfolder of its image: two subfolders often number their images alike.
                place = truth / image.parent.relative_to(folder / "test")
                mask = _mask_of(image, place) if has_masks else None
                test.append(Sample(image, kind.name, mask))
    good = folder / "train" / "good"
    if good.is_dir():
        refuse_loose(good.parent, "neither good nor a defect")
        for other in sorted(p for p in good.parent.iterdir() if p.is_dir() and p != good):
            if not is_ignored(other.name) and _holds_images(other):
                raise DatasetError(
                    f"{other} holds images, but only good parts are learned from, in {good}; "
                    "move it to test, or out of the category"
                )
    return Category(
        name, tuple(images_below(good) if good.is_dir() else ()), tuple(test), has_masks
    )


def _mask_of(image: Path, folder: Path) -> Path:
    for name in (f"{image.stem}_mask.png", f"{image.stem}.png"):
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(
        f"{image} has no mask: expected {folder / (image.stem + '_mask.png')}; add it, or remove "
        "ground_truth if this category has no masks"
    )


def images_below(folder: Path) -> list[Path]:
    """Every image below a folder, sorted by path; a folder that links lead to twice counts once.

    Raises:
        DatasetError: A file that is no image by its ending, or a folder that cannot be read.
    """
    found = []
    for path in _files(folder):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            _refuse(path)
        found.append(path)
    return sorted(found)


def refuse_loose(folder: Path, what: str, used: Collection[str] = ()) -> None:
    """Refuse images that lie where nothing reads them: whoever put them there expects otherwise."""
    for path in sorted(folder.iterdir()):
        is_image = path.suffix.lower() in IMAGE_SUFFIXES and not is_ignored(path.name)
        if is_image and path.is_file() and os.path.realpath(path) not in used:
            raise DatasetError(
                f"{path} belongs to {what}; put it into a folder of the layout, or elsewhere"
            )


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    """Walk the files below a folder through links, without what is hidden or ignored."""
    # A link back to a folder above would bring in the whole category, defects and all.
    above = (*folder.absolute().parents, *Path(os.path.realpath(folder)).parents)
    seen = {os.path.realpath(path) for path in above}
    for parent, folders, names in os.walk(folder, onerror=_cannot_list, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        yield from (Path(parent) / name for name in sorted(names) if not is_ignored(name))


def _cannot_list(error: OSError) -> NoReturn:
    raise DatasetError(f"cannot list {error.filename}: {error.strerror}") from error


def is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def _refuse(path: Path) -> NoReturn:
    raise DatasetError(
        f"{path} is not an image ({', '.join(sorted(IMAGE_SUFFIXES))}); remove or convert it"
    )
