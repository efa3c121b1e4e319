"""Bundles that a station has taken in, and the record of which one runs: `state_dir/bundles`.

The record is on disk before what it says is done, so that a start after any crash knows what to
run. Which bundle should run is decided by `edge.swapping` and, at a start, by `edge.first_bundle`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from edge.bundle_folder import open_bundle, verify_files
from edge.state_dir import sync_folder, write_synced
from inspection.bundle import Bundle, digest
from inspection.control_messages import Terms
from inspection.errors import BundleError, StationError
from inspection.manifest import MANIFEST, MAX_MANIFEST_BYTES, Digest, FileEntry, parse_manifest
from inspection.wire import first_of

BUNDLES, RECORD = "bundles", "active.json"

RESERVE_BYTES = 256 << 20
"""Disk that a new bundle leaves free: the ledger lives on it."""

PIECE_BYTES = 1 << 20

_PARTIAL = ".partial-"

Between = Callable[[], None]
"""Called between two pieces of work; may raise to end it."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Watch(_Part):
    """A probation that is not over: its terms, and the verdicts that it compares with."""

    terms: Terms
    before_judged: int
    before_flagged: int


class Record(_Part):
    """Which bundle runs.

    Attributes:
        running: Its id.
        previous: What a rollback, or a start after a crash in probation, brings back.
        configured_path: What the setting `bundle` was.
        configured_id: Id of the bundle there at that time.
        watch: While `running` is on probation.
        stopped: Whether the station ended in good order: then a probation goes on.
        why: Why the last one was rolled back, if it was.
    """

    v: Literal[1] = 1
    running: Digest
    previous: Digest | None = None
    configured_path: str
    configured_id: Digest
    watch: Watch | None = None
    stopped: bool = False
    why: str | None = None

    @model_validator(mode="after")
    def _can_go_back_while_watched(self) -> Record:
        if self.watch is not None and self.previous is None:
            raise ValueError("a bundle on probation has one before it")
        return self


