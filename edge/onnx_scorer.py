"""Scores frames on the CPU: the bundle's `full.onnx` under ONNX Runtime, float32."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from edge.outcome import NoScoreError
from edge.resize import prepare_frame
from edge.scorer import Answer, Question, Scored, check_same_trunk, route_of
from inspection.bundle import ANY_PRODUCT, FULL, TRUNK, Bundle, Feeds, Route
from inspection.errors import BundleError
from inspection.golden import EXACT
from inspection.verdicts import Reason
from inspection.views import recognised_patches

# ONNX Runtime's exceptions have no common parent but Exception.
_RUN_FAILURES = (
    failures.EPFail,
    failures.EngineError,
    failures.Fail,
    failures.InvalidArgument,
    failures.NotImplemented,
    failures.RuntimeException,
    MemoryError,
)
_LOAD_FAILURES = (*_RUN_FAILURES, failures.InvalidGraph, failures.InvalidProtobuf)

_OUTPUTS = {"anomaly_map", "image_score", "patch_features"}


class OnnxScorer:
    """A `Scorer` of one frame at a time, and the reference for every faster one."""

    name = "full.onnx on the CPU"
    depth = most_frames = 1
    tolerance = EXACT

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        """Load the graph, and the trunk alone where products must be told apart.

        Args:
            bundle: Gives the graphs and, at every frame, the banks.
            threads: For one frame; 0 leaves it to ONNX Runtime, which takes every core.

        Raises:
            BundleError: A graph cannot be loaded, or has other inputs and outputs.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        # Spinning workers take whole cores from the decoder while they wait for the next frame.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        fed = {"frames", "places", "foreground", *bundle.bank_feeds(bundle.routes[ANY_PRODUCT])}
        self._session = _load(bundle, FULL, options, fed, _OUTPUTS)
        self._trunk = None
        if bundle.route(None).category is None:
            self._trunk = _load(bundle, TRUNK, options, {"frames"}, {"patch_features"})
        self.bundle = bundle
        self._answers: deque[list[Answer]] = deque()

    def canvas_of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an (H, W, 3) uint8 frame to its canvas."""
        return prepare_frame(image, self.bundle.preprocessing)

    def question(self, image: NDArray[np.uint8], product: str | None) -> Question:
        """Resize the frame. See `Scorer`."""
        return Question(self.canvas_of(image), True, product)

    def submit(self, questions: Sequence[Question]) -> None:
        """Score at once. See `Scorer`."""
        self._answers.append([self._answer(question) for question in questions])

    def poll(self) -> list[Answer] | None:
        """See `Scorer`."""
        return self._answers.popleft() if self._answers else None

    def expected_ms(self, frames: int) -> float:
        """See `Scorer`: there is no choice to make by it, a batch is one frame."""
        return 0.0

    def offer(self, bundle: Bundle) -> None:
        """See `Scorer`: banks and heads are read from the bundle at every frame."""
        check_same_trunk(self.bundle, bundle)
        self.bundle = bundle

    def tend(self) -> None:
        """See `Scorer`: nothing lies waiting."""

    def score(self, prepared: NDArray[np.uint8], route: Route) -> Scored:
        """Score a canvas, (8 · Mh, 8 · Mw, 3) uint8, by a route of the bundle.

        Views are run one by one, so that memory does not grow with the frame.

        Raises:
            NoScoreError: The model gave no answer; the next frame may be tried.
        """
        bundle, grid = self.bundle, self.bundle.preprocessing.grid
        anomaly_map = bundle.over_views(
            prepared, route, lambda feeds: _run(self._session, "anomaly_map", feeds, grid)
        )
        return Scored(anomaly_map, bundle.image_score(anomaly_map, route), route, bundle)

    def patch_features(self, prepared: NDArray[np.uint8], route: Route) -> NDArray[np.float32]:
        """Give the (Mh, Mw, D) features behind a score, for the comparison with the oracle."""
        return self.bundle.over_views(
            prepared, route, lambda feeds: self._features(self._session, feeds)
        )

    def recognise(self, prepared: NDArray[np.uint8]) -> Route:
        """Choose the route of a canvas whose product nobody has named.

        The trunk runs again before the bank scan; with the rows of one product that still takes
        far less than the rows of all.

        Raises:
            NoScoreError: As `score`.
        """
        if self._trunk is None:
            return self.bundle.route(None)
        trunk, spec = self._trunk, self.bundle.preprocessing
        return self.bundle.recognise(
            recognised_patches(
                prepared, spec, lambda pixels: self._features(trunk, {"frames": pixels[None]})
            )
        )

    def _answer(self, question: Question) -> Answer:
        canvas = question.pixels if question.is_canvas else self.canvas_of(question.pixels)
        try:
            return self.score(canvas, route_of(question, self.bundle) or self.recognise(canvas))
        except NoScoreError as error:
            return error

    def _features(self, session: onnxruntime.InferenceSession, feeds: Feeds) -> NDArray[np.float32]:
        spec = self.bundle.preprocessing
        features = _run(session, "patch_features", feeds, (spec.patches,))
        return features.reshape(*spec.grid, -1)  # (P, D) → (Gh, Gw, D)


def _run(
    session: onnxruntime.InferenceSession,
    output: str,
    feeds: Feeds,
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """Give one output for the one view that is fed, as `shape` and what lies behind it.

    Raises:
        NoScoreError: The graph cannot be run, or answers in another shape.
    """
    try:
        (answer,) = session.run([output], feeds)
    except _RUN_FAILURES as error:
        raise NoScoreError(Reason.SCORER_FAILED, f"ONNX Runtime: {error}") from error
    if answer.shape[: 1 + len(shape)] != (1, *shape):
        raise NoScoreError(
            Reason.SCORER_FAILED, f"expected {output} {(1, *shape)}, got {answer.shape}"
        )
    return np.asarray(answer[0])


def _load(
    bundle: Bundle,
    graph: str,
    options: onnxruntime.SessionOptions,
    inputs: set[str],
    outputs: set[str],
) -> onnxruntime.InferenceSession:
    try:
        session = onnxruntime.InferenceSession(
            bundle.file(graph), options, providers=["CPUExecutionProvider"]
        )
    except _LOAD_FAILURES as error:
        raise BundleError(f"ONNX Runtime cannot load {graph}: {error}") from error
    _check_names(f"{graph} must have the inputs", inputs, session.get_inputs())
    _check_names(f"{graph} must have the outputs", outputs, session.get_outputs())
    return session


def _check_names(demand: str, expected: set[str], found: Sequence[Any]) -> None:
    names = {each.name for each in found}
    if names != expected:
        raise BundleError(f"{demand} {sorted(expected)}, got {sorted(names)}")
