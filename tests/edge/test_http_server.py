"""The web server that can do little: what it answers, refuses and survives."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from edge import http_server
from edge.http_server import MOST_CONNECTIONS, allows_host, host_and_port, open_http
from edge.sources import Model
from inspection.errors import InputError, StationError
from tests.edge.stations import BANK, BUNDLE, StandInStation

PATIENCE_S = 20


@pytest.fixture
def station(tmp_path: Path) -> StandInStation:
    return StandInStation(tmp_path)


@pytest.fixture
def address(station: StandInStation, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(http_server, "FRESH_S", -1.0)
    with open_http("127.0.0.1:0", station.sources, lambda e: pytest.fail(f"it died: {e}")) as bound:
        yield bound


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def say(address: str, request: bytes) -> bytes:
    """Send bytes and read to the end."""
    with connect(address) as peer:
        peer.sendall(request)
        peer.shutdown(socket.SHUT_WR)
        heard = b""
        try:
            while data := peer.recv(65_536):
                heard += data
        except ConnectionResetError:
            pass
        return heard


def get(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict, bytes]:
    connection = HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/?x=1", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/status.json", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/livez", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
    ],
)
def test_every_path_answers_and_lets_a_browser_do_nothing_else(
    path: str, kind: str, address: str
) -> None:
    status, headers, body = get(address, path)

    assert (status, headers["Content-Type"]) == (200, kind)
    assert int(headers["Content-Length"]) == len(body) > 0
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_head_is_a_get_without_its_body(address: str) -> None:
    _, of_get, body = get(address, "/")
    status, of_head, nothing = get(address, "/", "HEAD")

    assert (status, nothing) == (200, b"")
    assert of_head == of_get
    assert body


def test_a_station_that_is_not_ready_says_why(station: StandInStation, address: str) -> None:
    assert get(address, "/readyz")[0] == 200
    station.model = None

    status, _, body = get(address, "/readyz")
    assert (status, body) == (503, b"the model is not loaded yet\n")
    assert get(address, "/livez")[0] == 200, "to load a model is no reason for a restart"
    station.model = Model(BUNDLE, BANK, "cpu")
    assert get(address, "/readyz")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "get"])
def test_nothing_can_be_changed(method: str, address: str) -> None:
    status, headers, _ = get(address, "/status.json", method)

    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path", ["/../ledger.sqlite", "/%2e%2e/x", "//etc/passwd", "/status_page/", "/index.html"]
)
def test_there_is_no_way_to_other_files(path: str, address: str) -> None:
    status, _, body = get(address, path)

    assert status == 404
    assert b"/status.json" in body, "it says what there is"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8787", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8787", 200),
        ("evil.example", 421),
        ("evil.example:8787", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.0.0.1", 421),
        ("", 421),
    ],
)
def test_a_name_of_elsewhere_that_leads_here_is_refused(
    host: str, status: int, address: str
) -> None:
    assert get(address, "/status.json", Host=host)[0] == status


def test_a_request_without_a_host_or_with_two_is_refused(address: str) -> None:
    for hosts in (b"", b"Host: localhost\r\nHost: evil\r\n"):
        assert b" 421 " in say(address, b"GET / HTTP/1.1\r\n" + hosts + b"\r\n").split(b"\r\n")[0]


@pytest.mark.parametrize(
    ("name", "bound", "allowed"),
    [
        ("10.0.0.7:8787", "10.0.0.7", True),
        ("10.0.0.8:8787", "10.0.0.7", False),
        ("192.168.1.4", "0.0.0.0", True),
        ("[fe80::1]:8787", "::", True),
        ("evil.example", "0.0.0.0", False),
        (f"{socket.gethostname()}:8787", "0.0.0.0", True),
    ],
)
def test_whoever_binds_to_other_addresses_is_found_under_them(
    name: str, bound: str, allowed: bool
) -> None:
    assert allows_host(name, bound) is allowed


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4000 + b"\r\n", b"431"),
    ],
)
def test_what_is_no_request_is_told_so(request_: bytes, status: bytes, address: str) -> None:
    heard = say(address, request_)

    # Hanging up on what is still being sent may cost the other side the answer, not us the rest.
    assert heard == b"" or heard.split(b" ")[1] == status
    assert get(address, "/livez")[0] == 200


def test_thousands_of_random_requests_leave_the_server_as_it_was(address: str) -> None:
    chance = random.Random(6)
    pieces = [b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"Host: ", b"localhost", b"\0", b"\xff", b":"]
    for _ in range(2000):
        request = b"".join(chance.choices(pieces, k=chance.randrange(1, 12)))
        say(address, request + b"\r\n\r\n")

    assert get(address, "/status.json")[0] == 200


def test_hundreds_of_requests_leave_no_file_and_no_thread_behind(address: str) -> None:
    def held() -> tuple[int, int]:
        assert get(address, "/livez")[0] == 200
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    before = held()
    for path in ("/", "/metrics", "/nothing") * 100:
        get(address, path)
        say(address, b"GET")

    files, threads = held()
    # The server may still be closing its end of the last connections.
    assert files <= before[0] + 2
    assert threads == before[1]


def test_a_slow_peer_is_hung_up_on(
    station: StandInStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.05)
    with (
        open_http("127.0.0.1:0", station.sources, lambda _: None) as address,
        connect(address) as peer,
    ):
        peer.sendall(b"GET / HTTP/1.1\r\nHost: loc")

        assert peer.recv(100) == b""


def test_more_peers_than_allowed_are_hung_up_on_and_the_others_are_served(address: str) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    held = [connect(address) for _ in range(MOST_CONNECTIONS)]
    try:
        for peer in held:
            peer.sendall(request[:10])
        with connect(address) as one_too_many:
            assert _ends(one_too_many)
        for peer in held:
            peer.sendall(request[10:])
        assert [b" 200 " in peer.recv(200) for peer in held] == [True] * MOST_CONNECTIONS
    finally:
        for peer in held:
            peer.close()


def test_whoever_still_talks_does_not_hold_up_the_end(station: StandInStation) -> None:
    with open_http("127.0.0.1:0", station.sources, lambda _: None) as address:
        peer = connect(address)
        peer.sendall(b"GET / HT")
        get(address, "/livez")  # by now the other has been accepted

    with peer:
        assert _ends(peer)
    with pytest.raises(ConnectionError):
        connect(address)


def test_an_answer_is_made_once_in_a_while_however_often_it_is_asked_for(
    station: StandInStation,
) -> None:
    now_s = 0.0
    with open_http("127.0.0.1:0", station.sources, lambda _: None, lambda: now_s) as address:
        received = []
        for now_s in (0.0, 0.1, 1.0):  # noqa: B007
            received.append(json.loads(get(address, "/status.json")[2])["frames"]["received"])
            station.health.count("received")

    assert received == [0, 0, 2]


def test_an_address_in_use_is_told_at_the_start(station: StandInStation, address: str) -> None:
    with (
        pytest.raises(StationError, match="cannot bind http"),
        open_http(address, station.sources, lambda _: None),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:8787", ("127.0.0.1", 8787)), ("[::1]:0", ("::1", 0)), ("line4:80", ("line4", 80))],
)
def test_an_address_is_taken_apart(address: str, expected: tuple[str, int]) -> None:
    assert host_and_port(address) == expected


@pytest.mark.parametrize("address", ["", "8787", ":8787", "h:", "h:99999", "h:-1", "::1:80", "h:²"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="http = "):
        host_and_port(address)


def _ends(peer: socket.socket) -> bool:
    try:
        return peer.recv(100) == b""
    except ConnectionResetError:
        return True
