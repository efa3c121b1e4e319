"""Which scorer a station runs: a GPU while it lives, the CPU where there is none or it has died.

Frames that were under way when a GPU died are answered without a score; the station goes on.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import numpy as np
from numpy.typing import NDArray

from edge.device import open_device
from edge.gpu_scorer import GpuScorer, open_gpu_scorer
from edge.onnx_scorer import OnnxScorer
from edge.outcome import NoScoreError
from edge.scorer import Answer, Provable, Question, Scorer
from edge.settings import StationSettings
from edge.streams import DeviceHangsError
from edge.tensorrt_engine import engine_of, installed, open_engine
from inspection.bundle import Bundle
from inspection.engines import TOLERANCE, EngineKey, is_engine
from inspection.errors import DeviceError, InputError, ParityError
from inspection.golden import EXACT, Tolerance
from inspection.verdicts import Reason

log = logging.getLogger(__name__)

MOST_RESTARTS = 3
"""How often within an hour a GPU is opened again: one that keeps failing costs frames each time."""

RESTARTS_WITHIN_S = 3600.0

OpenGpu = Callable[[Bundle], AbstractContextManager[Scorer]]
OpenCpu = Callable[[Bundle], Scorer]
Prove = Callable[[Bundle, Provable, Tolerance], None]


class StandbyScorer:
    """A `Scorer` that outlives its GPU; made by `open_scorer`.

    A GPU that reports an error is opened again. One that hangs cannot be: freeing what it holds
    would wait for it, so that everything of it is left as it is, and the CPU scores.
    """

    def __init__(
        self,
        bundle: Bundle,
        open_gpu: OpenGpu,
        open_cpu: OpenCpu,
        clock_s: Callable[[], float] = time.monotonic,
        died: Callable[[], object] = lambda: None,
    ) -> None:
        self._died = died
        self._open_gpu, self._open_cpu, self._clock_s = open_gpu, open_cpu, clock_s
        self._held = ExitStack()
        self._left_hanging: list[ExitStack] = []
        self._restarts_s: deque[float] = deque(maxlen=MOST_RESTARTS)
        self._under_way: deque[int] = deque()
        self._lost: deque[list[Answer]] = deque()
        self._scorer: Scorer = self._held.enter_context(open_gpu(bundle))

    @property
    def name(self) -> str:
        """See `Scorer`."""
        return self._scorer.name

    @property
    def bundle(self) -> Bundle:
        """See `Scorer`."""
        return self._scorer.bundle

    @property
    def tolerance(self) -> Tolerance:
        """See `Scorer`."""
        return self._scorer.tolerance

    @property
    def depth(self) -> int:
        """See `Scorer`."""
        return self._scorer.depth

    @property
    def most_frames(self) -> int:
        """See `Scorer`."""
        return self._scorer.most_frames

    def question(self, image: NDArray[np.uint8], product: str | None) -> Question:
        """See `Scorer`."""
        return self._scorer.question(image, product)

    def submit(self, questions: Sequence[Question]) -> None:
        """See `Scorer`; a batch that meets the GPU's death here is answered without scores."""
        self._under_way.append(len(questions))
        try:
            self._scorer.submit(questions)
        except DeviceError as error:
            self._replace_gpu(error)

    def poll(self) -> list[Answer] | None:
        """See `Scorer`."""
        if self._lost:
            return self._lost.popleft()
        try:
            answers = self._scorer.poll()
        except DeviceError as error:
            self._replace_gpu(error)
            return self._lost.popleft()
        if answers is not None:
            self._under_way.popleft()
        return answers

    def expected_ms(self, frames: int) -> float:
        """See `Scorer`."""
        return self._scorer.expected_ms(frames)

    def offer(self, bundle: Bundle) -> None:
        """See `Scorer`."""
        self._scorer.offer(bundle)

    def tend(self) -> None:
        """See `Scorer`."""
        try:
            self._scorer.tend()
        except DeviceError as error:
            self._replace_gpu(error)

    def close(self) -> None:
        """Give back what can be given back."""
        self._held.close()

    def _replace_gpu(self, error: DeviceError) -> None:
        """Answer what was under way, then open the GPU again or put the CPU in its place."""
        bundle, name = self._scorer.bundle, self._scorer.name
        failed = NoScoreError(Reason.SCORER_FAILED, f"{name}: {error}")
        self._lost.extend([failed] * frames for frames in self._under_way)
        lost = sum(self._under_way)
        self._under_way.clear()
        self._died()
        log.error("GPU failed", extra={"scorer": name, "error": error, "frames_lost": lost})
        if isinstance(error, DeviceHangsError):
            self._left_hanging.append(self._held.pop_all())
        else:
            self._close_dead()
            if self._may_restart() and self._reopened(bundle):
                return
        self._scorer = self._open_cpu(bundle)
        log.error("scoring on the CPU from here on", extra={"scorer": self._scorer.name})

    def _close_dead(self) -> None:
        try:
            self._held.close()
        except DeviceError as error:
            # In a broken context every call fails; the context's end frees what it held.
            log.warning("closing a GPU that failed", extra={"error": error})

    def _may_restart(self) -> bool:
        now_s = self._clock_s()
        often = len(self._restarts_s) == MOST_RESTARTS
        if often and now_s - self._restarts_s[0] < RESTARTS_WITHIN_S:
            return False
        self._restarts_s.append(now_s)
        return True

    def _reopened(self, bundle: Bundle) -> bool:
        try:
            self._scorer = self._held.enter_context(self._open_gpu(bundle))
        except (DeviceError, ParityError) as error:
            log.error("the GPU cannot be opened again", extra={"error": error})
            return False
        log.warning("GPU opened again", extra={"scorer": self._scorer.name})
        return True


