"""What the station counts, and how long stages take: numbers per frame go here, not to the log.

Who shows them: `edge.status` as JSON and on the page, `edge.metrics` to Prometheus.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edge.latencies import StageClock, StageTimes
from inspection.messages import VerdictMessage
from inspection.verdicts import Reason, Verdict

Clock = Callable[[], int]
"""Monotonic nanoseconds: `time.monotonic_ns`, or a test's own."""

EVENTS = (
    "received",  # messages that came in at any door for frames
    "malformed",  # … that no frame could be named from
    "redelivered",  # … of a frame that came before: acknowledged once its verdict is recorded
    "published",
    "connected",  # peers of any socket
    "disconnected",
    "gpu_deaths",
    "self_tests",  # golden frames in quiet hours
    "self_test_failures",
)
"""Counters that are there from the start. Others come when they are first counted; their names are
words of ours, never of a peer, so that there are few."""

TRANSPORTS = ("cameras", "frames", "imagezmq", "imagezmq_from")
"""The door that a frame came in by, called as its setting is."""

MOST_CAMERAS = 64
"""Cameras that are counted by name: whoever may send frames may also invent names."""

OTHER = "other"
"""All other cameras together."""

LAST_VERDICTS = 20

_ENDS = ("malformed", "redelivered")
"""What ends the way of a received message, beside being recorded."""


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


class Progress:
    """Work that has begun and not ended, and since when nothing of it has ended."""

    def __init__(self) -> None:
        self.under_way = 0
        self._since_ns = 0

    def begin(self, now_ns: int, by: int = 1) -> None:
        """Take on work; the wait begins with the first."""
        if self.under_way <= 0:
            self._since_ns = now_ns
        self.under_way += by

    def end(self, now_ns: int, by: int = 1) -> None:
        """Note that some of it has ended; what is left has a new start."""
        self.under_way -= by
        self._since_ns = now_ns

    def stalled_s(self, now_ns: int) -> float:
        """For how long there has been work, and none of it has ended; 0 if there is none."""
        return (now_ns - self._since_ns) / 1e9 if self.under_way > 0 else 0.0


@dataclass(slots=True)
class CameraCounts:
    """One camera, or all without a name of their own here.

    Attributes:
        frames: Frames received, whatever became of them.
        verdicts: Recorded, by verdict.
        seen_ns: Monotonic time of the latest frame.
    """

    frames: int
    verdicts: Counter[Verdict]
    seen_ns: int


