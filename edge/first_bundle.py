"""Which bundle a station runs when it starts: the one swapped in last, or the configured one.

The configuration wins whenever it has changed since the swap. A process that died while a bundle
was on probation is what probation is for: the bundle before it runs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from edge.bundle_folder import open_bundle
from edge.bundle_store import BundleStore, Record, Watch
from inspection.bundle import Bundle
from inspection.errors import BundleError, StationError

log = logging.getLogger(__name__)

CRASHED = "the station died while the bundle was on probation"


@dataclass(frozen=True, slots=True)
class FirstBundle:
    """What runs first.

    Attributes:
        bundle: Judges.
        record: What is on disk of it, or would be if it were ever swapped.
        watch: A probation that goes on, because the station was stopped in good order.
    """

    bundle: Bundle
    record: Record
    watch: Watch | None = None


def choose_bundle(configured: Path, store: BundleStore) -> FirstBundle:
    """Choose by the configuration and by what is on disk.

    Args:
        configured: The setting `bundle`.
        store: Of this station.

    Raises:
        BundleError: Neither the one that ran last nor the configured one can be used.
        StationError: What was decided cannot be recorded.
    """
    path = configured.resolve()
    record = _read(store)
    if record is None or record.configured_path != str(path):
        return _configured(path, record, store)
    try:
        there = open_bundle(path)
    except BundleError as error:
        log.error("the configured bundle cannot be used; another one runs", extra={"error": error})
        there = None
    if there is not None and there.id != record.configured_id:
        return _configured(path, record, store)
    if record.watch is not None and not record.stopped:
        log.error("bundle rolled back", extra={"bundle": record.running[:12], "why": CRASHED})
        record = rolled_back(record, CRASHED)
        store.write(record)
    elif record.watch is not None:
        # From here on a crash counts again.
        record = record.model_copy(update={"stopped": False})
        store.write(record)
    if there is not None and there.id == record.running:
        return FirstBundle(there, record, record.watch)
    try:
        return FirstBundle(store.open(record.running, record), record, record.watch)
    except BundleError as error:
        log.error(
            "the bundle that ran last cannot be used; the configured one runs",
            extra={"bundle": record.running[:12], "error": error},
        )
        return _configured(path, record, store)


def rolled_back(record: Record, why: str) -> Record:
    """Write down that the one before runs again; there is none before that."""
    assert record.previous is not None
    return record.model_copy(
        update={
            "running": record.previous,
            "previous": None,
            "watch": None,
            "stopped": False,
            "why": f"{record.running[:12]}: {why}",
        }
    )


def _read(store: BundleStore) -> Record | None:
    try:
        return store.read()
    except StationError as error:
        log.error(
            "nobody knows which bundle ran last; the configured one runs", extra={"error": error}
        )
        return None


def _configured(path: Path, record: Record | None, store: BundleStore) -> FirstBundle:
    bundle = open_bundle(path)
    fresh = Record(running=bundle.id, configured_path=str(path), configured_id=bundle.id)
    if record is not None:
        log.warning(
            "the configured bundle runs",
            extra={"bundle": bundle.id[:12], "before": record.running[:12]},
        )
        store.write(fresh)
    return FirstBundle(bundle, fresh)
