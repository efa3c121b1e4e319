"""Publishes verdicts, heatmaps and heartbeats to whoever listens, and the last verdict of each
camera to whoever comes late. A slow listener never slows the line.

What was missed for good is asked of `edge.answers`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import zmq
from numpy.typing import NDArray

from edge.health import Clock, is_milestone
from edge.sockets import StationSockets, bind
from inspection.errors import StationError
from inspection.messages import (
    VERDICT_TOPIC,
    HeatmapHeader,
    VerdictMessage,
    decode_verdict_record,
    encode_heatmap,
)
from inspection.station_messages import LAST_TOPIC, Heartbeat, encode_heartbeat

log = logging.getLogger(__name__)

MOST_CAMERAS = 256
"""Cameras whose last verdict is remembered; the one that was silent longest is forgotten first."""

HEARTBEAT_NS = 1_000_000_000
REPEAT_NS = 100_000_000
"""Last values are told again at most so often, however many subscribe."""

MOST_TOPICS = 1024
"""Different subscriptions at once. ZeroMQ keeps a tree of them all, which takes 50 bytes for each
byte that differs (measured: 20,000 random ones of 500 bytes took 470 MB)."""

MOST_REPORTS = 4096
"""Subscriptions looked at in one turn; whoever sends more than that in 100 ms is no listener."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the station is, for its heartbeat.

    Attributes:
        station_seq: Of the last verdict that was published.
        chain: Head of the ledger's chain, 64 hex digits.
        bundle: Id of the bundle that judges.
        state: `running`, or `stopping`.
    """

    station_seq: int
    chain: str
    bundle: str
    state: str


class Publisher:
    """The socket that verdicts come from; used only in the thread that opened it.

    Attributes:
        address: Where listeners connect to.
        floods: How often every listener was sent away because one subscribed to too much.
    """

    def __init__(
        self,
        verdicts: zmq.Socket[bytes],
        address: str,
        standing: Callable[[], Standing],
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self.address = address
        self.floods = 0
        self._verdicts = verdicts
        self._standing = standing
        self._clock = clock
        self._session = secrets.token_hex(8)
        self._started_ns = clock()
        self._beats_ns = self._repeats_ns = self._started_ns
        self._last: OrderedDict[str, bytes] = OrderedDict()
        self._topics: set[bytes] = set()
        self._is_asked = False
        self._is_bound = True

    def publish(self, camera: str, record: bytes) -> None:
        """Send a verdict, as the ledger has it, to everyone who listens now."""
        self._remember(camera, record)
        self._verdicts.send_multipart([VERDICT_TOPIC + camera.encode(), record])

    def publish_heatmap(self, message: VerdictMessage, anomaly_map: NDArray[np.float32]) -> None:
        """Send the (Mh, Mw) standardised map of a verdict."""
        rows, columns = anomaly_map.shape
        header = HeatmapHeader(
            camera=message.camera,
            session=message.session,
            seq=message.seq,
            station_seq=message.station_seq,
            shape=(rows, columns),
        )
        self._verdicts.send_multipart(encode_heatmap(header, anomaly_map.astype("<f4").tobytes()))

    def remember(self, record: bytes) -> None:
        """Take a verdict of an earlier run for the last one of its camera, without sending it.

        Raises:
            MessageError: Not a verdict.
        """
        self._remember(decode_verdict_record(record).camera, record)

    def tend(self) -> None:
        """Send the heartbeat if it is due, and last values to who has just come.

        To be called every 100 ms at the least, and after what was published.
        """
        self._hear_subscriptions()
        now = self._clock()
        if self._is_asked and now >= self._repeats_ns:
            self._is_asked = False
            self._repeats_ns = now + REPEAT_NS
            for camera, record in self._last.items():
                self._verdicts.send_multipart([LAST_TOPIC + camera.encode(), record])
        if now >= self._beats_ns:
            late = now >= self._beats_ns + HEARTBEAT_NS
            self._beats_ns = (now if late else self._beats_ns) + HEARTBEAT_NS
            self._beat(now)

    def _beat(self, now: int) -> None:
        standing = self._standing()
        heartbeat = Heartbeat(
            session=self._session,
            station_seq=standing.station_seq,
            chain=standing.chain,
            bundle=standing.bundle,
            unix_ns=time.time_ns(),
            uptime_s=(now - self._started_ns) / 1e9,
            state=standing.state,
        )
        self._verdicts.send_multipart(encode_heartbeat(heartbeat))

    def _remember(self, camera: str, record: bytes) -> None:
        self._last[camera] = record
        self._last.move_to_end(camera)
        if len(self._last) > MOST_CAMERAS:
            self._last.popitem(last=False)

    def _hear_subscriptions(self) -> None:
        """Read what listeners say; anything else than a subscription is dropped."""
        if not self._is_bound:
            self._bind_again()
        for _ in range(MOST_REPORTS):
            try:
                said = self._verdicts.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if said[:1] == b"\x01":
                self._topics.add(said[1:])
                self._is_asked |= said.startswith(LAST_TOPIC, 1)
            else:
                self._topics.discard(said[1:])
            if len(self._topics) > MOST_TOPICS:
                break
        self._send_all_away()

    def _send_all_away(self) -> None:
        """Drop every listener, and with them all that ZeroMQ keeps of their subscriptions.

        ZeroMQ does not say who subscribed. Those who mean well connect again by themselves, and
        fetch what they missed.
        """
        self.floods += 1
        if is_milestone(self.floods):
            log.warning("too many subscriptions", extra={"floods": self.floods})
        self._topics.clear()
        if self._is_bound:
            self._verdicts.unbind(self.address)
        self._is_bound = False
        self._bind_again()

    def _bind_again(self) -> None:
        try:
            bind(self._verdicts, self.address)
        except StationError as error:
            # ZeroMQ's own thread has yet to let go of the port: the next turn finds it free.
            log.info("address not free yet", extra={"error": error})
        else:
            self._is_bound = True


@contextmanager
def open_publisher(
    sockets: StationSockets,
    standing: Callable[[], Standing],
    clock: Clock = time.monotonic_ns,
) -> Iterator[Publisher]:
    """Bind the socket for verdicts.

    Args:
        sockets: Of the station.
        standing: Asked for each heartbeat, in the thread that opens.
        clock: Times heartbeats and repeats.

    Raises:
        StationError: The address cannot be bound.
    """
    with sockets.open("verdicts") as (verdicts, address):
        yield Publisher(verdicts, address, standing, clock)
