"""One scorer takes another's place between two frames, and no frame is lost in between."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.onnx_scorer import OnnxScorer
from edge.outcome import NoScoreError
from edge.relay import RelayScorer
from edge.scorer import Answer, Question, Scored, Scorer, alike
from inspection.bundle import Bundle
from inspection.errors import DeviceError, StationError
from inspection.preprocessing import Preprocessing
from inspection.verdicts import Reason
from tests.bundles import LETTERBOX, SPEC, good_frame

IMAGE = good_frame()


class Scripted:
    """A scorer that answers when it is told to, or fails; its canvases are of its own spec."""

    def __init__(self, bundle: Bundle, name: str, spec: Preprocessing = SPEC, depth: int = 2):
        entry = bundle.manifest.preprocessing.model_copy(update={"fit": spec.fit})
        manifest = bundle.manifest.model_copy(update={"preprocessing": entry})
        self.bundle = replace(bundle, id=name, manifest=manifest)
        self.name, self.depth, self.most_frames = name, depth, 4
        self.under_way: deque[list[Answer]] = deque()
        self.ready = True
        self.says: Answer | None = None
        self.fails: Callable[[str], None] = lambda where: None
        self.threads: set[int] = set()

    def question(self, image: NDArray[np.uint8], product: str | None) -> Question:
        return Question(image, True, product)

    def submit(self, questions: Sequence[Question]) -> None:
        self._at("submit")
        assert len(self.under_way) < self.depth
        route = self.bundle.route("bolt")
        scored = Scored(np.zeros((4, 4), np.float32), 0.0, route, self.bundle)
        self.under_way.append([self.says or scored] * len(questions))

    def poll(self) -> list[Answer] | None:
        self._at("poll")
        return self.under_way.popleft() if self.ready and self.under_way else None

    def expected_ms(self, frames: int) -> float:
        return 0.0

    def offer(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def tend(self) -> None:
        self._at("tend")

    def _at(self, where: str) -> None:
        self.threads.add(threading.get_ident())
        self.fails(where)


class Pair:
    """A relay whose first scorer is `old`, and a `new` one that may take over."""

    def __init__(self, bundle: Bundle, relay: RelayScorer, old: Scripted, new: Scripted) -> None:
        self.bundle, self.relay, self.old, self.new = bundle, relay, old, new
        self.closed: list[str] = []

    @contextmanager
    def noted(self, scorer: Scripted) -> Iterator[Scorer]:
        yield scorer
        self.closed.append(scorer.name)

    def switch(self) -> None:
        self.done(self.relay.replace(self.noted(self.new)))

    def done(self, wish: Future[None]) -> None:
        assert not wish.done(), "it is done between two frames, and not at once"
        self.relay.tend()
        wish.result(0)

    def ask(self, frames: int = 1) -> None:
        self.relay.submit([self.relay.question(IMAGE, "bolt")] * frames)

    def said(self) -> list[str]:
        return [_who(each) for each in self.relay.poll() or ()]


def _who(answer: Answer) -> str:
    return str(answer.reason.value) if isinstance(answer, NoScoreError) else answer.bundle.id


@pytest.fixture
def pair(tiny_bundle: Bundle) -> Iterator[Pair]:
    old, new = Scripted(tiny_bundle, "old"), Scripted(tiny_bundle, "new")
    relay = RelayScorer(nullcontext(old))
    with relay.opened():
        yield Pair(tiny_bundle, relay, old, new)


def test_another_scorer_takes_over_when_the_scoring_thread_gets_to_it(pair: Pair) -> None:
    pair.ask()
    wish = pair.relay.replace(nullcontext(pair.new))
    pair.ask()
    before = [pair.said(), pair.said()]

    pair.done(wish)
    pair.ask()

    assert before == [["old"], ["old"]]
    assert pair.said() == ["new"]
    assert (pair.relay.bundle.id, pair.relay.name) == ("new", "new")


def test_answers_keep_their_order_across_a_switch(pair: Pair) -> None:
    pair.old.ready = False
    pair.ask(3)
    pair.switch()
    pair.ask(2)
    waiting = pair.relay.poll()

    pair.old.ready = True

    assert waiting is None, "the new one has its answer, and it is not its turn"
    assert pair.said() == ["old"] * 3
    assert pair.said() == ["new"] * 2
    assert pair.relay.poll() is None


def test_a_canvas_is_scored_by_the_scorer_that_it_was_made_for(pair: Pair) -> None:
    pair.new = Scripted(pair.bundle, "new", LETTERBOX)
    prepared = pair.relay.question(IMAGE, "bolt")
    pair.switch()

    pair.relay.submit([prepared])
    pair.ask()

    assert [pair.said(), pair.said()] == [["old"], ["new"]]


def test_a_canvas_of_the_same_preprocessing_is_scored_by_the_new_one(pair: Pair) -> None:
    prepared = pair.relay.question(IMAGE, "bolt")
    pair.switch()

    pair.relay.submit([prepared])

    assert pair.said() == ["new"]


def test_a_canvas_for_a_scorer_that_was_let_go_is_answered_without_a_score(pair: Pair) -> None:
    pair.new = Scripted(pair.bundle, "new", LETTERBOX)
    prepared = pair.relay.question(IMAGE, "bolt")
    pair.switch()
    pair.done(pair.relay.let_go())

    pair.relay.submit([prepared, prepared])
    pair.ask()

    assert [pair.said(), pair.said()] == [["scorer_failed"] * 2, ["new"]]


def test_canvases_of_two_kinds_never_share_a_batch(pair: Pair) -> None:
    one = pair.relay.question(IMAGE, "bolt")
    pair.new = Scripted(pair.bundle, "new", LETTERBOX)
    pair.switch()

    other = pair.relay.question(IMAGE, "bolt")

    assert alike(one, one)
    assert not alike(one, other)


def test_no_more_batches_are_under_way_than_either_takes(pair: Pair) -> None:
    pair.new = Scripted(pair.bundle, "new", depth=1)
    before = pair.relay.depth

    pair.switch()
    beside = pair.relay.depth
    pair.done(pair.relay.go_back())
    pair.done(pair.relay.let_go())

    assert (before, beside, pair.relay.depth) == (2, 1, 2)


@pytest.mark.parametrize("where", ["submit", "poll", "tend"])
def test_one_on_trial_that_breaks_is_sent_back_and_its_frames_are_answered(
    pair: Pair, where: str
) -> None:
    def breaks(here: str) -> None:
        if here == where:
            raise ZeroDivisionError("nobody foresaw this")

    pair.switch()
    pair.new.ready = False
    pair.ask(2)
    pair.new.fails = breaks
    if where == "submit":
        pair.ask()
    elif where == "tend":
        pair.relay.tend()

    first = pair.said()
    lost = pair.said() if where == "submit" else None
    pair.ask()

    assert first == ["scorer_failed"] * 2
    assert lost == (["scorer_failed"] if where == "submit" else None)
    assert pair.said() == ["old"]
    assert pair.relay.failure == "ZeroDivisionError: nobody foresaw this"
    assert pair.closed == ["new"]


def test_one_on_trial_that_gives_no_score_is_sent_back_at_once(pair: Pair) -> None:
    pair.switch()
    pair.new.says = NoScoreError(Reason.SCORER_FAILED, "out of luck")
    pair.ask()

    first = pair.said()
    pair.ask()

    assert [first, pair.said()] == [["scorer_failed"], ["old"]]
    assert pair.relay.failure == "out of luck"


def test_a_product_that_it_does_not_know_is_no_failure(pair: Pair) -> None:
    pair.switch()
    pair.new.says = NoScoreError(Reason.UNKNOWN_PRODUCT, "no such thing")
    pair.ask()

    assert pair.said() == ["unknown_product"]
    assert pair.relay.failure is None


def test_one_that_is_not_on_trial_ends_the_station_as_ever(pair: Pair) -> None:
    def breaks(here: str) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    pair.switch()
    pair.done(pair.relay.let_go())
    pair.new.fails = breaks

    with pytest.raises(ZeroDivisionError):
        pair.relay.tend()


def test_a_scorer_that_cannot_be_opened_changes_nothing(pair: Pair) -> None:
    @contextmanager
    def gone() -> Iterator[Scorer]:
        raise DeviceError("it has fallen off the bus")
        yield

    wish = pair.relay.replace(gone())
    pair.relay.tend()
    pair.ask()

    with pytest.raises(DeviceError):
        wish.result(0)
    assert pair.said() == ["old"]


def test_going_back_is_possible_only_while_one_is_on_trial(pair: Pair) -> None:
    before = pair.relay.can_go_back
    pair.switch()
    on_trial = pair.relay.can_go_back
    pair.done(pair.relay.go_back())
    wish = pair.relay.go_back()
    pair.relay.tend()

    assert (before, on_trial, pair.relay.can_go_back) == (False, True, False)
    assert pair.relay.bundle.id == "old"
    with pytest.raises(StationError, match="no scorer to go back to"):
        wish.result(0)


def test_after_going_back_canvases_of_the_other_are_still_scored_by_it(pair: Pair) -> None:
    pair.new = Scripted(pair.bundle, "new", LETTERBOX)
    pair.switch()
    prepared = pair.relay.question(IMAGE, "bolt")
    pair.done(pair.relay.go_back())

    pair.relay.submit([prepared])
    pair.ask()

    assert [pair.said(), pair.said()] == [["new"], ["old"]]


def test_one_that_is_let_go_first_answers_what_it_has_under_way(pair: Pair) -> None:
    pair.old.ready = False
    pair.ask()
    pair.switch()
    wish = pair.relay.let_go()
    pair.relay.tend()
    waits = not wish.done()
    pair.old.ready = True

    said = pair.said()
    pair.relay.tend()

    assert waits
    assert said == ["old"]
    assert wish.done()


def test_one_that_is_let_go_later_leaves_the_next_trial_alone(pair: Pair) -> None:
    pair.switch()
    pair.done(pair.relay.keep())
    later = pair.relay.let_go(after_s=3600.0)
    third = Scripted(pair.bundle, "third")

    wish = pair.relay.replace(pair.noted(third))
    pair.relay.tend()

    waits = not later.done()
    pair.relay.tend()

    wish.result(0)
    assert waits
    assert later.done(), "whom it was to close has gone already"
    assert pair.relay.can_go_back
    pair.done(pair.relay.go_back())
    assert pair.relay.bundle.id == "new"


def test_one_that_has_been_kept_is_not_sent_back(pair: Pair) -> None:
    def breaks(here: str) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    pair.switch()
    pair.done(pair.relay.keep())
    pair.new.fails = breaks

    assert not pair.relay.can_go_back
    with pytest.raises(ZeroDivisionError):
        pair.ask()


def test_a_wish_that_the_station_does_not_live_to_grant_is_told(tiny_bundle: Bundle) -> None:
    old = Scripted(tiny_bundle, "old")
    relay = RelayScorer(nullcontext(old))
    with relay.opened():
        before = relay.replace(nullcontext(Scripted(tiny_bundle, "new")))
    after = relay.let_go()

    for wish in (before, after):
        with pytest.raises(StationError, match="has ended"):
            wish.result(0)


def test_a_scorer_is_opened_used_and_closed_in_the_thread_that_scores(pair: Pair) -> None:
    here, seen = threading.get_ident(), []

    @contextmanager
    def opened() -> Iterator[Scorer]:
        seen.append(threading.get_ident())
        yield pair.new
        seen.append(threading.get_ident())

    asking = threading.Thread(target=lambda: pair.relay.replace(opened()))
    asking.start()
    asking.join()
    pair.relay.tend()
    pair.ask()
    pair.said()
    pair.done(pair.relay.go_back())
    letting_go = threading.Thread(target=pair.relay.let_go)
    letting_go.start()
    letting_go.join()
    pair.relay.tend()

    assert seen == [here, here]
    assert pair.new.threads == {here}


def test_two_real_bundles_of_other_preprocessing_change_places_under_load(
    tiny_bundle: Bundle, letterbox_bundle: Bundle
) -> None:
    """Against each alone: a relay adds nothing to an answer and takes nothing from it."""
    wide = np.tile(good_frame("bolt", 5), (1, 3, 1))
    alone = {
        bundle.id: OnnxScorer(bundle, 1).score(
            OnnxScorer(bundle, 1).canvas_of(wide), bundle.route("bolt")
        )
        for bundle in (tiny_bundle, letterbox_bundle)
    }
    relay = RelayScorer(nullcontext(OnnxScorer(tiny_bundle, 1)))
    answers: list[Answer] = []
    with relay.opened():
        prepared = [relay.question(wide, "bolt") for _ in range(3)]
        for turn in range(20):
            if turn == 7:
                wish = relay.replace(nullcontext(OnnxScorer(letterbox_bundle, 1)))
            if turn == 15:
                wish.result(0)
                relay.go_back()
            relay.tend()
            relay.submit([prepared.pop(0)])
            prepared.append(relay.question(wide, "bolt"))
            answers += relay.poll() or []

    ids = [_who(answer) for answer in answers]
    assert ids == [tiny_bundle.id] * 10 + [letterbox_bundle.id] * 8 + [tiny_bundle.id] * 2
    for answer in answers:
        assert isinstance(answer, Scored)
        assert answer.score == alone[answer.bundle.id].score
        assert np.array_equal(answer.anomaly_map, alone[answer.bundle.id].anomaly_map)
