"""Following: every verdict once, in order, whatever was not heard."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import pytest
import zmq

from edge import catch_up as asking
from edge import follow as following
from edge import publish
from edge.cli import main
from edge.follow import follow
from inspection.messages import VerdictMessage
from inspection.station_messages import Heartbeat
from inspection.verdicts import Verdict
from tests.edge.published_station import PATIENCE_S, FakeStation, MemoryLedger, eventually


@pytest.fixture
def station() -> Iterator[FakeStation]:
    with FakeStation() as started:
        yield started


class Listening:
    """Follows in a thread of its own."""

    def __init__(self) -> None:
        self.heard: list[VerdictMessage] = []
        self.beats: list[Heartbeat] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    @property
    def numbers(self) -> list[int]:
        return [said.station_seq for said in self.heard]

    def waits_for(self, count: int) -> None:
        eventually(lambda: len(self.heard) >= count)


@contextmanager
def listening(station: FakeStation, after: int | None = None) -> Iterator[Listening]:
    """Follow a station, once it is heard."""
    listener, stopping = Listening(), threading.Event()
    failures: SimpleQueue[BaseException] = SimpleQueue()

    def work() -> None:
        try:
            for said in follow(
                station.verdicts, station.catch_up, after, heartbeats=True, stopping=stopping
            ):
                if isinstance(said, Heartbeat):
                    listener.beats.append(said)
                elif said is not None:
                    listener.heard.append(said)
                assert listener.may_go_on.wait(PATIENCE_S)
        except BaseException as failure:
            failures.put(failure)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    try:
        eventually(lambda: listener.beats)
        yield listener
    finally:
        listener.may_go_on.set()
        stopping.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert failures.empty()


def test_what_comes_next_is_heard_and_nothing_from_before(station: FakeStation) -> None:
    station.say(3)
    with listening(station) as listener:
        station.say(3)

        listener.waits_for(3)

    assert listener.numbers == [4, 5, 6]


def test_all_from_a_number_on_are_heard(
    station: FakeStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PAGE", 7)
    station.say(50)
    with listening(station, after=20) as listener:
        station.say(5)

        listener.waits_for(35)

    assert listener.numbers == list(range(21, 56))
    assert listener.heard[0] == station.ledger_message(21)


def test_a_hole_between_two_verdicts_is_filled(station: FakeStation) -> None:
    with listening(station) as listener:
        station.say()
        listener.waits_for(1)
        station.say(9, heard=False)
        station.say()

        listener.waits_for(11)

    assert listener.numbers == list(range(1, 12))


def test_a_hole_with_nothing_behind_it_is_noticed_by_the_heartbeat(station: FakeStation) -> None:
    with listening(station) as listener:
        station.say(5, heard=False)

        listener.waits_for(5)

    assert listener.numbers == [1, 2, 3, 4, 5]


def test_a_restart_of_the_station_loses_and_doubles_nothing(station: FakeStation) -> None:
    with listening(station) as listener:
        for _ in range(3):
            station.say(4)
            station.__exit__(None, None, None)
            station.ledger.append(station.next_verdict())  # recorded, and nobody was told
            station.__enter__()
            station.say(4)

        listener.waits_for(27)

    assert listener.numbers == list(range(1, 28))


def test_a_slow_reader_is_given_everything_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(publish._OPTIONS, zmq.SNDHWM, 10)
    monkeypatch.setitem(following._LISTENS, zmq.RCVHWM, 10)
    with FakeStation() as station, listening(station) as listener:
        listener.may_go_on.clear()
        station.say(20_000)
        listener.may_go_on.set()

        listener.waits_for(20_000)

        assert listener.numbers == list(range(1, 20_001))
        assert station.health.count("catch_ups", 0) > 0, "nothing was dropped"


def test_numbers_that_come_again_after_a_power_cut_are_given_again(station: FakeStation) -> None:
    with listening(station) as listener:
        station.say(10)
        listener.waits_for(10)
        station.__exit__(None, None, None)
        del station.ledger.rows[6:]
        station.__enter__()
        station.say(6, verdict=Verdict.FAIL)

        listener.waits_for(16)

    assert listener.numbers == [*range(1, 11), *range(7, 13)]
    assert {said.verdict for said in listener.heard[10:]} == {Verdict.FAIL}


def test_a_station_with_another_ledger_is_followed_from_its_beginning(
    station: FakeStation,
) -> None:
    with listening(station) as listener:
        station.say(10)
        listener.waits_for(10)
        station.__exit__(None, None, None)
        station.ledger.rows.clear()
        station.__enter__()
        station.say(2, camera="other")

        listener.waits_for(12)

    assert listener.numbers == [*range(1, 11), 1, 2]


def test_a_number_beyond_the_ledger_is_taken_back(station: FakeStation) -> None:
    station.say(3)
    with listening(station, after=1000) as listener:
        station.say(2)

        listener.waits_for(2)

    assert listener.numbers == [4, 5]


def test_a_station_that_cannot_answer_is_asked_again(
    station: FakeStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", 0.1)
    elsewhere = station.catch_up
    with zmq.Context() as context, context.socket(zmq.ROUTER) as mute:
        mute.linger = 0
        station.catch_up = f"tcp://127.0.0.1:{mute.bind_to_random_port('tcp://127.0.0.1')}"
        stopping = threading.Event()
        heard: list[int] = []
        thread = threading.Thread(
            target=lambda: heard.extend(
                said.station_seq
                for said in follow(station.verdicts, station.catch_up, 0, stopping=stopping)
            )
        )
        thread.start()
        for _ in range(3):
            assert mute.poll(PATIENCE_S * 1000)
            mute.recv_multipart()
        stopping.set()
        thread.join(PATIENCE_S)
    station.catch_up = elsewhere

    assert not thread.is_alive()
    assert heard == []


def test_silence_ends_it_though_the_heart_beats(station: FakeStation) -> None:
    station.say(2)
    began = time.monotonic()

    heard = list(follow(station.verdicts, station.catch_up, 0, silence_s=0.3))

    assert [said.station_seq for said in heard] == [1, 2]
    assert time.monotonic() - began >= 0.3


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MOST_RECORDS", 10)
    ledger = MemoryLedger()
    with FakeStation(ledger) as station, listening(station) as listener:
        station.say(100)
        listener.waits_for(100)
        station.__exit__(None, None, None)
        station.__enter__()
        station.say(5)
        listener.waits_for(105)

    assert listener.numbers == list(range(1, 106))


def test_the_command_misses_nothing(
    station: FakeStation, capsys: pytest.CaptureFixture[str]
) -> None:
    station.say(3)
    told = ["watch", "--from", station.verdicts, "--catch-up", station.catch_up, "--json"]

    code = main([*told, "--after", "1", "--count", "2", "--timeout", "20"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [VerdictMessage.model_validate_json(line).station_seq for line in lines] == [2, 3]
