"""What crosses a socket: frames, verdicts and maps, decoded into types before anyone believes them.

`docs/wire.md` is this module in prose. A message is a msgpack header and, where there are pixels, a
part of its own beside it, which is never copied here.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgpack
from pydantic import Field, ValidationError, model_validator

from inspection.verdicts import Reason, Verdict
from inspection.wire import (
    MAX_SIDE_PX,
    VERSION,
    Buffer,
    Converted,
    Counter,
    FrameName,
    MessageError,
    Name,
    Side,
    Wire,
    first_of,
    name_in,
    pack,
    unpack,
    unpack_or_none,
)

VERDICT_TOPIC = b"verdict/"
"""A verdict's first part is this and the camera's name: subscribe to it, or to one camera's."""

HEATMAP_TOPIC = b"heatmap/"

BYTES_PER_SAMPLE = {"uint8": 1, "uint16": 2}


class FrameHeader(Wire):
    """Says what the pixels beside it are. See `docs/wire.md` for the meaning of every field."""

    v: Literal[1] = 1
    camera: Name
    session: Name
    seq: Counter
    encoding: Literal["raw", "jpeg", "png", "none"]
    shape: Annotated[list[int], Field(min_length=2, max_length=3)] | None = None
    dtype: Literal["uint8", "uint16"] = "uint8"
    trigger_ns: Counter | None = None
    part: Name | None = None
    product: Name | None = None
    deadline_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    live: bool = True

    @model_validator(mode="after")
    def _shape_is_usable(self) -> FrameHeader:
        if self.shape is None:
            if self.encoding == "raw":
                raise ValueError("raw pixels need a shape, (H, W) or (H, W, C)")
            return self
        height, width = self.shape[:2]
        if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
            raise ValueError(f"sides must lie between 1 and {MAX_SIDE_PX} px, got {self.shape}")
        if len(self.shape) == 3 and self.shape[2] not in (1, 3, 4):
            raise ValueError(f"expected 1, 3 or 4 channels, got {self.shape[2]}")
        return self

    @property
    def frame_name(self) -> FrameName:
        """The part of the header that the verdict repeats."""
        return FrameName(self.camera, self.session, self.seq, self.part)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the pixels when they are not encoded; 0 if the header does not say."""
        return math.prod(self.shape or [0]) * BYTES_PER_SAMPLE[self.dtype]


class RegionEntry(Wire):
    """A suspicious box: see `inspection.verdicts.Region`."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int
    score: float


class VerdictMessage(Wire):
    """What the station says of one trigger; without a score where the verdict is UNKNOWN."""

    v: Literal[1] = 1
    camera: str
    session: str
    seq: int
    part: str | None = None
    product: str | None = None
    verdict: Annotated[Verdict, Converted]
    reason: Annotated[Reason, Converted] | None = None
    detail: str | None = None
    score: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    reject_threshold: float | None = None
    regions: Annotated[tuple[RegionEntry, ...], Converted] = ()
    bundle: str
    bank: str
    frame_sha256: str | None = None
    station_seq: int
    latency_ms: dict[str, float]

    @model_validator(mode="after")
    def _is_backed(self) -> VerdictMessage:
        if self.verdict is Verdict.PASS and (self.score is None or self.reason is not None):
            raise ValueError("a verdict of PASS needs a score, and has no reason")
        if self.verdict is not Verdict.PASS and self.reason is None:
            raise ValueError(f"a verdict of {self.verdict.value} needs a reason")
        return self


