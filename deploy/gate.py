"""Asks `dualbank-edge check` what a bundle's runtimes answer here. Programs meet at command lines.

The station's program runs engines, so it is the one to judge them; only its JSON is read.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from inspection.errors import DualbankError

CHECK = (sys.executable, "-m", "edge.cli", "check")

HOLDS, DOES_NOT_HOLD = 0, 3
"""Exit statuses that come with a report."""

PATIENCE_S = 1800.0
"""Golden frames are few, and the slowest machine takes seconds for one in plain numpy."""


class CheckError(DualbankError):
    """The check gave no report, so nothing is known."""


class RuntimeResult(BaseModel):
    """How one runtime answered the golden frames.

    Attributes:
        runtime: `full.onnx`, or an engine by its name.
        precision: Of its arithmetic.
        device: What it ran on, or would have.
        ran: Whether it did.
        why: If it did not, why.
        holds: Whether it ran, and every answer was within the tolerance of its precision.
        score_error: Largest, relative to the score; None where it did not run, or has no number.
        map_error: Largest, relative to the highest value of the map.
        flips: Golden frames whose verdict became another.
        latency_ms: Of one frame.
    """

    model_config = ConfigDict(frozen=True)

    runtime: str
    precision: str
    device: str
    ran: bool
    why: str | None = None
    holds: bool
    score_error: float | None = None
    map_error: float | None = None
    flips: int | None = None
    latency_ms: float | None = None


class CheckReport(BaseModel):
    """What the check says of a bundle on this machine.

    Attributes:
        bundle: The id of the bundle that it read.
        holds: Whether everything that ran holds.
        runtimes: `full.onnx` and every engine of the bundle.
    """

    model_config = ConfigDict(frozen=True)

    bundle: str
    holds: bool
    runtimes: tuple[RuntimeResult, ...]

    def of(self, runtime: str) -> RuntimeResult | None:
        """Give the result of one runtime; None when the check does not speak of it."""
        return next((each for each in self.runtimes if each.runtime == runtime), None)


def check(folder: Path, bundle_id: str, command: Sequence[str] = CHECK) -> CheckReport:
    """Run the check of a bundle.

    Args:
        folder: Of the bundle.
        bundle_id: Which must lie there.
        command: The program, without the bundle.

    Raises:
        CheckError: It could not be run, failed, or its report cannot be believed.
    """
    called = [*command, "--bundle", str(folder), "--json"]
    try:
        done = subprocess.run(
            called, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"dualbank-edge check gave no answer in {PATIENCE_S:g} s") from error
    except OSError as error:
        raise CheckError(f"dualbank-edge check cannot be run: {error}") from error
    if done.returncode not in (HOLDS, DOES_NOT_HOLD):
        said = done.stderr.strip().splitlines()
        reason = said[-1] if said else f"exit status {done.returncode} and no word"
        raise CheckError(f"dualbank-edge check failed: {reason}")
    try:
        report = CheckReport.model_validate_json(done.stdout)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its output"
        raise CheckError(
            f"dualbank-edge check gave no report that can be read: {where}: {first['msg']}"
        ) from error
    if report.bundle != bundle_id:
        raise CheckError(
            f"dualbank-edge check read bundle {report.bundle[:12]}…, not {bundle_id[:12]}…"
        )
    if report.holds != (done.returncode == HOLDS) or report.holds != _all_hold(report):
        raise CheckError(
            f"dualbank-edge check contradicts itself: exit status {done.returncode}, holds "
            f"{report.holds}, and runtimes that hold {_all_hold(report)}"
        )
    return report


def _all_hold(report: CheckReport) -> bool:
    return all(each.holds for each in report.runtimes if each.ran)
