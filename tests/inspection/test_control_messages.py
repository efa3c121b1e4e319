"""What crosses the control socket survives the way, is bounded, and is believed only as a whole."""

from __future__ import annotations

import math
import random

import msgpack
import pytest

from inspection.control_messages import (
    MOST_FLIPS,
    MOST_PATH,
    MOST_REPLY_BYTES,
    ControlReply,
    ControlRequest,
    Flip,
    ProbationReport,
    ShadowReport,
    SwapState,
    Terms,
    decode_reply,
    decode_request,
    encode,
)
from inspection.verdicts import Verdict
from inspection.wire import MAX_HEADER_BYTES, MessageError

LONG = "ü" * 128
FLIP = Flip(
    camera=LONG,
    session=LONG,
    seq=2**63 - 1,
    part=LONG,
    before=Verdict.PASS,
    after=Verdict.UNKNOWN,
    score_before=math.nan,
)
STATE = SwapState(
    step="probation",
    running="a" * 64,
    previous="b" * 64,
    took_s={"verifying": 0.5},
    shadow=ShadowReport(wanted=200, compared=200, flipped={"PASS>FAIL": 3}, flips=(FLIP,)),
    probation=ProbationReport(
        seconds=120,
        left_s=3.5,
        judged=10,
        flagged=1,
        before_judged=1000,
        before_flagged=30,
        lowest=0.0,
        highest=0.15,
    ),
)
SWAP = ControlRequest(ask="swap", bundle="/x", terms=Terms(most_flipped=0.01))


def test_a_request_survives_the_way():
    assert decode_request(encode(SWAP)) == SWAP


def test_a_reply_survives_the_way_numbers_that_are_none_included():
    reply = decode_reply(encode(ControlReply(granted=False, why="so", state=STATE)))

    assert math.isnan(reply.state.shadow.flips[0].score_before)
    assert reply.model_dump(exclude={"state": {"shadow"}}) == ControlReply(
        granted=False, why="so", state=STATE
    ).model_dump(exclude={"state": {"shadow"}})


def test_the_largest_request_and_reply_are_within_what_is_read():
    shadow = ShadowReport(wanted=10_000, flips=(FLIP,) * MOST_FLIPS)
    state = STATE.model_copy(update={"shadow": shadow, "source": "x" * MOST_PATH})

    assert len(encode(ControlReply(granted=True, state=state))) < MOST_REPLY_BYTES
    longest = ControlRequest(ask="swap", bundle="x" * MOST_PATH, terms=Terms(most_flipped=0.5))
    assert len(encode(longest)) < MAX_HEADER_BYTES


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"ask": "swap"},
        {"ask": "status", "bundle": "/x"},
        {"ask": "explode"},
        {"ask": "status", "v": 2},
        {"ask": "status", "most_flipped": 0.1},
        {"ask": "swap", "bundle": "/x", "terms": {"most_fliped": 0.1}},
        {"ask": "swap", "bundle": "/x", "terms": {"most_flipped": 1.5}},
        {"ask": "swap", "bundle": "/x", "terms": {"margin": math.nan}},
        {"ask": "swap", "bundle": "/x", "terms": {"probation_s": math.inf}},
        {"ask": "swap", "bundle": "/x", "terms": {"shadow_frames": -1}},
        {"ask": "swap", "bundle": "/x", "terms": {"shadow_frames": True}},
        {"ask": "swap", "bundle": "x" * (MOST_PATH + 1)},
        {"ask": "swap", "bundle": 7},
    ],
    ids=str,
)
def test_what_is_not_wholly_a_request_is_none(document):
    with pytest.raises(MessageError):
        decode_request(msgpack.packb(document))


def test_damaged_bytes_are_an_error_of_the_wire_and_of_no_other_kind():
    chance = random.Random(5)
    for whole, decode in ((encode(SWAP), decode_request), (_reply(), decode_reply)):
        for _ in range(3000):
            damaged = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            try:
                decode(bytes(damaged[: chance.randint(0, len(damaged) + 1)]))
            except MessageError:
                continue


def _reply() -> bytes:
    return encode(ControlReply(granted=True, state=STATE))
