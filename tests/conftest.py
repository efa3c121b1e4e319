"""What many tests share: one tiny bundle on disk, written once a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.bundle_folder import open_bundle
from inspection.bundle import Bundle
from tests.bundles import LETTERBOX, write_tiny_bundle


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Undo what a command under test did to the log: its handler writes to a stream now closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle on disk; not to be changed."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_folder: Path) -> Bundle:
    """The tiny bundle, read and verified."""
    return open_bundle(tiny_folder)


@pytest.fixture(scope="session")
def letterbox_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle of another preprocessing; not to be changed."""
    return write_tiny_bundle(tmp_path_factory.mktemp("letterbox"), LETTERBOX)


@pytest.fixture(scope="session")
def letterbox_bundle(letterbox_folder: Path) -> Bundle:
    """The same, read and verified."""
    return open_bundle(letterbox_folder)
