"""The threads of a station: started one after another, and stopped in the order of the route."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from edge.workers import Ready, Worker
from inspection.errors import StationError

log = logging.getLogger(__name__)


class Stages:
    """Knows which threads run, and why the first of them died.

    Attributes:
        failures: What stages have died of, the first first.
    """

    def __init__(self, limit_s: float) -> None:
        """Start nothing yet.

        Args:
            limit_s: How long a stage may take to end.
        """
        self.failures: list[BaseException] = []
        self._limit_s = limit_s
        # Its put may be called from a signal handler; one entry a signal or dead thread.
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()

    @contextmanager
    def stage(
        self,
        name: str,
        work: Callable[[Ready], None],
        close: Callable[[], None],
        abandon: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:
        """Run a stage; at its end, close what it takes from and answer what it left.

        Args:
            name: Of the thread, for logs.
            work: See `Worker`.
            close: Lets `work` end.
            abandon: Answers what nobody will take any more; called when the stage dies or hangs.
        """

        def ends_station(failure: BaseException) -> None:
            self.died(failure)
            abandon()

        worker = Worker(name, work, ends_station)
        try:
            yield
        finally:
            close()
            if not worker.join(self._limit_s):
                log.error("stage hangs", extra={"stage": name})
                self.failures.append(StationError(f"stage {name} did not end"))
                abandon()

    def died(self, failure: BaseException) -> None:
        """Tell that a thread has died without which the station cannot go on."""
        self.failures.append(failure)
        self._ends.put(failure)

    def request_stop(self, *_: Any) -> None:
        """Let `wait` return; may be called from a signal handler, and twice."""
        self._ends.put(None)

    def wait(self) -> None:
        """Return when a stop was requested or a stage has died."""
        self._ends.get()
