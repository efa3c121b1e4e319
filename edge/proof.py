"""`dualbank-edge check`: every runtime of a bundle, proven on this machine and reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edge.bundle_folder import open_bundle, verify_files
from edge.check import GoldenResult, check_all, check_runtime, latency_ms
from edge.onnx_scorer import OnnxScorer
from edge.settings import StationSettings
from edge.standby import open_engine_scorer
from inspection.bundle import FULL, Bundle
from inspection.engines import TOLERANCE, EngineKey, Precision, is_engine, key_of
from inspection.errors import DeviceError


@dataclass(frozen=True, slots=True)
class RuntimeProof:
    """How one runtime of a bundle has answered the golden frames.

    Attributes:
        runtime: `full.onnx`, or the name of an engine.
        precision: Of its arithmetic.
        device: What ran it; what should have, if it did not run.
        why: Why it did not run; empty if it did.
        results: Of every golden frame; empty if it did not run.
        latency_ms: From the pixels of a frame to its score, a median; NaN if it did not run.
    """

    runtime: str
    precision: Precision
    device: str
    why: str
    results: tuple[GoldenResult, ...]
    latency_ms: float

    @property
    def ran(self) -> bool:
        """Whether it could be asked at all."""
        return not self.why

    @property
    def holds(self) -> bool:
        """Whether it ran and every golden frame agrees."""
        return self.ran and all(result.holds for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """Write it for programs; what was not measured is null."""
        runtime = [result.runtime for result in self.results]
        return {
            "runtime": self.runtime,
            "precision": self.precision,
            "device": self.device,
            "ran": self.ran,
            "why": self.why,
            "holds": self.holds,
            "score_error": max((each.score_error for each in runtime), default=None),
            "map_error": max((each.map_error for each in runtime), default=None),
            "flips": sum(not each.same_verdict for each in runtime) if self.ran else None,
            "latency_ms": round(self.latency_ms, 3) if self.ran else None,
        }


@dataclass(frozen=True, slots=True)
class Proof:
    """What `dualbank-edge check` has found; files are whole, or there is none.

    Attributes:
        bundle: Which.
        files: How many were read and checked.
        runtimes: `full.onnx` on the CPU, then every engine of the bundle.
    """

    bundle: Bundle
    files: int
    runtimes: tuple[RuntimeProof, ...]

    @property
    def holds(self) -> bool:
        """Whether everything that ran agrees; what cannot run here says nothing."""
        return all(each.holds for each in self.runtimes if each.ran)


def prove(folder: Path, settings: StationSettings) -> Proof:
    """Read a bundle whole and ask its golden frames of every runtime that this machine has.

    Raises:
        BundleError: It is damaged.
        NoScoreError: ONNX Runtime gave no answer at all.
    """
    bundle = open_bundle(folder)
    files = verify_files(bundle)
    scorer = OnnxScorer(bundle)
    results = tuple(check_all(bundle, scorer))
    first = RuntimeProof(FULL, "fp32", "CPU", "", results, latency_ms(scorer, results[0].golden))
    engines = [
        _prove_engine(bundle, settings, key_of(name))
        for name in bundle.manifest.files
        if is_engine(name)
    ]
    return Proof(bundle, files, (first, *engines))


def _prove_engine(bundle: Bundle, settings: StationSettings, key: EngineKey) -> RuntimeProof:
    try:
        with open_engine_scorer(bundle, settings, key) as (scorer, _):
            results = tuple(check_runtime(bundle, scorer, TOLERANCE[key.precision]))
            took_ms = latency_ms(scorer, results[0].golden)
    except DeviceError as error:
        nothing = float("nan")
        return RuntimeProof(key.name, key.precision, key.runtime, str(error), (), nothing)
    return RuntimeProof(key.name, key.precision, scorer.name, "", results, took_ms)


def proof_as_json(proof: Proof) -> dict[str, Any]:
    """Write what was found for programs."""
    return {
        "bundle": proof.bundle.id,
        "files": proof.files,
        "holds": proof.holds,
        "runtimes": [each.as_json() for each in proof.runtimes],
        "frames": [_golden_row(each) for each in proof.runtimes[0].results],
    }


def print_proof(proof: Proof) -> None:
    """Write what was found for people."""
    # A pipe has no width, and 80 columns would cut the numbers off.
    console = Console(width=max(Console().width, 120))
    console.print(_table([_golden_row(each) for each in proof.runtimes[0].results]))
    console.print(_table([each.as_json() for each in proof.runtimes]))
    said = "every golden frame holds" if proof.holds else "GOLDEN FRAMES DO NOT HOLD"
    console.print(f"bundle {proof.bundle.id[:12]}: {proof.files} files whole, {said}")


def _golden_row(result: GoldenResult) -> dict[str, Any]:
    oracle = result.oracle
    return {
        "frame": result.number,
        "product": result.golden.product,
        "score": result.golden.score,
        "preprocessing_levels": result.levels,
        "runtime_score_error": result.runtime.score_error,
        "runtime_map_error": result.runtime.map_error,
        "oracle_score_error": oracle.score_error if oracle else None,
        "oracle_map_error": oracle.map_error if oracle else None,
        "same_verdict": result.runtime.same_verdict and (oracle is None or oracle.same_verdict),
        "holds": result.holds,
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(*(name.replace("_", "\n") for name in rows[0]))
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if isinstance(value, float) else str(value)
