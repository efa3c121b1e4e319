"""Counts who comes, goes and is refused at a station's sockets, in a thread that does nothing else.

ZeroMQ tells of peers by a socket of its own, and waits for whoever reads it: once 1,000 events lie
unread, no message goes in or out of the process any more. That is 1,000 connections of a stranger
while the thread that owns the socket waits for something else, so that no such thread reads them.
"""

from __future__ import annotations

import itertools
import logging
import resource
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

import zmq
from zmq.utils.monitor import parse_monitor_message

from edge.health import Health, is_milestone
from edge.workers import Ready, Worker

log = logging.getLogger(__name__)


class Refusal(Enum):
    """Why a peer did not get in; the value is a counter of `Health`."""

    NOT_ALLOWED = "refused_not_allowed"
    """It encrypts, with a key that has no business at this socket."""
    WRONG_KEYS = "refused_wrong_keys"
    """It takes another station for this one, or plays back what another peer has said."""
    OTHER_SECURITY = "refused_other_security"
    """It does not encrypt where it must, or does where it cannot."""
    GARBAGE = "refused_garbage"
    """It speaks something else, or a ZeroMQ so old that it could not encrypt."""
    UNFINISHED = "refused_unfinished"
    """It went away before it was in, or was too slow."""


COUNTERS = ("connected", "disconnected", "accept_failed", *(each.value for each in Refusal))
"""Every counter that is kept here, in the order of a report.

connected - disconnected is who is there now. `accept_failed`: the process has no file descriptor
left for whoever wants to connect.
"""

MOST_UNREAD = 10_000
"""Events that may wait for the thread, on top of ZeroMQ's 1,000: then ZeroMQ waits for it."""

POLL_MS = 50
"""How soon a new socket or the end is noticed."""

JOIN_S = 5.0

MOST_DESCRIPTORS = 65_536

_WATCHED = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_ACCEPT_FAILED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_MONITOR_STOPPED
)


class Tally:
    """Counts the peers of one socket.

    ZeroMQ tells which connection began and which ended, but not which of them shook hands or was
    refused: that is concluded from the order. A connection since whose beginning nobody shook hands
    is not in; if it ends and no refusal is left that was told of, it was refused without a word.
    Of others, the sums are right when all is quiet, whichever of them a refusal was of.
    """

    def __init__(self, health: Health, name: str) -> None:
        self._health = health
        self._name = name
        self._greeted = 0
        # Refusals that were told of, and whose connection has not ended.
        self._told = 0
        # By descriptor, how many had shaken hands when it was accepted; as many as are open.
        self._began: dict[int, int] = {}
        # How many of these were accepted since the last of all shook hands.
        self._new = 0

    def count(self, event: int, value: int) -> None:
        """Count an event of ZeroMQ; `value` is a descriptor, an error or a protocol's code."""
        if event == zmq.EVENT_ACCEPTED:
            self._began[value] = self._greeted
            self._new += 1
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._greeted += 1
            self._new = 0
            self._health.count("connected")
        elif event == zmq.EVENT_DISCONNECTED:
            self._end(self._began.pop(value, self._greeted - 1))
        elif event == zmq.EVENT_ACCEPT_FAILED:
            failed = self._health.count("accept_failed")
            if is_milestone(failed):
                log.error("cannot accept peers", extra={"socket": self._name, "errno": value})
        elif event != zmq.EVENT_MONITOR_STOPPED:
            self._told += 1
            self._refuse(_why(event, value))

    def _end(self, greeted_before: int) -> None:
        is_new = greeted_before == self._greeted
        self._new -= is_new
        # Refusals that may be of new ones are left to them.
        if self._told > (0 if is_new else self._new):
            self._told -= 1
        elif is_new:
            self._refuse(Refusal.GARBAGE)
        else:
            self._health.count("disconnected")

    def _refuse(self, why: Refusal) -> None:
        refused = self._health.count(why.value)
        if is_milestone(refused):
            log.warning("peer refused", extra={"socket": self._name, why.value: refused})


class Peers:
    """Watches sockets; any thread may hand one over."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._joining: deque[tuple[zmq.Socket[bytes], str]] = deque()
        self._numbers = itertools.count()
        self._tallies: dict[zmq.Socket[bytes], Tally] = {}
        self._stopping = False

    def watch(self, opened: zmq.Socket[bytes], name: str) -> None:
        """Count the peers of a socket from now on, until it is closed.

        The socket itself is not touched again: it stays in the thread that owns it, which does not
        call `disable_monitor`, because that could wait for this thread and hold up every other.

        Args:
            opened: Neither bound nor connected, or its first peers are not counted.
            name: Of the thing, for logs.
        """
        address = f"inproc://peers-{id(self)}-{next(self._numbers)}"
        opened.monitor(address, _WATCHED)
        monitor = opened.context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.setsockopt(zmq.RCVHWM, MOST_UNREAD)
        monitor.connect(address)
        self._joining.append((monitor, name))

    def stop(self) -> None:
        """Let `work` end when the last socket is closed; call it when all are."""
        self._stopping = True

    def close(self) -> None:
        """Let go of what is still watched, after the end of a thread that died."""
        for monitor in [*self._tallies, *(each for each, _ in self._joining)]:
            monitor.close()

    def work(self, ready: Ready) -> None:
        """Count until the end."""
        poller = zmq.Poller()
        ready()
        while not (self._stopping and not self._tallies and not self._joining):
            while self._joining:
                monitor, name = self._joining.popleft()
                poller.register(monitor, zmq.POLLIN)
                self._tallies[monitor] = Tally(self._health, name)
            for monitor, _ in poller.poll(POLL_MS):
                told = parse_monitor_message(monitor.recv_multipart())
                self._tallies[monitor].count(told["event"], told["value"])
                if told["event"] == zmq.EVENT_MONITOR_STOPPED:
                    poller.unregister(monitor)
                    del self._tallies[monitor]
                    monitor.close()


@contextmanager
def open_peers(health: Health, died: Callable[[BaseException], None]) -> Iterator[Peers]:
    """Count peers in a thread until the end; sockets are closed before it, their context after.

    Args:
        health: Counts.
        died: Called if the thread dies: from then on strangers can stop the sockets.
    """
    peers = Peers(health)
    worker = Worker("peers", peers.work, died)
    try:
        yield peers
    finally:
        peers.stop()
        if worker.join(JOIN_S):
            peers.close()
        else:
            log.error("a socket was left open")


def raise_descriptor_limit() -> None:
    """Let the process have as many descriptors as it may, for those who connect and say nothing.

    Each has one until its time to shake hands is over. With none left, ZeroMQ's thread turns
    without rest, and no file can be opened. 1,024, what systemd and shells begin with, is for
    programs that call select(); nothing here does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _why(event: int, value: int) -> Refusal:
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return Refusal.NOT_ALLOWED
    if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return Refusal.UNFINISHED
    if value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
        return Refusal.WRONG_KEYS
    if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
        return Refusal.OTHER_SECURITY
    return Refusal.GARBAGE
