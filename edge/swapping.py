"""Swaps a bundle while the station runs. Only this module knows the order.

    verify ─► load ─► prove ─► shadow ─► record ─► activate ─► probation ─► keep, or roll back

Everything up to `record` happens beside the running bundle and leaves it alone. The record comes
before the activation: whenever the process dies in between or on probation, a start finds that it
did, and runs the bundle before. All of it has a thread of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge.bundle_store import BundleStore, Record, Watch
from edge.decode import decode
from edge.first_bundle import FirstBundle, rolled_back
from edge.judging import judge_frame
from edge.onnx_scorer import OnnxScorer
from edge.outcome import NoScoreError, Outcome, unknown
from edge.relay import RelayScorer
from edge.scorer import Provable, Scorer
from edge.settings import StationSettings
from edge.shadow import REST, run_in_shadow
from edge.sightings import Sighting, Sightings
from edge.swap_desk import SwapDesk
from edge.trial import Mix, Probation
from edge.workers import Ready, Worker, out_of_the_way
from inspection.bundle import Bundle
from inspection.control_messages import ControlRequest, SwapState, Terms
from inspection.errors import DualbankError, InputError, StationError
from inspection.verdicts import Reason

log = logging.getLogger(__name__)

TICK_S = 0.1
"""Between two looks at a probation."""

TAKE_OVER_S = 30.0
"""How long rows may take to be staged on a GPU."""

RETRY_S = 5.0
"""Between two attempts to record that a bundle stays."""

GRACE_S = 5.0
"""Canvases that were made for the bundle before are on their way for so long at most."""

JOIN_S = 5.0

ASKED_FOR = "asked for"

Prove = Callable[[Bundle, Provable, Callable[[], None]], None]
"""Raises ParityError unless all golden frames have their answers; calls what it was given between
two of them."""

OpenScorer = Callable[[Bundle], AbstractContextManager[Scorer]]
"""Opens a scorer on the GPU, in the scorer's thread."""


@dataclass(frozen=True, slots=True)
class Means:
    """What swapping is done with.

    Attributes:
        prove: See `Prove`.
        open_gpu: See `OpenScorer`; of use only where a GPU scores.
        rest: See `run_in_shadow`.
        fault: Called at every point where a test lets the process die, with the point's name.
    """

    prove: Prove
    open_gpu: OpenScorer
    rest: float = REST
    fault: Callable[[str], None] = lambda _: None