@dataclass(frozen=True, slots=True)
class Said:
    """A verdict as the page shows it."""

    message: VerdictMessage
    received_unix_ns: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every number at one moment: they add up.

    Attributes:
        now_ns: Monotonic time of that moment.
        counts: Of everything that was counted; `EVENTS` are always there.
        verdicts: Recorded, by verdict.
        unknown: UNKNOWN by reason.
        under_way: Received, and neither malformed nor redelivered nor recorded.
        scoring_stalled_s: For how long the scorer holds frames and has answered none.
        recording_stalled_s: For how long frames are under way and none has come to its end.
        scored_ns: Monotonic time of the latest frame that the scorer gave a score; None for none.
        cameras: By name, in the order in which they came.
        transports: Frames by the door that they came in by.
        stages: Times, by stage and in the order of the route, and `total`.
        latest: Verdicts, the latest last.
    """

    now_ns: int
    counts: Mapping[str, int]
    verdicts: Mapping[Verdict, int]
    unknown: Mapping[Reason, int]
    under_way: int
    scoring_stalled_s: float
    recording_stalled_s: float
    scored_ns: int | None
    cameras: Mapping[str, CameraCounts]
    transports: Mapping[str, int]
    stages: Mapping[str, StageTimes]
    latest: tuple[Said, ...]

    @property
    def recorded(self) -> int:
        """Frames whose verdict is in the ledger."""
        return sum(self.verdicts.values())

    def other_counts(self) -> dict[str, int]:
        """What has occurred beside the way of every frame and peer."""
        usual = EVENTS[: EVENTS.index("gpu_deaths")]
        return {name: n for name, n in self.counts.items() if n and name not in usual}


class Health:
    """Counters of one run of the station; every thread may count.

    At every moment: received = malformed + redelivered + recorded + under way, and recorded = PASS
    + REVIEW + FAIL + UNKNOWN. At a quiet one nothing is under way, and recorded = published.
    """

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._verdicts: Counter[Verdict] = Counter()
        self._unknown: Counter[Reason] = Counter()
        self._cameras: dict[str, CameraCounts] = {}
        self._transports: Counter[str] = Counter()
        self._stages: dict[str, StageClock] = {}
        self._latest: deque[Said] = deque(maxlen=LAST_VERDICTS)
        self._recording, self._scoring = Progress(), Progress()
        self._scored = 0
        self._scored_ns: int | None = None

    def count(self, event: str, by: int = 1) -> int:
        """Add to a counter.

        Returns:
            The new value.
        """
        with self._lock:
            self._counts[event] += by
            if event == "received":
                self._recording.begin(self._clock(), by)
            elif event in _ENDS:
                self._recording.end(self._clock(), by)
            return self._counts[event]

    def count_frame(self, camera: str, transport: str) -> None:
        """Note that a received message is a frame of a camera."""
        with self._lock:
            self._transports[transport] += 1
            counts = self._camera(camera)
            counts.frames += 1
            counts.seen_ns = self._clock()

    def count_recorded(
        self, message: VerdictMessage, latency_ms: Mapping[str, float], received_unix_ns: int
    ) -> None:
        """Note that a verdict is in the ledger, and how long its stages took.

        Args:
            message: As recorded.
            latency_ms: By stage, up to and with the commit.
            received_unix_ns: Wall clock, for people.
        """
        with self._lock:
            self._recording.end(self._clock())
            self._verdicts[message.verdict] += 1
            self._camera(message.camera).verdicts[message.verdict] += 1
            if message.verdict is Verdict.UNKNOWN and message.reason is not None:
                self._unknown[message.reason] += 1
            for stage, took_ms in latency_ms.items():
                clock = self._stages.get(stage)
                if clock is None:
                    clock = self._stages[stage] = StageClock()
                clock.add(took_ms)
            self._latest.append(Said(message, received_unix_ns))

    def ask_scorer(self) -> None:
        """Note that the scorer is about to be given a frame."""
        with self._lock:
            self._scoring.begin(self._clock())

    def hear_scorer(self, *, scored: bool) -> None:
        """Note that the scorer is done with a frame; `scored` if it gave it a score."""
        with self._lock:
            now_ns = self._clock()
            self._scoring.end(now_ns)
            if scored:
                self._scored += 1
                self._scored_ns = now_ns

    @property
    def scored(self) -> int:
        """How many frames the scorer has given a score: what the watchdog lives on."""
        return self._scored

    def snapshot(self) -> Snapshot:
        """Copy every number at one moment."""
        with self._lock:
            now_ns = self._clock()
            return Snapshot(
                now_ns,
                dict.fromkeys(EVENTS, 0) | self._counts,
                {verdict: self._verdicts[verdict] for verdict in Verdict},
                dict(self._unknown),
                self._recording.under_way,
                self._scoring.stalled_s(now_ns),
                self._recording.stalled_s(now_ns),
                self._scored_ns,
                {
                    name: replace(counts, verdicts=counts.verdicts.copy())
                    for name, counts in self._cameras.items()
                },
                dict.fromkeys(TRANSPORTS, 0) | self._transports,
                {stage: clock.times() for stage, clock in self._stages.items()},
                tuple(self._latest),
            )

    def report(self) -> dict[str, Any]:
        """Give the account of the station, ready for JSON.

        `unaccounted` is what was received and neither malformed, redelivered nor recorded: frames
        under way, or, after the station has stopped, frames that were lost.
        """
        now = self.snapshot()
        return {
            "received": now.counts["received"],
            "malformed": now.counts["malformed"],
            "redelivered": now.counts["redelivered"],
            "scored": now.recorded - now.verdicts[Verdict.UNKNOWN],
            "unknown": {reason.value: n for reason, n in sorted(now.unknown.items())},
            "recorded": now.recorded,
            "published": now.counts["published"],
            "unaccounted": now.under_way,
            "verdicts": {verdict.value: n for verdict, n in now.verdicts.items()},
            "peers": {event: now.counts[event] for event in ("connected", "disconnected")},
            "transports": dict(now.transports),
            "events": now.other_counts(),
            "latency_ms": {stage: times.percentiles_ms() for stage, times in now.stages.items()},
        }

    def _camera(self, name: str) -> CameraCounts:
        found = self._cameras.get(name)
        if found is None:
            if len(self._cameras) >= MOST_CAMERAS:
                name = OTHER
            found = self._cameras.setdefault(name, CameraCounts(0, Counter(), self._clock()))
        return found


def is_milestone(count: int) -> bool:
    """Whether a count is worth a line in the log: 1, 10, 100 …, so that trouble never fills it."""
    return str(count).rstrip("0") == "1"
