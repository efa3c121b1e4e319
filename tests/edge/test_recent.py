"""What is known of a part: PASS only when it is certain."""

from __future__ import annotations

import pytest

from edge import recent as bounds
from edge.recent import RecentVerdicts
from inspection.station_messages import RejectAnswer, RejectQuestion
from inspection.verdicts import Reason, Verdict
from inspection.wire import FrameName
from tests.edge.published_station import BUNDLE, StandingClock, verdict

SECOND_NS = 1_000_000_000


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock(0)


@pytest.fixture
def recent(clock: StandingClock) -> RecentVerdicts:
    return RecentVerdicts(clock)


def frame(seq: int = 0, camera: str = "left", session: str = "s", part: str = "P") -> FrameName:
    return FrameName(camera, session, seq, part)


def said(
    recent: RecentVerdicts,
    seq: int = 0,
    camera: str = "left",
    word: Verdict = Verdict.PASS,
    part: str | None = "P",
    session: str = "s",
) -> None:
    recent.note(verdict(seq + 1, camera, seq=seq, part=part, verdict=word, session=session))


def answered(
    recent: RecentVerdicts, *cameras: str, at_deadline: bool = False, max_age_ms: float = 60_000
) -> str | None:
    answer = asked(recent, *cameras, at_deadline=at_deadline, max_age_ms=max_age_ms)
    return None if answer is None else answer.answer


def asked(
    recent: RecentVerdicts,
    *cameras: str,
    at_deadline: bool = False,
    max_age_ms: float = 60_000,
    part: str = "P",
) -> RejectAnswer | None:
    question = RejectQuestion(
        part=part, cameras=cameras or None, deadline_ms=0, max_age_ms=max_age_ms
    )
    return recent.answer(question, at_deadline=at_deadline)


def test_a_part_that_every_camera_named_has_passed_may_go_on(recent: RecentVerdicts) -> None:
    said(recent, camera="left")
    said(recent, camera="right")

    answer = asked(recent, "left", "right")

    assert answer is not None
    assert answer.answer == "PASS"
    assert {name: each.verdict for name, each in answer.verdicts.items()} == {
        "left": Verdict.PASS,
        "right": Verdict.PASS,
    }
    assert answer.verdicts["left"].bundle == BUNDLE


@pytest.mark.parametrize("cameras", [(), ("left",), ("left", "right")])
def test_a_part_that_nobody_has_seen_is_waited_for_and_then_rejected(
    recent: RecentVerdicts, cameras: tuple[str, ...]
) -> None:
    said(recent, part="another")
    said(recent, part=None)

    assert answered(recent, *cameras) is None
    assert answered(recent, *cameras, at_deadline=True) == "REJECT"


@pytest.mark.parametrize("word", [Verdict.REVIEW, Verdict.FAIL, Verdict.UNKNOWN])
def test_any_other_word_than_pass_is_reject_at_once(recent: RecentVerdicts, word: Verdict) -> None:
    said(recent, camera="left")
    said(recent, camera="right", word=word)

    assert answered(recent) == "REJECT"
    assert answered(recent, "right", "never seen") == "REJECT"
    assert answered(recent, "left") == "PASS"


def test_a_camera_that_is_missing_is_waited_for(recent: RecentVerdicts) -> None:
    said(recent, camera="left")

    assert answered(recent, "left", "right") is None
    assert answered(recent, "left", "right", at_deadline=True) == "REJECT"


@pytest.mark.parametrize("cameras", [(), ("left",)])
def test_a_frame_under_way_is_waited_for(recent: RecentVerdicts, cameras: tuple[str, ...]) -> None:
    recent.arrived(frame(0))
    recent.arrived(frame(1))
    said(recent, 0)

    assert answered(recent, *cameras) is None
    assert answered(recent, *cameras, at_deadline=True) == "REJECT"

    said(recent, 1)

    assert answered(recent, *cameras) == "PASS"


