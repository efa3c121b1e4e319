"""New thresholds for a bundle, from the scores of good parts that it carries. Needs no image."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from inspection.bundle import Bundle, read_bundle
from inspection.errors import BundleError
from inspection.manifest import MANIFEST, RouteEntry, manifest_bytes


def open_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: No bundle is there, or it is damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}")
    return read_bundle(lambda path: _read(folder, path))


def with_thresholds(bundle: Bundle, review_frr: float, reject_frr: float) -> bytes:
    """Write the manifest of a child that differs from its parent in nothing but thresholds.

    Args:
        bundle: The parent.
        review_frr: Share of good parts that may be sent to a person, in (0, 1).
        reject_frr: Share of good parts that may be ejected, at most `review_frr`.

    Raises:
        InputError: A rate is out of range.
    """
    routes: dict[str, RouteEntry] = {}
    for product, route in bundle.routes.items():
        thresholds = route.calibration.thresholds(review_frr, reject_frr)
        routes[product] = bundle.manifest.routes[product].model_copy(
            update={
                "review": thresholds.review,
                "reject": thresholds.reject,
                "statement": route.calibration.statement(review_frr, reject_frr),
            }
        )
    return manifest_bytes(
        bundle.manifest.model_copy(update={"routes": routes, "parent": bundle.id})
    )


def write_child(parent: Path, bundle: Bundle, manifest: bytes, target: Path) -> Bundle:
    """Write a bundle that shares every file of its parent, whole or not at all.

    Files are hard links where the disk allows it: a bundle never changes, so sharing is safe.

    Raises:
        BundleError: The target exists already, or a file of the parent is damaged; it is named.
    """
    if os.path.lexists(target):
        raise BundleError(f"{target} exists already; choose another place or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        fresh = Path(scratch) / "bundle"
        (fresh / "files").mkdir(parents=True)
        # Two names of the same content share one file.
        for path in {entry.path for entry in bundle.manifest.files.values()}:
            _share(parent / path, fresh / path)
        with (fresh / MANIFEST).open("wb") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        child = open_bundle(fresh)
        # All of them: damage must not travel from a parent to its children.
        for name in child.manifest.files:
            child.file(name)
        fresh.rename(target)
    return child


def summary(bundle: Bundle) -> Mapping[str, Mapping[str, float | str]]:
    """State each product's thresholds, standardised, and what they rest on."""
    return {
        product: {"review": entry.review, "reject": entry.reject, "statement": entry.statement}
        for product, entry in bundle.manifest.routes.items()
    }


def _read(folder: Path, path: str) -> bytes:
    """Read a plain file below the folder; a link may not lead out of it."""
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()) or not place.is_file():
        raise OSError(errno.ENOENT, "no plain file below the bundle's folder", str(place))
    return place.read_bytes()


def _share(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another disk, or a file system without links.
        shutil.copyfile(source, target)
