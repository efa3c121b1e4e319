"""Keeps what a person should look at: one folder a part, within a budget of disk.

label_queue/000000000042-1764000000000000000/
    frame.jpg | frame.png | frame.npy    the pixels as received
    map.npy                              (Gh, Gw) float32, standardised
    verdict.json                         the verdict as published
"""

from __future__ import annotations

import json
import logging
import os
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
from inspection.errors import StationError
from inspection.messages import Buffer, Frame, VerdictMessage

log = logging.getLogger(__name__)

FOLDER = "label_queue"
FRAME, MAP, VERDICT = "frame", "map.npy", "verdict.json"

WAITING_ITEMS = 32
WAITING_BYTES = 256 << 20

_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "raw": ".npy"}
_HALF_MADE = ".new-"
_HALF_GONE = ".old-"


@dataclass(frozen=True, slots=True)
class LabelItem:
    """A part that was flagged.

    Attributes:
        message: As published.
        received_unix_ns: When its frame came.
        frame: As received.
        anomaly_map: (Gh, Gw) float32, standardised.
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
    disk the oldest is evicted to make room (`evicted`), and an item that cannot be written is given
    up (`failed`): the line is never slowed, and its ledger has the verdict anyway.
    """

    def __init__(self, state_dir: Path, budget_bytes: int) -> None:
        """Find what is on disk, and clear away what a crash left half-made.

        Raises:
            StationError: The folder cannot be made or read.
        """
        self._folder = state_dir / FOLDER
        self._budget_bytes = budget_bytes
        self._waiting: Backlog[LabelItem] = Backlog(
            WAITING_ITEMS, WAITING_BYTES, lambda item: len(item.frame.pixels)
        )
        self._lock = threading.Lock()
        self._counts = {"stored": 0, "evicted": 0, "failed": 0}
        self._bytes = 0
        self._items: deque[tuple[str, int]] = deque()
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
        _write_folder(self._folder, item.name, files)
        with self._lock:
            self._items.append((item.name, size))
            self._bytes += size
            self._counts["stored"] += 1

    def _evict_oldest(self) -> None:
        with self._lock:
            name, size = self._items.popleft()
            self._bytes -= size
        path = self._folder / name
        # Renamed first, so that nobody who lists the queue meets half an item.
        gone = self._folder / f"{_HALF_GONE}{name}"
        try:
            path.rename(gone)
        except FileNotFoundError:
            return  # a person has labelled it and taken it away
        self._count("evicted")
        shutil.rmtree(gone)

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
            with (half_made / file).open("wb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
        _sync_folder(half_made)
        half_made.rename(parent / name)
        _sync_folder(parent)
    except OSError:
        shutil.rmtree(half_made, ignore_errors=True)
        raise


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
