"""What the station tells systemd: ready, stopping, a line of status, and that it lives.

The protocol of sd_notify(3), without its library. Without systemd nothing is said. When the
watchdog is fed is `edge.pulse`'s matter.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from edge.health import is_milestone
from inspection.errors import StationError

log = logging.getLogger(__name__)

SEND_S = 1.0
"""A service manager that takes nothing for so long is given up for this once."""


class Notifier:
    """Talks to the service manager, if there is one; any thread may.

    Attributes:
        watchdog_s: Within what time `feed_watchdog` must be called again; None for no watchdog.
    """

    def __init__(self, manager: socket.socket | None, watchdog_s: float | None) -> None:
        self.watchdog_s = watchdog_s
        self._manager = manager
        self._failed = 0

    def ready(self, status: str) -> None:
        """Say that frames are taken from now on."""
        self._say("READY=1", _status(status))

    def stopping(self) -> None:
        """Say that the station drains and ends; the watchdog goes on all the same."""
        self._say("STOPPING=1", _status("stopping: scoring what still waits"))

    def status(self, text: str) -> None:
        """Give the line that `systemctl status` shows."""
        self._say(_status(text))

    def feed_watchdog(self) -> None:
        """Say that the station lives."""
        self._say("WATCHDOG=1")

    def _say(self, *lines: str) -> None:
        if self._manager is None:
            return
        try:
            self._manager.send("\n".join(lines).encode())
        except OSError as error:
            self._failed += 1
            if is_milestone(self._failed):
                log.warning(
                    "systemd does not listen", extra={"error": error, "times": self._failed}
                )


@contextmanager
def open_notifier(environment: Mapping[str, str] | None = None) -> Iterator[Notifier]:
    """Connect to the service manager that NOTIFY_SOCKET names, if it names one.

    Args:
        environment: None means this process's.

    Raises:
        StationError: It names something that nobody can connect to, or no such thing.
    """
    environment = os.environ if environment is None else environment
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        yield Notifier(None, None)
        return
    if address[0] not in "/@":
        raise StationError(
            f"NOTIFY_SOCKET = {address!r}: expected a path, or @ and an abstract name"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.settimeout(SEND_S)
        try:
            # The first byte of an abstract name is 0.
            manager.connect(f"\0{address[1:]}" if address[0] == "@" else address)
        except OSError as error:
            raise StationError(f"cannot connect to NOTIFY_SOCKET {address}: {error}") from error
        yield Notifier(manager, watchdog_s(environment))


def watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Tell within what time systemd wants to hear; None if from this process it does not.

    WATCHDOG_PID is of the process that systemd started: a child inherits the variables and is not
    meant by them.
    """
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


def _status(text: str) -> str:
    """A line is an assignment: what came from elsewhere must not become a second one."""
    return "STATUS=" + " ".join(text.split())
