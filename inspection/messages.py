"""What crosses a socket: frames, verdicts and maps, decoded into types before anyone believes them.

`docs/wire.md` is this module in prose. A message is a msgpack header and, where there are pixels, a
part of its own beside it, which is never copied here.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgpack
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inspection.errors import InputError
from inspection.verdicts import Reason, Verdict

VERSION = 1
MAX_HEADER_BYTES = 8192
MAX_ENTRIES = 256
"""Most entries of one array or map inside a header. Ours have fewer than 20."""

MAX_SIDE_PX = 32768

VERDICT_TOPIC = b"verdict/"
"""A verdict's first part is this and the camera's name: subscribe to it, or to one camera's."""

HEATMAP_TOPIC = b"heatmap/"

BYTES_PER_SAMPLE = {"uint8": 1, "uint16": 2}

Buffer = bytes | bytearray | memoryview

Name = Annotated[str, Field(min_length=1, max_length=128)]
# msgpack has lists for tuples and plain text for enumerations: these alone are converted.
Converted = Field(strict=False)
Counter = Annotated[int, Field(ge=0, lt=1 << 63)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE_PX)]


class MessageError(InputError):
    """A message breaks the wire format.

    Attributes:
        reason: For the verdict, where there is one.
        name: Whose frame it was, if that much could be read.
    """

    def __init__(self, text: str, reason: Reason, name: FrameName | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.name = name


@dataclass(frozen=True, slots=True)
class FrameName:
    """What makes a frame the only one of its kind, and what its verdict repeats.

    Attributes:
        camera: Name of the camera.
        session: One run of the camera; a new one starts `seq` anew.
        seq: Counts the camera's triggers from 0.
        part: Serial number of the part, if the line knows it.
    """

    camera: str
    session: str
    seq: int
    part: str | None = None


class _Wire(BaseModel):
    # Unknown keys are passed over, so that a camera may be newer than its station.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class FrameHeader(_Wire):
    """Says what the pixels beside it are. See `docs/wire.md` for the meaning of every field."""

    v: Literal[1] = 1
    camera: Name
    session: Name
    seq: Counter
    encoding: Literal["raw", "jpeg", "png"]
    shape: Annotated[list[int], Field(min_length=2, max_length=3)] | None = None
    dtype: Literal["uint8", "uint16"] = "uint8"
    trigger_ns: Counter | None = None
    part: Name | None = None
    product: Name | None = None
    deadline_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

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


class RegionEntry(_Wire):
    """A suspicious box: see `inspection.verdicts.Region`."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int
    score: float


class VerdictMessage(_Wire):
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
    station_seq: int
    latency_ms: dict[str, float]

    @model_validator(mode="after")
    def _is_backed(self) -> VerdictMessage:
        if self.verdict is Verdict.PASS and (self.score is None or self.reason is not None):
            raise ValueError("a verdict of PASS needs a score, and has no reason")
        if self.verdict is not Verdict.PASS and self.reason is None:
            raise ValueError(f"a verdict of {self.verdict.value} needs a reason")
        return self


class HeatmapHeader(_Wire):
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
            _name_in(_unpack_or_none(parts[0])) if parts else None,
        )
    document = _unpack(parts[0])
    name = _name_in(document)
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
        raise MessageError(_first(error), Reason.BAD_HEADER, name) from error
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
    if size == 0:
        raise MessageError("the part for the pixels is empty", Reason.BAD_PAYLOAD, name)
    return Frame(header, parts[1])


def encode_verdict(verdict: VerdictMessage) -> list[Buffer]:
    """Make the two parts of a verdict message: topic and header."""
    return [VERDICT_TOPIC + verdict.camera.encode(), _pack(verdict)]


def decode_verdict(parts: Sequence[Buffer]) -> VerdictMessage:
    """Decode what `encode_verdict` made.

    Raises:
        MessageError: Not a verdict of this version.
    """
    if len(parts) != 2:
        raise MessageError(f"expected topic and verdict, got {len(parts)} parts", Reason.BAD_HEADER)
    document = _unpack(parts[1], max_bytes=1 << 20)
    try:
        return VerdictMessage.model_validate(document)
    except ValidationError as error:
        raise MessageError(_first(error), Reason.BAD_HEADER) from error


def encode_heatmap(header: HeatmapHeader, values: Buffer) -> list[Buffer]:
    """Make the three parts of a heatmap message: topic, header, (Mh, Mw) float32 little-endian."""
    return [HEATMAP_TOPIC + header.camera.encode(), _pack(header), values]


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
        header = HeatmapHeader.model_validate(_unpack(parts[1]))
    except ValidationError as error:
        raise MessageError(_first(error), Reason.BAD_HEADER) from error
    if len(parts[2]) != 4 * math.prod(header.shape):
        raise MessageError(
            f"a map of {header.shape} float32 is {4 * math.prod(header.shape)} bytes, "
            f"got {len(parts[2])}",
            Reason.BAD_PAYLOAD,
        )
    return header, parts[2]


def _pack(message: BaseModel) -> bytes:
    return bytes(msgpack.packb(message.model_dump(mode="json")))


def _unpack(data: Buffer, max_bytes: int = MAX_HEADER_BYTES) -> dict[str, Any]:
    """Decode a header that claims no more than it holds.

    msgpack allocates an array when it is announced. Its own limit is the buffer's length for each,
    and a thousand nested claims in 8 kB took 65 MB (measured); with ours it is 2 MB at the most.
    """
    if len(data) > max_bytes:
        raise MessageError(
            f"a header has at most {max_bytes} bytes, got {len(data)}", Reason.BAD_HEADER
        )
    try:
        document = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_array_len=MAX_ENTRIES,
            max_map_len=MAX_ENTRIES,
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        said = str(error) or type(error).__name__
        raise MessageError(f"the header is not msgpack: {said}", Reason.BAD_HEADER) from error
    if not isinstance(document, dict):
        raise MessageError(
            f"a header is a msgpack map, got {type(document).__name__}", Reason.BAD_HEADER
        )
    return document


def _unpack_or_none(data: Buffer) -> dict[str, Any] | None:
    try:
        return _unpack(data)
    except MessageError:
        return None


class _Named(_Wire):
    camera: Name
    session: Name
    seq: Counter
    part: Name | None = None


def _name_in(document: dict[str, Any] | None) -> FrameName | None:
    """Read whose frame it is from a header that may be wrong elsewhere."""
    if document is None:
        return None
    for candidate in (document, {**document, "part": None}):
        try:
            named = _Named.model_validate(candidate)
        except ValidationError:
            continue
        return FrameName(named.camera, named.session, named.seq, named.part)
    return None


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "header"
    return f"{where}: {first['msg']}"
