"""Bundles that a swap should like or refuse: the tiny one, changed as its maker would have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from inspection.golden import golden_to_bytes
from inspection.manifest import MANIFEST, manifest_bytes, parse_manifest
from tests.bundles import golden_frames, write_tiny_bundle


def with_thresholds(folder: Path, review: float, reject: float) -> Path:
    """The tiny bundle with other thresholds on every route."""
    write_tiny_bundle(folder)
    manifest = parse_manifest((folder / MANIFEST).read_bytes())
    routes = {
        product: entry.model_copy(update={"review": review, "reject": reject})
        for product, entry in manifest.routes.items()
    }
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest.model_copy(update={"routes": routes})))
    return folder


def with_wrong_golden_answers(folder: Path) -> Path:
    """The tiny bundle, whose golden frames say something else than its model."""
    wrong = [replace(each, score=each.score + 1.0) for each in golden_frames()]
    return write_tiny_bundle(folder, golden_safetensors=golden_to_bytes(wrong))
