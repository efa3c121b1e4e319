"""A route of one thread with a relay in it, and a swap beside it; as a program, one that dies.

    python -m tests.edge.swapping_line STATE_DIR CONFIGURED NEW POINT

It is killed by SIGKILL at that point of a swap from one bundle to the other.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.admission import Origin
from edge.bundle_store import BundleStore
from edge.check import prove_beside
from edge.first_bundle import FirstBundle, choose_bundle
from edge.health import Stopwatch
from edge.judging import judge_frame
from edge.onnx_scorer import OnnxScorer
from edge.outcome import Arrival, NoScoreError, Outcome, Receipt, unknown
from edge.relay import RelayScorer
from edge.scorer import PreparedFrame, Scorer
from edge.settings import StationSettings
from edge.swapping import Means, Swapping
from inspection.control_messages import AT_REST, ControlRequest, Step, SwapState, Terms
from inspection.messages import Frame, FrameHeader

PATIENCE_S = 30.0


class Line:
    """Scores one frame at a time, as `score_all` would, and tells what it saw."""

    def __init__(self, first: FirstBundle, store: BundleStore, means: Means, **options) -> None:
        scorer: AbstractContextManager[Scorer] = nullcontext(OnnxScorer(first.bundle, 1))
        self.relay = RelayScorer(options.pop("scorer", scorer))
        self.settings = StationSettings(state_dir=store._state_dir, scorer_threads=1)
        self.swapping = Swapping(self.settings, first, store, self.relay, means)
        self.outcomes: list[Outcome] = []
        self._frames: queue.SimpleQueue[NDArray[np.uint8] | None] = queue.SimpleQueue()
        self._open = threading.Event()
        self._seq = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        route = threading.Thread(target=self._score, daemon=True)
        route.start()
        assert self._open.wait(PATIENCE_S)
        try:
            with self.swapping.running():
                yield
        finally:
            self._frames.put(None)
            route.join(PATIENCE_S)

    def send(self, image: NDArray[np.uint8], count: int = 1) -> list[Outcome]:
        """Have an image judged so many times, and give what was said."""
        before = len(self.outcomes)
        for _ in range(count):
            self._frames.put(image)
        self.until(lambda: len(self.outcomes) == before + count)
        return self.outcomes[before:]

    def ask(self, ask: str, bundle: Path | None = None, **terms) -> SwapState:
        """Ask for something that must be granted."""
        path = str(bundle) if bundle else None
        request = ControlRequest(ask=ask, bundle=path, terms=Terms(**terms))
        reply = self.swapping.desk.ask(request)
        assert reply.granted, reply.why
        return reply.state

    def at(self, *steps: Step) -> SwapState:
        """Wait for a step."""
        self.until(lambda: self.swapping.desk.state().step in steps)
        return self.swapping.desk.state()

    def ended(self) -> SwapState:
        """Wait for the end of what was asked."""
        return self.at(*AT_REST)

    def until(self, done: Callable[[], bool]) -> None:
        ends_s = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < ends_s, self.swapping.desk.state()
            time.sleep(0.005)

    def _score(self) -> None:
        with self.relay.opened() as scorer:
            self._open.set()
            while True:
                scorer.tend()
                try:
                    image = self._frames.get(timeout=0.005)
                except queue.Empty:
                    continue
                if image is None:
                    return
                frame = self._prepared(image)
                scorer.submit([frame.question])
                while (answers := scorer.poll()) is None:
                    scorer.tend()
                self._judge(frame, answers[0])

    def _prepared(self, image: NDArray[np.uint8]) -> PreparedFrame:
        header = FrameHeader(
            camera="left", session="s", seq=self._seq, encoding="raw", shape=list(image.shape)
        )
        self._seq += 1
        origin, stopwatch = Origin("frames"), Stopwatch(time.monotonic_ns, 0)
        receipt = Receipt(header.frame_name, "bolt", stopwatch, 0, None, origin)
        arrival = Arrival(receipt, Frame(header, image.tobytes()))
        return PreparedFrame(arrival, self.relay.question(image, "bolt"), image.shape[:2])

    def _judge(self, frame: PreparedFrame, answer) -> None:
        if isinstance(answer, NoScoreError):
            receipt = frame.arrival.receipt
            outcome = unknown(receipt, self.relay.bundle, answer.reason, str(answer))
            self.swapping.sightings.saw(outcome)
        else:
            outcome = judge_frame(frame, answer)
            self.swapping.sightings.saw(outcome, frame)
        self.outcomes.append(outcome)


def main() -> None:
    state_dir, configured, new, point = sys.argv[1:]

    def dies_at(here: str) -> None:
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def first_dies_at(here: str, do: Callable[..., None]) -> Callable[..., None]:
        def done(*words: object) -> None:
            dies_at(here)
            do(*words)

        return done

    os.fsync = first_dies_at("copied in part", os.fsync)
    os.rename = first_dies_at("copied, not named", os.rename)
    os.replace = first_dies_at("record written, not in place", os.replace)
    store = BundleStore(Path(state_dir))
    first = choose_bundle(Path(configured), store)
    line = Line(first, store, Means(prove_beside, nullcontext, fault=dies_at))
    with line.running():
        probation_s = 60.0 if point.startswith("rolled back") else 0.05
        line.ask("swap", Path(new), shadow_frames=0, probation_s=probation_s)
        if point.startswith("rolled back"):
            line.at("probation")
            line.ask("rollback")
        line.ended()


if __name__ == "__main__":
    main()
