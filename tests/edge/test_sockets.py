"""Sockets: an address that cannot be bound is told with the reason and what to look at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from edge.health import Health
from edge.keys import Role
from edge.peers import open_peers
from edge.settings import ADDRESSES, NEVER_ENCRYPTED, StationSettings
from edge.sockets import KINDS, StationSockets, bind, context, socket
from inspection.errors import StationError
from tests.edge.curve import (
    PATIENCE_S,
    Keys,
    counts,
    encrypted_sockets,
    must_not_die,
    peer,
    until,
)

PATIENCE_MS = int(PATIENCE_S * 1000)
FREE = "tcp://127.0.0.1:*"


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def plain(health: Health, tmp_path: Path) -> Iterator[StationSockets]:
    """Sockets of a station without keys."""
    settings = StationSettings(frames=FREE, verdicts=FREE, max_message_bytes=1000)
    with context() as owner, open_peers(health, must_not_die) as peers:
        yield StationSockets(owner, settings, None, peers)


def test_an_address_that_is_taken_names_itself_and_who_may_have_it() -> None:
    with context() as owner, socket(owner, zmq.PULL, {}) as first:
        taken = bind(first, "tcp://127.0.0.1:*")

        with (
            socket(owner, zmq.PULL, {}) as second,
            pytest.raises(StationError) as caught,
        ):
            bind(second, taken)

    assert str(caught.value) == (
        f"cannot bind to {taken}: Address already in use; another station or another program has it"
    )


def test_an_ipc_path_without_its_folder_says_that_the_folder_must_be_there(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/missing/frames"

    with (
        context() as owner,
        socket(owner, zmq.PULL, {}) as opened,
        pytest.raises(StationError, match="No such file or directory; the folder of an ipc://"),
    ):
        bind(opened, address)


def test_an_address_of_another_machine_is_told_as_one() -> None:
    with (
        context() as owner,
        socket(owner, zmq.PULL, {}) as opened,
        pytest.raises(StationError, match="this machine has no such address"),
    ):
        bind(opened, "tcp://192.0.2.1:5555")  # for documentation, RFC 5737: nobody has it


def test_every_address_of_the_settings_has_its_bounds_and_the_role_that_opens_it() -> None:
    assert set(KINDS) == {*ADDRESSES, "imagezmq_from"}
    assert {name for name, kind in KINDS.items() if kind.role is None} == {*NEVER_ENCRYPTED} - {
        "http"
    }
    assert {kind.role for kind in KINDS.values()} == {*Role, None}
    for kind in KINDS.values():
        assert kind.receive > 1, "0 is no bound, and at 1 ZeroMQ never hears a peer with a key"
        assert kind.send > 0


@pytest.mark.parametrize("what", sorted(set(KINDS) - {"imagezmq_from"}))
def test_a_socket_has_the_bounds_of_its_row(plain: StationSockets, what: str) -> None:
    with plain.open(what, FREE) as (opened, address):
        assert opened.getsockopt(zmq.TYPE) == KINDS[what].type
        assert opened.getsockopt(zmq.RCVHWM) == KINDS[what].receive
        assert opened.getsockopt(zmq.SNDHWM) == KINDS[what].send
        assert opened.getsockopt(zmq.MAXMSGSIZE) == (KINDS[what].most_bytes or 1000)
        assert opened.getsockopt(zmq.MECHANISM) == zmq.NULL
        assert not address.endswith("*")


@pytest.mark.parametrize("what", sorted(KINDS))
def test_with_keys_every_tcp_socket_of_a_role_encrypts_and_no_other(
    tmp_path: Path, health: Health, what: str
) -> None:
    kind = KINDS[what]
    with encrypted_sockets(Keys(tmp_path), health) as sockets:
        address = "tcp://127.0.0.1:1" if kind.type is zmq.SUB else FREE
        with sockets.open(what, address) as (opened, _):
            assert opened.getsockopt(zmq.MECHANISM) == (zmq.CURVE if kind.role else zmq.NULL)
            role = kind.role.value if kind.role else ""
            assert opened.getsockopt_string(zmq.ZAP_DOMAIN).rstrip("\0") == role
        with sockets.open(what, f"ipc://{tmp_path}/s") as (opened, _):
            assert opened.getsockopt(zmq.MECHANISM) == zmq.NULL


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_part_of_the_most_bytes_arrives_and_one_more_byte_costs_the_connection(
    plain: StationSockets, tmp_path: Path, health: Health, encrypted: bool
) -> None:
    keys = Keys(tmp_path)
    own = keys.new(Role.CAMERA, "left") if encrypted else None
    with encrypted_sockets(keys, health, max_message_bytes=1000) as keyed:
        opener = keyed if encrypted else plain
        with (
            opener.open("frames") as (opened, address),
            peer(zmq.PUSH, address, own) as camera,
        ):
            camera.reconnect_ivl = -1
            camera.send(b"x" * 1000)
            assert opened.poll(PATIENCE_MS)
            assert len(opened.recv()) == 1000

            camera.send(b"x" * 1001)
            until(lambda: counts(health) == {"connected": 1, "disconnected": 1})
            assert not opened.poll(0)


def test_ipc_is_for_the_user_of_the_station_alone(plain: StationSockets, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with plain.open("control", f"ipc://{tmp_path}/control"):
            assert (tmp_path / "control").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_keys_that_nobody_read_are_no_plain_sockets(plain: StationSockets, tmp_path: Path) -> None:
    settings = plain.settings.model_copy(update={"keys": tmp_path})

    with pytest.raises(StationError, match="asks for encryption"):
        replace(plain, settings=settings)


def test_publishers_of_imagezmq_are_connected_to(plain: StationSockets, health: Health) -> None:
    with context() as owner, socket(owner, zmq.PUB, {}) as one, socket(owner, zmq.PUB, {}) as two:
        listed = f"{bind(one, FREE)}, {bind(two, FREE)}"

        with plain.open("imagezmq_from", listed) as (_, address):
            assert address == listed
            until(lambda: counts(health) == {"connected": 2})
