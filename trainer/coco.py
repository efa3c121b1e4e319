"""Boxes around defects, from a COCO file: `images`, `annotations`, and what else it has unread."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inspection.errors import DatasetError, InputError
from inspection.manifest import no_twins

ANNOTATIONS = "annotations.json"

OVERHANG_PX = 0.5
"""How far a box may reach over its image's edge: annotation tools round."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle around a defect, in pixels of its image, from the corner at the upper left.

    Attributes:
        x_px: Left edge.
        y_px: Upper edge.
        width_px: Above 0.
        height_px: Above 0.
    """

    x_px: float
    y_px: float
    width_px: float
    height_px: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x_px, self.y_px, self.width_px, self.height_px))):
            raise InputError(f"expected a box of finite numbers, got {self}")
        if self.width_px <= 0 or self.height_px <= 0:
            raise InputError(f"expected a box with an area, got {self}")

    def lies_in(self, shape: tuple[int, int]) -> bool:
        """Whether it lies in an image of (height, width) px, give or take `OVERHANG_PX`."""
        if min(self.x_px + self.width_px, self.y_px + self.height_px) <= 0:
            return False
        if self.x_px >= shape[1] or self.y_px >= shape[0]:
            return False
        return (
            min(self.x_px, self.y_px) >= -OVERHANG_PX
            and self.x_px + self.width_px <= shape[1] + OVERHANG_PX
            and self.y_px + self.height_px <= shape[0] + OVERHANG_PX
        )


@dataclass(frozen=True, slots=True)
class Annotated:
    """What a COCO file says of one image.

    Attributes:
        file_name: As written there.
        boxes: Of all its annotations, in their order; may be none.
        shape: (height, width) px that the boxes are measured in; None where it is not said.
    """

    file_name: str
    boxes: tuple[Box, ...]
    shape: tuple[int, int] | None


class _Part(BaseModel):
    # COCO has many more fields, and every tool adds its own.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Image(_Part):
    id: int
    file_name: str = Field(min_length=1)
    height: int | None = None
    width: int | None = None


class _Annotation(_Part):
    image_id: int
    bbox: list[float] = Field(min_length=4, max_length=4)


class _Document(_Part):
    images: list[_Image]
    annotations: list[_Annotation]


def read_boxes(path: Path) -> list[Annotated]:
    """Read the images of a COCO file and the boxes on them.

    Args:
        path: UTF-8 JSON with `images` (`id`, `file_name`, and `height` and `width` if they are
            known) and `annotations` (`image_id`, `bbox` as [x, y, width, height] in px).

    Raises:
        DatasetError: Not such a file, an image or id twice, an annotation of no image, or a box
            that is empty or not finite.
    """
    try:
        data = path.read_bytes()
        # pydantic takes the last of two equal keys in silence; another reader may take the first.
        json.loads(data, object_pairs_hook=no_twins)
        document = _Document.model_validate_json(data)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DatasetError(
            f"{path} is no COCO file: {where}: {first['msg']}; export it again, or remove it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON: {error}; export it again, or remove it") from error
    boxes: dict[int, list[Box]] = {image.id: [] for image in document.images}
    names = {image.file_name for image in document.images}
    if len(boxes) < len(document.images) or len(names) < len(document.images):
        raise DatasetError(f"{path} lists an image twice, by id or file_name; list each once")
    for number, annotation in enumerate(document.annotations):
        if annotation.image_id not in boxes:
            raise DatasetError(
                f"{path}: annotation {number} is of image {annotation.image_id}, which is not "
                "among its images; add the image, or remove the annotation"
            )
        try:
            boxes[annotation.image_id].append(Box(*annotation.bbox))
        except InputError as error:
            raise DatasetError(f"{path}: annotation {number}: {error}; correct it") from error
    return [
        Annotated(
            image.file_name,
            tuple(boxes[image.id]),
            None if image.height is None or image.width is None else (image.height, image.width),
        )
        for image in document.images
    ]