class HeatmapHeader(Wire):
    """Says what the (Mh, Mw) float32 standardised patch scores beside it belong to."""

    v: Literal[1] = 1
    camera: str
    session: str
    seq: int
    station_seq: int
    shape: Annotated[tuple[Side, Side], Converted]
    dtype: Literal["float32"] = "float32"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it arrived: header checked, pixels not yet looked at.

    Attributes:
        header: Decoded.
        pixels: A view of the message; it lives as long as the message does.
    """

    header: FrameHeader
    pixels: Buffer


def encode_frame(header: FrameHeader, pixels: Buffer) -> list[Buffer]:
    """Make the two parts of a frame message; the pixels are not copied."""
    return [bytes(msgpack.packb(header.model_dump(exclude_none=True))), pixels]


def decode_frame(parts: Sequence[Buffer], max_frame_bytes: int) -> Frame:
    """Check a frame message before anything is allocated for it.

    Args:
        parts: As received.
        max_frame_bytes: Most bytes that the decoded frame may take.

    Raises:
        MessageError: Not two parts, a header that is too large, is not msgpack or misses a field,
            pixels of another size than the header says, or a frame beyond the limit.
    """
    if len(parts) != 2:
        raise MessageError(
            f"expected 2 parts, header and pixels, got {len(parts)}",
            Reason.BAD_HEADER,
            name_in(unpack_or_none(parts[0])) if parts else None,
        )
    document = unpack(parts[0])
    name = name_in(document)
    if type(document.get("v")) is not int or document["v"] != VERSION:
        raise MessageError(
            f"expected v = {VERSION}, got {reprlib.repr(document.get('v'))}; camera and station "
            "are of different versions",
            Reason.BAD_HEADER,
            name,
        )
    try:
        header = FrameHeader.model_validate(document)
    except ValidationError as error:
        raise MessageError(first_of(error), Reason.BAD_HEADER, name) from error
    if header.raw_bytes > max_frame_bytes:
        raise MessageError(
            f"a frame of {header.shape} {header.dtype} takes {header.raw_bytes} bytes, "
            f"more than the {max_frame_bytes} allowed",
            Reason.FRAME_TOO_LARGE,
            name,
        )
    size = len(parts[1])
    if header.encoding == "raw" and size != header.raw_bytes:
        raise MessageError(
            f"raw {header.shape} {header.dtype} is {header.raw_bytes} bytes, got {size}",
            Reason.BAD_PAYLOAD,
            name,
        )
    if header.encoding == "none":
        raise MessageError(
            "the camera could not keep the pixels of this trigger", Reason.FRAME_LOST, name
        )
    if size == 0:
        raise MessageError("the part for the pixels is empty", Reason.BAD_PAYLOAD, name)
    return Frame(header, parts[1])


MOST_VERDICT_BYTES = 1 << 20
"""Of a verdict; ours have a few hundred."""


def encode_verdict(verdict: VerdictMessage) -> list[Buffer]:
    """Make the two parts of a verdict message: topic and header."""
    return [VERDICT_TOPIC + verdict.camera.encode(), pack(verdict)]


def decode_verdict(parts: Sequence[Buffer]) -> VerdictMessage:
    """Decode what `encode_verdict` made.

    Raises:
        MessageError: Not a verdict of this version.
    """
    if len(parts) != 2:
        raise MessageError(f"expected topic and verdict, got {len(parts)} parts", Reason.BAD_HEADER)
    return decode_verdict_record(parts[1])


def decode_verdict_record(record: Buffer) -> VerdictMessage:
    """Decode a verdict as it is published, acknowledged and recorded: one and the same bytes.

    Raises:
        MessageError: Not a verdict of this version.
    """
    document = unpack(record, max_bytes=MOST_VERDICT_BYTES)
    try:
        return VerdictMessage.model_validate(document)
    except ValidationError as error:
        raise MessageError(first_of(error), Reason.BAD_HEADER) from error


def encode_heatmap(header: HeatmapHeader, values: Buffer) -> list[Buffer]:
    """Make the three parts of a heatmap message: topic, header, (Mh, Mw) float32 little-endian."""
    return [HEATMAP_TOPIC + header.camera.encode(), pack(header), values]


def decode_heatmap(parts: Sequence[Buffer]) -> tuple[HeatmapHeader, Buffer]:
    """Decode what `encode_heatmap` made.

    Raises:
        MessageError: Not a heatmap, or its values have another size than its shape.
    """
    if len(parts) != 3:
        raise MessageError(
            f"expected topic, header and values, got {len(parts)} parts", Reason.BAD_HEADER
        )
    try:
        header = HeatmapHeader.model_validate(unpack(parts[1]))
    except ValidationError as error:
        raise MessageError(first_of(error), Reason.BAD_HEADER) from error
    if len(parts[2]) != 4 * math.prod(header.shape):
        raise MessageError(
            f"a map of {header.shape} float32 is {4 * math.prod(header.shape)} bytes, "
            f"got {len(parts[2])}",
            Reason.BAD_PAYLOAD,
        )
    return header, parts[2]
