"""What many tests share: one tiny bundle on disk, written once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.bundle_folder import open_bundle
from inspection.bundle import Bundle
from tests.bundles import write_tiny_bundle


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle on disk; not to be changed."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_folder: Path) -> Bundle:
    """The tiny bundle, read and verified."""
    return open_bundle(tiny_folder)
