"""How a new bundle is tried: in shadow beside the running one, then on probation in its place.

Decisions and bounded counts; no thread, no clock, no scorer. What is done by them: `edge.swapping`.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from edge.outcome import Outcome
from inspection.control_messages import (
    MOST_FLIPS,
    Flip,
    ProbationReport,
    ShadowReport,
    Terms,
)
from inspection.verdicts import Reason, Verdict

REMEMBERED = 1000
"""Verdicts of the running bundle that a new one is compared with."""

FEWEST = 30
"""Verdicts of a new bundle before anything is said of their mix."""

Z = 3.2905
"""Two-sided 99.9 % of a normal distribution: it is looked at many times in one probation."""

NOT_OF_A_BUNDLE = frozenset(
    {
        *(Reason.BAD_HEADER, Reason.BAD_PAYLOAD, Reason.BAD_IMAGE, Reason.FRAME_TOO_LARGE),
        *(Reason.FRAME_LOST, Reason.FROZEN, Reason.REPEATED, Reason.NAME_REUSED),
        Reason.STATION_STOPPING,
    }
)
"""Why a frame is UNKNOWN whatever bundle runs. A full backlog is not among them, nor a deadline:
they tell of a bundle that is too slow."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How many verdicts were not PASS, of how many."""

    judged: int = 0
    flagged: int = 0

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share of flagged ones surely lies, by Wilson's formula; (0, 1) of nothing.

        Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209; with `Z`.
        """
        n = self.judged
        if n == 0:
            return 0.0, 1.0
        share, square = self.flagged / n, Z * Z
        middle = (share + square / (2 * n)) / (1 + square / n)
        apart = Z * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
        return max(0.0, middle - apart), min(1.0, middle + apart)


def is_telling(outcome: Outcome) -> bool:
    """Whether a verdict says something of the bundle, and not of a camera or the station."""
    return outcome.decision.reason not in NOT_OF_A_BUNDLE


class RecentMix:
    """The latest verdicts of the running bundle; it forgets those before."""

    def __init__(self) -> None:
        self._flagged: deque[bool] = deque(maxlen=REMEMBERED)

    def count(self, outcome: Outcome) -> None:
        """Note a verdict."""
        self._flagged.append(outcome.decision.verdict is not Verdict.PASS)

    def mix(self) -> Mix:
        """Sum up."""
        return Mix(len(self._flagged), sum(self._flagged))


@dataclass(frozen=True, slots=True)
class Probation:
    """What a new bundle is held to.

    Attributes:
        terms: `probation_s` and `margin`.
        before: Verdicts of the bundle before it.
    """

    terms: Terms
    before: Mix

    @property
    def bounds(self) -> tuple[float, float]:
        """Shares of flagged verdicts that are as before.

        What was before is itself known to a few points only, the fewer verdicts the worse: after a
        start it may be nothing at all, and then no share is out of bounds.
        """
        low, high = self.before.interval
        return max(0.0, low - self.terms.margin), min(1.0, high + self.terms.margin)

    def objection(self, now: Mix) -> str | None:
        """Say why the bundle must go; None while it may stay.

        Too few flagged parts are as bad as too many: a bundle that passes everything looks quiet.
        """
        (low, high), (lowest, highest) = now.interval, self.bounds
        if now.judged < FEWEST or (low <= highest and high >= lowest):
            return None
        return (
            f"{now.flagged} of {now.judged} verdicts were not PASS, {now.flagged / now.judged:.1%};"
            f" before it was {self.before.flagged} of {self.before.judged}, and {lowest:.1%} to "
            f"{highest:.1%} is within bounds"
        )

    def report(self, now: Mix, left_s: float) -> ProbationReport:
        """Put together what people want to see."""
        lowest, highest = self.bounds
        return ProbationReport(
            seconds=self.terms.probation_s,
            left_s=round(left_s, 1),
            judged=now.judged,
            flagged=now.flagged,
            before_judged=self.before.judged,
            before_flagged=self.before.flagged,
            lowest=lowest,
            highest=highest,
        )


class Shadow:
    """Compares what two bundles say of the same frames; used in one thread."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._compared = 0
        self._flipped: Counter[str] = Counter()
        self._flips: list[Flip] = []
        self._moved: list[float] = []  # at most `shadow_frames`
        self.passed_over = 0

    @property
    def is_over(self) -> bool:
        """Whether as many frames were compared as was asked for."""
        return self._compared >= self._terms.shadow_frames

    def compare(self, running: Outcome, new: Outcome) -> None:
        """Note what both said of a frame that the running bundle has scored.

        `new` has no score where it could not give one: its verdict is UNKNOWN, and that is a flip.
        """
        assert running.finding is not None
        self._compared += 1
        before, after = running.decision.verdict, new.decision.verdict
        score = running.finding.judgement.score
        score_after = new.finding.judgement.score if new.finding else None
        if score_after is not None and math.isfinite(moved := score_after - score):
            self._moved.append(moved)
        if before is after:
            return
        self._flipped[f"{before.value}>{after.value}"] += 1
        if len(self._flips) < MOST_FLIPS:
            name = running.receipt.name
            self._flips.append(
                Flip(
                    camera=name.camera,
                    session=name.session,
                    seq=name.seq,
                    part=name.part,
                    before=before,
                    after=after,
                    score_before=score,
                    score_after=score_after,
                )
            )

    def objection(self) -> str | None:
        """Say why the bundle must not be activated; None if it may be."""
        most = self._terms.most_flipped
        if most is None:
            return None
        flipped = sum(self._flipped.values())
        if self._compared == 0:
            return (
                f"no frame came to compare within {self._terms.shadow_s:g} s, and at most "
                f"{most:.1%} may flip; try again while the line runs"
            )
        if flipped <= most * self._compared:
            return None
        return (
            f"{flipped} of {self._compared} verdicts flipped, {flipped / self._compared:.1%}; "
            f"at most {most:.1%} may"
        )

    def report(self) -> ShadowReport:
        """Put together what people want to see."""
        moved = np.array(self._moved or [0.0])
        return ShadowReport(
            wanted=self._terms.shadow_frames,
            compared=self._compared,
            passed_over=self.passed_over,
            flipped=dict(sorted(self._flipped.items())),
            moved_median=round(float(np.median(moved)), 3),
            moved_most=round(float(moved[np.abs(moved).argmax()]), 3),
            flips=tuple(self._flips),
        )
