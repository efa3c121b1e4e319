"""Whom the status is asked of, and what they say at one moment.

The station fills in `StatusSources` once, at its start; what the answers mean is `edge.status`'s.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.health import Health, Snapshot

SWAP_STEPS = (
    *("idle", "verifying", "loading", "proving", "shadow", "activating", "probation", "steady"),
    *("rolled_back", "refused"),
)
"""Where the latest swap of bundles stands; see `docs/wire.md`."""


@dataclass(frozen=True, slots=True)
class Model:
    """What judges.

    Attributes:
        bundle_id: Digest.
        bank_id: Digest.
        scorer: What runs it.
    """

    bundle_id: str
    bank_id: str
    scorer: str


@dataclass(frozen=True, slots=True)
class LedgerState:
    """How far the record goes.

    Attributes:
        entries: The highest `station_seq`.
        head: Hash of the last entry, hexadecimal; None in an empty ledger.
        files: What it takes of the disk.
        failure: Why nothing can be recorded, or None.
    """

    entries: int
    head: str | None
    files: Sequence[Path]
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class LatestSwap:
    """The latest swap of bundles.

    Attributes:
        step: Where it stands, one of `SWAP_STEPS`.
        bundle_id: Digest of the bundle that came; empty if none ever did.
        why: Why it was rolled back or refused, in words.
        swaps: How many were activated since the start.
        rollbacks: How many of them were rolled back.
    """

    step: str = "idle"
    bundle_id: str = ""
    why: str = ""
    swaps: int = 0
    rollbacks: int = 0


@dataclass(frozen=True, slots=True)
class StatusSources:
    """Whom to ask; every callable answers at once, in any thread.

    Attributes:
        name: Of the station, for people.
        state_dir: Whose disk must not fill up.
        health: What was counted.
        model: What judges; None until it is loaded.
        ledger: How far the record goes; None until it is open.
        labels: Counters of the label queue.
        swap: The latest swap.
        stopping: Whether the station is about to end.
        insecure: Whether it may listen where others can read along.
        plain: Addresses that other machines reach in plain text.
    """

    name: str
    state_dir: Path
    health: Health
    model: Callable[[], Model | None]
    ledger: Callable[[], LedgerState | None]
    labels: Callable[[], Mapping[str, int]]
    swap: Callable[[], LatestSwap]
    stopping: Callable[[], bool]
    insecure: bool = False
    plain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that was found at one moment; see `StatusSources`.

    Attributes:
        counted: What was counted.
        model: See there.
        ledger: See there.
        ledger_bytes: What its files take.
        labels: See there.
        swap: See there.
        stopping: See there.
        disk_free_bytes: Where the ledger lives.
        disk_bytes: Size of that disk.
        writable: Whether the folder of the station may be written to.
    """

    counted: Snapshot
    model: Model | None
    ledger: LedgerState | None
    ledger_bytes: int
    labels: Mapping[str, int]
    swap: LatestSwap
    stopping: bool
    disk_free_bytes: int
    disk_bytes: int
    writable: bool


def look(sources: StatusSources) -> Look:
    """Ask everybody."""
    ledger = sources.ledger()
    disk_free = disk = 0
    if sources.state_dir.is_dir():
        usage = shutil.disk_usage(sources.state_dir)
        disk_free, disk = usage.free, usage.total
    return Look(
        counted=sources.health.snapshot(),
        model=sources.model(),
        ledger=ledger,
        ledger_bytes=sum(map(_size, ledger.files)) if ledger else 0,
        labels=sources.labels(),
        swap=sources.swap(),
        stopping=sources.stopping(),
        disk_free_bytes=disk_free,
        disk_bytes=disk,
        writable=os.access(sources.state_dir, os.W_OK),
    )


def _size(path: Path) -> int:
    """Size of a file; the journal beside the ledger comes and goes."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
