"""Follows a station: every verdict once, in order, without gaps, whatever happens in between.

It listens, and asks for what it did not hear. `edge.watch` only listens.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal, overload

import zmq

from edge.catch_up import CATCH_UP, POLL_MS, CatchUp, Record, Secure, open_catch_up, plain
from edge.catch_up import read_record as read
from edge.sockets import connect, context, refusals, socket
from inspection.messages import VERDICT_TOPIC, VerdictMessage
from inspection.station_messages import (
    HEARTBEAT_TOPIC,
    MOST_RECORDS,
    CatchUpRequest,
    Heartbeat,
    decode_heartbeat,
)
from inspection.wire import MessageError

log = logging.getLogger(__name__)

PAGE = 256
"""Verdicts asked for at once."""

_LISTENS = {
    # Beyond it ZeroMQ drops, and what is missing is asked for.
    zmq.RCVHWM: 4096,
    zmq.LINGER: 0,
    zmq.MAXMSGSIZE: 1 << 20,
}


@overload
def follow(
    verdicts: str,
    catch_up: str = ...,
    after: int | None = ...,
    *,
    silence_s: float | None = ...,
    heartbeats: Literal[False] = ...,
    stopping: threading.Event | None = ...,
    secure: Secure = ...,
) -> Iterator[VerdictMessage]: ...


@overload
def follow(
    verdicts: str,
    catch_up: str = ...,
    after: int | None = ...,
    *,
    silence_s: float | None = ...,
    heartbeats: Literal[True],
    stopping: threading.Event | None = ...,
    secure: Secure = ...,
) -> Iterator[VerdictMessage | Heartbeat | None]: ...


def follow(
    verdicts: str,
    catch_up: str = CATCH_UP,
    after: int | None = None,
    *,
    silence_s: float | None = None,
    heartbeats: bool = False,
    stopping: threading.Event | None = None,
    secure: Secure = plain,
) -> Iterator[VerdictMessage | Heartbeat | None]:
    """Give every verdict of a station once, in order of `station_seq`, without gaps.

    A slow reader, a lost connection, a restart of the station and a verdict that nobody heard all
    make a hole, which is filled from the ledger. When a power cut took the last commits of the
    ledger, their numbers come again with other verdicts, and these are given.

    Connections open at the first `next` and close with the generator.

    Args:
        verdicts: The station's address of this name.
        catch_up: The station's address of this name.
        after: Begin behind this number; None begins with what comes next.
        silence_s: End after so long without a verdict; None follows for ever.
        heartbeats: Also give heartbeats, each after the verdicts that it counts, and None about
            every 100 ms while nothing comes.
        stopping: Set it in another thread to end.
        secure: Encrypts a socket before it connects.

    Raises:
        StationError: Not an address, or the station has refused what `secure` did.
    """
    stopping = stopping or threading.Event()
    with (
        context() as owner,
        socket(owner, zmq.SUB, _LISTENS) as listener,
        refusals(listener, verdicts) as check,
        open_catch_up(owner, catch_up, stopping, secure) as asked,
    ):
        for topic in (VERDICT_TOPIC, HEARTBEAT_TOPIC):
            listener.subscribe(topic)
        secure(listener)
        connect(listener, verdicts)
        follower = _Follower(asked, after)
        said_at = time.monotonic()
        for said in follower.all_of(listener, stopping):
            if said is None:
                check()
            if isinstance(said, VerdictMessage):
                yield said
                said_at = time.monotonic()
            elif heartbeats:
                yield said
            if silence_s is not None and time.monotonic() - said_at >= silence_s:
                return


class _Follower:
    """Knows what has been given, and fills holes. The last thousand are remembered by digest."""

    def __init__(self, asked: CatchUp, after: int | None) -> None:
        self._asked = asked
        self._last = after
        self._given: OrderedDict[int, bytes] = OrderedDict()
        self._session: str | None = None

    def all_of(
        self, listener: zmq.Socket[bytes], stopping: threading.Event
    ) -> Iterator[VerdictMessage | Heartbeat | None]:
        """Give verdicts and heartbeats, and None now and then where nothing comes."""
        if self._last is not None:
            yield from self._fill(None)
        while not stopping.is_set():
            if not listener.poll(POLL_MS):
                yield None
                continue
            parts = listener.recv_multipart()
            try:
                said = decode_heartbeat(parts) if parts[0] == HEARTBEAT_TOPIC else read(parts[-1])
            except MessageError as error:
                log.warning("not a verdict", extra={"error": error})
                continue
            yield from self._beat(said) if isinstance(said, Heartbeat) else self._heard(said)

    def _heard(self, record: Record) -> Iterator[VerdictMessage | None]:
        if self._last is None:
            self._last = record.number - 1
        if self._given.get(record.number, record.digest) != record.digest:
            yield from self._go_back()
        if record.number > self._last + 1:
            yield from self._fill(record.number - 1)
        if record.number == self._last + 1:
            yield from self._give(record)

    def _beat(self, heartbeat: Heartbeat) -> Iterator[VerdictMessage | Heartbeat | None]:
        restarted = heartbeat.session != (self._session or heartbeat.session)
        self._session = heartbeat.session
        if self._last is None:
            self._last = heartbeat.station_seq
        if restarted or heartbeat.station_seq < self._last:
            yield from self._go_back()
        if heartbeat.station_seq > self._last:
            yield from self._fill(heartbeat.station_seq)
        yield heartbeat

    def _fill(self, up_to: int | None) -> Iterator[VerdictMessage | None]:
        """Fetch what follows the last one given, at least up to a number; None: all there is."""
        assert self._last is not None
        while up_to is None or self._last < up_to:
            page = yield from self._asked.ask(CatchUpRequest(after=self._last, most=PAGE))
            if page is None:
                return
            before = self._last
            for record in page.records:
                if record.number > self._last:
                    yield from self._give(record)
            if self._last == before:
                if page.last < before:
                    yield from self._go_back()
                elif page.last > before or up_to is not None:
                    # Published and not in the ledger, or there and no verdict: never for ever.
                    self._last = page.last if up_to is None else up_to
                    log.error("verdicts are missing", extra={"after": before, "to": self._last})
            if up_to is None and self._last >= page.last:
                return

    def _give(self, record: Record) -> Iterator[VerdictMessage]:
        assert self._last is not None
        if record.number > self._last + 1:
            log.error("verdicts are missing", extra={"after": self._last, "to": record.number - 1})
        self._last = record.number
        if self._given.get(record.number) == record.digest:
            return
        self._given[record.number] = record.digest
        self._given.move_to_end(record.number)
        if len(self._given) > MOST_RECORDS:
            self._given.popitem(last=False)
        yield record.message

    def _go_back(self) -> Iterator[None]:
        """Return to the last verdict that the ledger still has as it was given."""
        assert self._last is not None
        theirs: dict[int, bytes] = {}
        at = max(0, min(self._given, default=self._last) - 1)
        while page := (yield from self._asked.ask(CatchUpRequest(after=at, most=MOST_RECORDS))):
            theirs |= {record.number: record.digest for record in page.records}
            at = max(theirs, default=self._last)
            if not page.more or not page.records or at >= self._last:
                break
        if page is None:
            return
        agreed = min(self._last, page.last)
        for number in sorted(self._given):
            if number > agreed or theirs.get(number) != self._given[number]:
                agreed = min(agreed, number - 1)
                break
        if agreed < self._last:
            log.warning("the ledger went back", extra={"from": self._last, "to": agreed})
        self._last = agreed
