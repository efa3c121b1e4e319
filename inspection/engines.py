"""What a compiled trunk is called, and how far its answers may lie from those of `full.onnx`.

An engine runs under the one version of the one library that built it, on chips of one compute
capability, and is worth nothing for another graph: its name in the manifest says all of it.
Compiling is `deploy`'s, running is `edge`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from inspection.bundle import TRUNK
from inspection.errors import InputError
from inspection.golden import Tolerance

Precision = Literal["fp32", "fp16", "int8"]
Provider = Literal["tensorrt", "tensorrt_rtx"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PROVIDERS: tuple[Provider, ...] = get_args(Provider)

TOLERANCE: dict[Precision, Tolerance] = {
    "fp32": Tolerance(score=1e-3, map=1e-3),
    "fp16": Tolerance(score=1e-2, map=1e-1),
    "int8": Tolerance(score=5e-2, map=3e-1),
}
"""How far an engine's answers to golden frames may lie from theirs. FP32 engines sum in other
orders and by other algorithms than ONNX Runtime. Rounded to half precision, scores and maps of
golden frames were off by 0.0024 and 0.025 at most (`benchmarks.half_precision`). For INT8 nothing
is measured yet. Verdicts must be the same in any case."""

SOURCE: dict[Precision, str] = {"fp32": TRUNK, "fp16": TRUNK, "int8": "trunk.int8.onnx"}
"""File of a bundle that an engine is made of. The one with INT8 ranges need not be there."""

ONNX_DIGITS = 12
"""Digits of the graph's digest in a name: 48 bits tell the graphs of one bundle apart."""

_NAME = re.compile(
    rf"trunk-(?P<precision>{'|'.join(PRECISIONS)})-(?P<onnx>[0-9a-f]{{{ONNX_DIGITS}}})"
    rf"-(?P<provider>{'|'.join(PROVIDERS)})-(?P<version>[0-9]+(\.[0-9A-Za-z]+)*)"
    r"-sm(?P<capability>[0-9]{2,3})\.engine"
)


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What an engine was made of, by what, and for what.

    Attributes:
        precision: Of the arithmetic; it is written into the graph that was compiled.
        onnx: First `ONNX_DIGITS` hex digits of the SHA-256 of the graph it was made of, `SOURCE`.
        provider: Which library; engines of one mean nothing to the other.
        version: Of the library, whole.
        capability: Compute capability (major, minor) of the chips.
    """

    precision: Precision
    onnx: str
    provider: Provider
    version: str
    capability: tuple[int, int]

    def __post_init__(self) -> None:
        found = _NAME.fullmatch(self.name)
        if not found or divmod(int(found["capability"]), 10) != self.capability:
            raise InputError(f"there can be no engine {self.name!r}")

    @property
    def name(self) -> str:
        """Name of its file in a manifest."""
        major, minor = self.capability
        return (
            f"trunk-{self.precision}-{self.onnx}-{self.provider}-{self.version}"
            f"-sm{major}{minor}.engine"
        )

    @property
    def runtime(self) -> str:
        """What it runs under, in words."""
        return f"{self.provider} {self.version}, compute capability {dotted(self.capability)}"


def is_engine(name: str) -> bool:
    """Whether a file of a manifest is an engine, by its name."""
    return name.endswith(".engine")


def key_of(name: str) -> EngineKey:
    """Read an engine's name.

    Raises:
        InputError: It is not the name of an engine.
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise InputError(f"expected an engine's name as trunk-fp16-…-sm87.engine, got {name!r}")
    major, minor = divmod(int(found["capability"]), 10)
    precision = next(each for each in PRECISIONS if each == found["precision"])
    provider = next(each for each in PROVIDERS if each == found["provider"])
    return EngineKey(precision, found["onnx"], provider, found["version"], (major, minor))


def onnx_digits(precision: Precision, digests: Mapping[str, str]) -> str | None:
    """Give what an engine of a bundle has as its `onnx`; None if the bundle lacks the graph.

    Args:
        precision: Of the engine.
        digests: SHA-256 of the bundle's files by name.
    """
    digest = digests.get(SOURCE[precision])
    return None if digest is None else digest[:ONNX_DIGITS]


def engines_for(
    digests: Mapping[str, str],
    runtimes: Iterable[tuple[Provider, str]],
    capability: tuple[int, int],
) -> list[EngineKey]:
    """Choose the engines that a machine can run, the least exact, which is the fastest, first.

    Args:
        digests: SHA-256 of a bundle's files by name; engines of other graphs than are there now
            are left out.
        runtimes: Libraries of the machine, with their versions.
        capability: Of its chip.

    Raises:
        InputError: Something is called an engine and has not the name of one.
    """
    there = set(runtimes)
    fit = [
        key
        for key in map(key_of, filter(is_engine, digests))
        if key.onnx == onnx_digits(key.precision, digests)
        and (key.provider, key.version) in there
        and key.capability == capability
    ]
    return sorted(fit, key=lambda key: (-PRECISIONS.index(key.precision), key.provider))


def dotted(capability: tuple[int, int]) -> str:
    """(8, 7) → 8.7."""
    return f"{capability[0]}.{capability[1]}"
