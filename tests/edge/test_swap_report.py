"""What a plant engineer reads of a swap."""

from __future__ import annotations

from typing import get_args

from edge.swap_report import WORDS, report_of
from inspection.control_messages import Flip, ProbationReport, ShadowReport, Step, SwapState
from inspection.verdicts import Verdict

FLIP = Flip(
    camera="left",
    session="s",
    seq=17,
    part="A-1",
    before=Verdict.PASS,
    after=Verdict.REVIEW,
    score_before=0.314,
    score_after=2.4,
)


def test_every_step_has_its_words():
    assert set(WORDS) == set(get_args(Step))


def test_a_report_says_everything_in_a_few_lines():
    state = SwapState(
        step="rolled_back",
        why="asked for",
        running="a" * 64,
        candidate="c" * 64,
        source="/srv/new",
        swaps=1,
        rollbacks=1,
        took_s={"verifying": 0.25, "shadow": 20.0},
        shadow=ShadowReport(
            wanted=200,
            compared=200,
            passed_over=55,
            flipped={"FAIL>PASS": 1, "PASS>REVIEW": 2},
            moved_median=-0.12,
            moved_most=3.4,
            flips=(FLIP,),
        ),
        probation=ProbationReport(
            seconds=120,
            left_s=100.4,
            judged=40,
            flagged=20,
            before_judged=0,
            before_flagged=0,
            lowest=0.0,
            highest=0.178,
        ),
    )

    assert report_of(state) == [
        "step        rolled back: asked for",
        "running     aaaaaaaaaaaa",
        "not running cccccccccccc, from /srv/new",
        "shadow      200 of 200 frames compared, 55 passed over",
        "            3 verdicts flipped, 1.5%: FAIL → PASS 1, PASS → REVIEW 2",
        "            scores moved by -0.12 σ, +3.40 σ at most",
        "            left 17 part A-1: PASS (0.31) → REVIEW (2.40)",
        "            and 2 more",
        "probation   20 of 40 (50.0%) not PASS, before 0 of 0; within bounds are 0.0% to 17.8%; "
        "100 of 120 s left",
        "took        verifying 0.2 s, shadow 20.0 s",
        "since start 1 activated, 1 rolled back",
    ]


def test_a_station_that_was_never_asked_has_little_to_say():
    assert report_of(SwapState(running="a" * 64)) == [
        "step        no bundle was swapped since the start",
        "running     aaaaaaaaaaaa",
    ]
