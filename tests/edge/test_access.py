"""Whom a station lets in, and that strangers cost it nothing but a count."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from edge.access import ALLOWED, REFUSED, AllowList
from edge.health import Health
from edge.keys import CurveKeys, Role, revoke, station_pair
from edge.peers import open_peers
from edge.settings import StationSettings
from edge.sockets import (
    HANDSHAKE_MS,
    KINDS,
    StationSockets,
    apply_client_keys,
    connect,
    context,
    refusals,
    socket,
)
from inspection.errors import StationError
from tests.edge.curve import (
    GREETING,
    PATIENCE_S,
    Keys,
    Tap,
    counts,
    encrypted_sockets,
    is_hung_up_on,
    must_not_die,
    peer,
    stranger,
    until,
)

PATIENCE_MS = int(PATIENCE_S * 1000)

HALF_OPEN = 500
"""Connections that say nothing; each takes two descriptors of a test, which has both ends."""


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
def left(keys: Keys) -> CurveKeys:
    """A camera that is allowed."""
    return keys.new(Role.CAMERA, "left")


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def sockets(keys: Keys, health: Health) -> Iterator[StationSockets]:
    with encrypted_sockets(keys, health, max_message_bytes=1000) as opened:
        yield opened


@pytest.fixture
def frames(sockets: StationSockets) -> Iterator[tuple[zmq.Socket[bytes], str]]:
    with sockets.open("frames") as opened:
        yield opened


Bound = tuple[zmq.Socket[bytes], str]


def assert_serves(frames: Bound, own: CurveKeys, said: bytes = b"still here") -> None:
    """A camera with a key gets a message through."""
    opened, address = frames
    with peer(zmq.PUSH, address, own) as camera:
        camera.send(said)
        assert opened.poll(PATIENCE_MS), "the station serves nobody any more"
        assert opened.recv() == said


def test_the_right_key_is_let_in_and_counted(
    frames: Bound, left: CurveKeys, health: Health
) -> None:
    assert_serves(frames, left)

    until(lambda: counts(health) == {"connected": 1, "disconnected": 1})
    assert health.count(ALLOWED[Role.CAMERA], 0) == 1


@pytest.mark.parametrize("what", [what for what, kind in KINDS.items() if kind.role])
def test_every_socket_hears_a_peer_with_a_key_of_its_role(
    sockets: StationSockets, keys: Keys, what: str
) -> None:
    kind = KINDS[what]
    assert kind.role is not None
    own = keys.new(kind.role, "peer")
    asks = {zmq.PULL: zmq.PUSH, zmq.ROUTER: zmq.DEALER, zmq.XPUB: zmq.XSUB}[kind.type]
    with sockets.open(what, "tcp://127.0.0.1:*") as (opened, address):
        with peer(asks, address, own) as asking:
            asking.send(b"\x01verdict/")
            assert opened.poll(PATIENCE_MS)

        assert opened.recv_multipart()[-1] == b"\x01verdict/"


def stranger_keys(keys: Keys, own: CurveKeys, kind: str) -> CurveKeys | None:
    """What somebody has who should not get in as a camera."""
    another = zmq.curve_keypair()
    return {
        "no key": None,
        "a key of another role": keys.new(Role.SUBSCRIBER, "mes"),
        "a key that nobody allowed": CurveKeys(*another, own.server_key),
        "the key of another station": CurveKeys(own.public_key, own.secret_key, another[0]),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "counted"),
    [
        # libzmq that sees first how the other encrypts leaves first.
        ("no key", {"refused_other_security", "refused_unfinished"}),
        ("a key of another role", {"refused_not_allowed"}),
        ("a key that nobody allowed", {"refused_not_allowed"}),
        ("the key of another station", {"refused_wrong_keys"}),
    ],
)
def test_who_has_not_the_right_key_gets_nothing_in(
    frames: Bound, keys: Keys, left: CurveKeys, health: Health, kind: str, counted: set[str]
) -> None:
    with peer(zmq.PUSH, frames[1], stranger_keys(keys, left, kind)) as other:
        other.send(b"let me in")
        until(lambda: bool(counted & set(counts(health))))

        assert_serves(frames, left)

    assert set(counts(health)) - counted <= {"connected", "disconnected"}
    assert health.count("connected", 0) == 1
    in_zap = kind in ("a key of another role", "a key that nobody allowed")
    assert health.count(REFUSED[Role.CAMERA], 0) == int(in_zap)


def test_a_camera_hears_no_verdicts_and_a_subscriber_does(
    sockets: StationSockets, keys: Keys, left: CurveKeys, health: Health
) -> None:
    mes = keys.new(Role.SUBSCRIBER, "mes")
    with (
        sockets.open("verdicts") as (verdicts, address),
        peer(zmq.SUB, address, left) as spy,
        peer(zmq.SUB, address, mes) as listener,
    ):
        for each in (spy, listener):
            each.subscribe(b"")
        until(lambda: health.count("refused_not_allowed", 0) == 1)

        assert verdicts.poll(PATIENCE_MS), "nobody subscribes"
        assert verdicts.recv() == b"\x01"
        verdicts.send(b"verdict/left")

        assert listener.poll(PATIENCE_MS)
        assert not spy.poll(0)
        assert not verdicts.poll(0), "somebody else has subscribed"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("a key of another role", "does not let this key in"),
        ("no key", "encrypts and this side does not"),
    ],
)
def test_a_client_that_is_refused_for_good_is_told_why(
    frames: Bound, keys: Keys, left: CurveKeys, kind: str, said: str
) -> None:
    with (
        context() as owner,
        socket(owner, zmq.PUSH, {zmq.LINGER: 0}) as asking,
        refusals(asking, frames[1]) as check,
    ):
        apply_client_keys(asking, stranger_keys(keys, left, kind))
        connect(asking, frames[1])

        with pytest.raises(StationError, match=said):
            until(lambda: bool(check()))


def test_a_key_is_allowed_and_revoked_without_a_restart(
    frames: Bound, keys: Keys, health: Health
) -> None:
    right = keys.new(Role.CAMERA, "right")
    assert_serves(frames, right)

    revoke(Role.CAMERA, "right", keys.folder)
    with peer(zmq.PUSH, frames[1], right) as camera:
        camera.send(b"again")
        until(lambda: health.count(REFUSED[Role.CAMERA], 0) == 1)

    assert not frames[0].poll(0)


def test_whoever_is_in_when_its_key_is_revoked_stays(
    frames: Bound, keys: Keys, left: CurveKeys
) -> None:
    opened, address = frames
    with peer(zmq.PUSH, address, left) as camera:
        camera.send(b"before")
        assert opened.poll(PATIENCE_MS)

        revoke(Role.CAMERA, "left", keys.folder)
        camera.send(b"after")

        assert [opened.recv(), opened.recv()] == [b"before", b"after"]


def test_a_damaged_key_file_keeps_only_its_own_peer_out(
    frames: Bound, keys: Keys, left: CurveKeys
) -> None:
    (keys.folder / "cameras" / "broken.key").write_bytes(b"\xff" * 99)
    (keys.folder / "cameras" / "folder.key").mkdir()

    assert_serves(frames, left)


def test_a_folder_that_cannot_be_read_lets_nobody_in_until_it_can(
    keys: Keys, left: CurveKeys
) -> None:
    folder = keys.folder / "cameras"
    allowed = AllowList(folder)
    assert allowed.now() == {left.public_key}

    folder.rename(keys.folder / "aside")
    folder.write_text("a file where a folder should be")
    assert allowed.now() == frozenset()
    folder.unlink()
    assert allowed.now() == frozenset()

    (keys.folder / "aside").rename(folder)
    assert allowed.now() == {left.public_key}


def test_a_key_file_that_is_written_anew_counts_as_it_is_now(keys: Keys, left: CurveKeys) -> None:
    file = keys.folder / "cameras" / "left.key"
    allowed = AllowList(file.parent)
    assert allowed.now() == {left.public_key}
    another = zmq.curve_keypair()[0]

    file.write_bytes(file.read_bytes().replace(left.public_key, another))
    os.utime(file, ns=(1, 1))  # whatever the clock of the file system says

    assert allowed.now() == {another}


def test_nobody_is_let_in_while_nobody_answers_for_the_keys(
    keys: Keys, left: CurveKeys, health: Health
) -> None:
    settings = StationSettings(frames="tcp://127.0.0.1:*", keys=keys.folder)
    with (
        context() as owner,
        open_peers(health, must_not_die) as peers,
        StationSockets(owner, settings, station_pair(keys.folder), peers).open("frames") as frames,
        peer(zmq.PUSH, frames[1], left) as own,
    ):
        own.send(b"let me in")
        until(lambda: health.count("refused_unfinished", 0) > 0)
        assert not frames[0].poll(0)


# --- strangers who only play ----------------------------------------------------------------------

HELLO_BYTES, WELCOME_BYTES = 2 + 200, 2 + 168
"""What the peer says after its greeting, and what it is answered: length and command."""


@pytest.mark.parametrize(
    ("waits_for", "counted"),
    [
        # Whether the welcome has been said when the rest is read is ZeroMQ's to know.
        pytest.param(0, {"refused_garbage", "refused_wrong_keys"}, id="all at once"),
        pytest.param(len(GREETING) + WELCOME_BYTES, {"refused_wrong_keys"}, id="in its turn"),
    ],
)
def test_a_handshake_that_was_overheard_opens_nothing_when_it_is_played_again(
    frames: Bound, left: CurveKeys, health: Health, waits_for: int, counted: set[str]
) -> None:
    opened, address = frames
    with Tap(address) as tap, peer(zmq.PUSH, tap.address, left) as camera:
        camera.send(b"secret" * 10)
        assert opened.poll(PATIENCE_MS)
        assert opened.recv() == b"secret" * 10
    assert b"INITIATE" in tap.said
    assert b"secret" not in tap.said

    with stranger(address) as attacker:
        attacker.sendall(tap.said[: len(GREETING) + HELLO_BYTES])
        answered = 0
        while answered < waits_for:
            answered += len(attacker.recv(waits_for - answered))
        attacker.sendall(tap.said[len(GREETING) + HELLO_BYTES :])
        assert is_hung_up_on(attacker)

    until(lambda: sum(health.count(each, 0) for each in counted) == 1)
    assert_serves(frames, left)
    assert not opened.poll(0)


HELLO = b"\x04\xc8\x05HELLO\x01\0"
"""How the command begins."""

GARBAGE = {
    "a web browser": b"GET / HTTP/1.1\r\nHost: station\r\n\r\n" + b"x" * 64,
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\x11" * 192,
    "ZMTP 1": b"\x01\x00" + b"\x00" * 62,
    "ZMTP 2": b"\xff" + b"\0" * 8 + b"\x7f\x01\x08" + b"\0" * 52,
    "a mechanism that there is not": GREETING.replace(b"CURVE", b"MAGIC"),
    "no security": GREETING.replace(b"CURVE", b"NULL\0"),
    "a message before the handshake": GREETING + b"\0\x05hello",
    "a command that there is not": GREETING + b"\x04\x05\x04JUNK",
    "a hello of noise": GREETING + HELLO + b"z" * 192,
    "a hello of nothing": GREETING + b"\x04\x06\x05HELLO",
    "a command of 1 GB": GREETING + b"\x06" + (1 << 30).to_bytes(8, "big") + b"z" * 99,
    "a command of 2^63 bytes": GREETING + b"\x06" + (1 << 63).to_bytes(8, "big") + b"z" * 99,
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_whatever_a_stranger_says_is_refused_and_counted(
    frames: Bound, left: CurveKeys, health: Health, kind: str
) -> None:
    with stranger(frames[1]) as other:
        other.sendall(GARBAGE[kind])
        assert is_hung_up_on(other)

    until(lambda: sum(counts(health).values()) == 1)
    assert next(iter(counts(health))).startswith("refused_")
    assert_serves(frames, left)
    until(lambda: health.count("disconnected", 0) == 1)


def test_strangers_who_say_nothing_are_hung_up_on_and_lock_nobody_out(
    frames: Bound, left: CurveKeys, health: Health
) -> None:
    with ExitStack() as held:
        silent = [held.enter_context(stranger(frames[1])) for _ in range(HALF_OPEN)]
        for number, each in enumerate(silent):
            each.sendall(GREETING[: number % len(GREETING)])

        assert_serves(frames, left)
        assert health.count("refused_unfinished", 0) == 0
        assert all(is_hung_up_on(each) for each in silent)

    until(lambda: health.count("refused_unfinished", 0) == HALF_OPEN)
    assert HANDSHAKE_MS <= 5000


def test_what_strangers_announce_takes_no_memory(
    keys: Keys, left: CurveKeys, health: Health
) -> None:
    announced = 60 << 20
    large = GREETING + b"\x06" + announced.to_bytes(8, "big") + b"z"
    with encrypted_sockets(keys, health) as sockets, sockets.open("frames") as frames:
        assert_serves(frames, left)
        before = _resident_bytes()
        with ExitStack() as held:
            for _ in range(200):
                held.enter_context(stranger(frames[1])).sendall(large)
            assert_serves(frames, left)  # by then ZeroMQ has read what came before
            assert _resident_bytes() - before < announced

    # 200 x 60 MiB were announced, twelve times what a test machine may have.


def test_thousands_of_refusals_leave_memory_and_descriptors_as_they_were(
    frames: Bound, keys: Keys, left: CurveKeys, health: Health
) -> None:
    noise = GARBAGE["a hello of noise"]

    def refuse(times: int) -> None:
        for _ in range(times):
            with stranger(frames[1]) as other:
                other.sendall(noise)
                assert is_hung_up_on(other)

    refuse(500)  # so that what is allocated once has been
    before, open_before = _resident_bytes(), _descriptors()
    refuse(3000)
    until(lambda: counts(health) == {"refused_wrong_keys": 3500})

    assert _resident_bytes() - before < 3000 * 1024, "a refusal leaves a kibibyte behind"
    until(lambda: _descriptors() <= open_before)
    assert_serves(frames, left)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
