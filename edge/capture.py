"""Receives frame messages from cameras. What a message says is decided in `inspection.messages`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import zmq
from zmq.utils.monitor import parse_monitor_message

from edge.health import Clock, Health
from edge.settings import StationSettings
from edge.sockets import bind, socket
from inspection.wire import Buffer

# Per camera, on top of the kernel's buffers: the backlog is where frames wait, because it counts.
RECEIVE_HIGH_WATER = 8

# A frame has two parts. One more is kept, so that a message of a million is not one of two.
MOST_PARTS = 3

POLL_MS = 100
"""How soon a stop is noticed."""

SILENCE_MS = 300
"""At a stop, how long a silence means that nothing is left: on a busy machine ZeroMQ's own thread
may take a while to bring what the kernel holds."""

DRAIN_MS = 2000
"""At a stop, how long a camera that never falls silent is listened to."""

_WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


class Capture:
    """The socket that cameras push to; used only in the thread that opened it.

    Attributes:
        address: Where cameras connect to.
    """

    def __init__(
        self,
        frames: zmq.Socket[bytes],
        monitor: zmq.Socket[bytes],
        address: str,
        health: Health,
        clock: Clock,
    ) -> None:
        self.address = address
        self._frames = frames
        self._monitor = monitor
        self._health = health
        self._clock = clock
        self._poller = zmq.Poller()
        self._poller.register(frames, zmq.POLLIN)
        self._poller.register(monitor, zmq.POLLIN)

    def messages(
        self, stopping: threading.Event, failed: threading.Event
    ) -> Iterator[list[Buffer]]:
        """Give message after message.

        Parts are views of ZeroMQ's own memory, freed when the last view is.

        Args:
            stopping: Give what ZeroMQ already holds, then end.
            failed: End at once: what is taken from a camera now could not be recorded.
        """
        stopped_ns: int | None = None
        while not failed.is_set():
            if stopped_ns is None and stopping.is_set():
                stopped_ns = self._clock()
            ready = dict(self._poller.poll(POLL_MS if stopped_ns is None else SILENCE_MS))
            if self._monitor in ready:
                self._count_peers()
            if self._frames in ready:
                yield self._receive()
            elif stopped_ns is not None and not ready:
                return
            if stopped_ns is not None and self._clock() - stopped_ns > DRAIN_MS * 1e6:
                return

    def _receive(self) -> list[Buffer]:
        parts: list[Buffer] = []
        while True:
            part = self._frames.recv(copy=False)
            if len(parts) < MOST_PARTS:
                parts.append(part.buffer)
            if not part.more:
                return parts

    def _count_peers(self) -> None:
        event = parse_monitor_message(self._monitor.recv_multipart())["event"]
        gone = event == zmq.EVENT_DISCONNECTED
        self._health.count("disconnected" if gone else "connected")


@contextmanager
def open_capture(
    context: zmq.Context[zmq.Socket[bytes]],
    settings: StationSettings,
    health: Health,
    clock: Clock,
) -> Iterator[Capture]:
    """Bind the socket for frames.

    A part above `max_message_bytes` is refused by ZeroMQ as soon as its length is announced: it
    drops that peer, which shows as one disconnected.

    Raises:
        StationError: The address cannot be bound.
    """
    options = {zmq.RCVHWM: RECEIVE_HIGH_WATER, zmq.MAXMSGSIZE: settings.max_message_bytes}
    with socket(context, zmq.PULL, options) as frames:
        monitor = frames.get_monitor_socket(_WATCHED)
        try:
            yield Capture(frames, monitor, bind(frames, settings.frames), health, clock)
        finally:
            frames.disable_monitor()
            monitor.close()
