"""What the station counts, and how long stages take: numbers per frame go here, not to the log."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from inspection.verdicts import Reason, Verdict

Clock = Callable[[], int]
"""Monotonic nanoseconds: `time.monotonic_ns`, or a test's own."""

LATEST = 4096
"""Percentiles are over so many latest frames: bounded memory, and no shift-long average."""


class Stopwatch:
    """Times one frame through the stages; it travels with the frame, one thread at a time."""

    def __init__(self, clock: Clock, received_ns: int) -> None:
        self._clock = clock
        self._received_ns = received_ns
        self._lap_ns = received_ns
        self._laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Give the time since the last lap to a stage."""
        now = self._clock()
        self._laps[stage] = (now - self._lap_ns) / 1e6
        self._lap_ns = now

    def has_passed(self, deadline_ms: float) -> bool:
        """Whether so much time has passed since the frame was received."""
        return self._clock() - self._received_ns > deadline_ms * 1e6

    @property
    def total_ms(self) -> float:
        """Time since the frame was received."""
        return (self._clock() - self._received_ns) / 1e6

    def latency_ms(self) -> dict[str, float]:
        """By stage so far, and `total`: the time up to the last lap."""
        return {**self._laps, "total": (self._lap_ns - self._received_ns) / 1e6}


class Health:
    """Counters of one run of the station; every thread may count.

    At a quiet moment: received = malformed + recorded, recorded = published = scored + unknown.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._verdicts: Counter[Verdict] = Counter()
        self._unknown: Counter[Reason] = Counter()
        self._latency_ms: dict[str, deque[float]] = {}

    def count(self, what: str, by: int = 1) -> int:
        """Add to a counter: received, malformed, recorded, published, connected or disconnected.

        Returns:
            The new value.
        """
        with self._lock:
            self._counts[what] += by
            return self._counts[what]

    def count_verdict(
        self, verdict: Verdict, reason: Reason | None, latency_ms: Mapping[str, float]
    ) -> None:
        """Note a published verdict and its latencies."""
        with self._lock:
            self._counts["published"] += 1
            self._verdicts[verdict] += 1
            if verdict is Verdict.UNKNOWN and reason is not None:
                self._unknown[reason] += 1
            for stage, value in latency_ms.items():
                self._latency_ms.setdefault(stage, deque(maxlen=LATEST)).append(value)

    def report(self) -> dict[str, Any]:
        """Give every number, ready for JSON.

        `unaccounted` is what was received and neither malformed nor recorded: frames under way, or,
        after the station has stopped, frames that were lost.
        """
        with self._lock:
            counts = self._counts
            unknown = sum(self._unknown.values())
            return {
                "received": counts["received"],
                "malformed": counts["malformed"],
                "redelivered": counts["redelivered"],
                "scored": sum(self._verdicts.values()) - unknown,
                "unknown": {reason.value: n for reason, n in sorted(self._unknown.items())},
                "recorded": counts["recorded"],
                "published": counts["published"],
                "unaccounted": counts["received"]
                - counts["malformed"]
                - counts["redelivered"]
                - counts["recorded"],
                "verdicts": {verdict.value: self._verdicts[verdict] for verdict in Verdict},
                "peers": {
                    "connected": counts["connected"],
                    "disconnected": counts["disconnected"],
                },
                "latency_ms": {
                    stage: _percentiles(values) for stage, values in self._latency_ms.items()
                },
            }


def is_milestone(count: int) -> bool:
    """Whether a count is worth a line in the log: 1, 10, 100 …, so that trouble never fills it."""
    return str(count).rstrip("0") == "1"


def _percentiles(values: deque[float]) -> dict[str, float]:
    p50, p99 = np.percentile(np.fromiter(values, np.float64), [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}
