"""Proves on golden frames that this machine is the same model as the one that was trained."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from edge.onnx_scorer import OnnxScorer
from edge.outcome import NoScoreError
from edge.scorer import Provable, Question, Scored, Scorer
from edge.shadow import REST
from edge.streams import POLL_S
from inspection.bundle import GOLDEN, Bundle
from inspection.errors import BundleError, ParityError
from inspection.golden import (
    EXACT,
    Agreement,
    GoldenFrame,
    Tolerance,
    agreement,
    golden_from_bytes,
    oracle_agreement,
)
from inspection.preprocessing import PATCH_PX, TOLERANCE_LEVELS, map_shape

TIMED = 21
"""Answers that a latency is the median of."""


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """How this machine answered one golden frame.

    Attributes:
        number: In the bundle, from 0.
        golden: The frame.
        levels: Largest difference after preprocessing, in grey levels.
        runtime: The scorer against the stored answer.
        oracle: Plain numpy, on the features that ONNX Runtime found, against the stored answer;
            None where it was not asked.
    """

    number: int
    golden: GoldenFrame
    levels: int
    runtime: Agreement
    oracle: Agreement | None

    @property
    def holds(self) -> bool:
        """Whether everything agrees within its tolerance."""
        oracle_holds = self.oracle is None or self.oracle.holds
        return self.levels <= TOLERANCE_LEVELS and self.runtime.holds and oracle_holds


def check_all(bundle: Bundle, scorer: OnnxScorer) -> list[GoldenResult]:
    """Ask every golden frame of ONNX Runtime and of the oracle.

    Raises:
        BundleError: The golden frames do not fit the bundle.
        NoScoreError: The model gave no answer at all.
    """
    results = []
    for result in check_runtime(bundle, scorer):
        golden = result.golden
        patches = scorer.patch_features(golden.prepared, bundle.route(golden.product))
        oracle = oracle_agreement(bundle, golden, patches)
        results.append(dataclasses.replace(result, oracle=oracle))
    return results


def check_runtime(
    bundle: Bundle, scorer: Provable, tolerance: Tolerance = EXACT
) -> list[GoldenResult]:
    """Ask every golden frame of a scorer that has nothing else to do.

    Args:
        bundle: The scorer's.
        scorer: Any.
        tolerance: Of scores and maps.

    Raises:
        BundleError: The golden frames do not fit the bundle.
        NoScoreError: The model gave no answer at all.
        DeviceError: The GPU failed.
    """
    return [
        _ask(bundle, scorer, number, golden, tolerance)
        for number, golden in enumerate(golden_frames(bundle))
    ]


def prove_beside(bundle: Bundle, scorer: Provable, go_on: Callable[[], None]) -> None:
    """Ask every golden frame while a station runs: between two of them the cores are the route's.

    Args:
        bundle: The scorer's.
        scorer: Not the one that runs.
        go_on: Called between two frames; may raise to end it.

    Raises:
        ParityError: An answer is not the stored one.
        BundleError: The golden frames do not fit the bundle.
        NoScoreError: The model gave no answer at all.
    """
    for number, golden in enumerate(golden_frames(bundle)):
        begun_s = time.monotonic()
        require([_ask(bundle, scorer, number, golden, EXACT)])
        go_on()
        time.sleep(REST * (time.monotonic() - begun_s))


def warm_up(bundle: Bundle, scorer: Provable, tolerance: Tolerance = EXACT) -> None:
    """Ask one golden frame of every product, without the oracle: it is slow, and `check` asks it.

    Raises:
        ParityError: An answer is not the stored one, so no verdict of this machine can be trusted.
    """
    firsts: dict[str | None, tuple[int, GoldenFrame]] = {}
    for number, golden in enumerate(golden_frames(bundle)):
        firsts.setdefault(golden.product, (number, golden))
    require(_ask(bundle, scorer, number, golden, tolerance) for number, golden in firsts.values())


def latency_ms(scorer: Scorer, golden: GoldenFrame) -> float:
    """Time a golden frame from its pixels to its score: the median of some, in ms."""
    question = scorer.question(golden.frame, golden.product)
    took_s = []
    for _ in range(TIMED):
        begun_s = time.perf_counter()
        _answer_to(scorer, question)
        took_s.append(time.perf_counter() - begun_s)
    return 1e3 * float(np.median(took_s))


def require(results: Iterable[GoldenResult]) -> None:
    """Go on only if every golden frame holds.

    Raises:
        ParityError: One does not.
    """
    for result in results:
        if not result.holds:
            raise ParityError(
                f"golden frame {result.number} of product {result.golden.product!r} has another "
                f"answer here: preprocessing {result.levels} levels off, score "
                f"{result.runtime.score_error:.1e}, map {result.runtime.map_error:.1e}, verdict "
                f"{'the same' if result.runtime.same_verdict else 'another'}; "
                "run `dualbank-edge check`"
            )


def golden_frames(bundle: Bundle) -> tuple[GoldenFrame, ...]:
    """Read the golden frames and check that their shapes are the bundle's.

    Raises:
        BundleError: They are damaged, or of another size.
    """
    frames = golden_from_bytes(bundle.file(GOLDEN))
    for number, golden in enumerate(frames):
        rows, columns = map_shape(golden.frame.shape, bundle.preprocessing)
        expected = (PATCH_PX * rows, PATCH_PX * columns, 3)
        if golden.prepared.shape != expected or golden.anomaly_map.shape != (rows, columns):
            raise BundleError(
                f"golden frame {number} is {golden.prepared.shape} with a map of "
                f"{golden.anomaly_map.shape}, expected {expected} and {(rows, columns)}"
            )
    return frames


def _ask(
    bundle: Bundle, scorer: Provable, number: int, golden: GoldenFrame, tolerance: Tolerance
) -> GoldenResult:
    prepared = scorer.canvas_of(golden.frame)
    apart = np.abs(prepared.astype(np.int16) - golden.prepared.astype(np.int16))
    # On the stored pixels, so that the two questions, resize and model, are asked apart.
    scored = _answer_to(scorer, Question(golden.prepared, True, golden.product, recognised=True))
    return GoldenResult(
        number=number,
        golden=golden,
        levels=int(apart.max()),
        runtime=agreement(golden, scored.anomaly_map, scored.score, scored.route, tolerance),
        oracle=None,
    )


def _answer_to(scorer: Scorer, question: Question) -> Scored:
    scorer.submit([question])
    while (answers := scorer.poll()) is None:
        time.sleep(POLL_S)
    (answer,) = answers
    if isinstance(answer, NoScoreError):
        raise answer
    return answer
