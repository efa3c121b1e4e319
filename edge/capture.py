"""Receives messages from cameras, over every transport, and tells cameras what became of frames.

What a message says is decided in `inspection`; who is told what, in `edge.pipeline`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import zmq

from edge.admission import Incoming, Origin
from edge.bell import Bell
from edge.health import Clock
from edge.sockets import StationSockets
from inspection.wire import Buffer

# A frame has two parts. One more is kept, so that a message of a million is not one of two.
MOST_PARTS = 3

POLL_MS = 100
"""How soon a stop is noticed."""

HELD_MS = 5
"""How soon room is noticed while a transport is held back."""

SILENCE_MS = 300
"""At a stop, how long a silence means that nothing is left: on a busy machine ZeroMQ's own thread
may take a while to bring what the kernel holds."""

DRAIN_MS = 2000
"""At a stop, how long a camera that never falls silent is listened to."""


class Capture:
    """The sockets that frames come from. All but `tell` belong to the thread that opened it.

    Attributes:
        addresses: By transport, where cameras connect to.
    """

    def __init__(self, clock: Clock) -> None:
        self.addresses: dict[str, str] = {}
        self._clock = clock
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._poller = zmq.Poller()
        self._held: set[str] = set()
        self._answers: deque[tuple[Origin, list[Buffer]]] = deque()
        self._bell = Bell()
        self._poller.register(self._bell, zmq.POLLIN)

    def add(self, transport: str, opened: zmq.Socket[bytes], address: str) -> None:
        """Take over a socket that is bound or connected."""
        self.addresses[transport] = address
        self._sockets[transport] = opened
        self._poller.register(opened, zmq.POLLIN)

    def messages(
        self, stopping: threading.Event, failed: threading.Event
    ) -> Iterator[Incoming | None]:
        """Give message after message, in turn from each transport that is not held back.

        None is given while something is held back: there may be room by now.

        Args:
            stopping: Give what ZeroMQ already holds, then end.
            failed: End at once: what is taken from a camera now could not be recorded.
        """
        stopped_ns = heard_ns = None
        while not failed.is_set():
            ready = dict(self._poller.poll(HELD_MS if self._held else POLL_MS))
            now_ns = self._clock()
            self._send_answers()
            came = [name for name, each in self._sockets.items() if each in ready]
            if stopping.is_set():
                stopped_ns = stopped_ns or now_ns
                if came or self._held or heard_ns is None:
                    heard_ns = now_ns
                if now_ns - heard_ns > SILENCE_MS * 1e6 or now_ns - stopped_ns > DRAIN_MS * 1e6:
                    return
            for transport in came:
                yield self._receive(transport)
            if self._held:
                yield None

    def answer_until(self, told: threading.Event) -> None:
        """Take nothing more, and send answers until there will be none."""
        for transport in self._sockets:
            self.hold(transport)
        while not told.is_set():
            self._poller.poll(POLL_MS)
            self._send_answers()

    def hold(self, transport: str) -> None:
        """Take nothing more from a transport until `release`: its cameras wait."""
        if transport not in self._held:
            self._held.add(transport)
            self._poller.unregister(self._sockets[transport])

    def release(self, transport: str) -> None:
        """Take from a transport again."""
        if transport in self._held:
            self._held.remove(transport)
            self._poller.register(self._sockets[transport], zmq.POLLIN)

    def tell(self, origin: Origin, parts: list[Buffer]) -> None:
        """Answer whoever a frame came from; any thread may, and never waits."""
        self._answers.append((origin, parts))
        self._bell.ring()

    def close(self) -> None:
        """Send the last answers, and give the sockets back to whoever opened them."""
        self._send_answers()
        self._bell.close()

    def _receive(self, transport: str) -> Incoming:
        parts: list[Buffer] = []
        envelope: list[bytes] = []
        opened = self._sockets[transport]
        expected = _ENVELOPE[transport]
        while True:
            part = opened.recv(copy=False)
            if len(envelope) < expected:
                envelope.append(part.bytes)
            elif len(parts) < MOST_PARTS:
                parts.append(part.buffer)
            if not part.more:
                return Incoming(Origin(transport, envelope[0] if envelope else None), parts)

    def _send_answers(self) -> None:
        self._bell.hush()  # before it is looked: what comes meanwhile rings again
        while self._answers:
            origin, parts = self._answers.popleft()
            envelope = [origin.peer or b"", b""][: _ENVELOPE[origin.transport]]
            # A ROUTER drops what is for a camera that has gone or does not read: it will ask.
            self._sockets[origin.transport].send_multipart([*envelope, *parts])


# What comes before the message: who sends it, and for REQ an empty part.
_ENVELOPE = {"cameras": 1, "frames": 0, "imagezmq": 2, "imagezmq_from": 0}


@contextmanager
def open_capture(sockets: StationSockets, clock: Clock) -> Iterator[Capture]:
    """Bind the sockets for frames.

    A part above `max_message_bytes` is refused by ZeroMQ as soon as its length is announced: it
    drops that peer, which shows as one disconnected.

    Raises:
        StationError: An address cannot be bound.
    """
    with ExitStack() as held, closing(Capture(clock)) as capture:
        for transport in _ENVELOPE:
            if getattr(sockets.settings, transport):
                opened, address = held.enter_context(sockets.open(transport))
                if opened.type == zmq.SUB:
                    opened.subscribe(b"")  # an imageZMQ sender's messages have no topic
                capture.add(transport, opened, address)
        yield capture
