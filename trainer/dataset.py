"""Folders of images as categories with a train and a test part. Nothing odd is skipped in silence.

Two layouts are read, at any depth, through symbolic links:

- MVTec: `train/good`, `test/good`, `test/<defect>`, `ground_truth/<defect>/<stem>_mask.png`;
- plain: `good` and optionally `defect`; every fifth good image, by name, is kept for the test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.errors import DatasetError, ImageError
from inspection.images import probe
from inspection.preprocessing import Preprocessing, ResizePass, prepare, to_rgb8

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
"""Files with another ending are refused, unless their name begins with a dot."""

# What file managers leave behind: not images, and nobody means them to be.
IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini"})

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
        DatasetError: No category, a category without images, a file that is no image, or a defect
            without its mask in a category that has masks.
    """
    if not root.is_dir():
        raise DatasetError(f"expected a folder of images, got {root}, which is not a folder")
    folders = sorted(_category_folders(root))
    if not folders:
        raise DatasetError(
            f"no category below {root}: expected folders with train/good (MVTec layout) or with "
            "good (plain layout)"
        )
    categories = [_read_category(folder, _name(folder, root, folders)) for folder in folders]
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
        data = path.read_bytes()
        if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
            probe(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
        if image is None:
            raise ImageError("its content is not an image that OpenCV can decode")
        return to_rgb8(image, "bgr")
    except (OSError, ImageError, cv2.error) as error:
        raise DatasetError(f"cannot use {path}: {error}; replace or remove the file") from error


def read_prepared(path: Path, spec: Preprocessing) -> NDArray[np.uint8]:
    """Read an image file as the network's (S, S, 3) uint8 input.

    Raises:
        DatasetError: As `read_image`.
    """
    return prepare(read_image(path), spec, resize)


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a mask as (H, W) bool: any value above 0 is defect.

    Raises:
        DatasetError: Unreadable, or of another size than its image.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8)
    mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if mask is None:
        raise DatasetError(f"cannot read the mask {path}; replace the file")
    if mask.shape != shape:
        raise DatasetError(f"mask {path} is {mask.shape}, but its image is {shape}")
    return np.asarray(mask > 0)


def resize(image: NDArray[np.uint8], step: ResizePass) -> NDArray[np.uint8]:
    """Run one pass of the resize plan with OpenCV."""
    mode = cv2.INTER_AREA if step.shrinks else cv2.INTER_LINEAR
    return np.asarray(
        cv2.resize(image, (step.width_px, step.height_px), interpolation=mode), np.uint8
    )


def _category_folders(root: Path) -> Iterator[Path]:
    """Walk below root through links; a category is not searched for further ones inside it."""
    seen: set[str] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        real = os.path.realpath(folder)
        # A link back to a folder above would otherwise be walked for ever.
        if real in seen:
            continue
        seen.add(real)
        if (folder / "train" / "good").is_dir() or (folder / "good").is_dir():
            yield folder
        else:
            pending.extend(child for child in folder.iterdir() if child.is_dir())


def _name(folder: Path, root: Path, folders: list[Path]) -> str:
    if folder == root:
        return root.resolve().name
    if sum(other.name == folder.name for other in folders) > 1:
        return folder.relative_to(root).as_posix()
    return folder.name


def _read_category(folder: Path, name: str) -> Category:
    if (folder / "train" / "good").is_dir():
        return _read_mvtec(folder, name)
    good = _images(folder / "good")
    defects = _images(folder / "defect") if (folder / "defect").is_dir() else []
    test = [Sample(path) for path in good[TEST_EVERY - 1 :: TEST_EVERY]]
    return Category(
        name,
        train=tuple(path for i, path in enumerate(good, 1) if i % TEST_EVERY),
        test=(*test, *(Sample(path, "defect") for path in defects)),
        has_masks=False,
    )


def _read_mvtec(folder: Path, name: str) -> Category:
    truth = folder / "ground_truth"
    has_masks = truth.is_dir() and any(truth.iterdir())
    test: list[Sample] = []
    kinds = sorted(p for p in (folder / "test").iterdir()) if (folder / "test").is_dir() else []
    for kind in kinds:
        if not kind.is_dir():
            _refuse_unless_ignored(kind)
            continue
        for image in _images(kind):
            if kind.name == "good":
                test.append(Sample(image))
            else:
                mask = _mask_of(image, truth / kind.name) if has_masks else None
                test.append(Sample(image, kind.name, mask))
    return Category(name, tuple(_images(folder / "train" / "good")), tuple(test), has_masks)


def _mask_of(image: Path, folder: Path) -> Path:
    for name in (f"{image.stem}_mask.png", f"{image.stem}.png"):
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(
        f"{image} has no mask: expected {folder / (image.stem + '_mask.png')}; add it, or remove "
        "ground_truth if this category has no masks"
    )


def _images(folder: Path) -> list[Path]:
    """Every image below a folder, sorted by path.

    Raises:
        DatasetError: A file that is no image by its ending; it is named.
    """
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = Path(parent) / name
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                found.append(path)
            else:
                _refuse_unless_ignored(path)
    return sorted(found)


def _refuse_unless_ignored(path: Path) -> None:
    if not path.name.startswith(".") and path.name.lower() not in IGNORED_NAMES:
        raise DatasetError(
            f"{path} is not an image ({', '.join(sorted(IMAGE_SUFFIXES))}); remove or convert it"
        )
