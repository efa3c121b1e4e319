"""Labelled defects to learn from: what is known of each, and how some are drawn from test images.

`trainer.labelled_folder` reads them from a folder of their own instead.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inspection.errors import DatasetError, InputError
from inspection.lineage import LearnedImage, Lineage
from inspection.preprocessing import Preprocessing, map_shape
from trainer.coco import Box
from trainer.dataset import Category, Sample, read_image, read_mask
from trainer.learned import digest_of, without_learned
from trainer.outlines import boxes_outline, covered_share

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabelledDefect:
    """An image of a defective part, and where its defect is as far as that is known.

    Attributes:
        image: Its file.
        defect: Name of its defect type.
        sha256: Of the file's bytes, hex.
        mask: File of its pixel mask.
        boxes: Around its defects; none if there is a mask.
    """

    image: Path
    defect: str
    sha256: str
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        if self.mask is not None and self.boxes:
            raise InputError(f"{self.image} has a mask and boxes; give one of them")

    @property
    def regions(self) -> Literal["mask", "boxes", "image"]:
        """How the defect is outlined; "image" if not at all."""
        if self.mask is not None:
            return "mask"
        return "boxes" if self.boxes else "image"


Labelled = Mapping[str, Sequence[LabelledDefect]]
"""Labelled defects by category; one without any need not be there."""


def draw_defects(
    categories: Sequence[Category], k: int, seed: int, exclude: Collection[str] = ()
) -> tuple[dict[str, tuple[LabelledDefect, ...]], tuple[Category, ...]]:
    """Draw K defective test images of each category to learn from, and take them out of its test.

    Types come in turn, in random order, so that they are drawn as evenly as they can be. The first
    of more are those of fewer: with the same seed, 5 defects are among the 10. If a category has no
    more than K defective images, at most half of them are drawn, which is logged.

    Args:
        categories: What is drawn depends on seed and name, not on which others there are.
        k: At least 1.
        seed: At least 0.
        exclude: Defect types that are never drawn and stay in the test.

    Returns:
        The defects by category, in the order drawn, and the categories without them and without
        other test images of the same content.

    Raises:
        InputError: k is below 1, the seed below 0, or no category has a type to be excluded.
        DatasetError: An image or mask cannot be used, or is among the good ones learned from.
    """
    if k < 1 or seed < 0:
        raise InputError(f"expected at least 1 defect and a seed from 0, got {k} and {seed}")
    types = {each.defect for category in categories for each in category.test if each.defect}
    if unknown := sorted(set(exclude) - types):
        raise InputError(
            f"no category has defects of type {', '.join(unknown)}; there are "
            f"{', '.join(sorted(types)) or 'none'}"
        )
    drawn = {
        category.name: defects
        for category in categories
        if (defects := _draw(category, k, seed, exclude))
    }
    refuse_twins(drawn, ((path, "good") for each in categories for path in each.train))
    digests = {defect.sha256 for defects in drawn.values() for defect in defects}
    return drawn, without_learned(categories, digests)


def patch_share(
    outline: NDArray[np.float32] | None, spec: Preprocessing
) -> NDArray[np.float32] | None:
    """Say how much of every patch is defect.

    Args:
        outline: From `outline_of`.
        spec: How the image is prepared.

    Returns:
        (Mh, Mw) float32, 0 to 1, above 0 wherever a patch is touched; None if only the image is
        labelled.
    """
    return None if outline is None else covered_share(outline, map_shape(outline.shape, spec))


def lineage_of(labelled: Labelled) -> Lineage:
    """Record what is learned from, for the bundle; a name that is not UTF-8 gets question marks."""
    return Lineage(
        labelled=tuple(
            LearnedImage(
                category=name,
                name=_readable(defect.image.name),
                defect=_readable(defect.defect),
                sha256=defect.sha256,
                regions=defect.regions,
            )
            for name in sorted(labelled)
            for defect in labelled[name]
        )
    )


def outline_of(
    defect: LabelledDefect, annotated_shape: tuple[int, int] | None = None
) -> NDArray[np.float32] | None:
    """Read where a defect is, in pixels of its image.

    Args:
        defect: Its files are opened.
        annotated_shape: (height, width) px that its boxes were measured in, if it is known.

    Returns:
        (H, W) float32, how much of each pixel is defect, 0 to 1; None without mask and boxes.

    Raises:
        DatasetError: The image or mask cannot be used, they or the boxes do not fit each other, or
            nothing is marked.
    """
    height, width, _ = read_image(defect.image).shape
    shape = (height, width)
    if annotated_shape not in (None, shape):
        raise DatasetError(
            f"{defect.image} is {shape}, but its boxes are on {annotated_shape}, (height, width) "
            "in px; annotate the image as it is"
        )
    if defect.mask is not None:
        mask = read_mask(defect.mask, shape)
        if not mask.any():
            raise DatasetError(
                f"mask {defect.mask} is all black; outline the defect, or remove the mask to label "
                "the image alone"
            )
        return mask.astype(np.float32)
    for box in defect.boxes:
        if not box.lies_in(shape):
            raise DatasetError(
                f"{defect.image} is {shape}, (height, width) in px, but {box} reaches out of it; "
                "correct the annotation"
            )
    return boxes_outline(defect.boxes, shape) if defect.boxes else None


def refuse_twins(labelled: Labelled, shown: Iterable[tuple[Path, str]]) -> None:
    """Refuse a labelled image that is there twice: it would be its own witness.

    Args:
        labelled: What is to be learned from.
        shown: Other images, each with what it is among: "good" or "test".

    Raises:
        DatasetError: Two files have the same content; both are named.
    """
    seen: dict[str, Path] = {}
    for defect in (each for defects in labelled.values() for each in defects):
        if (first := seen.setdefault(defect.sha256, defect.image)) != defect.image:
            raise DatasetError(f"{defect.image} is the same image as {first}; keep one of them")
    sizes = {image.stat().st_size for image in seen.values()}
    for path, what in shown:
        # Only a file of the same length can be the same image.
        if path.stat().st_size in sizes and (twin := seen.get(digest_of(path))):
            raise DatasetError(
                f"{twin} is labelled as a defect, but {path} is the same image and is among the "
                f"{what} ones; remove one of them"
            )


def _readable(name: str) -> str:
    return name.encode(errors="replace").decode()


def _draw(
    category: Category, k: int, seed: int, exclude: Collection[str]
) -> tuple[LabelledDefect, ...]:
    word = hashlib.sha256(category.name.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(word, "big")])
    by_type: dict[str, list[Sample]] = {}
    for sample in category.test:
        if sample.defect is not None:
            by_type.setdefault(sample.defect, []).append(sample)
    defective = sum(map(len, by_type.values()))
    wanted = k if defective > k else defective // 2
    # Shuffled before any type is excluded, so that the others are drawn as they would be with it.
    names = [sorted(by_type)[i] for i in rng.permutation(len(by_type))]
    queues = {
        name: [by_type[name][i] for i in rng.permutation(len(by_type[name]))] for name in names
    }
    turns = [
        queues[name][turn]
        for turn in range(max(map(len, queues.values()), default=0))
        for name in names
        if turn < len(queues[name]) and name not in exclude
    ]
    drawn: dict[str, LabelledDefect] = {}
    for sample in turns:
        if len(drawn) == wanted:
            break
        assert sample.defect is not None
        # A copy of what is drawn already would bring nothing new.
        found = LabelledDefect(sample.image, sample.defect, digest_of(sample.image), sample.mask)
        if found.sha256 not in drawn:
            outline_of(found)
            drawn[found.sha256] = found
    if len(drawn) < k:
        log.warning(
            "category %s: %d labelled defects drawn instead of %d: of its %d defective test images "
            "%d are excluded by their type, and half are kept for the test where there are no more "
            "than asked for",
            *(category.name, len(drawn), k, defective),
            sum(len(by_type[name]) for name in by_type if name in exclude),
        )
    return tuple(drawn.values())
