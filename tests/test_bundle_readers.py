"""Every program that opens a bundle stays inside its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import calibration.rethreshold
import deploy.cli
import edge.bundle_folder
import trainer.bundle_folder
from inspection.bundle import NORMAL_BANK, Bundle
from inspection.errors import BundleError
from inspection.manifest import MANIFEST
from tests.bundles import write_tiny_bundle

READERS = {
    "calibration": calibration.rethreshold.open_bundle,
    "deploy": deploy.cli.verify,
    "edge": edge.bundle_folder.open_bundle,
    "trainer": trainer.bundle_folder.open_bundle,
}

Reader = Callable[[Path], Bundle]


@pytest.fixture(params=READERS)
def read(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


def bank_of(folder: Path) -> Path:
    entry = json.loads((folder / MANIFEST).read_text())["files"][NORMAL_BANK]
    return folder / "files" / entry["sha256"]


def test_a_bundle_that_is_reached_through_a_link_is_read(read: Reader, tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle")
    (tmp_path / "current").symlink_to(folder)

    assert read(tmp_path / "current").id == read(folder).id


def test_a_link_out_of_the_bundle_is_refused_even_to_the_same_bytes(
    read: Reader, tmp_path: Path
) -> None:
    bank = bank_of(write_tiny_bundle(tmp_path / "bundle"))
    bank.rename(tmp_path / "outside")
    bank.symlink_to(tmp_path / "outside")

    with pytest.raises(BundleError, match=r"files/[0-9a-f]{64}"):
        read(tmp_path / "bundle")


def test_what_never_ends_is_not_read(read: Reader, tmp_path: Path) -> None:
    bank = bank_of(write_tiny_bundle(tmp_path / "bundle"))
    bank.unlink()
    os.mkfifo(bank)

    with pytest.raises(BundleError, match=r"files/[0-9a-f]{64}"):
        read(tmp_path / "bundle")
