"""A station that is none: sources of its status, for whoever shows them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from edge.health import Health
from edge.sources import LatestSwap, LedgerState, Model, StatusSources
from inspection.messages import VerdictMessage
from inspection.verdicts import Reason, Verdict

BUNDLE = "3f9a2b7c51de" + "0" * 52
BANK = "a81c44e09b27" + "0" * 52
NOON_UNIX_NS = 1_764_590_400_000_000_000

REASONS = {
    Verdict.PASS: None,
    Verdict.REVIEW: Reason.SCORE_ABOVE_REVIEW,
    Verdict.FAIL: Reason.SCORE_ABOVE_REJECT,
    Verdict.UNKNOWN: Reason.DEADLINE_PASSED,
}


def said(verdict: Verdict = Verdict.PASS, seq: int = 0, **more: Any) -> VerdictMessage:
    """A verdict message; what matters to a test it names itself."""
    fields: dict[str, Any] = {
        "camera": "cam0",
        "session": "s",
        "seq": seq,
        "verdict": verdict,
        "reason": REASONS[verdict],
        "score": None if verdict is Verdict.UNKNOWN else 1.25,
        "bundle": BUNDLE,
        "bank": BANK,
        "station_seq": seq + 1,
        "latency_ms": {"total": 31.5},
    }
    return VerdictMessage(**(fields | more))


def record(health: Health, message: VerdictMessage) -> None:
    """Let a frame come in and be recorded."""
    health.count("received")
    health.count_frame(message.camera, "frames")
    health.count_recorded(message, message.latency_ms, NOON_UNIX_NS + message.seq * 10**9)


class StandInStation:
    """Says what a test has it say.

    Attributes:
        sources: For the server, the metrics and the document.
    """

    def __init__(self, state_dir: Path, **fields: Any) -> None:
        self.health = Health()
        self.model: Model | None = Model(BUNDLE, BANK, "full.onnx on the CPU")
        self.ledger: LedgerState | None = LedgerState(0, None, ())
        self.labels = {"stored": 0, "evicted": 0, "disk_full": 0, "failed": 0, "overflowed": 0}
        self.labels |= {"items": 0, "bytes": 0}
        self.swap = LatestSwap()
        self.stopping = False
        self.sources = StatusSources(
            name="line 4",
            state_dir=state_dir,
            health=self.health,
            model=lambda: self.model,
            ledger=lambda: self.ledger,
            labels=lambda: self.labels,
            swap=lambda: self.swap,
            stopping=lambda: self.stopping,
            **fields,
        )
        self._seq = itertools.count()

    def record(self, verdict: Verdict = Verdict.PASS, **more: Any) -> None:
        """Record a frame."""
        record(self.health, said(verdict, next(self._seq), **more))

    def run_a_while(self, unknown: int = 0) -> None:
        """Record what a shift looks like; the last ones may be UNKNOWN."""
        stages = {"queue": 0.4, "decode": 4.1, "prepare": 1.9, "wait": 0.7, "score": 22.8}
        stages |= {"finish": 0.3, "record": 1.3}
        for n in range(400):
            verdict = Verdict.PASS
            if n % 23 == 22:
                verdict = Verdict.REVIEW
            elif n % 31 == 30:
                verdict = Verdict.FAIL
            elif n % 97 == 96:
                verdict = Verdict.UNKNOWN
            if n >= 400 - unknown:
                verdict = Verdict.UNKNOWN
            laps = {stage: ms * (1 + (n * 7 % 40) / 100) for stage, ms in stages.items()}
            self.record(
                verdict,
                camera=("cam-left", "cam-right", "cam-top")[n % 3],
                part=f"A-{10_400 + n}",
                product=("bolt", "nut")[n % 2],
                score=None if verdict is Verdict.UNKNOWN else 0.4 + (n * 13 % 50) / 20,
                latency_ms={**laps, "total": sum(laps.values())},
            )
        self.health.count("published", 400)
        self.health.count("connected", 5)
        self.ledger = LedgerState(18_400, "9c41f2aa07b3" + "0" * 52, ())
