"""What the station is asked: the ledger's own bytes, and REJECT unless PASS is certain."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
import zmq

from edge import answers, questions
from edge.questions import Questions
from edge.recent import RecentVerdicts
from inspection.station_messages import (
    CatchUpAnswer,
    RejectAnswer,
    RejectQuestion,
    decode_catch_up_answer,
    decode_reject_answer,
)
from inspection.verdicts import Verdict
from inspection.wire import FrameName
from tests.edge.published_station import FakeStation, eventually, verdict

PATIENCE_MS = 20_000


@pytest.fixture
def station() -> Iterator[FakeStation]:
    with FakeStation() as started:
        yield started


@contextmanager
def asking(address: str, kind: int = zmq.REQ) -> Iterator[zmq.Socket[bytes]]:
    owner = zmq.Context()
    asker = owner.socket(kind)
    asker.rcvtimeo = PATIENCE_MS
    asker.connect(address)
    try:
        yield asker
    finally:
        owner.destroy(linger=0)


def caught_up(station: FakeStation, **request: Any) -> tuple[CatchUpAnswer, list[bytes]]:
    with asking(station.catch_up) as asker:
        asker.send(msgpack.packb({"v": 1, **request}))
        parts = asker.recv_multipart()
    return decode_catch_up_answer(parts), parts[1:]


def numbers(records: list[bytes]) -> list[int]:
    return [msgpack.unpackb(record)["station_seq"] for record in records]


def asked(station: FakeStation, **question: Any) -> RejectAnswer:
    with asking(station.reject) as asker:
        asker.send(msgpack.packb({"v": 1, "deadline_ms": 0, **question}))
        return decode_reject_answer(asker.recv())


# --- verdicts that were missed --------------------------------------------------------------------


def test_what_was_missed_comes_byte_for_byte_as_recorded(station: FakeStation) -> None:
    station.say(5)

    header, records = caught_up(station, after=2)

    assert records == [row.record for row in station.ledger.rows[2:]]
    assert (header.last, header.more) == (5, False)


def test_an_empty_ledger_has_nothing(station: FakeStation) -> None:
    header, records = caught_up(station, after=0)

    assert (header.count, header.last, header.more, records) == (0, 0, False, [])


def test_any_depth_is_reached_page_by_page(station: FakeStation) -> None:
    station.say(25)
    after, pages = 0, []

    while True:
        header, records = caught_up(station, after=after, most=10)
        pages.append(numbers(records))
        if not header.more:
            break
        after = pages[-1][-1]

    assert [len(page) for page in pages] == [10, 10, 5]
    assert [number for page in pages for number in page] == list(range(1, 26))


def test_one_camera_alone_may_be_asked_for(station: FakeStation) -> None:
    for camera in ("left", "right", "left"):
        station.say(camera=camera)

    assert numbers(caught_up(station, after=0, camera="left")[1]) == [1, 3]


def test_the_latest_and_the_last_of_each_camera_may_be_asked_for(station: FakeStation) -> None:
    for camera in ("left", "right", "left"):
        station.say(camera=camera)

    assert numbers(caught_up(station, latest=2)[1]) == [2, 3]
    assert sorted(numbers(caught_up(station, last_by_camera=True)[1])) == [2, 3]


def test_an_answer_is_bounded_in_bytes_and_says_that_there_is_more(
    station: FakeStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    station.say(3)
    size = len(station.ledger.rows[0].record)
    monkeypatch.setattr(answers, "MOST_ANSWER_BYTES", 2 * size)

    header, records = caught_up(station, after=0)
    monkeypatch.setattr(answers, "MOST_ANSWER_BYTES", 1)
    _, at_least_one = caught_up(station, after=0)

    assert (numbers(records), header.more) == ([1, 2], True)
    assert numbers(at_least_one) == [1]


@pytest.mark.parametrize("request_", [{}, {"after": 1, "latest": 1}, {"after": "1"}])
def test_a_request_that_is_wrong_is_told_why(station: FakeStation, request_: Any) -> None:
    header, records = caught_up(station, **request_)

    assert records == []
    assert header.error


def test_requests_that_are_wrong_do_not_fill_the_log(
    station: FakeStation, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(30):
        caught_up(station)

    assert station.health.count("catch_ups_refused", 0) == 30
    assert [record.getMessage() for record in caplog.records] == ["catch-up refused"] * 2


def test_clients_without_an_empty_part_and_with_numbers_of_their_own_are_answered_alike(
    station: FakeStation,
) -> None:
    station.say()
    request = msgpack.packb({"v": 1, "after": 0})
    with asking(station.catch_up, zmq.DEALER) as asker:
        for envelope in ([], [b""], [b"number 7", b""]):
            asker.send_multipart([*envelope, request])

            parts = asker.recv_multipart()

            assert parts[: len(envelope)] == envelope
            assert decode_catch_up_answer(parts[len(envelope) :]).count == 1


# --- whether a part may go on ---------------------------------------------------------------------


def test_a_part_is_answered_with_what_was_said_of_it(station: FakeStation) -> None:
    station.say(camera="left", part="P")
    station.say(camera="right", part="P", verdict=Verdict.FAIL)

    left, both = asked(station, part="P", cameras=["left"]), asked(station, part="P")

    assert (left.part, left.answer) == ("P", "PASS")
    assert both.answer == "REJECT"
    assert both.verdicts["right"].verdict is Verdict.FAIL
    assert both.verdicts["right"].station_seq == 2


@pytest.mark.parametrize(("word", "answer"), [(Verdict.PASS, "PASS"), (Verdict.FAIL, "REJECT")])
def test_a_question_that_waits_is_answered_as_soon_as_the_verdict_comes(
    station: FakeStation, word: Verdict, answer: str
) -> None:
    with asking(station.reject) as asker:
        asker.send(msgpack.packb({"v": 1, "part": "P", "deadline_ms": 60_000}))
        eventually(lambda: station.health.count("questions", 0))
        assert not asker.poll(50)

        station.say(part="P", verdict=word)

        # Well before its deadline, or this times out.
        assert decode_reject_answer(asker.recv()).answer == answer


def test_the_deadline_is_answered_with_reject(station: FakeStation) -> None:
    station.recent.arrived(FrameName("left", "s", 0, "P"))

    answer = asked(station, part="P", deadline_ms=20)

    assert answer.answer == "REJECT"
    assert "under way" in answer.why


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"\xc0", b"\x81", secrets.token_bytes(64), b"x" * 8000),
        msgpack.packb({"v": 1, "part": "P"}),
        msgpack.packb({"v": 2, "part": "P", "deadline_ms": 1}),
    ],
)
def test_a_malformed_question_is_reject(station: FakeStation, payload: bytes) -> None:
    station.say(part="P")
    with asking(station.reject) as asker:
        asker.send(payload)

        answer = decode_reject_answer(asker.recv())

    assert (answer.answer, answer.part) == ("REJECT", None)
    assert answer.why


def test_questions_of_many_parts_are_each_answered(station: FakeStation) -> None:
    parts = [f"P{number}" for number in range(50)]
    with asking(station.reject, zmq.DEALER) as asker:
        for part in parts:
            asker.send(msgpack.packb({"v": 1, "part": part, "deadline_ms": 60_000}))
        for part in random.Random(0).sample(parts, len(parts)):
            station.say(part=part)

        heard = [decode_reject_answer(asker.recv()) for _ in parts]

    assert sorted(answer.part or "" for answer in heard) == sorted(parts)
    assert {answer.answer for answer in heard} == {"PASS"}


def test_a_station_that_stops_rejects_what_waits() -> None:
    with FakeStation() as station, asking(station.reject) as asker:
        asker.send(msgpack.packb({"v": 1, "part": "P", "deadline_ms": 60_000}))
        eventually(lambda: station.health.count("questions", 0))

        station.__exit__(None, None, None)

        assert decode_reject_answer(asker.recv()).answer == "REJECT"


def test_a_peer_with_too_many_questions_is_rejected_and_others_still_wait(
    station: FakeStation,
) -> None:
    with asking(station.reject, zmq.DEALER) as greedy, asking(station.reject) as other:
        for number in range(questions.MOST_WAITING_OF_A_PEER + 1):
            greedy.send(msgpack.packb({"v": 1, "part": f"P{number}", "deadline_ms": 60_000}))
        refused = decode_reject_answer(greedy.recv())

        other.send(msgpack.packb({"v": 1, "part": "Q", "deadline_ms": 60_000}))
        eventually(lambda: station.health.count("questions", 0) > questions.MOST_WAITING_OF_A_PEER)
        station.say(part="Q")

        assert decode_reject_answer(other.recv()).answer == "PASS"
    assert (refused.part, refused.answer) == (f"P{questions.MOST_WAITING_OF_A_PEER}", "REJECT")
    assert station.health.count("questions_refused", 0) == 1


def test_a_question_too_many_is_passed_all_the_same_if_that_is_certain(
    station: FakeStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "MOST_WAITING", 0)
    station.say(part="P")

    assert asked(station, part="P", deadline_ms=60_000).answer == "PASS"
    assert asked(station, part="Q", deadline_ms=60_000).answer == "REJECT"


def test_nobody_is_starved_by_a_peer_that_asks_without_end(station: FakeStation) -> None:
    station.say(1000)
    request = msgpack.packb({"v": 1, "after": 0})
    with asking(station.catch_up, zmq.DEALER) as flood:
        flood.sndtimeo = 0
        sent = 0
        try:
            while sent < 5000:
                flood.send(request)
                sent += 1
        except zmq.Again:
            pass

        station.say(part="P")

        assert asked(station, part="P").answer == "PASS"
        assert caught_up(station, after=1000)[0].count == 1
        # Their turn came while most of the flood still waited.
        assert station.health.count("catch_ups", 0) < sent


def test_hostile_messages_leave_both_sockets_answering(station: FakeStation) -> None:
    chance = random.Random(1)
    good = msgpack.packb({"v": 1, "part": "P", "deadline_ms": 60_000, "cameras": ["left"]})
    for address in (station.catch_up, station.reject):
        with asking(address, zmq.DEALER) as hostile:
            for _ in range(500):
                noise = bytearray(good)
                for _ in range(chance.randrange(1, 5)):
                    noise[chance.randrange(len(noise))] = chance.randrange(256)
                hostile.send_multipart([b"x"] * chance.randrange(12) + [bytes(noise)])
            station.say(part="P", verdict=Verdict.FAIL, camera="left")
    station.say(part="Q")

    assert asked(station, part="Q").answer == "PASS"
    assert caught_up(station, latest=1)[0].count == 1


def test_answered_questions_with_far_deadlines_are_not_kept() -> None:
    recent = RecentVerdicts()
    waiting = Questions(recent, time.monotonic_ns)
    recent.note(verdict(part="P"))

    for _ in range(10 * questions.MOST_WAITING):
        assert waiting.ask((b"peer",), RejectQuestion(part="P", deadline_ms=60_000)) is not None

    assert len(waiting) == 0
    assert len(waiting._deadlines) <= 2 * questions.MOST_WAITING + 1
    assert not waiting._by_peer
    assert not waiting._by_part
