"""What a camera and its station say to each other beside frames.

A camera's DEALER socket sends frames (`inspection.messages`) and hellos, and is answered with
credits and verdicts. `docs/wire.md` is this module in prose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from inspection.verdicts import Reason
from inspection.wire import (
    Buffer,
    Converted,
    Counter,
    MessageError,
    Name,
    Wire,
    first_of,
    pack,
    unpack,
)

CREDIT, VERDICT = b"credit", b"verdict"
"""First part of what a station tells a camera."""

MOST_OPEN = 256
"""Most frames of one camera that may be unacknowledged at once: a hello lists them all."""


class Hello(Wire):
    """A camera is there, or asks again: these frames of its session have no verdict yet."""

    v: Literal[1] = 1
    camera: Name
    session: Name
    open: Annotated[tuple[Counter, ...], Converted, Field(max_length=MOST_OPEN)] = ()


class Credit(Wire):
    """How many frames of the camera may be unacknowledged at once, and which must be sent again.

    Attributes:
        window: Stands until another comes; never more than `MOST_OPEN`.
        missing: Of the frames that a hello called open, those that the station does not have.
    """

    v: Literal[1] = 1
    session: Name
    window: Annotated[int, Field(ge=0, le=MOST_OPEN)]
    missing: Annotated[tuple[Counter, ...], Converted, Field(max_length=MOST_OPEN)] = ()


def decode_hello(data: Buffer) -> Hello:
    """Decode the one part of a hello.

    Raises:
        MessageError: Not a hello of this version.
    """
    document = unpack(data)
    if document.get("v") is True:  # which Python takes for 1
        raise MessageError("expected v = 1, got true", Reason.BAD_HEADER)
    try:
        return Hello.model_validate(document)
    except ValidationError as error:
        raise MessageError(first_of(error), Reason.BAD_HEADER) from error


def encode_credit(credit: Credit) -> list[Buffer]:
    """Make the two parts of a credit."""
    return [CREDIT, pack(credit)]


def encode_acknowledgement(record: bytes) -> list[Buffer]:
    """Make the two parts that acknowledge a frame: its verdict, packed, as it is recorded."""
    return [VERDICT, record]


def decode_credit(parts: Sequence[Buffer]) -> Credit:
    """Decode what `encode_credit` made.

    Raises:
        MessageError: Not a credit of this version.
    """
    if len(parts) != 2 or bytes(parts[0]) != CREDIT:
        raise MessageError(f"expected credit, got {len(parts)} parts", Reason.BAD_HEADER)
    try:
        return Credit.model_validate(unpack(parts[1]))
    except ValidationError as error:
        raise MessageError(first_of(error), Reason.BAD_HEADER) from error
