"""What the route shows of its verdicts to whoever tries a bundle: never waits, never slows it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue

from edge.outcome import Outcome
from edge.scorer import PreparedFrame
from edge.trial import Mix, RecentMix, is_telling
from inspection.verdicts import Reason

Sighting = tuple[PreparedFrame, Outcome]

MOST_WAITED = 0.5
"""Of the time that a frame was scored, how long it may have waited for its turn to be shown to a
shadow: longer, and the route has no time to give away."""


class Sightings:
    """Counts verdicts of the bundles that it follows, and hands frames to a shadow, one at a time.

    A frame that comes while the one before is still looked at is passed over, and counted; so is
    one that had to wait for its turn. The shadow has only what time the route leaves.

    Attributes:
        passed_over: Frames, since the shadow was opened.
    """

    def __init__(self, running: str) -> None:
        self.passed_over = 0
        self._lock = threading.Lock()
        self._mixes = {running: RecentMix()}
        self._failures: dict[str, str] = {}
        self._shadowing = False
        self._frames: Queue[Sighting] = Queue(maxsize=1)

    def saw(self, outcome: Outcome, frame: PreparedFrame | None = None) -> None:
        """Note a verdict; of one that was scored, with its frame. Any thread may tell."""
        if is_telling(outcome):
            with self._lock:
                mix = self._mixes.get(outcome.bundle_id)
                if mix is not None:
                    mix.count(outcome)
                    if outcome.decision.reason is Reason.SCORER_FAILED:
                        self._failures[outcome.bundle_id] = outcome.detail or "no score"
        if frame is None or outcome.finding is None or not self._shadowing:
            return
        if _has_waited(outcome) or not self._handed_over((frame, outcome)):
            self.passed_over += 1

    def _handed_over(self, sighting: Sighting) -> bool:
        try:
            self._frames.put_nowait(sighting)
        except Full:
            return False
        return True

    def follow(self, *bundle_ids: str) -> None:
        """Count the verdicts of these bundles from here on, and forget those of others."""
        with self._lock:
            self._mixes = {each: self._mixes.get(each, RecentMix()) for each in bundle_ids}
            self._failures = {}

    def mix(self, bundle_id: str) -> Mix:
        """Sum up the latest verdicts of a bundle that is followed."""
        with self._lock:
            return self._mixes[bundle_id].mix()

    def failure(self, bundle_id: str) -> str | None:
        """Say why a bundle gave no score, if that has happened since it is followed."""
        with self._lock:
            return self._failures.get(bundle_id)

    @contextmanager
    def shadowing(self) -> Iterator[None]:
        """Let frames be handed over until the end."""
        self.passed_over, self._shadowing = 0, True
        try:
            yield
        finally:
            self._shadowing = False
            self.next_frame(0.0)

    def next_frame(self, timeout_s: float) -> Sighting | None:
        """Take the frame that was handed over, with what was said of it; None if none comes."""
        try:
            return self._frames.get(timeout=timeout_s) if timeout_s else self._frames.get_nowait()
        except Empty:
            return None


def _has_waited(outcome: Outcome) -> bool:
    took_ms = outcome.receipt.stopwatch.latency_ms()
    waited_ms = took_ms.get("queue", 0.0) + took_ms.get("wait", 0.0)
    return waited_ms > MOST_WAITED * took_ms.get("score", 0.0)
