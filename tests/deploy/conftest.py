"""What the tests of `deploy` share: a bundle to write to, a judge for a station, a real trunk."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deploy.compiler import InstalledProvider, find_provider
from tests.bundles import write_tiny_bundle
from tests.deploy import judge
from tests.deploy.factory import Factory
from tests.deploy.frames import SIDE_PX, drawn_frames

Judge = Callable[..., tuple[str, ...]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny bundle that a test may change."""
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def judged() -> Judge:
    """Makes the command of a judge that says what it is told to, see `judge`."""

    def command(**say: Any) -> tuple[str, ...]:
        return (sys.executable, judge.__file__, json.dumps(say))

    return command


@pytest.fixture
def factory() -> Factory:
    return Factory()


@pytest.fixture(scope="session")
def real_trunk() -> bytes:
    """The default backbone's trunk, as `dualbank-train` exports it, at 64 px; not to be changed."""
    import torch

    from inspection.preprocessing import Preprocessing
    from trainer.backbones.catalogue import load_backbone
    from trainer.export import export_trunk
    from trainer.trunk import Trunk

    trunk = Trunk(load_backbone()).eval()
    trunk.learn_lengths(torch.from_numpy(drawn_frames(4, seed=1)))
    return export_trunk(trunk, Preprocessing(SIDE_PX))


@pytest.fixture(scope="session")
def rtx() -> InstalledProvider:
    """TensorRT-RTX, which compiles without a GPU. REQUIRE_TENSORRT_RTX=1 says that it must."""
    try:
        return find_provider("tensorrt_rtx")
    except Exception as error:
        if os.environ.get("REQUIRE_TENSORRT_RTX") == "1":
            raise
        pytest.skip(f"needs tensorrt-rtx: {error}")


@pytest.fixture
def no_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes an import fail, installed or not."""

    def hide(name: str) -> None:
        # What `import` finds first: None means that there is no such module.
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]

    return hide


@pytest.fixture
def a_module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Makes an import give a module of these values."""

    def install(name: str, **values: Any) -> ModuleType:
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install
