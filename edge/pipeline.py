"""The route of a frame, from message to published verdict. Only this module knows the order.

    capture ─► backlog ─► prepare ─► slots ─► score ─► outcomes ─► finish ─► label queue
       │                     │                  │         ▲
       └─────────────────────┴── UNKNOWN ───────┴─────────┘

One thread a stage. Whatever happens to a named frame becomes one outcome; only what is in the
ledger is published.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any

import zmq

from edge.backlog import Backlog, Handover
from edge.batches import score_all
from edge.capture import open_capture
from edge.decode import decode
from edge.health import Clock, Health, Stopwatch, is_milestone
from edge.judging import judge_frame
from edge.label_queue import LabelItem, LabelQueue
from edge.ledger import Entry, open_ledger
from edge.outcome import (
    Arrival,
    NoScoreError,
    Outcome,
    Receipt,
    message_of,
    unknown,
)
from edge.publish import Publisher, open_publisher
from edge.scorer import Answer, PreparedFrame, Scorer, named_route
from edge.settings import StationSettings
from edge.workers import Ready, Worker
from inspection.bundle import Bundle
from inspection.errors import StationError
from inspection.messages import decode_frame
from inspection.verdicts import Reason
from inspection.wire import Buffer, MessageError

log = logging.getLogger(__name__)

OUTCOMES = 32
"""How many outcomes may wait for the ledger; it takes them all in one commit."""

JOIN_S = 5.0
"""How long a stage may take to end, beyond the time that the backlog is given."""


class Station:
    """Runs the route; `running` opens and closes everything it needs.

    Attributes:
        health: What has been counted.
        labels: What people should look at.
        frames_address: Where cameras connect to, once running.
        verdicts_address: Where listeners connect to, once running.
    """

    def __init__(
        self,
        settings: StationSettings,
        scorer: AbstractContextManager[Scorer],
        context: zmq.Context[zmq.Socket[bytes]],
        clock: Clock = time.monotonic_ns,
        saw: Callable[[Outcome, PreparedFrame | None], None] = lambda *_: None,
    ) -> None:
        self.health = Health()
        self.labels = LabelQueue(settings.state_dir, settings.label_queue_bytes)
        self.frames_address = self.verdicts_address = ""
        self._settings = settings
        self._open_scorer = scorer
        self._scorer: Scorer | None = None
        self._context = context
        self._clock = clock
        self._saw = saw
        self._backlog: Backlog[Arrival] = Backlog(
            settings.backlog_frames,
            settings.backlog_bytes,
            size_of=lambda arrival: len(arrival.frame.pixels),
            lane_of=lambda arrival: arrival.receipt.name.camera,
        )
        self._slots: Handover[PreparedFrame] = Handover(max(2, settings.batch_frames))
        self._outcomes: Handover[Outcome] = Handover(OUTCOMES)
        self._stopping = threading.Event()
        self._cannot_record = threading.Event()
        self._give_up_ns = 0
        # Its put may be called from a signal handler; one entry a signal or dead thread.
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self._failures: list[BaseException] = []

    @property
    def scorer(self) -> Scorer:
        """What scores; there once running."""
        assert self._scorer is not None
        return self._scorer

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start every stage, the last first; at the end, stop them in the order of the route.

        Raises:
            StationError: A stage cannot start.
        """
        with ExitStack() as stages:
            for name, work, close, abandon in (
                ("labels", self._label, self.labels.close, _nothing),
                ("finish", self._finish, self._outcomes.close, self._abandon_outcomes),
                ("score", self._score, self._slots.close, self._abandon_slots),
                ("prepare", self._prepare, self._backlog.close, self._abandon_backlog),
                ("capture", self._capture, self._stop_capture, _nothing),
            ):
                stages.enter_context(self._stage(name, work, close, abandon))
            yield

    def request_stop(self) -> None:
        """Let `wait` return; may be called from a signal handler, and twice."""
        self._ends.put(None)

    def wait(self) -> None:
        """Return when a stop was requested or a stage has died."""
        self._ends.get()

    def offer(self, bundle: Bundle) -> None:
        """Let another bundle take over between two frames; any thread may ask. See `Scorer`."""
        self.scorer.offer(bundle)

    def check(self) -> None:
        """After the end, tell whether everything was answered.

        Raises:
            StationError: A stage died or hung, or a received frame has no recorded verdict.
        """
        if self._failures:
            raise StationError(f"the station stopped: {self._failures[0]}") from self._failures[0]
        if lost := self.health.report()["unaccounted"]:
            raise StationError(f"{lost} frames were received and have no recorded verdict")

    # The route.

    def _capture(self, ready: Ready) -> None:
        with open_capture(self._context, self._settings, self.health, self._clock) as capture:
            self.frames_address = capture.address
            ready()
            for parts in capture.messages(self._stopping, self._cannot_record):
                self.health.count("received")
                self._admit(parts)

    def _admit(self, parts: list[Buffer]) -> None:
        stopwatch, received_unix_ns = Stopwatch(self._clock, self._clock()), time.time_ns()
        try:
            frame = decode_frame(parts, self._settings.max_frame_bytes)
        except MessageError as error:
            if error.name is None:
                self._count_malformed(error)
            else:
                receipt = Receipt(error.name, None, stopwatch, received_unix_ns)
                self._answer_unknown(receipt, error.reason, str(error))
            return
        header = frame.header
        receipt = Receipt(header.frame_name, header.product, stopwatch, received_unix_ns)
        for forgotten in self._backlog.put(Arrival(receipt, frame)):
            forgotten.receipt.stopwatch.lap("queue")
            if is_milestone(self._backlog.forgotten):
                log.warning("frames forgotten", extra={"forgotten": self._backlog.forgotten})
            self._answer_unknown(
                forgotten.receipt,
                Reason.BACKLOG_FULL,
                "newer frames came faster than it was scored",
            )

    def _prepare(self, ready: Ready) -> None:
        ready()
        for arrival in self._backlog:
            with self._answered(arrival.receipt, Reason.BAD_IMAGE):
                arrival.receipt.stopwatch.lap("queue")
                self._check_time(arrival)
                if not self._slots.put(self._prepared(arrival)):
                    raise NoScoreError(Reason.STATION_STOPPING, "the scorer has ended")

    def _prepared(self, arrival: Arrival) -> PreparedFrame:
        stopwatch, frame = arrival.receipt.stopwatch, arrival.frame
        scorer, product = self.scorer, frame.header.product
        named_route(product, scorer.bundle)  # before the work of decoding
        image = decode(frame, self._settings.max_frame_bytes)
        stopwatch.lap("decode")
        question = scorer.question(image, product)
        stopwatch.lap("prepare")
        return PreparedFrame(arrival, question, (image.shape[0], image.shape[1]))

    def _score(self, ready: Ready) -> None:
        # Opened here, because a GPU belongs to the thread that opens it.
        with self._open_scorer as scorer:
            self._scorer = scorer
            ready()
            score_all(scorer, self._slots, self._admit_to_score, self._judge)

    def _admit_to_score(self, frame: PreparedFrame) -> bool:
        with self._answered(frame.arrival.receipt, Reason.SCORER_FAILED):
            frame.arrival.receipt.stopwatch.lap("wait")
            self._check_time(frame.arrival)
            return True
        return False  # it has been answered

    def _judge(self, frame: PreparedFrame, answer: Answer) -> None:
        receipt = frame.arrival.receipt
        with self._answered(receipt, Reason.SCORER_FAILED):
            if isinstance(answer, NoScoreError):
                raise answer
            outcome = judge_frame(frame, answer)
            receipt.stopwatch.lap("score")
            self._check_time(frame.arrival)
            self._outcomes.put(outcome)
            self._saw(outcome, frame)

    def _finish(self, ready: Ready) -> None:
        with (
            open_ledger(self._settings.state_dir) as ledger,
            open_publisher(self._context, self._settings) as publisher,
        ):
            self.verdicts_address = publisher.address
            station_seq = ledger.last_seq()
            ready()
            while outcomes := self._outcomes.take(OUTCOMES):
                entries = []
                for outcome in outcomes:
                    station_seq += 1
                    outcome.receipt.stopwatch.lap("finish")
                    entries.append(
                        Entry(message_of(outcome, station_seq), outcome.receipt.received_unix_ns)
                    )
                ledger.record(entries)
                self.health.count("recorded", len(entries))
                for outcome, entry in zip(outcomes, entries, strict=True):
                    self._publish(publisher, outcome, entry)

    def _publish(self, publisher: Publisher, outcome: Outcome, entry: Entry) -> None:
        outcome.receipt.stopwatch.lap("record")
        latency_ms = outcome.receipt.stopwatch.latency_ms()
        message = entry.message.model_copy(update={"latency_ms": latency_ms})
        publisher.publish(message)
        self.health.count_verdict(message.verdict, message.reason, latency_ms)
        finding = outcome.finding
        if finding is None:
            return
        if self._settings.publish_heatmaps:
            publisher.publish_heatmap(message, finding.anomaly_map)
        if finding.frame is not None:
            self.labels.offer(
                LabelItem(message, entry.received_unix_ns, finding.frame, finding.anomaly_map)
            )

    def _label(self, ready: Ready) -> None:
        ready()
        self.labels.write_all()

    # What may go wrong on it.

    @contextmanager
    def _answered(self, receipt: Receipt, unforeseen: Reason) -> Iterator[None]:
        """Answer a frame that cannot be scored; what nobody foresaw also ends the stage."""
        try:
            yield
        except NoScoreError as error:
            self._answer_unknown(receipt, error.reason, str(error))
        except BaseException as error:
            self._answer_unknown(receipt, unforeseen, f"{type(error).__name__}: {error}")
            raise

    def _answer_unknown(self, receipt: Receipt, reason: Reason, detail: str) -> None:
        self._outcomes.put(outcome := unknown(receipt, self.scorer.bundle, reason, detail))
        self._saw(outcome, None)

    def _check_time(self, arrival: Arrival) -> None:
        deadline_ms = arrival.frame.header.deadline_ms
        if deadline_ms is not None and arrival.receipt.stopwatch.has_passed(deadline_ms):
            raise NoScoreError(
                Reason.DEADLINE_PASSED,
                f"{deadline_ms:g} ms were allowed, {arrival.receipt.stopwatch.total_ms:.1f} passed",
            )
        if self._stopping.is_set() and self._clock() > self._give_up_ns:
            raise NoScoreError(
                Reason.STATION_STOPPING, f"not scored within {self._settings.drain_s:g} s of a stop"
            )

    def _count_malformed(self, error: MessageError) -> None:
        count = self.health.count("malformed")
        if is_milestone(count):
            log.warning("malformed message", extra={"malformed": count, "error": error})

    # How it ends.

    @contextmanager
    def _stage(
        self,
        name: str,
        work: Callable[[Ready], None],
        close: Callable[[], None],
        abandon: Callable[[], None],
    ) -> Iterator[None]:
        """Run a stage; at its end, close what it takes from and answer what it left."""

        def died(failure: BaseException) -> None:
            self._failures.append(failure)
            self._ends.put(failure)
            abandon()

        worker = Worker(name, work, died)
        try:
            yield
        finally:
            close()
            if not worker.join(self._settings.drain_s + JOIN_S):
                log.error("stage hangs", extra={"stage": name})
                self._failures.append(StationError(f"stage {name} did not end"))
                abandon()

    def _stop_capture(self) -> None:
        if not self._stopping.is_set():
            self._give_up_ns = self._clock() + int(self._settings.drain_s * 1e9)
            self._stopping.set()

    def _abandon_backlog(self) -> None:
        for arrival in self._backlog.abandon():
            self._answer_unknown(arrival.receipt, Reason.STATION_STOPPING, "not decoded any more")

    def _abandon_slots(self) -> None:
        for frame in self._slots.abandon():
            receipt = frame.arrival.receipt
            self._answer_unknown(receipt, Reason.STATION_STOPPING, "not scored any more")

    def _abandon_outcomes(self) -> None:
        # Not recorded, so not published: they stay in `unaccounted`. Nor is there any use in
        # scoring what still waits, so nothing is given time to drain.
        self._outcomes.abandon()
        self._give_up_ns = 0
        self._cannot_record.set()
        self._stopping.set()


def _nothing(*_: Any) -> None:
    """The stage holds nothing that could be left."""
