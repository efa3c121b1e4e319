"""Scores prepared frames. This is the CPU's way: the bundle's `full.onnx` under ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from edge.outcome import NoScoreError
from inspection.bundle import ANY_PRODUCT, FULL, TRUNK, Bundle, Route
from inspection.errors import BundleError
from inspection.verdicts import Reason

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


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model says of one frame.

    Attributes:
        anomaly_map: (Gh, Gw) float32, in units of feature distance.
        score: Raw image score; NaN if the map holds one.
    """

    anomaly_map: NDArray[np.float32]
    score: float


class Scorer(Protocol):
    """Compares a prepared frame with the banks."""

    def score(self, prepared: NDArray[np.uint8], route: Route) -> Scored:
        """Score an (S, S, 3) uint8 frame by a route of the scorer's bundle.

        Raises:
            NoScoreError: The model gave no answer; the next frame may be tried.
        """
        ...

    def recognise(self, prepared: NDArray[np.uint8]) -> Route:
        """Choose the route of an (S, S, 3) uint8 frame whose product nobody has named.

        Raises:
            NoScoreError: As `score`.
        """
        ...


class OnnxScorer:
    """`full.onnx` on the CPU, float32; the reference for every faster scorer."""

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
        fed = {"frames", *bundle.bank_feeds(bundle.routes[ANY_PRODUCT])}
        self._session = _load(bundle, FULL, options, fed, _OUTPUTS)
        self._trunk = None
        if bundle.route(None).category is None:
            self._trunk = _load(bundle, TRUNK, options, {"frames"}, {"patch_features"})
        self._bundle = bundle

    def score(self, prepared: NDArray[np.uint8], route: Route) -> Scored:
        """See `Scorer`."""
        anomaly_map, score = self._run(["anomaly_map", "image_score"], prepared, route)
        if anomaly_map.shape != (1, *self._bundle.preprocessing.grid) or score.size != 1:
            raise NoScoreError(
                Reason.SCORER_FAILED,
                f"expected one map of {self._bundle.preprocessing.grid} and one score, "
                f"got {anomaly_map.shape} and {score.shape}",
            )
        return Scored(anomaly_map[0], float(score.item()))

    def patch_features(self, prepared: NDArray[np.uint8], route: Route) -> NDArray[np.float32]:
        """Give the (P, D) features behind a score, for the comparison with the oracle."""
        (features,) = self._run(["patch_features"], prepared, route)
        return np.asarray(features[0])

    def recognise(self, prepared: NDArray[np.uint8]) -> Route:
        """See `Scorer`.

        The trunk runs again before the bank scan; with the rows of one product that still takes
        far less than the rows of all.
        """
        if self._trunk is None:
            return self._bundle.route(None)
        try:
            (features,) = self._trunk.run(["patch_features"], {"frames": prepared[None]})
        except _RUN_FAILURES as error:
            raise NoScoreError(Reason.SCORER_FAILED, f"ONNX Runtime: {error}") from error
        if features.ndim != 3 or len(features) != 1:
            raise NoScoreError(
                Reason.SCORER_FAILED, f"expected features (1, P, D), got {features.shape}"
            )
        return self._bundle.recognise(features[0])

    def _run(
        self, outputs: Sequence[str], prepared: NDArray[np.uint8], route: Route
    ) -> list[NDArray[np.float32]]:
        feeds: dict[str, NDArray[Any]] = self._bundle.bank_feeds(route)
        try:
            return list(self._session.run(outputs, {**feeds, "frames": prepared[None]}))
        except _RUN_FAILURES as error:
            raise NoScoreError(Reason.SCORER_FAILED, f"ONNX Runtime: {error}") from error


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
