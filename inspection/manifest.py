"""The one document that a bundle id digests: its fields, and when its bytes may be believed."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from inspection.errors import BundleError
from inspection.preprocessing import Fit

FORMAT: Literal["dualbank-bundle/1"] = "dualbank-bundle/1"
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 << 20

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileEntry(_Part):
    """Where a file's bytes are and how many: they live at `files/<sha256>`."""

    sha256: Digest
    size_bytes: int = Field(ge=0)

    @property
    def path(self) -> str:
        """Path below the bundle's folder; it cannot leave it, being a digest."""
        return f"files/{self.sha256}"


class PreprocessingEntry(_Part):
    """See `inspection.preprocessing.Preprocessing`."""

    size_px: int
    fit: Fit = "stretch"
    overlap_px: int = 0
    shrink: int = 1


class ScoringEntry(_Part):
    """What every product shares of `inspection.scoring.Scoring`."""

    k: int
    top_fraction: float


class LimitsEntry(_Part):
    """See `inspection.frame_checks.FrameLimits`."""

    least_brightness: float
    most_white_share: float
    least_sharpness: float
    least_sharpness_one_way: float
    least_change: float


class RouteEntry(_Part):
    """How one product is judged: the manifest's form of `Route`."""

    temperature: float
    position_weight: float = Field(ge=0, allow_inf_nan=False)
    abnormal_weight: float = Field(ge=0, allow_inf_nan=False)
    good_scores: list[float]
    review: float
    reject: float
    statement: str
    limits: LimitsEntry | None = None

    @model_serializer(mode="wrap")
    def _as_it_was(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out limits that there are not, so that an older route keeps its bytes."""
        written: dict[str, Any] = write(self)
        if self.limits is None:
            del written["limits"]
        return written


class Manifest(_Part):
    """The one document that a bundle id digests."""

    format: Literal["dualbank-bundle/1"]
    parent: Digest | None
    backbone: str
    weights: Digest | None = None
    seed: int
    preprocessing: PreprocessingEntry
    scoring: ScoringEntry
    routes: dict[str, RouteEntry]
    files: dict[str, FileEntry]


def parse_manifest(data: bytes) -> Manifest:
    """Decode a manifest.

    Raises:
        BundleError: Not JSON, another format, or a field is missing, unknown or out of range.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"the manifest has {len(data)} bytes, more than {MAX_MANIFEST_BYTES}")
    try:
        document = json.loads(data, object_pairs_hook=no_twins)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST} is not JSON: {error}") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise BundleError(f"expected a bundle of format {FORMAT!r}, got {found!r}")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{MANIFEST}: {where}: {first['msg']}") from error


def manifest_bytes(manifest: Manifest) -> bytes:
    """Write a manifest; equal manifests give equal bytes."""
    return json.dumps(manifest.model_dump(), indent=1, sort_keys=True).encode() + b"\n"


def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that is there twice: readers would differ in which of the two they take."""
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key is there twice")
    return document