class BundleStore:
    """The bundles below a station's `state_dir`, which it holds alone."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / BUNDLES

    def take_in(self, source: Path, between: Between = lambda: None) -> Bundle:
        """Copy a bundle and check every byte of it: all of it is there afterwards, or nothing.

        A hard link would be faster, and whoever edits the source would edit what runs.

        Args:
            source: Its folder.
            between: Called after every mebibyte.

        Raises:
            BundleError: It is no bundle, damaged, or a file in it is not what the manifest says.
            StationError: The disk has no room for it, or fails.
        """
        data = _manifest_of(source)
        kept = self._folder / digest(data)
        if kept.exists() and _is_whole(kept):
            return open_bundle(kept)
        files = {entry.path: entry for entry in parse_manifest(data).files.values()}
        try:
            self._clear_partial()
            self._check_room(len(data) + sum(entry.size_bytes for entry in files.values()))
            with self._all_or_nothing(kept) as partial:
                (partial / "files").mkdir()
                for entry in files.values():
                    _copy(source, entry, partial, between)
                write_synced(partial / MANIFEST, data)
                sync_folder(partial / "files")
                # Parts that contradict each other are found here, before it has its name.
                open_bundle(partial)
        except OSError as error:
            raise StationError(f"cannot take in the bundle {source}: {error}") from error
        return open_bundle(kept)

    def open(self, bundle_id: str, record: Record) -> Bundle:
        """Open a bundle that has run here: the configured one lies where its operator put it.

        Raises:
            BundleError: It is not there any more, or damaged, or another one is.
        """
        folder = self._folder / bundle_id
        if bundle_id == record.configured_id:
            folder = Path(record.configured_path)
        bundle = open_bundle(folder)
        verify_files(bundle)
        if bundle.id != bundle_id:
            raise BundleError(
                f"{folder} held bundle {bundle_id[:12]}, and holds {bundle.id[:12]} now; "
                "swap in the one that you want"
            )
        return bundle

    def forget_all_but(self, *bundle_ids: str | None) -> None:
        """Remove every bundle but these, and what a crash has left half copied."""
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            if folder.name not in bundle_ids:
                shutil.rmtree(folder, ignore_errors=True)

    def read(self) -> Record | None:
        """Read which bundle runs; None if none was ever swapped.

        Raises:
            StationError: The record is there and cannot be read; the text says why.
        """
        path = self._state_dir / RECORD
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StationError(f"cannot read {path}: {error}") from error
        try:
            return Record.model_validate_json(data)
        except ValidationError as error:
            raise StationError(f"{path} is damaged: {first_of(error)}") from error

    def write(self, record: Record) -> None:
        """Write which bundle runs; on disk when this returns.

        Raises:
            StationError: It cannot be written; what was recorded before still is.
        """
        path = self._state_dir / RECORD
        partial = path.with_name(f"{RECORD}.partial")
        try:
            self._state_dir.mkdir(parents=True, exist_ok=True)
            write_synced(partial, record.model_dump_json(indent=1).encode() + b"\n")
            os.replace(partial, path)
            sync_folder(self._state_dir)
        except OSError as error:
            raise StationError(f"cannot record in {path} which bundle runs: {error}") from error

    @contextmanager
    def _all_or_nothing(self, kept: Path) -> Iterator[Path]:
        """Give a folder to fill, which gets its name if that succeeds and goes if it does not."""
        partial = self._folder / f"{_PARTIAL}{secrets.token_hex(8)}"
        partial.mkdir(parents=True)
        try:
            yield partial
            sync_folder(partial)
            # A damaged one of this name may be there; whoever runs it has read what it needs.
            shutil.rmtree(kept, ignore_errors=True)
            partial.rename(kept)
            sync_folder(self._folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _clear_partial(self) -> None:
        for folder in self._folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _check_room(self, size_bytes: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < size_bytes + RESERVE_BYTES:
            raise StationError(
                f"the bundle takes {size_bytes >> 20} MiB and {RESERVE_BYTES >> 20} must stay "
                f"free, but {self._folder} has {free >> 20} MiB left; make room and ask again"
            )


def _manifest_of(source: Path) -> bytes:
    with _opened(source, MANIFEST) as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    parse_manifest(data)
    return data


def _copy(source: Path, entry: FileEntry, to: Path, between: Between) -> None:
    """Copy one file, and look at the bytes that are written, not at those that lie there.

    Raises:
        BundleError: It is not there, no file, outside of the bundle, or has other bytes.
    """
    hashed, size = hashlib.sha256(), 0
    with _opened(source, entry.path) as file, (to / entry.path).open("xb") as copy:
        # One byte more than it should have tells a file that is longer, or grows meanwhile.
        while piece := file.read(min(PIECE_BYTES, entry.size_bytes + 1 - size)):
            hashed.update(piece)
            size += len(piece)
            copy.write(piece)
            between()
        copy.flush()
        os.fsync(copy.fileno())
    if size != entry.size_bytes or hashed.hexdigest() != entry.sha256:
        raise BundleError(
            f"{source / entry.path} is damaged: expected {entry.size_bytes} bytes, SHA-256 "
            f"{entry.sha256[:12]}…, got {size if size <= entry.size_bytes else 'more'}, "
            f"{hashed.hexdigest()[:12]}…; copy the bundle again"
        )


@contextmanager
def _opened(source: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file of a bundle, wherever a link inside the bundle leads, but never outside of it.

    Raises:
        BundleError: It is not there, no file, or outside.
    """
    path, root = source / name, source.resolve()
    found = path.resolve()
    if not found.is_relative_to(root):
        raise BundleError(f"{path} leads outside of the bundle, to {found}")
    try:
        # Not waiting: a pipe of that name would never be opened.
        opened = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {error.strerror}; is {source} the folder of a bundle?"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise BundleError(f"{path} is no file; copy the bundle again")
        with os.fdopen(opened, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(opened)


def _is_whole(folder: Path) -> bool:
    try:
        return verify_files(open_bundle(folder)) > 0
    except BundleError:
        return False
