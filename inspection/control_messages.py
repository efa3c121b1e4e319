"""What an operator asks of a running station about its bundle, and what it is answered.

The control socket takes one request and gives one reply; `docs/wire.md` is this module in prose.
`SwapState` is also what a status page shows.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inspection.verdicts import Reason, Verdict
from inspection.wire import Buffer, Converted, Counter, MessageError, Name, first_of, pack, unpack

MOST_FLIPS = 50
"""Most frames that a report of a shadow lists one by one; all of them are counted."""

MOST_REPLY_BYTES = 256 << 10
MOST_PATH = 4096
MOST_TRIAL_S = 86_400.0

Step = Literal[
    "idle",
    "verifying",
    "loading",
    "proving",
    "shadow",
    "activating",
    "probation",
    "steady",
    "rolled_back",
    "refused",
]
AT_REST: tuple[Step, ...] = ("idle", "steady", "rolled_back", "refused")
"""Steps in which nothing is under way; every other one comes to an end by itself."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=MOST_TRIAL_S, allow_inf_nan=False)]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Asked(BaseModel):
    # A gate that is misspelt, or that this station does not know, must not be passed over.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Terms(_Asked):
    """On which a bundle is tried.

    Attributes:
        shadow_frames: Frames that it scores beside the running one before it is activated.
        shadow_s: How long it waits for them at most.
        most_flipped: Share of them whose verdict may differ; None only reports them.
        probation_s: How long it is watched after that.
        margin: By how much the share of verdicts that are not PASS may move in that time.
    """

    shadow_frames: Annotated[int, Field(ge=0, le=10_000)] = 200
    shadow_s: Seconds = 60.0
    most_flipped: Share | None = None
    probation_s: Seconds = 120.0
    margin: Share = 0.10


class ControlRequest(_Asked):
    """One request: `bundle`, an absolute path on the station's machine, exactly with `swap`."""

    v: Literal[1] = 1
    ask: Literal["swap", "status", "activate", "abort", "rollback"]
    bundle: Annotated[str, Field(min_length=1, max_length=MOST_PATH)] | None = None
    terms: Terms = Terms()

    @model_validator(mode="after")
    def _names_a_bundle_to_swap(self) -> ControlRequest:
        if (self.ask == "swap") != (self.bundle is not None):
            raise ValueError("bundle must be given with swap, and with nothing else")
        return self


class Flip(_Told):
    """A frame that two bundles judge differently; scores in σ, each of its own bundle."""

    camera: Name
    session: Name
    seq: Counter
    part: Name | None = None
    before: Annotated[Verdict, Converted]
    after: Annotated[Verdict, Converted]
    score_before: float
    score_after: float | None = None


class ShadowReport(_Told):
    """What became of frames that both bundles have scored.

    Attributes:
        wanted: How many were asked for.
        compared: How many both have judged.
        passed_over: Frames that came while the new bundle was busy.
        flipped: How often which verdict became which, as `PASS>FAIL`.
        moved_median: Median change of the score, σ, new minus running.
        moved_most: Largest change either way, σ.
        flips: The first of them, one by one.
    """

    wanted: int
    compared: int = 0
    passed_over: int = 0
    flipped: dict[str, int] = {}
    moved_median: float = 0.0
    moved_most: float = 0.0
    flips: Annotated[tuple[Flip, ...], Converted, Field(max_length=MOST_FLIPS)] = ()


class ProbationReport(_Told):
    """How a new bundle does: verdicts that are not PASS, of those of the new bundle and before it.

    Attributes:
        seconds: How long it is watched.
        left_s: What is left of that.
        judged: Verdicts since it was activated.
        flagged: Of these, not PASS.
        before_judged: The latest verdicts before, at most `edge.trial.REMEMBERED`.
        before_flagged: Of these, not PASS.
        lowest: It goes if the share of flagged ones is surely below.
        highest: Or surely above.
    """

    seconds: float
    left_s: float
    judged: int
    flagged: int
    before_judged: int
    before_flagged: int
    lowest: float
    highest: float


class SwapState(_Told):
    """Where a station stands with its bundles.

    Attributes:
        step: What is being done, or how the last swap ended.
        running: Id of the bundle that judges.
        previous: Id of the one that a rollback would bring back.
        candidate: Id of the one on its way in, or the last that was; None before it was read.
        source: Folder that it was asked to be taken from.
        why: For people: why it was refused or rolled back.
        swaps: Bundles that were activated since the start.
        rollbacks: Of these, how many went again.
        took_s: Seconds by step of the last swap.
        shadow: Of the last swap, once it has begun.
        probation: Likewise.
    """

    step: Step = "idle"
    running: str
    previous: str | None = None
    candidate: str | None = None
    source: str | None = None
    why: str | None = None
    swaps: int = 0
    rollbacks: int = 0
    took_s: dict[str, float] = {}
    shadow: ShadowReport | None = None
    probation: ProbationReport | None = None


class ControlReply(_Told):
    """Whether a request is granted; if not, `why`. `state` is as of now."""

    v: Literal[1] = 1
    granted: bool
    why: str | None = None
    state: SwapState


def decode_request(data: Buffer) -> ControlRequest:
    """Decode a request.

    Raises:
        MessageError: Not a request of this version, or with a field that this version lacks.
    """
    try:
        return ControlRequest.model_validate(unpack(data))
    except ValidationError as error:
        raise MessageError(first_of(error), Reason.BAD_HEADER) from error


def decode_reply(data: Buffer) -> ControlReply:
    """Decode a reply.

    Raises:
        MessageError: Not a reply of this version.
    """
    try:
        return ControlReply.model_validate(unpack(data, MOST_REPLY_BYTES))
    except ValidationError as error:
        raise MessageError(first_of(error), Reason.BAD_HEADER) from error


def encode(message: ControlRequest | ControlReply) -> bytes:
    """Make the one part of a request or a reply."""
    return pack(message)