@contextmanager
def open_scorer(
    settings: StationSettings,
    bundle: Bundle,
    prove: Prove,
    died: Callable[[], object] = lambda: None,
) -> Iterator[Scorer]:
    """Hold the scorer that the settings ask for, proven on golden frames.

    Args:
        settings: `scorer`, and how it is to run.
        bundle: Judges.
        prove: Raises ParityError if a scorer does not give the golden answers within a tolerance.
        died: Called each time that a GPU has failed.

    Raises:
        BundleError: A graph cannot be loaded.
        ParityError: The CPU, or the GPU that was asked for, gives other answers.
        DeviceError: A GPU was asked for, and cannot be used.
    """

    def open_cpu(bundle: Bundle) -> OnnxScorer:
        scorer = OnnxScorer(bundle, settings.scorer_threads)
        prove(bundle, scorer, EXACT)
        return scorer

    @contextmanager
    def open_gpu(bundle: Bundle) -> Iterator[Scorer]:
        with open_engine_scorer(bundle, settings) as (scorer, key):
            prove(bundle, scorer, TOLERANCE[key.precision])
            yield scorer

    with ExitStack() as held:
        without = settings.scorer == "auto" and not any(map(is_engine, bundle.manifest.files))
        if settings.scorer == "cpu" or without:
            yield open_cpu(bundle)
            return
        try:
            scorer = StandbyScorer(bundle, open_gpu, open_cpu, died=died)
        except (DeviceError, ParityError) as error:
            if settings.scorer == "gpu":
                raise
            log.warning("no GPU scores", extra={"why": error})
            yield open_cpu(bundle)
            return
        held.callback(scorer.close)
        yield scorer


@contextmanager
def open_engine_scorer(
    bundle: Bundle, settings: StationSettings, key: EngineKey | None = None
) -> Iterator[tuple[GpuScorer, EngineKey]]:
    """Hold a scorer of the bundle's engine for this machine, or of a certain one.

    Raises:
        DeviceError: There is no GPU, no engine for it, or it does not work.
    """
    with open_device(settings.gpu) as device:
        libraries = installed()
        versions = {name: str(module.__version__) for name, module in libraries.items()}
        fit = engine_of(bundle, versions, device.capability, key)
        data = bundle.file(fit.name)
        with ExitStack() as held:
            trunk = held.enter_context(open_engine(fit.name, data, libraries[fit.provider]))
            opened = open_gpu_scorer(device, trunk, bundle, settings.slots, settings.batch_frames)
            try:
                scorer = held.enter_context(opened)
            except InputError as error:
                raise DeviceError(f"the GPU cannot run this bundle: {error}") from error
            scorer.tolerance = TOLERANCE[fit.precision]
            yield scorer, fit
