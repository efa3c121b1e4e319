"""The route of a frame, from message to published verdict. Only this module knows the order.

    capture ─► backlog ─► prepare ─► slots ─► score ─► outcomes ─► finish ─► label queue
       │▲                    │                  │         ▲           │
       │└────────────────────┼── told ──────────┼─────────┼───────────┤
       └─────────────────────┴── UNKNOWN ───────┴─────────┘           └─► verdicts

One thread a stage. Whatever happens to a named frame becomes one outcome; only what is in the
ledger is published, and told to the camera.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from edge.admission import Admission, Origin
from edge.answers import Answers
from edge.backlog import Backlog, Handover
from edge.batches import score_all
from edge.capture import Capture, open_capture
from edge.finishing import Finish, Listeners
from edge.health import Clock, Health
from edge.judging import judge_frame
from edge.label_queue import LabelQueue
from edge.ledger import open_ledger
from edge.ledger_reader import open_reader
from edge.ledger_table import ledger_files
from edge.outcome import Arrival, NoScoreError, Outcome, Receipt, unknown
from edge.preparing import Preparation
from edge.recent import RecentVerdicts
from edge.reception import Reception
from edge.scorer import Answer, PreparedFrame, Scorer
from edge.self_test import GoldenQuestion, SelfTest, Waiting
from edge.settings import StationSettings
from edge.sockets import StationSockets
from edge.sources import LedgerState
from edge.stages import Stages
from edge.workers import Ready
from inspection.errors import StationError
from inspection.verdicts import Reason
from inspection.wire import Buffer

log = logging.getLogger(__name__)

OUTCOMES = 32
"""How many outcomes may wait for the ledger; it takes them all in one commit."""

JOIN_S = 5.0
"""How long a stage may take to end, beyond the time that the backlog is given."""

TEND_S = 0.1
"""How often listeners are looked after while there is no verdict."""


class Station:
    """Runs the route; `running` opens and closes everything it needs.

    Attributes:
        health: What has been counted.
        labels: What people should look at.
        addresses: By setting, where others connect to, once running.
    """

    def __init__(
        self,
        settings: StationSettings,
        health: Health,
        scorer: AbstractContextManager[Scorer],
        sockets: StationSockets,
        clock: Clock = time.monotonic_ns,
        saw: Callable[[Outcome, PreparedFrame | None], None] = lambda *_: None,
        stages: Stages | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            settings: Addresses, bounds and policies.
            health: Counts; of the sockets too.
            scorer: Opened in the thread that scores.
            sockets: Opens what is bound.
            clock: Times frames.
            saw: Told of every outcome, with the frame if it was scored; must not wait.
            stages: Where others may tell of a failure that ends the station.
        """
        self.health = health
        self.labels = LabelQueue(settings.state_dir, settings.label_queue_bytes)
        self.addresses: dict[str, str] = {}
        self._settings = settings
        self._open_scorer = scorer
        self._scorer: Scorer | None = None
        self._sockets = sockets
        self._clock = clock
        self._saw = saw
        self._capture: Capture | None = None
        self._admission = Admission()
        self._backlog: Backlog[Arrival] = Backlog(
            settings.backlog_frames,
            settings.backlog_bytes,
            size_of=lambda arrival: len(arrival.frame.pixels),
            lane_of=lambda arrival: arrival.receipt.name.camera,
            overload=settings.overload,
        )
        self._preparation = Preparation(settings.max_frame_bytes, lambda: self.scorer)
        self._slots: Handover[Waiting] = Handover(max(2, settings.batch_frames))
        self._self_test = SelfTest(self._slots)
        self._outcomes: Handover[Outcome] = Handover(OUTCOMES)
        self._listening, self._stopping = threading.Event(), threading.Event()
        self._captured, self._told = threading.Event(), threading.Event()
        self._cannot_record = threading.Event()
        self._recent = RecentVerdicts(clock)
        self._answers = Answers(
            sockets, partial(open_reader, settings.state_dir), self._recent, health, clock
        )
        self._finish = Finish(
            *(settings, sockets, self.health),
            Listeners(self._admission, self._recent, self.labels, self._answer_camera),
            lambda: self._scorer.bundle if self._scorer else None,
            *(self._stopping, clock),
        )
        self._give_up_ns = 0
        self._stages = stages or Stages(settings.drain_s + JOIN_S)
        self.request_stop, self.wait = self._stages.request_stop, self._stages.wait

    @property
    def scorer(self) -> Scorer:
        """What scores; there once running."""
        assert self._scorer is not None
        return self._scorer

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start every stage, the last first; at the end, stop them in the order of the route.

        Cameras are told what became of their last frames, so that their sockets are open first and
        closed last.

        Raises:
            StationError: A stage cannot start.
        """
        stage = self._stages.stage
        with ExitStack() as stages:
            stages.enter_context(stage("labels", self._label, self.labels.close))
            # The ledger is made before it is read by the thread of the cameras.
            with open_ledger(self._settings.state_dir):
                pass
            stages.enter_context(stage("answers", self._answers.work, self._answers.stop))
            self.addresses["catch_up"] = self._answers.catch_up_address
            self.addresses["reject"] = self._answers.reject_address
            for name, work, close, abandon in (
                ("capture", self._receive, self._end_capture, self._captured.set),
                ("finish", self._record, self._outcomes.close, self._abandon_outcomes),
                ("score", self._score, self._slots.close, self._abandon_slots),
                ("prepare", self._prepare, self._backlog.close, self._abandon_backlog),
            ):
                stages.enter_context(stage(name, work, close, abandon))
            self.addresses["verdicts"] = self._finish.address
            stages.callback(self._stop_capture)
            self._listening.set()
            yield

    @property
    def ledger_state(self) -> LedgerState | None:
        """How far the record goes; None before it is open."""
        if self._finish.recorded_to is None:
            return None
        entries, head = self._finish.recorded_to
        return LedgerState(entries, head, ledger_files(self._settings.state_dir))

    def is_stopping(self) -> bool:
        """Whether no more frames are taken."""
        return self._stopping.is_set()

    def self_test(self, timeout_s: float) -> bool | None:
        """Have a golden frame scored among the others; any one thread may ask. See `SelfTest`."""
        return self._self_test.ask(self.scorer, timeout_s)

    def check(self) -> None:
        """After the end, tell whether everything was answered.

        Raises:
            StationError: A stage died or hung, or a received frame has no recorded verdict.
        """
        if failures := self._stages.failures:
            raise StationError(f"the station stopped: {failures[0]}") from failures[0]
        if lost := self.health.report()["unaccounted"]:
            raise StationError(f"{lost} frames were received and have no recorded verdict")

    # The route.

    def _receive(self, ready: Ready) -> None:
        with (
            open_reader(self._settings.state_dir) as records,
            open_capture(self._sockets, self._clock) as capture,
        ):
            self._capture = capture
            self.addresses |= capture.addresses
            reception = Reception(
                *(self._settings, capture, records, self._admission, self._backlog, self.health),
                *(self._clock, self._recent.arrived, self._answer_unknown),
            )
            ready()
            self._listening.wait()
            try:
                for incoming in capture.messages(self._stopping, self._cannot_record):
                    if incoming is not None:
                        reception.take(incoming)
                    reception.make_room()
                reception.give_up()
            finally:
                self._captured.set()
            capture.answer_until(self._told)

    def _prepare(self, ready: Ready) -> None:
        ready()
        for arrival in self._backlog:
            with self._answered(arrival.receipt, Reason.BAD_IMAGE):
                arrival.receipt.stopwatch.lap("queue")
                self._preparation.check_repetition(arrival)
                self._check_time(arrival)
                prepared = self._preparation.prepared(arrival)
                self.health.ask_scorer()
                if not self._slots.put(prepared):
                    self.health.hear_scorer(scored=False)
                    raise NoScoreError(Reason.STATION_STOPPING, "the scorer has ended")

    def _score(self, ready: Ready) -> None:
        # Opened here, because a GPU belongs to the thread that opens it.
        with self._open_scorer as scorer:
            self._scorer = scorer
            ready()
            score_all(scorer, self._slots, self._admit_to_score, self._judge)

    def _admit_to_score(self, frame: Waiting) -> bool:
        if isinstance(frame, GoldenQuestion):
            return True
        with self._answered(frame.arrival.receipt, Reason.SCORER_FAILED):
            frame.arrival.receipt.stopwatch.lap("wait")
            self._check_time(frame.arrival)
            return True
        self.health.hear_scorer(scored=False)
        return False  # it has been answered

    def _judge(self, frame: Waiting, answer: Answer) -> None:
        if isinstance(frame, GoldenQuestion):
            frame.answered.set_result(answer)
            return
        receipt = frame.arrival.receipt
        self.health.hear_scorer(scored=not isinstance(answer, NoScoreError))
        with self._answered(receipt, Reason.SCORER_FAILED):
            if isinstance(answer, NoScoreError):
                raise answer
            outcome = judge_frame(frame, answer)
            receipt.stopwatch.lap("score")
            self._check_time(frame.arrival)
            self._outcomes.put(outcome)
            self._saw(outcome, frame)

    def _record(self, ready: Ready) -> None:
        self._finish.work(self._outcomes, ready)

    def _answer_camera(self, origin: Origin, parts: list[Buffer]) -> None:
        if self._capture is not None:
            self._capture.tell(origin, parts)

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
        deadline_ms = arrival.deadline_ms
        if deadline_ms is not None and arrival.receipt.stopwatch.has_passed(deadline_ms):
            raise NoScoreError(
                Reason.DEADLINE_PASSED,
                f"{deadline_ms:g} ms were allowed, {arrival.receipt.stopwatch.total_ms:.1f} passed",
            )
        if self._stopping.is_set() and self._clock() > self._give_up_ns:
            raise NoScoreError(
                Reason.STATION_STOPPING, f"not scored within {self._settings.drain_s:g} s of a stop"
            )

    # How it ends.

    def _stop_capture(self) -> None:
        if not self._stopping.is_set():
            self._give_up_ns = self._clock() + int(self._settings.drain_s * 1e9)
            self._stopping.set()
        self._captured.wait(self._settings.drain_s + JOIN_S)

    def _end_capture(self) -> None:
        # All of them, because a stage that cannot start ends this one before it has begun.
        for event in (self._stopping, self._listening, self._told):
            event.set()

    def _abandon_backlog(self) -> None:
        for arrival in self._backlog.abandon():
            self._answer_unknown(arrival.receipt, Reason.STATION_STOPPING, "not decoded any more")

    def _abandon_slots(self) -> None:
        for frame in self._slots.abandon():
            if isinstance(frame, GoldenQuestion):
                continue  # whoever asked has a limit
            self.health.hear_scorer(scored=False)
            receipt = frame.arrival.receipt
            self._answer_unknown(receipt, Reason.STATION_STOPPING, "not scored any more")

    def _abandon_outcomes(self) -> None:
        # Not recorded, so not published: they stay in `unaccounted`. Nor is there any use in
        # scoring what still waits, so nothing is given time to drain.
        self._outcomes.abandon()
        self._give_up_ns = 0
        self._cannot_record.set()
        self._stopping.set()
