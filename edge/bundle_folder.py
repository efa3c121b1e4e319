"""Reads a bundle from a folder and from nowhere else. What a bundle is: `inspection.bundle`."""

from __future__ import annotations

from pathlib import Path

from inspection.bundle import Bundle, read_bundle
from inspection.errors import BundleError
from inspection.manifest import MANIFEST


def open_bundle(folder: Path) -> Bundle:
    """Read and verify the bundle in a folder; its larger files are read when they are asked for.

    Raises:
        BundleError: The folder holds no bundle, or a damaged one.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is no bundle: there is no {MANIFEST} in it")
    root = folder.resolve()

    def read(path: str) -> bytes:
        # Resolved, because a link inside the folder may point anywhere.
        found = (root / path).resolve()
        if not found.is_relative_to(root):
            raise BundleError(f"{path} of the bundle leads outside of it, to {found}")
        if not found.is_file():
            raise BundleError(f"{path} of the bundle is missing or no file; copy the bundle again")
        return found.read_bytes()

    return read_bundle(read)


def verify_files(bundle: Bundle) -> int:
    """Read every file that the manifest lists, also those that a station does not use.

    Returns:
        How many there are.

    Raises:
        BundleError: One is missing or damaged.
    """
    for name in bundle.manifest.files:
        bundle.file(name)
    return len(bundle.manifest.files)
