"""A folder of labelled defects: `<category>/<defect type>/` with images.

Where the defect is, say, of each image, the first there is: a mask,
`<category>/ground_truth/<defect type>/<stem>_mask.png`; boxes, in a COCO file `annotations.json`
beside the types or beside the categories; or nothing, and then the image alone is labelled. As in
`trainer.dataset`, nothing odd is skipped in silence.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from inspection.errors import DatasetError
from trainer.coco import ANNOTATIONS, Annotated, read_boxes
from trainer.dataset import Category, images_below, is_ignored, refuse_loose
from trainer.labelled import LabelledDefect, outline_of, refuse_twins
from trainer.learned import digest_of

TRUTH = "ground_truth"
NO_DEFECT_TYPES = frozenset({"good", "train", "test"})
"""Folders of a data set: one that holds them was meant for something else."""


def find_labelled(
    root: Path, categories: Sequence[Category]
) -> dict[str, tuple[LabelledDefect, ...]]:
    """Read a folder of labelled defects; it may be that of one category, if it has its name.

    Args:
        root: As the docstring of this module says.
        categories: What is learned and tested; none of their images may be labelled too.

    Returns:
        The defects, sorted by path, of every category that has a folder.

    Raises:
        DatasetError: A folder is of no category or has no images, an image, mask, box or annotation
            cannot be used or belongs to nothing, or an image is there twice, in the folder or among
            the good and test images.
    """
    if not root.is_dir():
        raise DatasetError(f"expected a folder of labelled defects, got {root}, which is none")
    folders = _category_folders(root, [category.name for category in categories])
    images = {name: _typed_images(folder) for name, folder in folders.items()}
    known = {os.path.abspath(path) for each in images.values() for path, _ in each}
    annotated: dict[str, Annotated] = {}
    for folder in sorted({root, *folders.values()}):
        for path, found in _annotations(folder, known).items():
            if path in annotated:
                raise DatasetError(f"two files {ANNOTATIONS} list {path}; keep it in one of them")
            annotated[path] = found
    labelled = {
        name: _read_folder(folder, images[name], annotated) for name, folder in folders.items()
    }
    shown = [(path, "good") for category in categories for path in category.train]
    shown += [(each.image, "test") for category in categories for each in category.test]
    refuse_twins(labelled, shown)
    return labelled


def _category_folders(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """Find the folder of every category that has one; nothing else may lie in between."""
    wanted = {root / name: name for name in names}
    own = Path(os.path.abspath(root)).name
    if own in names and not any(folder.is_dir() for folder in wanted):
        return {own: root}
    found: dict[str, Path] = {}
    pending = [root]
    while pending:
        folder = pending.pop()
        refuse_loose(folder, "no category")
        for child in _folders(folder):
            if child in wanted:
                found[wanted[child]] = child
            elif any(child in other.parents for other in wanted):
                pending.append(child)
            else:
                raise DatasetError(
                    f"{child} is of no category that is learned: {', '.join(names)}; rename it, "
                    "or move it out"
                )
    if not found:
        raise DatasetError(
            f"no labelled defects below {root}: expected folders <category>/<defect type>, with "
            f"a category of {', '.join(names)}"
        )
    return dict(sorted(found.items()))


def _typed_images(folder: Path) -> list[tuple[Path, str]]:
    """List images of one category with their defect types, sorted by path."""
    refuse_loose(folder, "no defect type")
    found = []
    for kind in _folders(folder):
        if kind.name in NO_DEFECT_TYPES:
            raise DatasetError(
                f"{kind} is no defect type: expected a folder of labelled defects, not a data set; "
                "to draw from test images use --defects"
            )
        if kind.name != TRUTH:
            found += [(image, kind.name) for image in images_below(kind)]
    if not found:
        raise DatasetError(f"{folder} has no images: expected folders of defect types with images")
    return found


def _annotations(folder: Path, known: Collection[str]) -> dict[str, Annotated]:
    """Read the annotations that lie in a folder: absolute path of an image → what they say."""
    for other in sorted(folder.glob("*.json")):
        if other.name != ANNOTATIONS and not is_ignored(other.name):
            raise DatasetError(f"{other} is not read; call it {ANNOTATIONS}, or move it out")
    source = folder / ANNOTATIONS
    found: dict[str, Annotated] = {}
    for each in read_boxes(source) if os.path.lexists(source) else ():
        path = os.path.abspath(folder / each.file_name)
        if path not in known:
            what = "is no labelled image" if os.path.exists(path) else "does not exist"
            raise DatasetError(
                f"{source} names {each.file_name!r}, which {what}; expected the path of an image "
                f"from {folder}"
            )
        if path in found:
            raise DatasetError(f"{source} names {each.file_name!r} twice; list it once")
        found[path] = each
    return found


def _read_folder(
    folder: Path, images: Sequence[tuple[Path, str]], annotated: Mapping[str, Annotated]
) -> tuple[LabelledDefect, ...]:
    truth = folder / TRUTH
    taken: dict[Path, Path] = {}
    labelled = []
    for image, kind in images:
        place = truth / image.parent.relative_to(folder)
        masks = [
            place / name
            for name in (f"{image.stem}_mask.png", f"{image.stem}.png")
            if os.path.lexists(place / name)
        ]
        if len(masks) > 1:
            raise DatasetError(f"{image} has two masks, {masks[0]} and {masks[1]}; keep one")
        for mask in masks:
            if mask in taken:
                raise DatasetError(
                    f"{mask} is the mask of {taken[mask]} and of {image}; rename one of the images"
                )
            taken[mask] = image
        said = None if masks else annotated.get(os.path.abspath(image))
        boxes = said.boxes if said else ()
        defect = LabelledDefect(image, kind, digest_of(image), next(iter(masks), None), boxes)
        outline_of(defect, said.shape if said else None)
        labelled.append(defect)
    for mask in images_below(truth) if truth.is_dir() else ():
        if mask not in taken:
            raise DatasetError(
                f"{mask} is the mask of no labelled image; call it <stem>_mask.png after its image "
                f"and put it into {TRUTH}/<defect type>, or remove it"
            )
    return tuple(labelled)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_ignored(path.name))
