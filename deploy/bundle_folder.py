"""A bundle on disk: read whole, copied for a trial, and given engines, at once or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from inspection.bundle import Bundle, digest, read_bundle
from inspection.errors import BundleError
from inspection.manifest import MANIFEST, FileEntry, manifest_bytes

FILES = "files"


def verify(folder: Path) -> Bundle:
    """Read every file of a bundle and check its digest.

    Raises:
        BundleError: No bundle is there, or a file is missing or damaged; it is named.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}")
    bundle = read_bundle(lambda path: _read(folder, path))
    for name in bundle.manifest.files:
        bundle.file(name)
    return bundle


@contextmanager
def place_beside(folder: Path) -> Iterator[Path]:
    """Hold an empty folder beside a bundle, on the same disk, so that files can be moved at once.

    It is made before anything is compiled, which may take minutes: a bundle that cannot be written
    is told at once. When the power goes it is left over, hidden, and may be deleted.

    Raises:
        BundleError: The bundle or the folder around it cannot be written.
    """
    try:
        for inside in (folder, folder / FILES):
            with tempfile.TemporaryFile(dir=inside):
                pass
        scratch = tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent)
    except OSError as error:
        raise BundleError(
            f"{folder} and the folder around it must be writable to build: "
            f"{error.strerror or error}; copy the bundle to another place"
        ) from error
    with scratch as place:
        yield Path(place)


def write_trial(folder: Path, bundle: Bundle, engines: Mapping[str, bytes], trial: Path) -> Bundle:
    """Write the bundle as it would be with engines, beside the one that is there.

    Args:
        folder: Of the bundle.
        bundle: As read from there.
        engines: By name.
        trial: An empty folder on the same disk.

    Returns:
        The child, read from the trial; its parent is the bundle.

    Raises:
        BundleError: A file was damaged meanwhile.
    """
    entries = {
        name: FileEntry(sha256=digest(data), size_bytes=len(data)) for name, data in engines.items()
    }
    (trial / FILES).mkdir()
    for path in {entry.path for entry in bundle.manifest.files.values()}:
        _share(folder / path, trial / path)
    for name, data in engines.items():
        # Two names of the same content share one file.
        if not (trial / entries[name].path).exists():
            _write(trial / entries[name].path, data)
    child = bundle.manifest.model_copy(
        update={"files": {**bundle.manifest.files, **entries}, "parent": bundle.id}
    )
    _write(trial / MANIFEST, manifest_bytes(child))
    return verify(trial)


def admit(folder: Path, bundle: Bundle, trial: Path, child: Bundle) -> None:
    """Make a bundle the one of its trial: the new files first, then the manifest, each at once.

    Whenever this is cut off, the folder is a whole bundle, the old one or the new one. A new file
    that no manifest lists yet is left over by a cut in between; the next build writes it again.

    Args:
        folder: Of the bundle.
        bundle: As read from there, before.
        trial: What `write_trial` wrote, on the same disk.
        child: The bundle of the trial.

    Raises:
        BundleError: The bundle became another one meanwhile, or its folder cannot be written.
    """
    if digest(_read(folder, MANIFEST)) != bundle.id:
        raise BundleError(f"{folder} became another bundle while this was built; build again")
    known = {entry.path for entry in bundle.manifest.files.values()}
    try:
        for path in sorted({entry.path for entry in child.manifest.files.values()} - known):
            os.replace(trial / path, folder / path)
        _flush(folder / FILES)
        os.replace(trial / MANIFEST, folder / MANIFEST)
        _flush(folder)
    except OSError as error:
        raise BundleError(f"cannot write {folder}: {error.strerror or error}") from error


def write_at_once(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds the old bytes or the new ones.

    Raises:
        OSError: It cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as place:
        _write(Path(place) / path.name, data)
        os.replace(Path(place) / path.name, path)
    _flush(path.parent)


def _read(folder: Path, path: str) -> bytes:
    """Read a plain file below the folder; a link may not lead out of it."""
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()) or not place.is_file():
        raise OSError(errno.ENOENT, "no plain file below the bundle's folder", str(place))
    return place.read_bytes()


def _share(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Make the names in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
