"""A golden frame that goes the way of every other one through the thread that scores."""

from __future__ import annotations

import itertools
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLongError
from dataclasses import dataclass, field

from edge.backlog import Handover
from edge.outcome import NoScoreError
from edge.scorer import Answer, PreparedFrame, Question, Scorer
from inspection.bundle import GOLDEN
from inspection.errors import BundleError
from inspection.golden import agreement, golden_from_bytes


@dataclass(frozen=True, slots=True)
class GoldenQuestion:
    """Waits for the scorer among frames, in no hurry.

    Attributes:
        question: The golden frame's pixels.
        answered: What the scorer says.
    """

    question: Question
    answered: Future[Answer] = field(default_factory=Future)

    @property
    def remaining_ms(self) -> float:
        """It has no deadline."""
        return float("inf")


Waiting = PreparedFrame | GoldenQuestion
"""What may wait for the scorer."""


class SelfTest:
    """Asks the golden frames of whatever bundle runs, one at a time; used in one thread."""

    def __init__(self, slots: Handover[Waiting]) -> None:
        self._slots = slots
        self._turns = itertools.count()

    def ask(self, scorer: Scorer, timeout_s: float) -> bool | None:
        """Have the next golden frame scored.

        Args:
            scorer: Whose thread takes from the slots.
            timeout_s: Wait no longer for the answer.

        Returns:
            Whether the answer is the golden one; None if none came in time.
        """
        bundle = scorer.bundle
        try:
            frames = golden_from_bytes(bundle.file(GOLDEN))
        except BundleError:
            return None  # it has just been rolled back, and its files are gone
        golden = frames[next(self._turns) % len(frames)]
        asked = GoldenQuestion(
            Question(golden.prepared, True, golden.product, True, bundle.preprocessing)
        )
        if not self._slots.put(asked):
            return None
        try:
            answer = asked.answered.result(timeout_s)
        except TookTooLongError:
            return None
        if isinstance(answer, NoScoreError):
            return False
        if answer.bundle.id != bundle.id:
            return None  # another one has taken over meanwhile: its own frames come next
        return agreement(
            golden, answer.anomaly_map, answer.score, answer.route, scorer.tolerance
        ).holds
