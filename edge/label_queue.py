"""Keeps what a person should look at: one folder a part, within a budget of disk.

label_queue/000000000042-1764000000000000000/
    frame.jpg | frame.png | frame.npy    the pixels as received
    map.npy                              (Mh, Mw) float32, standardised
    verdict.json                         the verdict as published
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
import threading
from collections import deque
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.backlog import Backlog
from edge.health import is_milestone
from edge.state_dir import sync_folder, write_synced
from inspection.errors import StationError
from inspection.messages import Frame, VerdictMessage
from inspection.wire import Buffer

log = logging.getLogger(__name__)

FOLDER = "label_queue"
FRAME, MAP, VERDICT = "frame", "map.npy", "verdict.json"

WAITING_ITEMS = 32
WAITING_BYTES = 256 << 20

RESERVE_BYTES = 64 << 20
"""Disk that the queue leaves free. The ledger lives on it: without a record the line stops, without
a labelled image it does not."""

_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "raw": ".npy"}
_HALF_MADE = ".new-"
_HALF_GONE = ".old-"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class LabelItem:
    """A part that was flagged.

    Attributes:
        message: As published.
        received_unix_ns: When its frame came.
        frame: As received.
        anomaly_map: (Mh, Mw) float32, standardised.
    """

    message: VerdictMessage
    received_unix_ns: int
    frame: Frame
    anomaly_map: NDArray[np.float32]

    @property
    def name(self) -> str:
        """Name of its folder; names sort by age."""
        return f"{self.message.station_seq:012d}-{self.received_unix_ns}"


class LabelQueue:
    """Writes flagged parts to disk, in a thread of its own.

    Policy: the newest matter. In memory a full queue forgets its oldest item (`overflowed`), on
    disk the oldest is evicted to make room (`evicted`), an item that the disk has no room for is
    not stored (`disk_full`), and one that cannot be written is given up (`failed`): the line is
    never slowed, and its ledger has the verdict anyway.
    """

    def __init__(self, state_dir: Path, budget_bytes: int) -> None:
        """Find what is on disk, and clear away what a crash left half-made.

        Raises:
            StationError: The folder cannot be made or read, or is a link.
        """
        self._folder = state_dir / FOLDER
        self._budget_bytes = budget_bytes
        self._waiting: Backlog[LabelItem] = Backlog(
            WAITING_ITEMS, WAITING_BYTES, lambda item: len(item.frame.pixels)
        )
        self._lock = threading.Lock()
        self._counts = {"stored": 0, "evicted": 0, "disk_full": 0, "failed": 0}
        self._bytes = 0
        self._items: deque[tuple[str, int]] = deque()
        # What a link leads to is not ours to clear away and evict from.
        if self._folder.is_symlink():
            raise StationError(
                f"the label queue {self._folder} is a link, expected a folder; remove the link, or "
                "point state_dir to the other disk"
            )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._scan()
        except OSError as error:
            raise StationError(f"cannot use the label queue {self._folder}: {error}") from error

    def offer(self, item: LabelItem) -> None:
        """Hand an item to the writer; never blocks."""
        if self._waiting.put(item) and is_milestone(self._waiting.forgotten):
            log.warning("label queue overflows", extra={"overflowed": self._waiting.forgotten})

    def write_all(self) -> None:
        """Write what is offered until `close`; the thread's work."""
        for item in self._waiting:
            try:
                self._store(item)
            except OSError as error:
                if is_milestone(self._count("failed")):
                    log.error("label queue cannot write", extra={"error": error})

    def close(self) -> None:
        """Let `write_all` end once everything offered is written."""
        self._waiting.close()

    def report(self) -> dict[str, int]:
        """Give the counters, and what is on disk."""
        with self._lock:
            return {
                **self._counts,
                "overflowed": self._waiting.forgotten,
                "items": len(self._items),
                "bytes": self._bytes,
            }

    def _scan(self) -> None:
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith((_HALF_MADE, _HALF_GONE)):
                shutil.rmtree(path)
            elif path.is_dir():
                size = sum(file.stat().st_size for file in path.iterdir())
                self._items.append((path.name, size))
                self._bytes += size

    def _store(self, item: LabelItem) -> None:
        files = _files(item)
        size = sum(len(data) for data in files.values())
        if size > self._budget_bytes:
            if is_milestone(self._count("failed")):
                log.error("label queue is too small", extra={"item_bytes": size})
            return
        while self._bytes + size > self._budget_bytes:
            self._evict_oldest()
        if not self._make_room(size):
            if is_milestone(self._count("disk_full")):
                log.error("label queue leaves the disk to the ledger", extra={"item_bytes": size})
            return
        try:
            _write_folder(self._folder, item.name, files)
        except OSError as error:
            if error.errno not in _DISK_FULL or size > self._bytes:
                raise
            self._evict(size)
            _write_folder(self._folder, item.name, files)
        with self._lock:
            self._items.append((item.name, size))
            self._bytes += size
            self._counts["stored"] += 1

    def _make_room(self, size: int) -> bool:
        """Evict until the reserve stays free beside so many bytes; False if that cannot help."""
        free = shutil.disk_usage(self._folder).free
        if free + self._bytes - size < RESERVE_BYTES:
            return False
        while free - size < RESERVE_BYTES:
            before = free
            self._evict(1)
            free = shutil.disk_usage(self._folder).free
            if free <= before:
                return False
        return True

    def _evict(self, size: int) -> None:
        """Evict the oldest until so many bytes are free; what a person took away frees none."""
        freed = 0
        while freed < size and self._items:
            freed += self._evict_oldest()

    def _evict_oldest(self) -> int:
        """Evict one; gives how many bytes that has freed."""
        with self._lock:
            name, size = self._items.popleft()
            self._bytes -= size
        path = self._folder / name
        # Renamed first, so that nobody who lists the queue meets half an item.
        gone = self._folder / f"{_HALF_GONE}{name}"
        try:
            path.rename(gone)
        except FileNotFoundError:
            return 0  # a person has labelled it and taken it away
        self._count("evicted")
        shutil.rmtree(gone)
        return size

    def _count(self, what: str) -> int:
        with self._lock:
            self._counts[what] += 1
            return self._counts[what]


def _files(item: LabelItem) -> dict[str, Buffer]:
    header = item.frame.header
    pixels = item.frame.pixels
    if header.encoding == "raw":
        dtype = np.dtype(header.dtype).newbyteorder("<")
        pixels = _npy(np.frombuffer(pixels, dtype).reshape(header.shape))
    document = {
        # Through JSON, where a score that is not a number becomes null: others will read this.
        "verdict": json.loads(item.message.model_dump_json()),
        "received_unix_ns": item.received_unix_ns,
        "frame": header.model_dump(mode="json"),
        "map_shape": list(item.anomaly_map.shape),
    }
    return {
        FRAME + _SUFFIXES[header.encoding]: pixels,
        MAP: _npy(item.anomaly_map),
        VERDICT: json.dumps(document, indent=1, ensure_ascii=False).encode(),
    }


def _npy(array: NDArray[np.generic]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write_folder(parent: Path, name: str, files: dict[str, Buffer]) -> None:
    """Make a folder appear whole or not at all: written, synced, then renamed."""
    half_made = parent / f"{_HALF_MADE}{name}"
    try:
        half_made.mkdir()
        for file, data in files.items():
            write_synced(half_made / file, data)
        sync_folder(half_made)
        half_made.rename(parent / name)
        sync_folder(parent)
    except OSError:
        shutil.rmtree(half_made, ignore_errors=True)
        raise
