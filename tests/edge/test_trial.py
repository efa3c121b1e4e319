"""When a new bundle must go: by flipped verdicts in shadow, by the mix of them on probation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.admission import Origin
from edge.health import Stopwatch
from edge.outcome import Finding, Outcome, Receipt
from edge.sightings import Sightings
from edge.trial import FEWEST, NOT_OF_A_BUNDLE, REMEMBERED, Mix, Probation, Shadow, is_telling
from inspection.control_messages import MOST_FLIPS, Terms
from inspection.thresholds import Thresholds
from inspection.verdicts import Decision, Judgement, Reason, Verdict, decide
from inspection.wire import FrameName

LIMITS = Thresholds(3.0, 6.0)
GOOD, DOUBTFUL, BAD = 0.0, 4.0, 9.0


def outcome(score: float, seq: int = 0, bundle: str = "old") -> Outcome:
    decision = decide(score, LIMITS)
    judgement = Judgement(score, 0.5, decision)
    finding = Finding(judgement, LIMITS, (), np.zeros((4, 4), np.float32), None)
    return Outcome(receipt(seq), bundle, "bank", decision, None, finding)


def receipt(seq: int) -> Receipt:
    return Receipt(
        FrameName("left", "s", seq, "p"), "bolt", Stopwatch(lambda: 0, 0), 0, None, Origin("frames")
    )


def without_score(reason: Reason, bundle: str = "old") -> Outcome:
    return Outcome(receipt(0), bundle, "bank", Decision(Verdict.UNKNOWN, reason), "why")


# --- the mix ---


def test_the_interval_is_wilsons():
    # By hand, z = 3.2905: n = 100, p = 0.1, z² = 10.8274.
    low, high = Mix(100, 10).interval

    middle = (0.1 + 10.8274 / 200) / 1.108274
    apart = 3.2905 * math.sqrt(0.1 * 0.9 / 100 + 10.8274 / 40000) / 1.108274
    assert (low, high) == (pytest.approx(middle - apart), pytest.approx(middle + apart))


@pytest.mark.parametrize("mix", [Mix(0, 0), Mix(1, 0), Mix(1, 1), Mix(1000, 0), Mix(1000, 1000)])
def test_an_interval_lies_within_0_and_1_and_holds_the_share(mix):
    low, high = mix.interval

    assert 0.0 <= low <= high <= 1.0
    share = mix.flagged / mix.judged if mix.judged else 0.5
    assert low <= share <= high + 1e-12  # a rounding below 1 of 1


BEFORE = Mix(1000, 50)


@pytest.mark.parametrize(
    ("before", "now", "goes"),
    [
        pytest.param(BEFORE, Mix(200, 10), False, id="as before"),
        pytest.param(BEFORE, Mix(200, 30), False, id="a little more: within the margin"),
        pytest.param(BEFORE, Mix(200, 100), True, id="far too many"),
        pytest.param(BEFORE, Mix(FEWEST - 1, FEWEST - 1), False, id="too few to say"),
        pytest.param(BEFORE, Mix(FEWEST, FEWEST), True, id="just enough"),
        pytest.param(Mix(1000, 500), Mix(200, 0), True, id="far too few: it passes everything"),
        pytest.param(Mix(1000, 60), Mix(200, 0), False, id="fewer, but within the margin"),
        pytest.param(Mix(0, 0), Mix(200, 200), False, id="nothing known from before"),
        pytest.param(Mix(3, 0), Mix(200, 100), False, id="next to nothing known from before"),
    ],
)
def test_a_bundle_goes_when_its_share_surely_lies_outside_the_bounds(before, now, goes):
    objection = Probation(Terms(margin=0.10), before).objection(now)

    assert (objection is not None) == goes


def test_an_objection_names_both_shares_and_the_bounds():
    said = Probation(Terms(margin=0.10), BEFORE).objection(Mix(200, 100))

    assert said is not None
    assert "100 of 200" in said
    assert "50 of 1000" in said
    assert "0.0% to 17.8%" in said


def test_a_bundle_like_the_one_before_is_hardly_ever_sent_away():
    """Looked at again and again in 200 probations; one that never objects would pass too,
    hence the second half."""
    rng = np.random.default_rng(3)
    gone = {0.05: 0, 0.40: 0}
    for share in gone:
        for _ in range(200):
            before = Mix(REMEMBERED, int(rng.binomial(REMEMBERED, 0.05)))
            probation = Probation(Terms(margin=0.10), before)
            flagged = np.cumsum(rng.random(600) < share)
            gone[share] += any(
                probation.objection(Mix(n, int(flagged[n - 1]))) for n in range(30, 601, 10)
            )

    assert gone == {0.05: 0, 0.40: 200}


@pytest.mark.parametrize("reason", sorted(NOT_OF_A_BUNDLE))
def test_what_a_camera_did_says_nothing_of_a_bundle(reason):
    assert not is_telling(without_score(reason))


def test_what_a_slow_or_wrong_bundle_does_tells():
    slow = (Reason.BACKLOG_FULL, Reason.DEADLINE_PASSED, Reason.UNKNOWN_PRODUCT, Reason.TOO_DARK)

    assert all(is_telling(without_score(reason)) for reason in slow)
    assert is_telling(outcome(GOOD))


# --- what the route shows ---


def test_verdicts_are_counted_for_the_bundle_that_gave_them():
    sightings = Sightings("old")
    sightings.saw(outcome(GOOD))
    sightings.saw(outcome(BAD))
    sightings.follow("old", "new")
    sightings.saw(outcome(BAD, bundle="new"))
    sightings.saw(without_score(Reason.BACKLOG_FULL, "new"))
    sightings.saw(without_score(Reason.BAD_IMAGE, "new"))
    sightings.saw(outcome(BAD, bundle="another"))

    assert sightings.mix("old") == Mix(2, 1)
    assert sightings.mix("new") == Mix(2, 2)


def test_only_the_latest_verdicts_count():
    sightings = Sightings("old")
    for _ in range(REMEMBERED):
        sightings.saw(outcome(BAD))
    for _ in range(REMEMBERED - 1):
        sightings.saw(outcome(GOOD))

    assert sightings.mix("old") == Mix(REMEMBERED, 1)


def test_a_failure_is_remembered_of_the_bundle_that_failed_while_it_is_followed():
    sightings = Sightings("old")
    sightings.saw(without_score(Reason.SCORER_FAILED))
    failed = sightings.failure("old")
    sightings.follow("old", "new")

    assert failed == "why"
    assert sightings.failure("old") is None
    assert sightings.failure("new") is None


def test_frames_are_handed_over_one_at_a_time_and_the_others_are_counted():
    sightings, frame = Sightings("old"), object()
    sightings.saw(outcome(GOOD, 0), frame)
    with sightings.shadowing():
        for seq in (1, 2, 3):
            sightings.saw(outcome(GOOD, seq), frame)
        first = sightings.next_frame(0.0)
        sightings.saw(outcome(GOOD, 4), frame)
        sightings.saw(without_score(Reason.BACKLOG_FULL))
        second = sightings.next_frame(0.0)
        nothing = sightings.next_frame(0.0)
        sightings.saw(outcome(GOOD, 5), frame)
    after = sightings.next_frame(0.0)

    assert first is not None
    assert second is not None
    assert [each[1].receipt.name.seq for each in (first, second)] == [1, 4]
    assert nothing is None
    assert after is None, "a frame would be held for as long as the station runs"
    assert sightings.passed_over == 2


# --- the shadow ---


def shadow_of(*pairs: tuple[float, float | Reason], **terms: object) -> Shadow:
    shadow = Shadow(Terms(**terms))
    for seq, (before, after) in enumerate(pairs):
        new = without_score(after) if isinstance(after, Reason) else outcome(after, seq)
        shadow.compare(outcome(before, seq), new)
    return shadow


def test_a_report_counts_flips_by_kind_and_lists_them():
    shadow = shadow_of((GOOD, GOOD), (GOOD, BAD), (GOOD, BAD), (BAD, 0.5), (DOUBTFUL, DOUBTFUL))

    report = shadow.report()

    assert report.compared == 5
    assert report.flipped == {"FAIL>PASS": 1, "PASS>FAIL": 2}
    assert [(flip.seq, flip.before.value, flip.after.value) for flip in report.flips] == [
        (1, "PASS", "FAIL"),
        (2, "PASS", "FAIL"),
        (3, "FAIL", "PASS"),
    ]
    assert (report.flips[2].score_before, report.flips[2].score_after) == (BAD, 0.5)
    assert (report.moved_median, report.moved_most) == (0.0, 9.0)


def test_a_frame_that_the_new_bundle_cannot_judge_is_a_flip():
    report = shadow_of((GOOD, Reason.UNKNOWN_PRODUCT)).report()

    assert report.flipped == {"PASS>UNKNOWN": 1}
    assert report.flips[0].score_after is None


def test_a_score_that_is_no_number_moves_nothing():
    report = shadow_of((GOOD, math.nan), (GOOD, 1.0)).report()

    assert (report.moved_median, report.moved_most) == (1.0, 1.0)
    assert report.flipped == {"PASS>REVIEW": 1}


def test_a_list_of_flips_is_bounded_and_their_count_is_not():
    report = shadow_of(*[(GOOD, BAD)] * (MOST_FLIPS + 7)).report()

    assert len(report.flips) == MOST_FLIPS
    assert report.flipped == {"PASS>FAIL": MOST_FLIPS + 7}


@pytest.mark.parametrize(
    ("pairs", "most", "goes"),
    [
        pytest.param([(GOOD, BAD)] * 4, None, False, id="no gate: a report only"),
        pytest.param([(GOOD, BAD)] + [(GOOD, GOOD)] * 3, 0.25, False, id="on the limit"),
        pytest.param([(GOOD, BAD)] + [(GOOD, GOOD)] * 3, 0.24, True, id="above it"),
        pytest.param([], 0.5, True, id="nothing was compared"),
        pytest.param([], None, False, id="nothing was compared, and nothing asked"),
    ],
)
def test_a_gate_on_flips_refuses_above_its_share(pairs, most, goes):
    shadow = shadow_of(*pairs, most_flipped=most)

    assert (shadow.objection() is not None) == goes


def test_a_shadow_is_over_after_as_many_frames_as_were_asked_for():
    assert not shadow_of((GOOD, GOOD), shadow_frames=2).is_over
    assert shadow_of((GOOD, GOOD), (GOOD, GOOD), shadow_frames=2).is_over
