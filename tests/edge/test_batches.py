"""How frames become batches: as many as are alike and in time, several under way, none lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.admission import Origin
from edge.backlog import Handover
from edge.batches import score_all
from edge.health import Stopwatch
from edge.outcome import Arrival, NoScoreError, Receipt
from edge.scorer import Answer, PreparedFrame, Question, Scored
from inspection.bundle import Bundle
from inspection.messages import Frame, FrameHeader

MAP = np.zeros((4, 4), np.float32)


class Recorded:
    """A scorer of four frames and two batches, which ends a batch when it is asked twice."""

    name = "recorded"
    depth, most_frames = 2, 4

    def __init__(self, bundle: Bundle, expected_ms: Callable[[int], float] = lambda _: 0.0) -> None:
        self.bundle = bundle
        self.batches: list[int] = []
        self.most_under_way = self.tended = 0
        self._expected_ms = expected_ms
        self._under_way: list[list[Answer]] = []
        self._asked = 0

    def question(self, image: NDArray[np.uint8], product: str | None) -> Question:
        return Question(image, False, product)

    def submit(self, questions: Sequence[Question]) -> None:
        self.batches.append(len(questions))
        route = self.bundle.route("bolt")
        answers: list[Answer] = [
            Scored(MAP, float(each.pixels[0, 0, 0]), route, self.bundle) for each in questions
        ]
        self._under_way.append(answers)
        self.most_under_way = max(self.most_under_way, len(self._under_way))

    def poll(self) -> list[Answer] | None:
        self._asked += 1
        if self._asked % 2:
            return None
        return self._under_way.pop(0)

    def expected_ms(self, frames: int) -> float:
        return self._expected_ms(frames)

    def offer(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def tend(self) -> None:
        self.tended += 1


def frame(
    number: int, *, side_px: int = 8, deadline_ms: float | None = None, passed_ms: float = 0.0
) -> PreparedFrame:
    header = FrameHeader(
        camera="c",
        session="s",
        seq=number,
        encoding="raw",
        shape=[8, 8, 3],
        deadline_ms=deadline_ms,
    )
    stopwatch = Stopwatch(lambda: int(passed_ms * 1e6), 0)
    receipt = Receipt(header.frame_name, "bolt", stopwatch, 0, None, Origin("frames"))
    pixels = np.full((side_px, side_px, 3), number, np.uint8)
    arrival = Arrival(receipt, Frame(header, memoryview(b"")), deadline_ms)
    return PreparedFrame(arrival, Question(pixels, False, "bolt"), (side_px, side_px))


def scored(
    scorer: Recorded,
    frames: Sequence[PreparedFrame],
    admit: Callable[[PreparedFrame], bool] = lambda _: True,
) -> list[tuple[int, float]]:
    """Score what waits; (number, score) in the order of the answers."""
    waiting: Handover[PreparedFrame] = Handover(len(frames) + 1)
    for each in frames:
        waiting.put(each)
    waiting.close()
    said: list[tuple[int, float]] = []

    def answer(frame: PreparedFrame, answer: Answer) -> None:
        score = -1.0 if isinstance(answer, NoScoreError) else answer.score
        said.append((frame.arrival.frame.header.seq, score))

    score_all(scorer, waiting, admit, answer)
    return said


def in_order(count: int) -> list[tuple[int, float]]:
    return [(i, float(i)) for i in range(count)]


def test_what_waits_is_scored_in_full_batches_and_answered_in_order(tiny_bundle: Bundle) -> None:
    scorer = Recorded(tiny_bundle)

    said = scored(scorer, [frame(i) for i in range(11)])

    assert said == in_order(11)
    assert scorer.batches == [4, 4, 3]
    assert scorer.most_under_way == scorer.depth
    assert scorer.tended >= 3


def test_frames_of_other_shapes_do_not_share_a_batch(tiny_bundle: Bundle) -> None:
    scorer = Recorded(tiny_bundle)
    sides = (8, 8, 16, 8, 8, 8)

    said = scored(scorer, [frame(i, side_px=side) for i, side in enumerate(sides)])

    assert said == in_order(6)
    assert scorer.batches == [2, 1, 3]


def test_a_batch_is_no_larger_than_the_nearest_deadline_allows(tiny_bundle: Bundle) -> None:
    """A batch of n takes 10 n ms; the second frame has 25 of its 30 ms left."""
    scorer = Recorded(tiny_bundle, lambda frames: 10.0 * frames)
    hurried = frame(1, deadline_ms=30.0, passed_ms=5.0)

    said = scored(scorer, [frame(0), hurried, frame(2), frame(3), frame(4), frame(5)])

    assert said == in_order(6)
    assert scorer.batches == [2, 4]


def test_what_is_under_way_counts_against_a_deadline(tiny_bundle: Bundle) -> None:
    """Of the 40 ms that frame 4 has, the batch before its own takes as long as its own."""
    scorer = Recorded(tiny_bundle, lambda frames: 10.0 * frames)
    frames = [*map(frame, range(4)), frame(4, deadline_ms=41.0), *map(frame, range(5, 8))]

    said = scored(scorer, frames)

    assert said == in_order(8)
    assert scorer.batches[:2] == [4, 2]


def test_a_frame_that_is_late_anyway_is_still_given_to_the_scorer(tiny_bundle: Bundle) -> None:
    scorer = Recorded(tiny_bundle, lambda frames: 10.0 * frames)

    assert scored(scorer, [frame(0, deadline_ms=1.0, passed_ms=5.0)]) == in_order(1)


def test_frames_that_are_not_admitted_are_not_scored(tiny_bundle: Bundle) -> None:
    scorer = Recorded(tiny_bundle)

    said = scored(
        scorer, [frame(i) for i in range(6)], lambda it: it.arrival.frame.header.seq % 2 > 0
    )

    assert said == [(1, 1.0), (3, 3.0), (5, 5.0)]


@pytest.mark.parametrize("where", ["submit", "poll", "admit"])
def test_a_failure_that_nobody_foresaw_answers_what_was_taken(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    scorer, said = Recorded(tiny_bundle), []
    waiting: Handover[PreparedFrame] = Handover(20)
    for i in range(6):
        waiting.put(frame(i))

    def breaks(*_: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    def admit(it: PreparedFrame) -> bool:
        if where == "admit" and it.arrival.frame.header.seq == 2:
            said.append((2, "admit"))  # as a station does, which answers before it raises
            breaks()
        return True

    if where != "admit":
        monkeypatch.setattr(scorer, where, breaks)

    def answer(it: PreparedFrame, answer: Answer) -> None:
        assert isinstance(answer, NoScoreError)
        said.append((it.arrival.frame.header.seq, "failed"))

    with pytest.raises(ZeroDivisionError):
        score_all(scorer, waiting, admit, answer)

    answered = sorted(seq for seq, _ in said)
    assert answered == list(range(len(answered)))
    assert len(answered) + len(waiting) == 6


def test_a_frame_that_comes_while_another_is_scored_does_not_wait_for_it(
    tiny_bundle: Bundle,
) -> None:
    scorer = Recorded(tiny_bundle)
    waiting: Handover[PreparedFrame] = Handover(2)
    both, done = threading.Event(), threading.Event()

    def poll() -> list[Answer] | None:
        return scorer._under_way.pop(0) if both.is_set() else None

    scorer.poll = poll  # type: ignore[method-assign]
    thread = threading.Thread(
        target=lambda: (score_all(scorer, waiting, lambda _: True, lambda *_: None), done.set())
    )
    thread.start()
    waiting.put(frame(0))
    while len(scorer.batches) < 1:
        pass
    waiting.put(frame(1))
    while len(scorer.batches) < 2:
        pass

    both.set()
    waiting.close()
    assert done.wait(10)
    thread.join()
    assert scorer.batches == [1, 1]
