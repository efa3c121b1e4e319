"""Publishing: byte for byte, last values for who comes late, heartbeats, and hostile listeners."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import zmq

from edge import publish
from edge.publish import Publisher, Standing, open_publisher
from edge.settings import StationSettings
from edge.sockets import MOST_TOPIC_BYTES
from inspection.messages import decode_verdict
from inspection.station_messages import decode_heartbeat
from inspection.wire import pack
from tests.edge.open_station import open_sockets
from tests.edge.published_station import BUNDLE, StandingClock, eventually, verdict

PATIENCE_MS = 20_000


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock(5_000_000_000)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    owned = zmq.Context()
    yield owned
    owned.destroy(linger=0)


@pytest.fixture
def publisher(clock: StandingClock) -> Iterator[Publisher]:
    settings = StationSettings(verdicts="tcp://127.0.0.1:*")
    standing = Standing(7, "a" * 64, BUNDLE, "running")
    with (
        open_sockets(settings) as sockets,
        open_publisher(sockets, lambda: standing, clock) as opened,
    ):
        yield opened


@contextmanager
def listening(publisher: Publisher, *topics: bytes) -> Iterator[zmq.Socket[bytes]]:
    """A listener that the station knows of."""
    owner = zmq.Context()
    listener = owner.socket(zmq.SUB)
    listener.subscribe(b"probe")
    for topic in topics:
        listener.subscribe(topic)
    listener.connect(publisher.address)
    while not listener.poll(10):
        publisher._verdicts.send(b"probe")
    while listener.poll(50):
        assert listener.recv() == b"probe"
    try:
        yield listener
    finally:
        owner.destroy(linger=0)


def heard(
    publisher: Publisher, listener: zmq.Socket[bytes], most: int = 1000, silence_ms: int = 100
) -> list[list[bytes]]:
    """Whatever comes while the publisher is tended."""
    messages = []
    while len(messages) < most:
        publisher.tend()
        if not listener.poll(silence_ms):
            break
        messages.append(listener.recv_multipart())
    return messages


def hears(
    publisher: Publisher, listener: zmq.Socket[bytes], count: int, tended: Callable[[], None]
) -> list[list[bytes]]:
    messages: list[list[bytes]] = []

    def so_many() -> bool:
        tended()
        publisher.tend()
        while listener.poll(5):
            messages.extend([said] if (said := listener.recv_multipart()) != [b"probe"] else [])
        return len(messages) >= count

    eventually(so_many)
    return messages


def test_what_is_published_is_what_was_recorded(publisher: Publisher) -> None:
    record = pack(verdict(camera="left"))
    with listening(publisher, b"verdict/") as listener:
        publisher.publish("left", record)

        assert listener.poll(PATIENCE_MS)
        assert listener.recv_multipart() == [b"verdict/left", record]


def test_who_comes_late_is_told_the_last_verdict_of_each_camera(publisher: Publisher) -> None:
    for number, camera in enumerate(["left", "right", "left"], start=1):
        publisher.publish(camera, pack(verdict(number, camera)))
    with listening(publisher) as listener:
        publisher.tend()

        listener.subscribe(b"last/")

        told = hears(publisher, listener, 2, lambda: None)
    assert {parts[0]: decode_verdict(parts).station_seq for parts in told} == {
        b"last/left": 3,
        b"last/right": 2,
    }


def test_a_verdict_of_an_earlier_run_is_told_too(publisher: Publisher) -> None:
    publisher.remember(pack(verdict(9, "left")))
    with listening(publisher) as listener:
        listener.subscribe(b"last/left")

        ((topic, record),) = hears(publisher, listener, 1, lambda: None)
    assert topic == b"last/left"
    assert decode_verdict([topic, record]).station_seq == 9


def test_the_second_that_subscribes_alike_is_told_as_well(
    publisher: Publisher, clock: StandingClock
) -> None:
    publisher.publish("left", pack(verdict(1, "left")))
    with listening(publisher) as first, listening(publisher) as second:
        first.subscribe(b"last/")
        hears(publisher, first, 1, lambda: None)
        clock.now_ns += publish.REPEAT_NS

        second.subscribe(b"last/")

        assert hears(publisher, second, 1, lambda: None)[0][0] == b"last/left"


def test_many_that_subscribe_at_once_are_told_together(
    publisher: Publisher, clock: StandingClock
) -> None:
    publisher.publish("left", pack(verdict(1, "left")))
    with listening(publisher) as listener:
        listener.subscribe(b"last/")
        hears(publisher, listener, 1, lambda: None)
        for _ in range(50):
            listener.unsubscribe(b"last/")
            listener.subscribe(b"last/")

        within = [said for _ in range(40) for said in heard(publisher, listener, silence_ms=5)]
        clock.now_ns += publish.REPEAT_NS
        after = hears(publisher, listener, 1, lambda: None) + heard(publisher, listener)

    assert within == []
    assert [topic for topic, _ in after] == [b"last/left"]


def test_the_camera_that_was_silent_longest_is_forgotten(publisher: Publisher) -> None:
    record = pack(verdict())
    for number in range(publish.MOST_CAMERAS + 1):
        publisher.publish(f"c{number}", record)
        publisher.publish("c0", record)

    assert len(publisher._last) == publish.MOST_CAMERAS
    assert "c0" in publisher._last
    assert "c1" not in publisher._last


def test_the_heart_beats_once_a_second_though_nothing_happens(
    publisher: Publisher, clock: StandingClock
) -> None:
    with listening(publisher, b"heartbeat/") as listener:
        beats = heard(publisher, listener)
        clock.now_ns += publish.HEARTBEAT_NS - 1
        early = heard(publisher, listener)
        clock.now_ns += 1
        beats += heard(publisher, listener)

    assert early == []
    first, second = map(decode_heartbeat, beats)
    assert (first.station_seq, first.chain, first.bundle) == (7, "a" * 64, BUNDLE)
    assert (first.state, first.uptime_s, second.uptime_s) == ("running", 0.0, 1.0)


def test_a_late_heartbeat_is_not_made_up_for_by_many(
    publisher: Publisher, clock: StandingClock
) -> None:
    with listening(publisher, b"heartbeat/") as listener:
        clock.now_ns += 10 * publish.HEARTBEAT_NS

        assert len(heard(publisher, listener)) == 1


def test_a_peer_that_subscribes_without_end_costs_no_more_than_the_limit(
    publisher: Publisher,
) -> None:
    owner = zmq.Context()
    hostile = owner.socket(zmq.XSUB)
    hostile.sndtimeo = 0
    hostile.connect(publisher.address)

    def flood() -> None:
        for _ in range(100):
            try:
                hostile.send(b"\x01" + secrets.token_bytes(200))
            except zmq.Again:
                return

    def sent_away() -> bool:
        flood()
        publisher.tend()
        assert len(publisher._topics) <= publish.MOST_TOPICS
        return publisher.floods > 0

    eventually(sent_away)
    owner.destroy(linger=0)


def test_who_was_sent_away_because_of_another_is_heard_again(publisher: Publisher) -> None:
    record = pack(verdict(camera="left"))
    with listening(publisher, b"verdict/") as listener:
        publisher._send_all_away()

        told = hears(publisher, listener, 1, lambda: publisher.publish("left", record))

    assert told[0] == [b"verdict/left", record]


@pytest.mark.parametrize(
    "noise",
    [b"", b"\x02", b"\xff" * 300, b"\x01", b"\x00never subscribed", b"\x01last/" + b"\xff" * 300],
)
def test_what_a_listener_says_is_dropped(publisher: Publisher, noise: bytes) -> None:
    owner = zmq.Context()
    talker = owner.socket(zmq.XSUB)
    talker.connect(publisher.address)
    talker.send(noise)
    talker.send_multipart([noise, noise])
    with listening(publisher, b"verdict/") as listener:
        publisher.publish("left", b"x")

        assert hears(publisher, listener, 1, lambda: None)[0] == [b"verdict/left", b"x"]
    owner.destroy(linger=0)


def test_a_topic_longer_than_any_camera_costs_the_peer_its_connection(
    publisher: Publisher,
) -> None:
    owner = zmq.Context()
    hostile = owner.socket(zmq.XSUB)
    watched = hostile.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    hostile.connect(publisher.address)

    hostile.send(b"\x01" + b"x" * MOST_TOPIC_BYTES)

    assert watched.poll(PATIENCE_MS)
    hostile.disable_monitor()
    owner.destroy(linger=0)
