"""Bundle → engines → trial → gate → bundle: an engine enters a bundle that it was judged in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.bundle_folder import admit, place_beside, verify, write_at_once, write_trial
from deploy.compiler import MOST_FRAMES, InstalledProvider, compile_trunk
from deploy.gate import CHECK, CheckReport, check
from deploy.plan import Machine, Plan, Wanted, graph_of, make_plan
from inspection.bundle import Bundle
from inspection.errors import DeviceError, InputError

log = logging.getLogger(__name__)

Compile = Callable[[InstalledProvider, bytes, tuple[int, int], int, bytes], tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Tools:
    """What a build works with; tests have their own.

    Attributes:
        machine: What is here.
        compile: As `compiler.compile_trunk`.
        check: The program that judges a bundle.
    """

    machine: Machine = field(default_factory=Machine)
    compile: Compile = compile_trunk
    check: Sequence[str] = CHECK


@dataclass(frozen=True, slots=True)
class Built:
    """How a build ended.

    Attributes:
        plan: What was to be done.
        bundle: Id that the folder's bundle has now.
        added: Names of the engines that entered it.
        report: What the check said; None where nothing was to be built.
    """

    plan: Plan
    bundle: str
    added: tuple[str, ...]
    report: CheckReport | None

    @property
    def holds(self) -> bool:
        """Whether every engine that was asked for is in the bundle."""
        return all(each.present or each.name in self.added for each in self.plan.engines)


def plan(folder: Path, wanted: Wanted, tools: Tools) -> Plan:
    """Say what `build` would do.

    Raises:
        BundleError: No bundle is there, or it is damaged.
    """
    return make_plan(verify(folder), wanted, tools.machine)


def build(folder: Path, wanted: Wanted, tools: Tools, timing_cache: Path | None = None) -> Built:
    """Compile the trunk of a bundle and add the engines to it, all of them or none.

    The engines are tried in a copy of the bundle beside it. They enter the bundle, which becomes a
    child of itself by that, if each of them ran here and holds, and so does everything else that
    ran; otherwise nothing is changed.

    Args:
        folder: Of the bundle.
        wanted: Which engines.
        tools: What to build with.
        timing_cache: A file that is read if it is there, and written; TensorRT only.

    Raises:
        BundleError: The bundle is damaged, cannot be written, or lacks INT8 ranges.
        CompileError: No compiler, or it cannot compile this graph.
        DeviceError: There is no GPU to build for or to try an engine on.
        InputError: Compiler and chip do not go together.
        CheckError: The check could not be run.
    """
    folder = folder.resolve()
    bundle = verify(folder)
    planned = make_plan(bundle, wanted, tools.machine)
    if planned.lacks:
        raise planned.lacks[0]
    if timing_cache is not None and wanted.provider != "tensorrt":
        raise InputError(f"{wanted.provider} keeps no timings; leave --timing-cache out")
    if all(each.present for each in planned.engines):
        return Built(planned, bundle.id, (), None)
    with place_beside(folder) as trial:
        engines = _compile(bundle, planned, tools, timing_cache)
        child = write_trial(folder, bundle, engines, trial)
        report = check(trial, child.id, tools.check)
        if not _passed(report, engines):
            return Built(planned, bundle.id, (), report)
        admit(folder, bundle, trial, child)
    return Built(planned, child.id, tuple(engines), report)


def _compile(
    bundle: Bundle, planned: Plan, tools: Tools, timing_cache: Path | None
) -> Mapping[str, bytes]:
    provider, capability = tools.machine.find(planned.provider), planned.capability
    assert capability is not None  # else the plan lacks something
    # Every graph first: that a bundle has a bad one must not show after minutes of compiling.
    graphs = {
        each.name: graph_of(bundle, each.precision)
        for each in planned.engines
        if each.name is not None and not each.present
    }
    timings = _timings(timing_cache)
    if timing_cache is not None:
        write_at_once(timing_cache, timings)  # that it cannot be is said now, too
    engines: dict[str, bytes] = {}
    for name, graph in graphs.items():
        log.info("compiling", extra={"engine": name})
        engines[name], timings = tools.compile(provider, graph, capability, MOST_FRAMES, timings)
        if timing_cache is not None:
            write_at_once(timing_cache, timings)
    return engines


def _timings(path: Path | None) -> bytes:
    if path is None or not path.exists():
        return b""
    return path.read_bytes()


def _passed(report: CheckReport, engines: Mapping[str, bytes]) -> bool:
    """Whether every new engine ran and holds, beside everything else that ran.

    Raises:
        DeviceError: A new engine did not run, so nothing is known of it.
    """
    for name in engines:
        result = report.of(name)
        if result is None or not result.ran:
            why = result.why if result else "the check does not speak of it"
            raise DeviceError(
                f"{name} was built, but could not be tried, so the bundle is left as it was: {why}"
            )
        if not result.holds:
            return False
    return report.holds
