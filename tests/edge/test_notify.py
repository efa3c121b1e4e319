"""What systemd is told, on a socket as systemd's."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.notify import Notifier, open_notifier, watchdog_s
from inspection.errors import StationError


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and its name in NOTIFY_SOCKET."""
    # Not tmp_path: the name of a socket has 107 bytes at the most.
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard,
    ):
        name = f"{folder}/notify"
        heard.bind(name if request.param == "path" else f"\0{name}")
        heard.settimeout(10)
        yield heard, name if request.param == "path" else f"@{name}"


def test_systemd_hears_what_it_documents(manager: tuple[socket.socket, str]) -> None:
    heard, name = manager
    with open_notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"}) as notifier:
        notifier.ready("scoring on the CPU")
        notifier.feed_watchdog()
        notifier.status("quiet")
        notifier.stopping()

        said = [heard.recv(4096).decode() for _ in range(4)]

    assert notifier.watchdog_s == 30
    assert said[:3] == ["READY=1\nSTATUS=scoring on the CPU", "WATCHDOG=1", "STATUS=quiet"]
    assert said[3].startswith("STOPPING=1\nSTATUS=stopping")


def test_a_status_cannot_become_another_assignment(manager: tuple[socket.socket, str]) -> None:
    heard, name = manager
    with open_notifier({"NOTIFY_SOCKET": name}) as notifier:
        notifier.status("x\nWATCHDOG=1\nMAINPID=1")

        assert heard.recv(4096) == b"STATUS=x WATCHDOG=1 MAINPID=1"


def test_without_systemd_nothing_is_said_and_nothing_fails() -> None:
    with open_notifier({}) as notifier:
        notifier.ready("x")
        notifier.feed_watchdog()

        assert notifier.watchdog_s is None


@pytest.mark.parametrize("name", ["vsock:2:1", "notify", "/nobody/is/here"])
def test_a_socket_that_nobody_has_is_told_at_the_start(name: str) -> None:
    with pytest.raises(StationError, match="NOTIFY_SOCKET"), open_notifier({"NOTIFY_SOCKET": name}):
        pass


def test_a_manager_that_goes_away_does_not_end_the_station(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, gone = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    gone.close()
    with here:
        notifier = Notifier(here, None)
        for _ in range(3):
            notifier.feed_watchdog()

    assert [record.message for record in caplog.records] == ["systemd does not listen"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_by_the_process_that_is_meant(
    environment: dict[str, str], expected: float | None
) -> None:
    assert watchdog_s(environment) == expected
