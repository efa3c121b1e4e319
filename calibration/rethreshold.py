"""New thresholds for a bundle, from the scores of good parts that it carries. Needs no image.

Golden frames keep their scores, and get the verdicts that the new thresholds give: a station takes
no bundle whose golden frames are judged otherwise than they say.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from inspection.bundle import (
    ANY_PRODUCT,
    GOLDEN,
    MANIFEST,
    Bundle,
    FileEntry,
    RouteEntry,
    digest,
    manifest_bytes,
    parse_manifest,
    read_bundle,
)
from inspection.errors import BundleError
from inspection.golden import GoldenFrame, golden_from_bytes, golden_to_bytes
from inspection.thresholds import Thresholds
from inspection.verdicts import judge


def open_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: No bundle is there, or it is damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}")
    return read_bundle(lambda path: (folder / path).read_bytes())


def with_thresholds(bundle: Bundle, review_frr: float, reject_frr: float) -> dict[str, bytes]:
    """Make what a child has of its own, that differs from its parent in nothing but thresholds.

    Args:
        bundle: The parent.
        review_frr: Share of good parts that may be sent to a person, in (0, 1).
        reject_frr: Share of good parts that may be ejected, at most `review_frr`.

    Returns:
        Path below the bundle's folder → bytes: the manifest, and golden frames whose verdicts
        changed.

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
    golden = golden_to_bytes(
        [_judged_again(frame, bundle, routes) for frame in golden_from_bytes(bundle.file(GOLDEN))]
    )
    entry = FileEntry(sha256=digest(golden), size_bytes=len(golden))
    files = {**bundle.manifest.files, GOLDEN: entry}
    manifest = bundle.manifest.model_copy(
        update={"routes": routes, "parent": bundle.id, "files": files}
    )
    own = {} if entry == bundle.manifest.files[GOLDEN] else {entry.path: golden}
    return {**own, MANIFEST: manifest_bytes(manifest)}


def write_child(parent: Path, own: Mapping[str, bytes], target: Path) -> Bundle:
    """Write a bundle that shares with its parent all but its own files, whole or not at all.

    Files are hard links where the disk allows it: a bundle never changes, so sharing is safe.

    Args:
        parent: Its folder.
        own: From `with_thresholds`.
        target: Where the child shall be.

    Raises:
        BundleError: The target exists already, or a file of the parent is damaged; it is named.
    """
    if os.path.lexists(target):
        raise BundleError(f"{target} exists already; choose another place or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        fresh = Path(scratch) / "bundle"
        (fresh / "files").mkdir(parents=True)
        paths = {entry.path for entry in parse_manifest(own[MANIFEST]).files.values()}
        for path in paths - set(own):
            _share(parent / path, fresh / path)
        for path, data in own.items():
            with (fresh / path).open("wb") as file:
                file.write(data)
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


def _judged_again(
    frame: GoldenFrame, bundle: Bundle, routes: Mapping[str, RouteEntry]
) -> GoldenFrame:
    entry, calibration = (
        routes[frame.product or ANY_PRODUCT],
        bundle.route(frame.product).calibration,
    )
    judged = judge(frame.score, calibration, Thresholds(entry.review, entry.reject))
    return replace(frame, verdict=judged.decision.verdict)


def _share(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another disk, or a file system without links.
        shutil.copyfile(source, target)
