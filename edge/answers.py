"""Answers what the station is asked: verdicts that were missed, and whether a part may go on.

One thread with two ROUTER sockets, so that REQ and DEALER clients both work. What is asked never
touches the route of a frame: see `edge.recent` for what is known of parts, and `edge.questions` for
those that wait.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Protocol

import zmq

from edge.bell import Bell
from edge.health import Clock, Health, is_milestone
from edge.questions import Questions
from edge.recent import RecentVerdicts
from edge.sockets import StationSockets
from edge.workers import Ready
from inspection.errors import DualbankError
from inspection.station_messages import (
    MOST_TEXT,
    CatchUpAnswer,
    CatchUpRequest,
    RejectAnswer,
    decode_catch_up,
    decode_reject_question,
)
from inspection.wire import Buffer, MessageError, pack

log = logging.getLogger(__name__)

MOST_PARTS = 8
"""Of a request with its envelope; what has more is dropped."""

MOST_ANSWER_BYTES = 1 << 20
"""Of the records in one answer; `more` says that there are others."""

MOST_CAMERAS = 256
"""Of an answer to `last_by_camera`."""

QUESTIONS_A_TURN = 64
"""How many questions are read before it is the turn of a request to catch up, which may take as
long as a thousand rows."""

IDLE_MS = 1000


class Recorded(Protocol):
    """A verdict as it is in the ledger."""

    @property
    def station_seq(self) -> int:
        """Its number."""
        ...

    @property
    def record(self) -> bytes:
        """The header of its message, byte for byte as published."""
        ...


class Reader(Protocol):
    """Reads the ledger while the station writes it; used only in the thread that opened it."""

    def after(self, station_seq: int, most: int, camera: str | None) -> Sequence[Recorded]:
        """The oldest verdicts above a number, in order."""
        ...

    def latest(self, most: int) -> Sequence[Recorded]:
        """The newest verdicts, in order of their number."""
        ...

    def last_by_camera(self, most: int) -> Sequence[Recorded]:
        """The newest verdict of each camera."""
        ...

    def last_seq(self) -> int:
        """The highest number; 0 for an empty ledger."""
        ...


class Answers:
    """The thread's work; `stop` may be called from another.

    Attributes:
        catch_up_address: Where missed verdicts are asked for, once ready.
        reject_address: Where questions for parts are asked, once ready.
    """

    def __init__(
        self,
        sockets: StationSockets,
        open_reader: Callable[[], AbstractContextManager[Reader]],
        recent: RecentVerdicts,
        health: Health,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self.catch_up_address = self.reject_address = ""
        self._sockets = sockets
        self._open_reader = open_reader
        self._recent = recent
        self._health = health
        self._clock = clock
        self._stopping = threading.Event()
        self._questions = Questions(recent, clock)
        self._bell: Bell | None = None

    def work(self, ready: Ready) -> None:
        """Answer until stopped; then every question that waits is REJECT.

        Raises:
            StationError: An address cannot be bound, or the ledger cannot be read.
        """
        with (
            self._open_reader() as reader,
            self._sockets.open("catch_up") as (catch_up, self.catch_up_address),
            self._sockets.open("reject") as (reject, self.reject_address),
            self._woken() as bell,
        ):
            ready()
            poller = zmq.Poller()
            for each in (catch_up, reject, bell):
                poller.register(each, zmq.POLLIN)
            while not self._stopping.is_set():
                asked = dict(poller.poll(self._questions.patience_ms(IDLE_MS)))
                bell.hush()
                for envelope, answer in self._questions.settled():
                    _send(reject, [*envelope, pack(answer)])
                if reject in asked:
                    self._take_questions(reject)
                if catch_up in asked:
                    self._catch_up(catch_up, reader)
            for envelope, answer in self._questions.abandon():
                _send(reject, [*envelope, pack(answer)])

    def stop(self) -> None:
        """Let `work` end."""
        self._stopping.set()
        self._ring()

    # Verdicts that were missed.

    def _catch_up(self, catch_up: zmq.Socket[bytes], reader: Reader) -> None:
        if (received := _receive(catch_up)) is None:
            self._health.count("requests_dropped")
            return
        envelope, payload = received
        self._health.count("catch_ups")
        try:
            request = decode_catch_up(payload)
            header, records = _answer_of(request, reader)
        except DualbankError as error:
            refused = self._health.count("catch_ups_refused")
            if is_milestone(refused):
                log.warning("catch-up refused", extra={"refused": refused, "error": error})
            text = str(error)[:MOST_TEXT]
            header, records = CatchUpAnswer(count=0, last=0, more=False, error=text), []
        _send(catch_up, [*envelope, pack(header), *records])

    # Whether a part may go on.

    def _take_questions(self, reject: zmq.Socket[bytes]) -> None:
        for _ in range(QUESTIONS_A_TURN):
            try:
                received = _receive(reject)
            except zmq.Again:
                return
            if received is None:
                self._health.count("requests_dropped")
                continue
            self._health.count("questions")
            envelope, payload = received
            answer = self._answer_or_wait(envelope, payload)
            if answer is not None:
                _send(reject, [*envelope, pack(answer)])

    def _answer_or_wait(self, envelope: tuple[bytes, ...], payload: bytes) -> RejectAnswer | None:
        try:
            question = decode_reject_question(payload)
        except MessageError as error:
            return RejectAnswer(part=None, answer="REJECT", why=str(error)[:MOST_TEXT])
        if self._questions.is_full_for(envelope):
            answer = self._recent.answer(question, at_deadline=True)
            if is_milestone(self._health.count("questions_refused")):
                log.warning("too many questions wait", extra={"part": question.part})
            return answer
        return self._questions.ask(envelope, question)

    # How a verdict wakes the thread.

    @contextmanager
    def _woken(self) -> Iterator[Bell]:
        """Hold the bell that is rung when a part changes, and listen for that."""
        with closing(Bell()) as bell:
            self._bell = bell
            self._recent.listen(self._part_changed)
            try:
                yield bell
            finally:
                self._recent.listen(None)

    def _part_changed(self, part: str) -> None:
        if self._questions.note(part):
            self._ring()

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.ring()


def _answer_of(request: CatchUpRequest, reader: Reader) -> tuple[CatchUpAnswer, list[bytes]]:
    if request.after is not None:
        found = reader.after(request.after, request.most, request.camera)
    elif request.latest is not None:
        found = reader.latest(request.latest)
    else:
        found = reader.last_by_camera(MOST_CAMERAS)
    # Read afterwards, so that it is never below what is given.
    last = reader.last_seq()
    records = _within(MOST_ANSWER_BYTES, [each.record for each in found])
    more = len(records) < len(found)
    if request.camera is not None:
        more |= len(found) == request.most
    elif request.after is not None and found:
        more |= found[-1].station_seq < last
    return CatchUpAnswer(count=len(records), last=last, more=more), records


def _within(most_bytes: int, records: Sequence[bytes]) -> list[bytes]:
    """The first records that fit, at least one."""
    sizes = itertools.accumulate(len(record) for record in records)
    fit = sum(size <= most_bytes for size in sizes)
    return list(records[: max(fit, 1)])


def _receive(asked: zmq.Socket[bytes]) -> tuple[tuple[bytes, ...], bytes] | None:
    """Take a request, as its envelope and its last part; None if it has too many parts.

    Raises:
        Again: Nothing has come.
    """
    parts = [asked.recv(zmq.NOBLOCK)]
    count = 1
    while asked.getsockopt(zmq.RCVMORE):
        part = asked.recv(zmq.NOBLOCK)
        count += 1
        if count <= MOST_PARTS:
            parts.append(part)
    if not 2 <= count <= MOST_PARTS:
        return None
    return tuple(parts[:-1]), parts[-1]


def _send(asked: zmq.Socket[bytes], parts: Sequence[Buffer]) -> None:
    """Answer, without waiting for a peer that does not read: ROUTER drops what it cannot send."""
    asked.send_multipart(parts, zmq.NOBLOCK)
