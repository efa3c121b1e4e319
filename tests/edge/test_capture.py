"""The receiving socket: what it gives at a stop, and what it does not keep."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import zmq

from edge.capture import MOST_PARTS, Capture, open_capture
from edge.health import Health
from edge.settings import StationSettings
from inspection.errors import StationError
from tests.edge.open_station import open_sockets
from tests.line.free_addresses import FREE_ADDRESSES

SET, UNSET = threading.Event(), threading.Event()
SET.set()


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def capture(health: Health, tmp_path: Path) -> Iterator[Capture]:
    settings = StationSettings(**FREE_ADDRESSES, max_message_bytes=1000)
    with (
        open_sockets(settings, health) as sockets,
        open_capture(sockets, time.monotonic_ns) as opened,
    ):
        yield opened


def push(address: str, messages: Sequence[list[bytes]]) -> None:
    """Send, and return when the kernel has it all."""
    with zmq.Context() as owner, owner.socket(zmq.PUSH) as pusher:
        pusher.connect(address)
        for parts in messages:
            pusher.send_multipart(parts)


def test_at_a_stop_what_was_sent_before_is_still_given(capture: Capture) -> None:
    sent = [[b"header", str(number).encode()] for number in range(50)]
    push(capture.addresses["frames"], sent)

    given = [each.parts for each in capture.messages(SET, UNSET) if each is not None]

    assert given == sent


def test_a_station_that_cannot_record_takes_nothing_more(capture: Capture) -> None:
    push(capture.addresses["frames"], [[b"header", b"pixels"]])

    assert list(capture.messages(SET, SET)) == []


def test_of_a_message_of_many_parts_only_a_few_are_kept(capture: Capture) -> None:
    push(capture.addresses["frames"], [[b"x"] * 1000, [b"header", b"pixels"]])

    many, next_one = (each.parts for each in capture.messages(SET, UNSET) if each is not None)

    assert len(many) == MOST_PARTS
    assert next_one == [b"header", b"pixels"]


def test_a_part_beyond_the_limit_costs_its_sender_the_connection(
    capture: Capture, health: Health
) -> None:
    with zmq.Context() as owner, owner.socket(zmq.PUSH) as pusher:
        pusher.setsockopt(zmq.LINGER, 0)
        pusher.setsockopt(zmq.RECONNECT_IVL, -1)
        pusher.connect(capture.addresses["frames"])
        pusher.send_multipart([b"header", b"x" * 1001])

        given = list(capture.messages(SET, UNSET))

    assert given == []
    assert health.report()["peers"] == {"connected": 1, "disconnected": 1}


def test_an_address_that_is_not_of_this_machine_cannot_be_bound(health: Health) -> None:
    settings = StationSettings(
        **{**FREE_ADDRESSES, "frames": "tcp://203.0.113.9:5555"}, insecure=True
    )
    with (
        open_sockets(settings, health) as sockets,
        pytest.raises(StationError, match="cannot bind"),
        open_capture(sockets, time.monotonic_ns),
    ):
        pass
