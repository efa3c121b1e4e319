"""A station without frames: a ledger in memory, what publishes it, and what answers for it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType

from edge.answers import Answers
from edge.health import Health
from edge.publish import Publisher, Standing, open_publisher
from edge.recent import RecentVerdicts
from edge.settings import StationSettings
from edge.workers import Ready, Worker
from inspection.messages import VerdictMessage, decode_verdict
from inspection.verdicts import Reason, Verdict
from inspection.wire import pack
from tests.edge.open_station import open_sockets

PATIENCE_S = 60.0
BUNDLE = "b" * 64


def verdict(station_seq: int = 1, camera: str = "cam", **fields: object) -> VerdictMessage:
    """A verdict of PASS, unless fields say otherwise."""
    said = {
        "camera": camera,
        "session": "s",
        "seq": station_seq,
        "verdict": Verdict.PASS,
        "score": 1.0,
        "bundle": BUNDLE,
        "bank": "c" * 64,
        "station_seq": station_seq,
        "latency_ms": {"total": 4.2},
        **fields,
    }
    if said["verdict"] is not Verdict.PASS:
        said.setdefault("reason", Reason.SCORE_ABOVE_REJECT)
    return VerdictMessage.model_validate(said)


class StandingClock:
    """Stands still until it is told otherwise."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


@dataclass(frozen=True, slots=True)
class Row:
    """A verdict as it is in the ledger."""

    station_seq: int
    camera: str
    record: bytes


class MemoryLedger:
    """Rows in order; other threads may read while one appends."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def append(self, message: VerdictMessage) -> Row:
        self.rows.append(Row(message.station_seq, message.camera, pack(message)))
        return self.rows[-1]

    def after(self, station_seq: int, most: int, camera: str | None) -> list[Row]:
        wanted = [row for row in list(self.rows) if row.station_seq > station_seq]
        return [row for row in wanted if camera in (None, row.camera)][:most]

    def latest(self, most: int) -> list[Row]:
        return list(self.rows)[-most:]

    def last_by_camera(self, most: int) -> list[Row]:
        return list({row.camera: row for row in list(self.rows)}.values())[:most]

    def last_seq(self) -> int:
        return self.rows[-1].station_seq if self.rows else 0

    @contextmanager
    def opened(self) -> Iterator[MemoryLedger]:
        yield self


class FakeStation:
    """Records and publishes verdicts in a thread of its own, and answers; start it with `with`.

    It may be started again, on the same addresses and the same ledger.
    """

    def __init__(self, ledger: MemoryLedger | None = None) -> None:
        self.ledger = ledger or MemoryLedger()
        self.recent = RecentVerdicts()
        self.health = Health()
        self.verdicts = self.catch_up = self.reject = "tcp://127.0.0.1:*"
        self._stack = ExitStack()

    def __enter__(self) -> FakeStation:
        self._stack = ExitStack()
        settings = StationSettings(
            verdicts=self.verdicts, catch_up=self.catch_up, reject=self.reject
        )
        sockets = self._stack.enter_context(open_sockets(settings, self.health))
        self._work: SimpleQueue[Callable[[Publisher], None]] = SimpleQueue()
        self._ended = threading.Event()
        answers = Answers(sockets, self.ledger.opened, self.recent, self.health)

        def finish(ready: Ready) -> None:
            with open_publisher(sockets, self._standing) as publisher:
                self.verdicts = publisher.address
                for row in self.ledger.last_by_camera(256):
                    publisher.remember(row.record)
                ready()
                while not self._ended.is_set():
                    with suppress(Empty):
                        self._work.get(timeout=0.02)(publisher)
                    publisher.tend()

        for name, work, stop in (
            ("answers", answers.work, answers.stop),
            ("finish", finish, self._ended.set),
        ):
            worker = Worker(name, work, lambda failure: None)
            self._stack.callback(worker.join, PATIENCE_S)
            self._stack.callback(stop)
        self.catch_up, self.reject = answers.catch_up_address, answers.reject_address
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def say(self, count: int = 1, *, heard: bool = True, **fields: object) -> list[VerdictMessage]:
        """Record verdicts, and publish them unless nobody shall hear of them."""
        done, said = threading.Event(), []

        def publish(publisher: Publisher) -> None:
            for _ in range(count):
                number = self.ledger.last_seq() + 1
                said.append(verdict(**{"station_seq": number, **fields}))
                row = self.ledger.append(said[-1])
                if heard:
                    publisher.publish(row.camera, row.record)
                self.recent.note(said[-1])
            done.set()

        self._work.put(publish)
        assert done.wait(PATIENCE_S)
        return said

    def next_verdict(self) -> VerdictMessage:
        """What would be said next."""
        return verdict(self.ledger.last_seq() + 1)

    def ledger_message(self, station_seq: int) -> VerdictMessage:
        """A verdict as recorded."""
        (row,) = self.ledger.after(station_seq - 1, 1, None)
        return decode_verdict([b"", row.record])

    def _standing(self) -> Standing:
        rows = list(self.ledger.rows)
        chain = hashlib.sha256(b"".join(row.record for row in rows[-1:])).hexdigest()
        return Standing(self.ledger.last_seq(), chain, BUNDLE, "running")


def eventually(claim: Callable[[], object]) -> None:
    """Wait until something holds; fail when it never does."""
    until = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < until, "it never came to hold"
        time.sleep(0.01)
