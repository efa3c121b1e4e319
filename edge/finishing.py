"""The last stage: an outcome is recorded, and then told to everybody who wants to know.

What cannot be recorded is told to nobody: the station stops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge.admission import Admission, Origin
from edge.backlog import Handover
from edge.health import Clock, Health
from edge.label_queue import LabelItem, LabelQueue
from edge.ledger import Entry, Ledger, open_ledger
from edge.ledger_reader import open_reader
from edge.outcome import Outcome, message_of
from edge.publish import MOST_CAMERAS, Publisher, Standing, open_publisher
from edge.recent import RecentVerdicts
from edge.settings import StationSettings
from edge.sockets import StationSockets
from edge.workers import Ready
from inspection.bundle import Bundle
from inspection.verdicts import Reason
from inspection.wire import Buffer, pack

TEND_S = 0.1
"""How often listeners are looked after while there is no verdict."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who in this process is told of a verdict that is recorded.

    Attributes:
        admission: Has the frame under way no longer, and knows who sent it.
        recent: Answers questions for parts.
        labels: Keeps what people should look at.
        tell: Answers whoever sent a frame.
    """

    admission: Admission
    recent: RecentVerdicts
    labels: LabelQueue
    tell: Callable[[Origin, list[Buffer]], None]


class Finish:
    """The work of the thread that owns the ledger and the socket of verdicts.

    Attributes:
        address: Where verdicts come from, once ready.
        recorded_to: The last `station_seq` and the head of the chain, for whoever shows them.
    """

    def __init__(
        self,
        settings: StationSettings,
        sockets: StationSockets,
        health: Health,
        listeners: Listeners,
        bundle: Callable[[], Bundle | None],
        stopping: threading.Event,
        clock: Clock,
    ) -> None:
        """Open nothing yet.

        Args:
            settings: Where the ledger is.
            sockets: Opens that of verdicts.
            health: Counts.
            listeners: Are told.
            bundle: Gives the one that judges, for heartbeats; None while there is none.
            stopping: Whether the station is.
            clock: Times heartbeats.
        """
        self.address = ""
        self.recorded_to: tuple[int, str] | None = None
        self._settings = settings
        self._sockets = sockets
        self._health = health
        self._listeners = listeners
        self._bundle = bundle
        self._stopping = stopping
        self._clock = clock

    def work(self, outcomes: Handover[Outcome], ready: Ready) -> None:
        """Record and tell until the outcomes are closed.

        Raises:
            StationError: The ledger cannot be written, or the address cannot be bound.
        """
        with (
            open_ledger(self._settings.state_dir) as ledger,
            open_publisher(self._sockets, self._standing, self._clock) as publisher,
        ):
            self.address = publisher.address
            with open_reader(self._settings.state_dir) as reader:
                for last in reader.last_by_camera(MOST_CAMERAS):
                    publisher.remember(last.record)
            self.recorded_to = ledger.last_seq(), ledger.head.hex()
            ready()
            while (some := outcomes.take_some(len, TEND_S)) is not None:
                entries = self._record(ledger, some)
                for outcome, entry in zip(some, entries, strict=True):
                    self._tell(publisher, outcome, entry)
                if self._bundle() is not None:  # else there is nothing to speak of
                    publisher.tend()

    def _record(self, ledger: Ledger, outcomes: list[Outcome]) -> list[Entry]:
        """Append a batch to the ledger, in one commit."""
        entries = []
        for station_seq, outcome in enumerate(outcomes, start=ledger.last_seq() + 1):
            receipt = outcome.receipt
            receipt.stopwatch.lap("finish")
            message = message_of(outcome, station_seq)
            entries.append(
                Entry(message, pack(message), receipt.received_unix_ns, receipt.origin.transport)
            )
        if entries:
            ledger.record(entries)
            self.recorded_to = ledger.last_seq(), ledger.head.hex()
        return entries

    def _tell(self, publisher: Publisher, outcome: Outcome, entry: Entry) -> None:
        receipt, message, finding = outcome.receipt, entry.message, outcome.finding
        told, received_unix_ns = self._listeners, entry.received_unix_ns
        receipt.stopwatch.lap("record")
        self._health.count_recorded(message, receipt.stopwatch.latency_ms(), received_unix_ns)
        told.recent.note(message)
        # The very bytes that are in the ledger: whoever hears of this verdict hears the same.
        publisher.publish(message.camera, entry.record)
        self._health.count("published")
        origin = receipt.origin
        if message.reason is not Reason.NAME_REUSED:
            # A camera that has connected again in the meantime is told under its new name.
            origin = told.admission.settle(receipt.name) or origin
        if (answer := origin.acknowledgement(entry.record)) is not None:
            told.tell(origin, answer)
        if finding is None:
            return
        if self._settings.publish_heatmaps:
            publisher.publish_heatmap(message, finding.anomaly_map)
        if finding.frame is not None:
            told.labels.offer(
                LabelItem(message, received_unix_ns, finding.frame, finding.anomaly_map)
            )

    def _standing(self) -> Standing:
        bundle = self._bundle()
        assert bundle is not None
        assert self.recorded_to is not None
        station_seq, chain = self.recorded_to
        state = "stopping" if self._stopping.is_set() else "running"
        return Standing(station_seq, chain, bundle.id, state)
