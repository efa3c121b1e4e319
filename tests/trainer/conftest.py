"""What is slow and shared: a trunk, and one small bundle that the command made."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.parts import PRODUCTS, write_category
from trainer.backbones.catalogue import load_backbone
from trainer.bundle_folder import open_bundle
from trainer.cli import main
from trainer.runtime import Runtime
from trainer.trunk import Trunk

SMALL = ("--size", "64", "--rows", "64", "--abnormal-rows", "32", "--quiet")


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> Iterator[None]:
    """Sums in one order, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trunk() -> Trunk:
    """A trunk that has not learned any lengths; not to be changed."""
    return Trunk(load_backbone()).eval()


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn bolts with masks and washers without; not to be changed."""
    root = tmp_path_factory.mktemp("parts")
    for product in PRODUCTS:
        write_category(root / product, product, masks=product == "bolt")
    return root


@pytest.fixture(scope="session")
def fitted(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `dualbank-train fit --json` printed of its bundle; not to be changed."""
    out = tmp_path_factory.mktemp("fit") / "bundle"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["fit", str(parts), "--out", str(out), "--json", *SMALL]) == 0
    report: dict[str, Any] = json.loads(printed.getvalue())
    return report


@pytest.fixture(scope="session")
def runtime(fitted: dict[str, Any]) -> Runtime:
    """The small bundle, running."""
    return Runtime(open_bundle(Path(fitted["path"])))
