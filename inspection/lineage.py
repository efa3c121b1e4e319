"""Which labelled images a model has learned from: a bundle says so, and a test leaves them out.

Images are known by the SHA-256 of their file's bytes: a copy under another name is the same image.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from inspection.errors import BundleError
from inspection.manifest import Digest, no_twins


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LearnedImage(_Part):
    """One labelled image that was learned from.

    Attributes:
        category: Product that it shows.
        name: Of its file, for people.
        defect: Name of its defect type.
        sha256: Of its file's bytes.
        regions: How the defect was outlined: by a pixel mask, by boxes, or not at all.
    """

    category: str
    name: str
    defect: str
    sha256: Digest
    regions: Literal["mask", "boxes", "image"]


class Lineage(_Part):
    """What a model was taught beside good parts.

    Attributes:
        labelled: Images of defects, each there once.
    """

    labelled: tuple[LearnedImage, ...]

    @property
    def digests(self) -> frozenset[str]:
        """SHA-256 of every labelled image."""
        return frozenset(image.sha256 for image in self.labelled)


NOTHING_LABELLED = Lineage(labelled=())


def lineage_to_bytes(lineage: Lineage) -> bytes:
    """Write a record as JSON; equal records give equal bytes."""
    return json.dumps(lineage.model_dump(), indent=1, sort_keys=True).encode() + b"\n"


def lineage_from_bytes(data: bytes) -> Lineage:
    """Read what `lineage_to_bytes` wrote.

    Raises:
        BundleError: Not JSON, a field is missing, unknown or of another type, or an image is there
            twice.
    """
    try:
        # pydantic takes the last of two equal keys in silence; another reader may take the first.
        json.loads(data, object_pairs_hook=no_twins)
        lineage = Lineage.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"these are not labelled images: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"these are not labelled images: no JSON: {error}") from error
    if len(lineage.digests) < len(lineage.labelled):
        raise BundleError("these are not labelled images: one of them is there twice")
    return lineage
