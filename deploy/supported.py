"""Which TensorRT compiles for which chip: what is known before anything is tried. Pure.

TensorRT-RTX has no row here: its own list of compute capabilities is asked, see `compiler`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from inspection.engines import dotted
from inspection.errors import InputError

Version = tuple[int, int, int]

OLDEST: Version = (10, 3, 0)
"""JetPack 6.1 and 6.2 ship it; what is used here has the same names and arguments up to 11."""

FIRST_UNKNOWN: Version = (12, 0, 0)


@dataclass(frozen=True, slots=True)
class Support:
    """From which TensorRT on a compute capability is compiled for, and up to which.

    Attributes:
        since: The first that does.
        until: The first that no longer does; None where no end is known.
        source: Of the two, in TensorRT's documentation.
    """

    since: Version
    until: Version | None
    source: str


_MATRIX_10_1 = "support matrix of 10.1.0: all hardware from 7.0 on, up to 9.0"
_JETPACK = "JetPack 6.1, whose TensorRT is 10.3.0"
_BLACKWELL = "release notes of 10.8.0: Blackwell, the GeForce 50 series and B200"
# CUDA knows 11.0 and 12.1 from 13.0 on, and 10.13.2 is the first that is built with it. An earlier
# one may compile for 10.3, which CUDA knows from 12.9 on: no document says which.
_CUDA_13 = "release notes of 10.13.2: CUDA 13.0"

SUPPORTED: dict[tuple[int, int], Support] = {
    (7, 0): Support((10, 0, 0), (10, 5, 0), "release notes of 10.5.0: Volta support removed"),
    (7, 5): Support((10, 0, 0), None, _MATRIX_10_1),
    (8, 0): Support((10, 0, 0), None, _MATRIX_10_1),
    (8, 6): Support((10, 0, 0), None, _MATRIX_10_1),
    (8, 7): Support((10, 3, 0), None, _JETPACK),
    (8, 9): Support((10, 0, 0), None, _MATRIX_10_1),
    (9, 0): Support((10, 0, 0), None, _MATRIX_10_1),
    (10, 0): Support((10, 8, 0), None, _BLACKWELL),
    (10, 3): Support((10, 13, 2), None, _CUDA_13),
    (11, 0): Support((10, 13, 2), None, _CUDA_13),
    (12, 0): Support((10, 8, 0), None, _BLACKWELL),
    (12, 1): Support((10, 13, 2), None, _CUDA_13),
}


def check_version(version: str) -> Version:
    """Read a version of TensorRT, and refuse one that was never compiled with.

    Raises:
        InputError: It is none, or outside of 10.3 to 11.
    """
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if not found:
        raise InputError(f"expected a version of TensorRT as 10.3.0, got {version!r}")
    read = (int(found[1]), int(found[2]), int(found[3] or 0))
    if not OLDEST <= read < FIRST_UNKNOWN:
        raise InputError(
            f"TensorRT {version} is not supported; install one from {_written(OLDEST)} up to, and "
            f"without, {_written(FIRST_UNKNOWN)}"
        )
    return read


def check_pair(version: str, capability: tuple[int, int]) -> None:
    """Refuse a TensorRT that does not compile for a chip.

    Args:
        version: Of TensorRT.
        capability: Compute capability (major, minor) of the chip.

    Raises:
        InputError: The pair is not supported; both are named, and what would go together.
    """
    read, support = check_version(version), SUPPORTED.get(capability)
    pair = f"TensorRT {version} does not compile for compute capability {dotted(capability)}"
    if support is None:
        known = ", ".join(dotted(each) for each, its in SUPPORTED.items() if _within(read, its))
        raise InputError(f"{pair}; it does for {known}")
    if not _within(read, support):
        wanted = f"from {_written(max(support.since, OLDEST))} on"
        if support.until is not None:
            wanted = f"older than {_written(support.until)}"
        raise InputError(f"{pair}: that takes one {wanted} ({support.source})")


def _within(version: Version, support: Support) -> bool:
    return support.since <= version and (support.until is None or version < support.until)


def _written(version: Version) -> str:
    major, minor, patch = version
    return f"{major}.{minor}.{patch}" if patch else f"{major}.{minor}"
