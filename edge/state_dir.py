"""The folder that a station writes to: one station's alone, and closed to other users."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inspection.errors import StationError
from inspection.wire import Buffer

LOCK = "lock"

_OWNER_ONLY = 0o077


@contextmanager
def hold_state_dir(state_dir: Path) -> Iterator[None]:
    """Keep other stations out of a folder, made if it is not there, until the end.

    The lock is the kernel's and ends with the process, however that ends: the file that stays
    behind means nothing. It is never removed, because two stations could then hold one each.

    Raises:
        StationError: Another station holds it, or the folder cannot be used.
    """
    path = state_dir / LOCK
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StationError(f"cannot use the state_dir {state_dir}: {error}") from error
    try:
        _lock(descriptor, state_dir)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def private_files() -> Iterator[None]:
    """Make every new file 0600 and every new folder 0700, in all threads, until the end.

    Frames and verdicts are the factory's own: other users of the machine have no business there.
    """
    before = os.umask(_OWNER_ONLY)
    try:
        yield
    finally:
        os.umask(before)


def write_synced(path: Path, data: Buffer) -> None:
    """Write a file whose bytes are on the disk when this returns; its name is when the folder is.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the disk know what a folder's files are called.

    Raises:
        OSError: It cannot.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, state_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StationError(
            f"state_dir {state_dir} is in use by another station; "
            "stop that one, or give this one a state_dir of its own"
        ) from error
    except OSError as error:
        raise StationError(f"cannot lock the state_dir {state_dir}: {error}") from error
