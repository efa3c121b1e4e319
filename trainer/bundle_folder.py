"""Bundles on the trainer's disk: read one, or write a new one whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from inspection.bundle import Bundle, read_bundle
from inspection.errors import BundleError
from inspection.manifest import MANIFEST


def open_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: No bundle is there, or it is damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}")
    return read_bundle(lambda path: _read(folder, path))


def _read(folder: Path, path: str) -> bytes:
    """Read a plain file below the folder; a link may not lead out of it."""
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()) or not place.is_file():
        raise OSError(errno.ENOENT, "no plain file below the bundle's folder", str(place))
    return place.read_bytes()


def check_target(folder: Path) -> None:
    """Refuse a place where a bundle cannot be written, before hours are spent on it.

    Raises:
        BundleError: Something else than a bundle lies there already, or nothing can be made there.
    """
    if os.path.lexists(folder) and not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} exists and is no bundle; choose another place or remove it")
    above = next(path for path in Path(os.path.abspath(folder)).parents if os.path.lexists(path))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise BundleError(
            f"cannot make {folder}: {above} is no folder that we may write to; choose another place"
        )


def write_bundle(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a bundle beside its place and move it there; one that lies there is replaced.

    Args:
        folder: Where the bundle shall be.
        files: From `inspection.bundle.pack`.

    Raises:
        BundleError: As `check_target`.
    """
    check_target(folder)
    folder = Path(os.path.abspath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for path, data in files.items():
            target = fresh / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        fresh.chmod(0o755)
        if folder.exists():
            _replace(folder, fresh)
        else:
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _replace(folder: Path, fresh: Path) -> None:
    """Put a new bundle where an old one lies, which stays if that fails.

    A folder cannot be replaced in one step: the old one steps aside, and only then goes.
    """
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    try:
        folder.rename(aside / "bundle")
        try:
            fresh.rename(folder)
        except BaseException:
            (aside / "bundle").rename(folder)
            raise
    except BaseException:
        aside.rmdir()
        raise
    shutil.rmtree(aside)
