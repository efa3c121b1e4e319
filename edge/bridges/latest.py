"""The newest state of a station, for whoever shows it: what is replaced unseen is counted."""

from __future__ import annotations

import threading
import time

from inspection.messages import VerdictMessage
from inspection.station_messages import Heartbeat

SILENCE_S = 3.0
"""A station that has not been heard of for so long is silent: it beats every second."""

MOST_CAMERAS = 256
"""Cameras beyond are not shown, and counted as skipped."""


class Latest:
    """One verdict a camera, the newest; one thread puts, another takes.

    Attributes:
        skipped: Verdicts that were replaced before they were taken, or of a camera too many.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._new: dict[str, tuple[VerdictMessage, bool]] = {}
        self._heartbeat: Heartbeat | None = None
        self._heard_at: float | None = None

    def put(self, message: VerdictMessage, *, is_new: bool = True) -> None:
        """Take a verdict's place; `is_new` unless it is of the past."""
        with self._lock:
            self._heard_at = time.monotonic() if is_new else self._heard_at
            if len(self._known) >= MOST_CAMERAS and message.camera not in self._known:
                self.skipped += 1
                return
            self._known.add(message.camera)
            self.skipped += message.camera in self._new
            self._new[message.camera] = (message, is_new)

    def beat(self, heartbeat: Heartbeat) -> None:
        """Note that the station is there."""
        with self._lock:
            self._heartbeat, self._heard_at = heartbeat, time.monotonic()

    def take(self) -> tuple[list[tuple[VerdictMessage, bool]], Heartbeat | None, bool]:
        """Give what is new of verdicts and heartbeats, and whether the station is silent."""
        with self._lock:
            messages, self._new = list(self._new.values()), {}
            heartbeat, self._heartbeat = self._heartbeat, None
            heard_at = self._heard_at
        return messages, heartbeat, heard_at is None or time.monotonic() - heard_at > SILENCE_S
