"""What the station tells and is asked: bounded, typed, and refused where it is neither."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.station_messages import (
    HEARTBEAT_TOPIC,
    MOST_CAMERAS,
    MOST_RECORDS,
    CatchUpAnswer,
    CatchUpRequest,
    Heartbeat,
    PartVerdict,
    RejectAnswer,
    RejectQuestion,
    decode_catch_up,
    decode_catch_up_answer,
    decode_heartbeat,
    decode_reject_answer,
    decode_reject_question,
    encode_heartbeat,
)
from inspection.verdicts import Verdict
from inspection.wire import MessageError, pack

BEAT = {
    **{
        "v": 1,
        "session": "s",
        "station_seq": 3,
        "chain": "0" * 64,
        "bundle": "f" * 64,
        "unix_ns": 5,
    },
    **{"uptime_s": 1.5, "state": "running"},
}


def test_a_heartbeat_survives_the_wire() -> None:
    beat = Heartbeat.model_validate(BEAT)

    assert decode_heartbeat(encode_heartbeat(beat)) == beat


@pytest.mark.parametrize(
    "wrong",
    [
        *({"v": 2}, {"v": True}, {"station_seq": -1}, {"station_seq": "3"}, {"station_seq": 1.0}),
        *({"chain": "0" * 63}, {"chain": "g" * 64}, {"bundle": None}, {"unix_ns": 1 << 63}),
        *({"uptime_s": -1.0}, {"uptime_s": float("nan")}, {"state": ""}, {"state": "x" * 33}),
    ],
)
def test_a_heartbeat_with_a_wrong_field_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        decode_heartbeat([HEARTBEAT_TOPIC, msgpack.packb(BEAT | wrong)])


@pytest.mark.parametrize(
    "asked",
    [
        {"after": 0},
        {"after": (1 << 63) - 1, "most": MOST_RECORDS, "camera": "c"},
        {"latest": 1},
        {"last_by_camera": True},
    ],
)
def test_a_request_to_catch_up_asks_one_thing(asked: dict[str, Any]) -> None:
    request = decode_catch_up(msgpack.packb({"v": 1, **asked}))

    assert request == CatchUpRequest(**asked)


@pytest.mark.parametrize(
    "asked",
    [
        *({}, {"after": 1, "latest": 1}, {"last_by_camera": False}, {"last_by_camera": 1}),
        *({"after": -1}, {"after": 1, "most": 0}, {"after": 1, "most": MOST_RECORDS + 1}),
        *({"latest": 0}, {"latest": MOST_RECORDS + 1}, {"latest": 1, "camera": "c"}),
        *({"after": 1, "camera": ""}, {"after": 1, "camera": "c" * 129}, {"after": 1, "v": 2}),
    ],
)
def test_a_request_that_asks_nothing_or_too_much_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        decode_catch_up(msgpack.packb({"v": 1, **asked}))


def test_an_answer_is_held_to_the_number_of_its_records() -> None:
    answer = CatchUpAnswer(count=2, last=7, more=True)

    assert decode_catch_up_answer([pack(answer), b"a", b"b"]) == answer
    for records in ([], [b"a"], [b"a", b"b", b"c"]):
        with pytest.raises(MessageError, match="expected 2 records"):
            decode_catch_up_answer([pack(answer), *records])


QUESTION = {"v": 1, "part": "P", "deadline_ms": 100}


def test_a_question_needs_a_part_and_a_deadline_only() -> None:
    question = decode_reject_question(msgpack.packb(QUESTION))

    assert question == RejectQuestion(part="P", deadline_ms=100.0)
    assert (question.cameras, question.max_age_ms) == (None, 60_000.0)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"part": None}, {"part": ""}, {"part": 7}, {"cameras": []}, {"cameras": "left"}),
        *({"cameras": ["c"] * (MOST_CAMERAS + 1)}, {"cameras": [1]}, {"deadline_ms": None}),
        *({"deadline_ms": -1}, {"deadline_ms": 60_001}, {"deadline_ms": "1"}, {"max_age_ms": 0}),
        *({"deadline_ms": float("inf")}, {"max_age_ms": float("nan")}, {"deadline_ms": True}),
    ],
)
def test_a_question_with_a_wrong_field_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        decode_reject_question(msgpack.packb(QUESTION | wrong))


def test_the_largest_reject_answer_survives_the_wire() -> None:
    seen = PartVerdict(verdict=Verdict.UNKNOWN, station_seq=(1 << 63) - 1, bundle="f" * 64)
    answer = RejectAnswer(
        part="\U0001f600" * 128,
        answer="REJECT",
        why="\U0001f600" * 512,
        verdicts={f"{number:\U0001f600>128}": seen for number in range(256)},
    )

    assert decode_reject_answer(pack(answer)) == answer


@given(
    st.binary(max_size=400)
    | st.dictionaries(st.text(max_size=8), st.integers(-(1 << 63), (1 << 63) - 1)).map(
        msgpack.packb
    )
)
def test_noise_is_refused_by_every_decoder(noise: bytes) -> None:
    for decode in (decode_catch_up, decode_reject_question, decode_reject_answer):
        with pytest.raises(MessageError):
            decode(noise)
    with pytest.raises(MessageError):
        decode_heartbeat([HEARTBEAT_TOPIC, noise])
    with pytest.raises(MessageError):
        decode_catch_up_answer([noise])
