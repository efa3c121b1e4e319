"""A scorer that passes on to another one, which can be replaced between two frames.

Why one is replaced, and when it is let go, is `edge.swapping`'s. Nothing here waits for a disk.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from edge.outcome import NoScoreError
from edge.scorer import Answer, Question, Scorer
from inspection.bundle import Bundle
from inspection.errors import DualbankError, StationError
from inspection.golden import Tolerance
from inspection.verdicts import Reason

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Runner:
    """A scorer that is open, and what it takes to close it."""

    scorer: Scorer
    held: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True, slots=True)
class _Places:
    """Who scores, and who is kept beside it.

    Attributes:
        current: Is asked.
        kept: The one before, or the one that was sent back; it still takes canvases of its own.
        on_trial: Whether a failure of `current` sends it back.
    """

    current: _Runner
    kept: _Runner | None = None
    on_trial: bool = False


@dataclass(frozen=True, slots=True)
class _Batch:
    """What has been submitted: to whom, how many frames, or answers that need nobody any more."""

    runner: _Runner
    frames: int
    lost: list[Answer] | None = None


class RelayScorer:
    """A `Scorer` in the place of others, and of no bundle of its own.

    A canvas was made by the preprocessing of one bundle. It is scored by a scorer of that
    preprocessing, also after another one has taken over, so that no frame is lost between the two.

    Attributes:
        failure: Why the last one on trial was sent back; None if it was not.
    """

    def __init__(self, first: AbstractContextManager[Scorer]) -> None:
        self.failure: str | None = None
        self._first = first
        self._places: _Places | None = None
        self._under_way: deque[_Batch] = deque()
        # Any thread puts, the scorer's takes; one that returns False is tried again.
        self._wishes: SimpleQueue[tuple[Callable[[], bool], Future[None]]] = SimpleQueue()
        self._closed = False

    @contextmanager
    def opened(self) -> Iterator[Scorer]:
        """Open the first scorer, in the thread that is to score; at the end, close all."""
        with self._first as scorer:
            self._places = _Places(_Runner(scorer))
            try:
                yield self
            finally:
                self._closed = True
                self._cancel_wishes()
                for runner in (self._now.current, self._now.kept):
                    if runner is not None:
                        runner.held.close()

    # What any thread may ask. It happens between two frames.

    def replace(self, by: AbstractContextManager[Scorer]) -> Future[None]:
        """Let another scorer take over on trial; the present one is kept to go back to.

        Args:
            by: Entered in the scorer's thread. Frames wait meanwhile: what is slow belongs before.

        Returns:
            Done when it has taken over; it raises what `by` raised, and then nothing has changed.
        """
        return self._wish(lambda: self._replace(by))

    def go_back(self) -> Future[None]:
        """Put the one that is kept in the place of the one on trial, which is kept then."""
        return self._wish(self._go_back)

    def keep(self) -> Future[None]:
        """End the trial: who scores now is there to stay."""
        return self._wish(self._keep)

    def let_go(self, after_s: float = 0.0) -> Future[None]:
        """Close the one that is kept now, once it has nothing under way; that ends a trial, too.

        Args:
            after_s: How long canvases that were made for it are still scored; then they are
                answered without a score.
        """
        kept, ends_s = self._now.kept, time.monotonic() + after_s

        def done() -> bool:
            gone = self._now.kept is not kept  # another swap was faster
            return gone or (time.monotonic() >= ends_s and self._let_go())

        return self._wish(done)

    @property
    def can_go_back(self) -> bool:
        """Whether one is on trial, and the one before it is kept."""
        return self._now.on_trial and self._now.kept is not None

    # A `Scorer`.

    @property
    def name(self) -> str:
        """See `Scorer`."""
        return self._now.current.scorer.name

    @property
    def bundle(self) -> Bundle:
        """See `Scorer`."""
        return self._now.current.scorer.bundle

    @property
    def tolerance(self) -> Tolerance:
        """See `Scorer`."""
        return self._now.current.scorer.tolerance

    @property
    def depth(self) -> int:
        """See `Scorer`: as many as each of the two can take, for it may be that one's turn."""
        return min(each.scorer.depth for each in self._runners())

    @property
    def most_frames(self) -> int:
        """See `Scorer`, and `depth`."""
        return min(each.scorer.most_frames for each in self._runners())

    def question(self, image: NDArray[np.uint8], product: str | None) -> Question:
        """See `Scorer`."""
        scorer = self._now.current.scorer
        asked = scorer.question(image, product)
        return replace(asked, made_by=scorer.bundle.preprocessing) if asked.is_canvas else asked

    def submit(self, questions: Sequence[Question]) -> None:
        """See `Scorer`."""
        runner = self._who_takes(questions[0])
        batch = _Batch(runner or self._now.current, len(questions))
        if runner is None:
            self._under_way.append(_lost(batch, "the bundle it was prepared for has been let go"))
            return
        self._under_way.append(batch)
        with self._sent_back_if_it_fails(runner):
            runner.scorer.submit(questions)

    def poll(self) -> list[Answer] | None:
        """See `Scorer`."""
        if not self._under_way:
            return None
        batch = self._under_way[0]
        if batch.lost is None:
            with self._sent_back_if_it_fails(batch.runner):
                answers = batch.runner.scorer.poll()
                if answers is None:
                    return None
                self._under_way.popleft()
                self._look_at(batch.runner, answers)
                return answers
        # Also when it has failed just now: what was under way has become lost.
        lost = self._under_way.popleft().lost
        assert lost is not None
        return lost

    def expected_ms(self, frames: int) -> float:
        """See `Scorer`."""
        return self._now.current.scorer.expected_ms(frames)

    def offer(self, bundle: Bundle) -> None:
        """See `Scorer`."""
        self.failure = None
        self._now.current.scorer.offer(bundle)

    def tend(self) -> None:
        """See `Scorer`; this is where one takes another's place."""
        for wish in list(self._take_wishes()):
            do, told = wish
            try:
                if do():
                    told.set_result(None)
                else:
                    self._wishes.put(wish)
            # Whatever it is: who wished it is told, and what runs goes on.
            except Exception as error:  # noqa: BLE001
                told.set_exception(error)
        for runner in self._runners():
            with self._sent_back_if_it_fails(runner):
                runner.scorer.tend()

    # In the scorer's thread.

    @property
    def _now(self) -> _Places:
        assert self._places is not None
        return self._places

    def _runners(self) -> list[_Runner]:
        places = self._now
        return [places.current] if places.kept is None else [places.current, places.kept]

    def _replace(self, by: AbstractContextManager[Scorer]) -> bool:
        if not self._let_go():
            return False
        before, held = self._now.current, ExitStack()
        runner = _Runner(held.enter_context(by), held)
        self.failure = None
        self._places = _Places(runner, kept=before, on_trial=True)
        return True

    def _go_back(self) -> bool:
        places = self._now
        if places.kept is None or not places.on_trial:
            raise StationError("there is no scorer to go back to; the running one was not on trial")
        self._places = _Places(places.kept, kept=places.current)
        return True

    def _keep(self) -> bool:
        self._places = replace(self._now, on_trial=False)
        return True

    def _let_go(self) -> bool:
        kept = self._now.kept
        if any(batch.runner is kept and batch.lost is None for batch in self._under_way):
            return False
        self._places = _Places(self._now.current)
        if kept is not None:
            kept.held.close()
        return True

    def _who_takes(self, question: Question) -> _Runner | None:
        """Choose who scores: the current one if it can, else the one that is kept, if it can."""
        if not question.is_canvas or question.made_by is None:
            return self._now.current
        for runner in self._runners():
            if runner.scorer.bundle.preprocessing == question.made_by:
                return runner
        return None

    def _look_at(self, runner: _Runner, answers: Sequence[Answer]) -> None:
        """Send one on trial back when it does not answer: the next frame may be answered."""
        for answer in answers:
            if isinstance(answer, NoScoreError) and answer.reason is Reason.SCORER_FAILED:
                if self._is_on_trial(runner):
                    self._send_back(str(answer))
                return

    @contextmanager
    def _sent_back_if_it_fails(self, runner: _Runner) -> Iterator[None]:
        """Keep what one on trial raises from ending the station; of others it does."""
        try:
            yield
        # Whatever it is: one that has been proven is there, and goes on.
        except Exception as error:
            if not self._is_on_trial(runner):
                raise
            self._send_back(f"{type(error).__name__}: {error}")

    def _is_on_trial(self, runner: _Runner) -> bool:
        return self._now.on_trial and runner is self._now.current

    def _send_back(self, why: str) -> None:
        failed = self._now.current
        # What it was given is lost.
        answers: list[Answer] = [NoScoreError(Reason.SCORER_FAILED, why)]
        self._under_way = deque(
            replace(batch, lost=answers * batch.frames)
            if batch.runner is failed and batch.lost is None
            else batch
            for batch in self._under_way
        )
        self._go_back()
        # Nor are canvases that were made for it scored by it: it has shown that it cannot.
        try:
            self._let_go()
        except DualbankError as error:
            log.warning("closing a scorer that failed", extra={"error": error})
        self.failure = why
        log.error("scorer on trial failed; the one before scores on", extra={"why": why})

    def _wish(self, do: Callable[[], bool]) -> Future[None]:
        told: Future[None] = Future()
        self._wishes.put((do, told))
        if self._closed:
            self._cancel_wishes()
        return told

    def _take_wishes(self) -> Iterator[tuple[Callable[[], bool], Future[None]]]:
        with suppress(Empty):
            while True:
                yield self._wishes.get_nowait()

    def _cancel_wishes(self) -> None:
        for _, told in self._take_wishes():
            told.set_exception(StationError("the station has ended"))


def _lost(batch: _Batch, why: str) -> _Batch:
    answer = NoScoreError(Reason.SCORER_FAILED, why)
    return replace(batch, lost=[answer] * batch.frames)