class Swapping:
    """Takes bundles in, tries them, and puts them in place or back; made before the station runs.

    Attributes:
        desk: Where it is asked, and where its state is.
        sightings: What the route tells of its verdicts.
    """

    def __init__(
        self,
        settings: StationSettings,
        first: FirstBundle,
        store: BundleStore,
        relay: RelayScorer,
        means: Means,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        record = first.record
        self.sightings = Sightings(record.running)
        self.desk = SwapDesk(
            SwapState(running=record.running, previous=record.previous, why=record.why), clock_s
        )
        self._settings, self._store, self._relay, self._means = settings, store, relay, means
        self._record, self._resumed, self._clock_s = record, first.watch, clock_s

    @contextmanager
    def running(self) -> Iterator[None]:
        """Swap what is asked for, from when the scorer is open until it is about to end."""
        worker = Worker("swap", self._work, _has_been_logged)
        try:
            yield
        finally:
            self.desk.close()
            if not worker.join(JOIN_S):
                log.error("swap hangs; it is left as it is")

    def ended_in_order(self) -> None:
        """After the station has ended in good order: let a probation go on at the next start.

        Raises:
            StationError: That cannot be recorded.
        """
        if self._record.watch is None:
            return
        if self._relay.failure is not None:
            self._write(rolled_back(self._record, self._relay.failure))
        else:
            self._write(self._record.model_copy(update={"stopped": True}))

    # What is done, in the thread of its own.

    def _work(self, ready: Ready) -> None:
        ready()
        if (watch := self._resumed) is not None:
            self.desk.enter("probation", candidate=self._record.running)
            self._watch(Probation(watch.terms, Mix(watch.before_judged, watch.before_flagged)))
        while (request := self.desk.take()) is not None:
            try:
                self._bring_back() if request.ask == "rollback" else self._swap(request)
            except DualbankError as error:
                self._refuse(str(error))
            # A fault of ours, or no memory: what runs goes on.
            except Exception as error:
                log.exception("swap failed")
                self._refuse(f"{type(error).__name__}: {error}")

    def _swap(self, request: ControlRequest) -> None:
        assert request.bundle is not None
        terms = request.terms
        bundle = self._verified(Path(request.bundle))
        self.desk.enter("loading")
        scorer = OnnxScorer(bundle, self._settings.scorer_threads)
        self.desk.enter("proving")
        out_of_the_way(lambda: self._means.prove(bundle, scorer, self.desk.go_on))
        if terms.shadow_frames:
            self.desk.enter("shadow")
            judge, rest = partial(self._judged_beside, scorer), self._means.rest
            out_of_the_way(lambda: run_in_shadow(terms, self.sightings, self.desk, judge, rest))
        self.desk.enter("activating")
        probation = self._activated(bundle, scorer, terms)
        self.desk.enter("probation", running=bundle.id, previous=self._record.previous)
        self._watch(probation)

    def _verified(self, source: Path) -> Bundle:
        bundle = self._store.take_in(source, self.desk.go_on)
        self.desk.note(candidate=bundle.id)
        if bundle.id == self._record.running:
            raise InputError(f"bundle {bundle.id[:12]} runs already; there is nothing to swap")
        log.info("swap: bundle verified", extra={"bundle": bundle.id[:12], "from": source})
        return bundle

    def _judged_beside(self, scorer: OnnxScorer, sighting: Sighting) -> Outcome:
        frame, question = sighting[0], sighting[0].question
        if not question.is_canvas or question.made_by != scorer.bundle.preprocessing:
            image = decode(frame.arrival.frame, self._settings.max_frame_bytes)
            question = scorer.question(image, question.product)
        scorer.submit([question])
        answer = (scorer.poll() or [])[0]  # the CPU has scored at once
        if not isinstance(answer, NoScoreError):
            return judge_frame(frame, answer)
        if answer.reason is Reason.SCORER_FAILED:
            raise answer
        return unknown(frame.arrival.receipt, scorer.bundle, answer.reason, str(answer))

    def _activated(self, bundle: Bundle, scorer: OnnxScorer, terms: Terms) -> Probation:
        before, fault = self._record, self._means.fault
        mix = self.sightings.mix(before.running)
        watch = Watch(terms=terms, before_judged=mix.judged, before_flagged=mix.flagged)
        self.sightings.follow(before.running, bundle.id)
        fault("before the record")
        self._write(
            before.model_copy(
                update={
                    "running": bundle.id,
                    "previous": before.running,
                    "watch": watch,
                    "stopped": False,
                    "why": None,
                }
            )
        )
        fault("recorded, not active")
        try:
            self._put_in_place(bundle, scorer)
        except BaseException:
            self._write(before)
            raise
        fault("active")
        log.warning(
            "bundle activated", extra={"bundle": bundle.id[:12], "before": before.running[:12]}
        )
        self.desk.note(swaps=self.desk.state().swaps + 1)
        return Probation(terms, mix)

    def _watch(self, probation: Probation) -> None:
        """Keep the bundle, or send it back; leaves it on probation when the station ends."""
        running = self._record.running
        ends_s = self._clock_s() + probation.terms.probation_s
        while not self.desk.is_closed:
            now, left_s = self.sightings.mix(running), ends_s - self._clock_s()
            self.desk.note(probation=probation.report(now, max(0.0, left_s)))
            why = self._relay.failure or self.sightings.failure(running) or probation.objection(now)
            if why or self.desk.wants_rollback:
                self._roll_back(why or ASKED_FOR)
                return
            if left_s <= 0 and self._is_kept():
                return
            self.desk.wait(TICK_S)

    def _is_kept(self) -> bool:
        """Record that the bundle stays; while that cannot be recorded, it stays on probation."""
        self._means.fault("before it is kept")
        try:
            self._write(self._record.model_copy(update={"watch": None}))
        except StationError as error:
            if self.desk.state().why != str(error):
                log.error("bundle stays on probation", extra={"why": error})
                self.desk.note(why=str(error))
            self.desk.wait(RETRY_S)
            return False
        self._means.fault("kept")
        self._relay.keep().result()
        if self._relay.failure is not None:
            # In the very moment between the two.
            self._roll_back(self._relay.failure)
            return True
        self._relay.let_go(GRACE_S)
        self._clear_away()
        log.warning("bundle kept", extra={"bundle": self._record.running[:12]})
        self.desk.enter("steady", why=None)
        return True

    def _roll_back(self, why: str) -> None:
        """Put the one before back in place. Until it is recorded, a start would do the same."""
        gone = self._record
        assert gone.previous is not None
        if self._relay.can_go_back:
            self._relay.go_back().result()
        elif self._relay.failure is None:
            self._put_in_place(self._store.open(gone.previous, self._record))
        self._means.fault("rolled back, not recorded")
        log.error("bundle rolled back", extra={"bundle": gone.running[:12], "why": why})
        try:
            self._write(rolled_back(gone, why))
        except StationError as error:
            log.error("a rollback is not recorded; a start would find it", extra={"why": error})
            self._record = rolled_back(gone, why)
        self._relay.let_go(GRACE_S)
        self._is_back(why)

    def _bring_back(self) -> None:
        """Run the bundle before again, by request, when the present one has long been kept."""
        gone = self._record
        assert gone.previous is not None
        bundle = self._store.open(gone.previous, self._record)
        scorer = self._loaded(bundle) if self._is_on_cpu else None
        self._write(rolled_back(gone, ASKED_FOR))
        try:
            self._put_in_place(bundle, scorer)
        except BaseException:
            self._write(gone)
            raise
        log.warning("bundle brought back by request", extra={"bundle": bundle.id[:12]})
        self._relay.keep().result()
        self._relay.let_go(GRACE_S)
        self._is_back(ASKED_FOR)

    def _is_back(self, why: str) -> None:
        running, rollbacks = self._record.running, self.desk.state().rollbacks + 1
        self.sightings.follow(running)
        self._clear_away()
        now = {"running": running, "previous": None, "rollbacks": rollbacks}
        self.desk.enter("rolled_back", why=why, **now)

    def _refuse(self, why: str) -> None:
        log.error("swap refused", extra={"why": why})
        self._clear_away()
        self.desk.enter("refused", why=why)

    # Scorers, bundles and the record.

    @property
    def _is_on_cpu(self) -> bool:
        return self._relay.name == OnnxScorer.name

    def _put_in_place(self, bundle: Bundle, scorer: OnnxScorer | None = None) -> None:
        """Let a bundle take over between two frames; returns when it has.

        On a GPU, rows of the same trunk are staged while frames go on. Another trunk is opened in
        the thread that scores, and frames wait until it is.

        Raises:
            DualbankError: It cannot, and nothing has changed.
        """
        if self._is_on_cpu:
            opened: Scorer = scorer or self._loaded(bundle)
            self._relay.replace(nullcontext(opened)).result()
            return
        before = self._relay.bundle
        try:
            self._relay.offer(bundle)
        except InputError:
            self._relay.replace(self._means.open_gpu(bundle)).result()
            return
        ends_s = self._clock_s() + TAKE_OVER_S
        while self._relay.bundle.id != bundle.id:
            if self.desk.is_closed or self._clock_s() > ends_s:
                # The last one offered counts.
                self._relay.offer(before)
                raise StationError(f"the GPU did not take over within {TAKE_OVER_S:g} s")
            time.sleep(TICK_S / 10)

    def _loaded(self, bundle: Bundle) -> OnnxScorer:
        """Open and prove a scorer of a bundle that has run here before."""
        scorer = OnnxScorer(bundle, self._settings.scorer_threads)
        self._means.prove(bundle, scorer, lambda: None)
        return scorer

    def _write(self, record: Record) -> None:
        self._store.write(record)
        self._record = record

    def _clear_away(self) -> None:
        self._store.forget_all_but(self._record.running, self._record.previous)


def _has_been_logged(_: BaseException) -> None:
    """The line goes on without swaps."""
