"""What a station tells beside verdicts, and what it may be asked: heartbeats, verdicts that were
missed, and whether a part must be ejected.

`docs/wire.md` is this module in prose. Frames and verdicts are in `inspection.messages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from inspection.verdicts import Reason, Verdict
from inspection.wire import (
    MAX_ENTRIES,
    VERSION,
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

LAST_TOPIC = b"last/"
"""The last verdict of each camera: this and the camera's name, told to whoever subscribes."""

HEARTBEAT_TOPIC = b"heartbeat/"

MOST_RECORDS = 1000
"""Most verdicts of one answer to a request to catch up."""

MOST_CAMERAS = 64
"""Most cameras that a question for a part may name."""

MOST_TEXT = 512
MOST_DEADLINE_MS = 60_000.0
MOST_AGE_MS = 3_600_000.0
MOST_ANSWER_BYTES = 1 << 20
"""Of the header of an answer: a reject answer tells of up to `MAX_ENTRIES` cameras."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=MOST_TEXT)]
AnyWire = TypeVar("AnyWire", bound=Wire)


class Heartbeat(Wire):
    """The station is there, and this is the last verdict it has published.

    Attributes:
        session: One run of the station.
    """

    v: Literal[1] = 1
    session: Name
    station_seq: Counter
    chain: Digest
    bundle: Digest
    unix_ns: Counter
    uptime_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    state: Annotated[str, Field(min_length=1, max_length=32)]


class CatchUpRequest(Wire):
    """Which recorded verdicts are wanted: exactly one of `after`, `latest`, `last_by_camera`."""

    v: Literal[1] = 1
    after: Counter | None = None
    most: Annotated[int, Field(ge=1, le=MOST_RECORDS)] = MOST_RECORDS
    camera: Name | None = None
    latest: Annotated[int, Field(ge=1, le=MOST_RECORDS)] | None = None
    last_by_camera: bool = False

    @model_validator(mode="after")
    def _asks_one_thing(self) -> CatchUpRequest:
        if (self.after is not None) + (self.latest is not None) + self.last_by_camera != 1:
            raise ValueError("expected exactly one of after, latest, and last_by_camera = true")
        if self.camera is not None and self.after is None:
            raise ValueError("camera goes with after only")
        return self


class CatchUpAnswer(Wire):
    """Says what the records beside it are.

    Attributes:
        count: How many records follow, a part each.
        last: `station_seq` of the last verdict in the ledger; 0 for an empty one.
        more: Whether the ledger has further ones that the request asked for.
        error: Why there are none, if the request could not be answered.
    """

    v: Literal[1] = 1
    count: Annotated[int, Field(ge=0, le=MOST_RECORDS)]
    last: Counter
    more: bool
    error: Text | None = None


class RejectQuestion(Wire):
    """Must this part be ejected?

    Attributes:
        cameras: Whose verdicts are needed; None for whichever cameras have seen the part.
        deadline_ms: When an answer is given at the latest, counted from receipt.
        max_age_ms: A verdict that is older does not count.
    """

    v: Literal[1] = 1
    part: Name
    cameras: (
        Annotated[tuple[Name, ...], Converted, Field(min_length=1, max_length=MOST_CAMERAS)] | None
    ) = None
    deadline_ms: Annotated[float, Field(ge=0, le=MOST_DEADLINE_MS, allow_inf_nan=False)]
    max_age_ms: Annotated[float, Field(gt=0, le=MOST_AGE_MS, allow_inf_nan=False)] = 60_000.0


class PartVerdict(Wire):
    """What one camera's newest frame of the part was judged."""

    verdict: Annotated[Verdict, Converted]
    station_seq: Counter
    bundle: Name


class RejectAnswer(Wire):
    """PASS only if that is certain, and why not otherwise.

    Attributes:
        part: As asked; None if the question could not be read.
        verdicts: By camera, those that were looked at.
    """

    v: Literal[1] = 1
    part: Name | None
    answer: Literal["PASS", "REJECT"]
    why: Text
    verdicts: Annotated[dict[Name, PartVerdict], Field(max_length=MAX_ENTRIES)] = Field(
        default_factory=dict
    )


def encode_heartbeat(heartbeat: Heartbeat) -> list[Buffer]:
    """Make the two parts of a heartbeat: topic and header."""
    return [HEARTBEAT_TOPIC, pack(heartbeat)]


def decode_heartbeat(parts: Sequence[Buffer]) -> Heartbeat:
    """Decode what `encode_heartbeat` made.

    Raises:
        MessageError: Not a heartbeat of this version.
    """
    if len(parts) != 2 or bytes(parts[0]) != HEARTBEAT_TOPIC:
        raise MessageError(f"expected a heartbeat, got {len(parts)} parts", Reason.BAD_HEADER)
    return _decoded(Heartbeat, parts[1])


def decode_catch_up(data: Buffer) -> CatchUpRequest:
    """Decode the one part of a request.

    Raises:
        MessageError: Not a request of this version.
    """
    return _decoded(CatchUpRequest, data)


def decode_catch_up_answer(parts: Sequence[Buffer]) -> CatchUpAnswer:
    """Decode the first part of an answer, and hold it to the number of the others.

    Raises:
        MessageError: Not an answer of this version, or not as many records as it says.
    """
    if not parts:
        raise MessageError("expected an answer, got no part", Reason.BAD_HEADER)
    answer = _decoded(CatchUpAnswer, parts[0])
    if answer.count != len(parts) - 1:
        raise MessageError(
            f"expected {answer.count} records, got {len(parts) - 1}", Reason.BAD_HEADER
        )
    return answer


def decode_reject_question(data: Buffer) -> RejectQuestion:
    """Decode the one part of a question.

    Raises:
        MessageError: Not a question of this version; it is answered with REJECT all the same.
    """
    return _decoded(RejectQuestion, data)


def decode_reject_answer(data: Buffer) -> RejectAnswer:
    """Decode the one part of an answer.

    Raises:
        MessageError: Not an answer of this version: the part must be ejected.
    """
    return _decoded(RejectAnswer, data, MOST_ANSWER_BYTES)


def _decoded(model: type[AnyWire], data: Buffer, max_bytes: int | None = None) -> AnyWire:
    document = unpack(data) if max_bytes is None else unpack(data, max_bytes)
    # Python's True is 1, and would pass for a version.
    if type(document.get("v")) is not int:
        raise MessageError(f"expected v = {VERSION}", Reason.BAD_HEADER)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise MessageError(first_of(error), Reason.BAD_HEADER) from error
