"""Asks a station for verdicts that are in its ledger. What answers is `edge.answers`."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import zmq

from edge.health import is_milestone
from edge.sockets import connect, context, socket
from inspection.messages import VerdictMessage, decode_verdict_record
from inspection.station_messages import CatchUpRequest, decode_catch_up_answer
from inspection.wire import Buffer, MessageError, pack

log = logging.getLogger(__name__)

CATCH_UP = "tcp://127.0.0.1:5558"

POLL_MS = 100
"""How soon a stop is noticed."""

ANSWER_S = 2.0
"""How long a station may take to answer before it is asked again."""

_REQUESTS = {
    zmq.LINGER: 0,
    # Nothing waits for a station that is not there: it would answer it all when it comes.
    zmq.IMMEDIATE: 1,
    # A request that was lost may be sent anew, and a late answer is taken for none of another.
    zmq.REQ_RELAXED: 1,
    zmq.REQ_CORRELATE: 1,
    zmq.MAXMSGSIZE: 1 << 20,
}

Secure = Callable[[zmq.Socket[bytes]], None]
"""Given each socket before it connects, to encrypt it."""


def plain(_: zmq.Socket[bytes]) -> None:
    """Leave a socket as it is."""


@dataclass(frozen=True, slots=True)
class Record:
    """A verdict, and what tells it from another of the same number.

    Attributes:
        message: Decoded.
        digest: Of its bytes.
    """

    message: VerdictMessage
    digest: bytes

    @property
    def number(self) -> int:
        """Its `station_seq`."""
        return self.message.station_seq


@dataclass(frozen=True, slots=True)
class Page:
    """One answer.

    Attributes:
        records: In order; what could not be decoded is left out.
        last: `station_seq` of the last verdict in the ledger.
        more: Whether there are others that were asked for.
    """

    records: tuple[Record, ...]
    last: int
    more: bool


class CatchUp:
    """Asks; used in the thread that opened it."""

    def __init__(self, requests: zmq.Socket[bytes], stopping: threading.Event) -> None:
        self._requests = requests
        self._stopping = stopping
        self._unanswered = 0

    def ask(self, request: CatchUpRequest) -> Generator[None, None, Page | None]:
        """Ask until there is an answer, for as long as it takes, and yield while there is none.

        Returns:
            The answer; None when stopped.
        """
        while not self._stopping.is_set():
            page = yield from self._asked_once(request)
            if page is not None:
                self._unanswered = 0
                return page
            self._unanswered += 1
            if is_milestone(self._unanswered):
                log.warning("catch-up is not answered", extra={"requests": self._unanswered})
        return None

    def _asked_once(self, request: CatchUpRequest) -> Generator[None, None, Page | None]:
        until, is_sent = time.monotonic() + ANSWER_S, False
        while time.monotonic() < until and not self._stopping.is_set():
            if not self._requests.poll(POLL_MS, zmq.POLLIN if is_sent else zmq.POLLOUT):
                yield None
            elif not is_sent:
                self._requests.send(pack(request))
                is_sent = True
            else:
                if page := _page_in(self._requests.recv_multipart()):
                    return page
                is_sent = False
                self._stopping.wait(POLL_MS / 1000)
                yield None
        return None


def last_by_camera(address: str, stopping: threading.Event, secure: Secure = plain) -> Page | None:
    """Ask for the last verdict of each camera, for as long as it takes; None when stopped.

    Raises:
        StationError: Not an address.
    """
    with context() as owner, open_catch_up(owner, address, stopping, secure) as asked:
        answer = asked.ask(CatchUpRequest(last_by_camera=True))
        while True:
            try:
                next(answer)
            except StopIteration as ended:
                page: Page | None = ended.value
                return page


@contextmanager
def open_catch_up(
    owner: zmq.Context[zmq.Socket[bytes]],
    address: str,
    stopping: threading.Event,
    secure: Secure = plain,
) -> Iterator[CatchUp]:
    """Connect to a station's `catch_up`, in the background.

    Raises:
        StationError: Not an address.
    """
    with socket(owner, zmq.REQ, _REQUESTS) as requests:
        secure(requests)
        connect(requests, address)
        yield CatchUp(requests, stopping)


def read_record(data: Buffer) -> Record:
    """Decode a verdict as it is in the ledger.

    Raises:
        MessageError: Not a verdict of this version.
    """
    message = decode_verdict_record(data)
    return Record(message, hashlib.sha256(data).digest())


def _page_in(parts: list[bytes]) -> Page | None:
    """Decode an answer; None if there is none in it, and the log says why."""
    try:
        answer = decode_catch_up_answer(parts)
    except MessageError as error:
        log.warning("not an answer", extra={"error": error})
        return None
    if answer.error is not None:
        log.warning("the station cannot answer", extra={"error": answer.error})
        return None
    records = []
    for part in parts[1:]:
        try:
            records.append(read_record(part))
        except MessageError as error:
            log.warning("not a verdict", extra={"error": error})
    return Page(tuple(records), answer.last, answer.more)