def test_a_second_look_may_take_back_the_first(recent: RecentVerdicts) -> None:
    said(recent, 0, word=Verdict.FAIL)
    recent.arrived(frame(1))

    assert answered(recent) is None

    said(recent, 1)

    assert answered(recent) == "PASS"


def test_the_verdict_of_an_older_frame_never_takes_back_a_newer_ones(
    recent: RecentVerdicts,
) -> None:
    for seq in range(2):
        recent.arrived(frame(seq))
    said(recent, 1, word=Verdict.UNKNOWN)
    said(recent, 0)

    assert answered(recent) == "REJECT"


def test_nor_does_one_of_an_earlier_session(recent: RecentVerdicts) -> None:
    recent.arrived(frame(900, session="before"))
    recent.arrived(frame(0, session="after"))
    said(recent, 0, session="after", word=Verdict.FAIL)
    said(recent, 900, session="before")

    assert answered(recent) == "REJECT"


def test_two_frames_under_one_name_never_pass_together(recent: RecentVerdicts) -> None:
    recent.arrived(frame(0))
    recent.note(
        verdict(1, "left", seq=0, part="P", verdict=Verdict.UNKNOWN, reason=Reason.NAME_REUSED)
    )
    said(recent, 0)

    assert answered(recent) == "REJECT"


def test_a_verdict_that_is_too_old_does_not_count(
    recent: RecentVerdicts, clock: StandingClock
) -> None:
    said(recent)
    clock.now_ns += SECOND_NS + 1

    assert answered(recent, max_age_ms=1001) == "PASS"
    assert answered(recent, max_age_ms=1000) is None
    assert answered(recent, max_age_ms=1000, at_deadline=True) == "REJECT"


def test_parts_are_forgotten_the_one_touched_longest_ago_first(
    recent: RecentVerdicts, monkeypatch: pytest.MonkeyPatch, clock: StandingClock
) -> None:
    monkeypatch.setattr(bounds, "MOST_PARTS", 3)
    for part in ("P", "Q", "R", "P", "S"):
        clock.now_ns += SECOND_NS
        said(recent, part=part)

    assert list(recent._parts) == ["R", "P", "S"]


def test_what_may_have_been_forgotten_is_reject(
    recent: RecentVerdicts, monkeypatch: pytest.MonkeyPatch, clock: StandingClock
) -> None:
    monkeypatch.setattr(bounds, "MOST_PARTS", 2)
    said(recent, camera="right", word=Verdict.FAIL)
    clock.now_ns += SECOND_NS
    for part in ("Q", "R"):
        said(recent, part=part)
    said(recent, camera="left")

    forgetful = asked(recent, at_deadline=True)
    clock.now_ns += 2 * SECOND_NS
    said(recent, 1, camera="left")

    assert forgetful is not None
    assert forgetful.answer == "REJECT"
    assert "too many parts" in forgetful.why
    # Nothing of the last second has been forgotten.
    assert answered(recent, max_age_ms=1000) == "PASS"


def test_facts_of_all_parts_are_bounded_and_counted_right(
    recent: RecentVerdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_FACTS", 20)
    for seq in range(100):
        recent.arrived(frame(seq, part=f"part{seq % 7}", camera=f"c{seq % 3}"))
        if seq % 2:
            said(recent, seq, part=f"part{seq % 7}", camera=f"c{seq % 3}")

        facts = sum(part.facts for part in recent._parts.values())
        assert facts == recent._facts
        assert facts <= 20


def test_a_part_with_too_many_frames_is_reject(recent: RecentVerdicts) -> None:
    for seq in range(bounds.MOST_FACTS_OF_A_PART + 1):
        recent.arrived(frame(seq))
    for seq in range(bounds.MOST_FACTS_OF_A_PART + 1):
        said(recent, seq)

    assert answered(recent) == "REJECT"


def test_a_name_that_cannot_be_printed_makes_no_answer_too_long(recent: RecentVerdicts) -> None:
    said(recent, camera="\x00" * 128, word=Verdict.FAIL)

    assert answered(recent) == "REJECT"
