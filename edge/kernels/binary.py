"""The built kernels: where they lie, what they were built from, and when they are refused.

A binary that was built from other sources would be called with structs of another layout, so that
the sources' digest stands beside it and is checked before anything is loaded. Built by
`edge.kernels.build`, loaded by `edge.device`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from inspection.errors import DeviceError

FOLDER = Path(__file__).resolve().parent

BINARY, DESCRIPTION = "kernels.fatbin", "kernels.json"

ANEW = "build them with `python -m edge.kernels.build`"


@dataclass(frozen=True, slots=True)
class Description:
    """What stands beside a binary.

    Attributes:
        sources: `digest_of_sources` of what it was built from.
        binary: SHA-256 of its bytes.
        compiler: Which one built it.
        targets: What it holds code for, as `sm_86`; `compute_120` is PTX for later chips.
    """

    sources: str
    binary: str
    compiler: str
    targets: tuple[str, ...]


def digest_of_sources(folder: Path = FOLDER) -> str:
    """SHA-256 over names and bytes of the kernels' sources, in the order of their names."""
    digest = hashlib.sha256()
    sources = sorted([*folder.glob("*.cu"), *folder.glob("*.cuh")], key=lambda path: path.name)
    if not sources:
        raise DeviceError(f"there are no kernel sources in {folder}; install dualbank again")
    for path in sources:
        text = path.read_bytes()
        # Lengths, so that no text can pass from one file into the next unseen.
        digest.update(f"{path.name} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


def write_binary(folder: Path, binary: bytes, compiler: str, targets: tuple[str, ...]) -> None:
    """Write a binary and its description; a reader finds both, or a pair that does not match.

    Args:
        folder: Made if it is not there.
        binary: What the compiler gave for the sources as they lie in `FOLDER` now.
        compiler: Its name and version.
        targets: As `Description.targets`.

    Raises:
        DeviceError: The folder cannot be written.
    """
    described = Description(
        digest_of_sources(), hashlib.sha256(binary).hexdigest(), compiler, targets
    )
    text = json.dumps(asdict(described), indent=1) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in ((BINARY, binary), (DESCRIPTION, text.encode())):
            fresh = folder / f".{name}.{os.getpid()}"
            fresh.write_bytes(data)
            fresh.replace(folder / name)
    except OSError as error:
        raise DeviceError(f"the kernels cannot be written to {folder}: {error}") from error


def read_binary(folder: Path = FOLDER) -> bytes:
    """Read the built kernels, and hold them to the sources that are installed.

    Raises:
        DeviceError: They are missing, damaged, or were built from other sources.
    """
    try:
        binary = (folder / BINARY).read_bytes()
        text = (folder / DESCRIPTION).read_text("utf-8")
    except OSError as error:
        raise DeviceError(f"the GPU kernels are not built ({error}); {ANEW}") from error
    described = _described(text, folder)
    if described.sources != digest_of_sources():
        raise DeviceError(
            f"the GPU kernels in {folder} were built from other sources than these "
            f"({described.sources[:12]}…, expected {digest_of_sources()[:12]}…); {ANEW}"
        )
    if described.binary != hashlib.sha256(binary).hexdigest():
        raise DeviceError(f"{folder / BINARY} is damaged: its digest is another; {ANEW}")
    return binary


def _described(text: str, folder: Path) -> Description:
    try:
        fields = json.loads(text)
        described = Description(
            str(fields["sources"]),
            str(fields["binary"]),
            str(fields["compiler"]),
            tuple(str(target) for target in fields["targets"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DeviceError(
            f"{folder / DESCRIPTION} does not describe kernels ({error!r}); {ANEW}"
        ) from error
    return described
