"""Feeds the watchdog of systemd, and only when a frame really went through the scorer.

A timer that feeds from a thread of its own would keep a station alive whose scorer hangs. In quiet
hours, when no frame comes, a golden one goes the same way, and must have the answer that it has in
the bundle.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge.health import Health
from edge.notify import Notifier
from edge.workers import Ready, Worker

log = logging.getLogger(__name__)

BEATS_PER_PERIOD = 4
"""So many looks in the time that the watchdog allows: one that fails is not yet the end."""

JOIN_S = 5.0

SelfTest = Callable[[], bool | None]
"""Puts a golden frame through the thread that scores, and waits for its answer, but less than a
quarter of the watchdog's time: True if it is right, False if it is not, None if none came."""


class Pulse:
    """Decides at every beat whether the station lives."""

    def __init__(self, notifier: Notifier, health: Health, self_test: SelfTest) -> None:
        self._notifier = notifier
        self._health = health
        self._self_test = self_test
        self._scored = health.scored

    def beat(self) -> bool:
        """Feed the watchdog if a frame was given a score since the last feeding.

        A golden frame is scored only if none was, and feeds only with the right answer.

        Returns:
            Whether it was fed.
        """
        scored = self._health.scored
        if scored == self._scored and not self._golden_frame_holds():
            return False
        self._scored = scored
        self._notifier.feed_watchdog()
        return True

    def _golden_frame_holds(self) -> bool:
        answer = self._self_test()
        self._health.count("self_tests")
        if answer is None:
            log.warning("the scorer did not answer a golden frame in time")
        elif not answer:
            failures = self._health.count("self_test_failures")
            log.error("a golden frame has another answer", extra={"failures": failures})
        return answer is True


@contextmanager
def open_pulse(
    notifier: Notifier,
    health: Health,
    self_test: SelfTest,
    died: Callable[[BaseException], None],
) -> Iterator[None]:
    """Feed the watchdog until the end, in a thread of its own; without a watchdog, do nothing.

    Args:
        notifier: Whom to tell.
        health: Knows what was scored.
        self_test: For quiet hours.
        died: Called from the thread if it ends by an error; systemd will end the station soon.
    """
    if notifier.watchdog_s is None:
        yield
        return
    every_s = notifier.watchdog_s / BEATS_PER_PERIOD
    pulse, stopping = Pulse(notifier, health, self_test), threading.Event()

    def work(ready: Ready) -> None:
        ready()
        while not stopping.wait(every_s):
            pulse.beat()

    worker = Worker("pulse", work, died)
    try:
        yield
    finally:
        stopping.set()
        if not worker.join(every_s + JOIN_S):
            log.error("the pulse does not end")
