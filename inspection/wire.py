"""What every message has in common: a version, msgpack within bounds, and who a frame belongs to.

`docs/wire.md` is the wire in prose. A message is a msgpack header and, where there are pixels, a
part of its own beside it, which is never copied here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgpack
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inspection.errors import InputError
from inspection.verdicts import Reason

VERSION = 1
MAX_HEADER_BYTES = 8192
MAX_ENTRIES = 256
"""Most entries of one array or map inside a header. Ours have fewer than 20."""

MAX_SIDE_PX = 32768

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


class Wire(BaseModel):
    # Unknown keys are passed over, so that a camera may be newer than its station.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def pack(message: BaseModel) -> bytes:
    return bytes(msgpack.packb(message.model_dump(mode="json")))


def unpack(data: Buffer, max_bytes: int = MAX_HEADER_BYTES) -> dict[str, Any]:
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


def unpack_or_none(data: Buffer) -> dict[str, Any] | None:
    try:
        return unpack(data)
    except MessageError:
        return None


class _Named(Wire):
    camera: Name
    session: Name
    seq: Counter
    part: Name | None = None


def name_in(document: dict[str, Any] | None) -> FrameName | None:
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


def first_of(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "header"
    return f"{where}: {first['msg']}"
