"""How long stages take: percentiles over the latest frames, and histograms over the whole run."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

LATEST = 4096
"""Percentiles are over so many latest frames: bounded memory, and no shift-long average."""

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets; one more holds what took longer. The same for every stage and
station, because quantiles over several stations can only be told from equal buckets."""

_BOUNDS_MS = [bound * 1000 for bound in BOUNDS_S]


@dataclass(frozen=True, slots=True)
class StageTimes:
    """What is known of one stage at one moment.

    Attributes:
        up_to: Frames that took at most each of `BOUNDS_S`, then all frames: never falling.
        sum_s: Time of all frames together.
        latest_ms: The latest frames, `LATEST` at the most, the oldest first.
    """

    up_to: tuple[int, ...]
    sum_s: float
    latest_ms: tuple[float, ...]

    def percentiles_ms(self) -> dict[str, float]:
        """Half of the latest frames took at most `p50`, 99 of 100 at most `p99`."""
        p50, p99 = np.percentile(np.array(self.latest_ms, np.float64), [50, 99])
        return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


class StageClock:
    """Takes the times of one stage; whoever holds it keeps threads apart."""

    def __init__(self) -> None:
        self._buckets = [0] * (len(BOUNDS_S) + 1)
        self._sum_ms = 0.0
        self._latest_ms: deque[float] = deque(maxlen=LATEST)

    def add(self, took_ms: float) -> None:
        """Take one frame's time."""
        self._buckets[bisect_left(_BOUNDS_MS, took_ms)] += 1
        self._sum_ms += took_ms
        self._latest_ms.append(took_ms)

    def times(self) -> StageTimes:
        """Copy what is known; percentiles are left to whoever asks, when no lock is held."""
        return StageTimes(
            tuple(accumulate(self._buckets)), self._sum_ms / 1000, tuple(self._latest_ms)
        )
