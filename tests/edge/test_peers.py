"""Peers are counted by what ZeroMQ tells, in whatever order it tells of several at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import zmq

from edge.health import Health
from edge.peers import COUNTERS, Peers, Refusal, Tally, open_peers
from edge.sockets import bind, context, socket
from tests.edge.curve import PATIENCE_S, counts, is_hung_up_on, must_not_die, peer, stranger, until

ACCEPTED, GREETED, ENDED = (
    zmq.EVENT_ACCEPTED,
    zmq.EVENT_HANDSHAKE_SUCCEEDED,
    zmq.EVENT_DISCONNECTED,
)
KEY, PROTOCOL, NO_DETAIL = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
)
CRYPTOGRAPHIC = zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC
MISMATCH = zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def peers(health: Health) -> Iterator[tuple[zmq.Context[zmq.Socket[bytes]], Peers]]:
    with context() as owner, open_peers(health, must_not_die) as opened:
        yield owner, opened


@pytest.mark.parametrize(
    ("events", "counted"),
    [
        pytest.param([(ACCEPTED, 7)], {}, id="not yet in"),
        pytest.param([(ACCEPTED, 7), (GREETED, 0)], {"connected": 1}, id="in"),
        pytest.param(
            [(ACCEPTED, 7), (GREETED, 0), (ENDED, 7)],
            {"connected": 1, "disconnected": 1},
            id="in and out",
        ),
        pytest.param([(ACCEPTED, 7), (KEY, 400), (ENDED, 7)], {"refused_not_allowed": 1}, id="key"),
        pytest.param(
            [(ACCEPTED, 7), (PROTOCOL, CRYPTOGRAPHIC), (ENDED, 7)],
            {"refused_wrong_keys": 1},
            id="wrong keys",
        ),
        pytest.param(
            [(ACCEPTED, 7), (PROTOCOL, MISMATCH), (ENDED, 7)],
            {"refused_other_security": 1},
            id="plain",
        ),
        pytest.param(
            [(ACCEPTED, 7), (PROTOCOL, 0x10000011), (ENDED, 7)],
            {"refused_garbage": 1},
            id="protocol",
        ),
        pytest.param([(ACCEPTED, 7), (ENDED, 7)], {"refused_garbage": 1}, id="without a word"),
        pytest.param(
            [(ACCEPTED, 7), (NO_DETAIL, 32), (ENDED, 7)], {"refused_unfinished": 1}, id="gone"
        ),
        pytest.param([(zmq.EVENT_ACCEPT_FAILED, 24)], {"accept_failed": 1}, id="no descriptors"),
        pytest.param(
            [(ACCEPTED, 7), (GREETED, 0), (ACCEPTED, 8), (KEY, 400), (ENDED, 7), (ENDED, 8)],
            {"connected": 1, "disconnected": 1, "refused_not_allowed": 1},
            id="one leaves while another is refused",
        ),
        pytest.param(
            [(ACCEPTED, 7), (GREETED, 0), (ACCEPTED, 8), (ENDED, 8), (ENDED, 7)],
            {"connected": 1, "disconnected": 1, "refused_garbage": 1},
            id="one speaks garbage while another is in",
        ),
        pytest.param(
            [(GREETED, 0), (ENDED, 7)],
            {"connected": 1, "disconnected": 1},
            id="connected to, not accepted",
        ),
    ],
)
def test_what_zeromq_tells_is_counted_once(
    health: Health, events: list[tuple[int, int]], counted: dict[str, int]
) -> None:
    tally = Tally(health, "frames")

    for event, value in events:
        tally.count(event, value)

    assert counts(health) == counted


def test_every_refusal_is_a_counter() -> None:
    assert {each.value for each in Refusal} < set(COUNTERS)


def test_several_sockets_are_counted_together_until_each_is_closed(
    peers: tuple[zmq.Context[zmq.Socket[bytes]], Peers], health: Health
) -> None:
    owner, watching = peers
    for _ in range(3):
        with socket(owner, zmq.PULL, {}) as opened:
            watching.watch(opened, "frames")
            with peer(zmq.PUSH, bind(opened, "tcp://127.0.0.1:*"), None) as camera:
                camera.send(b"x")
                assert opened.poll(int(PATIENCE_S * 1000))

    until(lambda: counts(health).get("connected") == 3)


def test_thousands_of_strangers_stop_nothing_while_the_owner_of_the_socket_sleeps(
    peers: tuple[zmq.Context[zmq.Socket[bytes]], Peers], health: Health
) -> None:
    # With a monitor that nobody reads, the 1000th stranger stops every socket of the process.
    owner, watching = peers
    options = {zmq.CURVE_SERVER: 1, zmq.LINGER: 0}
    with socket(owner, zmq.PULL, options) as opened:
        opened.curve_secretkey = zmq.curve_keypair()[1]
        watching.watch(opened, "frames")
        address = bind(opened, "tcp://127.0.0.1:*")

        for _ in range(1500):
            with stranger(address) as other:
                other.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 64)
                assert is_hung_up_on(other)

    until(lambda: counts(health) == {"refused_garbage": 1500})


def test_a_thread_that_dies_is_told_of_and_keeps_nothing_from_ending(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[BaseException] = []
    monkeypatch.setattr(Tally, "count", lambda *_: 1 / 0)

    with (
        context() as owner,
        open_peers(health, died.append) as watching,
        socket(owner, zmq.PULL, {}) as opened,
    ):
        watching.watch(opened, "frames")
        with stranger(bind(opened, "tcp://127.0.0.1:*")):
            until(lambda: bool(died))

    assert isinstance(died[0], ZeroDivisionError)


def test_a_station_takes_as_many_descriptors_as_it_may() -> None:
    lines = """
import resource
from edge.peers import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))
raise_descriptor_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    told = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)

    assert told.stdout.split() == ["4096", "4096"]
