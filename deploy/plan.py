"""What a build would do: which engines, of what, by what, for what, and what is missing for it.

A plan is made on any machine. What is missing is kept as the error that a build would raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from deploy.chip import capability_here
from deploy.compiler import InstalledProvider, check_capability, find_provider
from deploy.precision import checked_quantised, checked_trunk, in_half
from deploy.supported import check_pair, check_version
from inspection.bundle import Bundle
from inspection.engines import (
    SOURCE,
    EngineKey,
    Precision,
    Provider,
    dotted,
    is_engine,
    onnx_digits,
)
from inspection.errors import BundleError, DeviceError, DualbankError, InputError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for.

    Attributes:
        precisions: Of the engines, each once.
        provider: Which compiler.
        capability: Of the chips; None for those of the GPU that is here.
    """

    precisions: tuple[Precision, ...]
    provider: Provider
    capability: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class PlannedEngine:
    """One engine of a plan.

    Attributes:
        precision: Of its arithmetic.
        source: File of the bundle that its graph is made of.
        source_bytes: How large that is; 0 when it is not there.
        name: What it would be called; None while version or chip are not known.
        present: Whether the bundle has it already.
    """

    precision: Precision
    source: str
    source_bytes: int
    name: str | None
    present: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build would do.

    Attributes:
        bundle: Id of the bundle.
        onnx_sha256: Of its trunk.
        provider: Which compiler.
        version: Of the compiler; None where it is not installed.
        capability: Of the chips; None where it is not known.
        engines: One for each precision that was asked for.
        others: Engines that the bundle has beside these.
        lacks: Why it could not be built here, as a build would say it.
    """

    bundle: str
    onnx_sha256: str
    provider: Provider
    version: str | None
    capability: tuple[int, int] | None
    engines: tuple[PlannedEngine, ...]
    others: tuple[str, ...]
    lacks: tuple[DualbankError, ...]

    def document(self) -> dict[str, Any]:
        """The plan as JSON has it."""
        return {
            "bundle": self.bundle,
            "onnx_sha256": self.onnx_sha256,
            "provider": self.provider,
            "version": self.version,
            "capability": self.capability and dotted(self.capability),
            "engines": [
                {name: getattr(each, name) for name in PlannedEngine.__slots__}
                for each in self.engines
            ],
            "other_engines": list(self.others),
            "lacks": [str(error) for error in self.lacks],
        }


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan asks of the machine that it is made on.

    Attributes:
        find: Imports a compiler.
        capability: Asks for the chip that is here.
    """

    find: Callable[[Provider], InstalledProvider] = find_provider
    capability: Callable[[], tuple[int, int]] = capability_here


def make_plan(bundle: Bundle, wanted: Wanted, machine: Machine) -> Plan:
    """Say what building would do; whatever is missing is in the plan, and nothing is raised."""
    lacks: list[DualbankError] = []
    files = bundle.manifest.files
    digests = {name: entry.sha256 for name, entry in files.items()}
    provider = _or_lack(lacks, lambda: machine.find(wanted.provider))
    capability = _or_lack(lacks, lambda: _capability(wanted, machine)) or wanted.capability
    if provider is not None:
        _or_lack(lacks, lambda: _check(provider, capability))
    engines = []
    for precision in wanted.precisions:
        source, onnx = SOURCE[precision], onnx_digits(precision, digests)
        if onnx is None:
            lacks.append(BundleError(f"this bundle has no INT8 ranges: it has no {source}"))
        name = None
        if onnx is not None and provider is not None and capability is not None:
            key = EngineKey(precision, onnx, wanted.provider, provider.version, capability)
            name = key.name
        size = files[source].size_bytes if source in files else 0
        engines.append(PlannedEngine(precision, source, size, name, name in files))
    ours = {each.name for each in engines}
    return Plan(
        bundle=bundle.id,
        onnx_sha256=digests[SOURCE["fp32"]],
        provider=wanted.provider,
        version=provider.version if provider else None,
        capability=capability,
        engines=tuple(engines),
        others=tuple(sorted(name for name in files if is_engine(name) and name not in ours)),
        lacks=tuple(lacks),
    )


def graph_of(bundle: Bundle, precision: Precision) -> bytes:
    """Give the graph that is compiled for a precision.

    Raises:
        BundleError: The bundle has no such graph, or it is no trunk.
    """
    source = SOURCE[precision]
    write = {"fp32": checked_trunk, "fp16": in_half, "int8": checked_quantised}[precision]
    return write(source, bundle.file(source))


def parse_capability(text: str) -> tuple[int, int]:
    """Read a compute capability: 8.6 → (8, 6).

    Raises:
        InputError: It is none.
    """
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal() and len(major) <= 2 and len(minor) == 1):
        raise InputError(f"expected a compute capability as 8.6, got {text!r}")
    return int(major), int(minor)


def _capability(wanted: Wanted, machine: Machine) -> tuple[int, int]:
    """Settle for which chips; TensorRT compiles for none but the one that is here."""
    if wanted.provider == "tensorrt_rtx" and wanted.capability is not None:
        return wanted.capability
    try:
        here = machine.capability()
    except DeviceError as error:
        if wanted.provider == "tensorrt":
            raise
        raise DeviceError(f"{error}; or say for which chip with --capability") from error
    if wanted.capability not in (None, here):
        raise InputError(
            f"the GPU here has compute capability {dotted(here)}, not "
            f"{dotted(wanted.capability)}: {wanted.provider} builds for the GPU it runs on"
        )
    return here


def _check(provider: InstalledProvider, capability: tuple[int, int] | None) -> None:
    if provider.name == "tensorrt":
        check_version(provider.version)
    if capability is None:
        return
    if provider.name == "tensorrt":
        check_pair(provider.version, capability)
    else:
        check_capability(provider, capability)


def _or_lack(lacks: list[DualbankError], ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except DualbankError as error:
        lacks.append(error)
        return None
