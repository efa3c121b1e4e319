"""Engines through a library that does what a test wants: what is asked of it, and what it refuses.

That TensorRT itself has these names and arguments is `tests/deploy/test_tensorrt_bindings.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.device import DeviceArray
from edge.tensorrt_engine import TensorRTTrunk, open_engine
from inspection.errors import DeviceError

FRAMES = DeviceArray(4096, (2, 32, 32, 3), np.dtype(np.uint8))
FEATURES = DeviceArray(8192, (2 * 16, 5), np.dtype(np.float32))


class Listener:
    ERROR, INTERNAL_ERROR, WARNING = "error", "internal", "warning"


class Context:
    def __init__(self, library: Library) -> None:
        self.library = library
        self.asked: dict[str, Any] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.asked[f"shape of {name}"] = shape
        return shape[0] <= 4 or self.library.complains("shape out of range")

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.asked[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def execute_async_v3(self, stream: int) -> bool:
        self.library.ran.append(stream)
        return not self.library.broken or self.library.complains("launch failed")


class Engine:
    num_io_tensors = 2

    def __init__(self, library: Library) -> None:
        self.library = library

    def get_tensor_name(self, number: int) -> str:
        return self.library.tensors[number]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == self.library.tensors[0] else "out"

    def get_tensor_dtype(self, name: str) -> str:
        return self.library.dtypes[self.library.tensors.index(name)]

    def get_tensor_profile_shape(self, name: str, number: int) -> list[tuple[int, ...]]:
        assert (name, number) == ("frames", 0)
        return [(1, 32, 32, 3), (1, 32, 32, 3), (4, 32, 32, 3)]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 16, 5)

    def create_execution_context(self) -> Context | None:
        if self.library.full:
            self.library.complains("out of memory")
            return None
        self.library.contexts.append(Context(self.library))
        return self.library.contexts[-1]


class Library:
    """As much of TensorRT as a trunk asks for."""

    uint8, float32 = "uint8", "float32"
    ILogger = Listener
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")

    def __init__(self) -> None:
        self.tensors, self.dtypes = ["frames", "patch_features"], ["uint8", "float32"]
        self.full = self.broken = False
        self.contexts: list[Context] = []
        self.ran: list[int] = []
        self.heard: Any = None

    def Runtime(self, heard: Any) -> Any:  # noqa: N802
        self.heard = heard
        return SimpleNamespace(deserialize_cuda_engine=self._load)

    def _load(self, data: bytes) -> Engine | None:
        if data == b"an engine":
            return Engine(self)
        self.complains("serialized with another version")
        return None

    def complains(self, text: str) -> bool:
        self.heard.log("warning", "something else")
        self.heard.log("error", text)
        return False


@contextmanager
def opened(library: Any) -> Iterator[TensorRTTrunk]:
    with open_engine("trunk.engine", b"an engine", library) as trunk:
        yield trunk


def test_an_engine_says_what_it_takes() -> None:
    with opened(Library()) as trunk:
        assert (trunk.side_px, trunk.patches, trunk.dimensions, trunk.most_frames) == (32, 16, 5, 4)


def test_every_pass_has_a_context_of_its_own_that_is_told_everything_once() -> None:
    library = Library()
    with (
        opened(library) as trunk,
        trunk.open_pass(FRAMES, FEATURES) as one,
        trunk.open_pass(FRAMES, FEATURES) as other,
    ):
        for each in (one, other, one):
            each.launch(SimpleNamespace(handle=7))  # type: ignore[arg-type]

    assert len(library.contexts) == 2
    for context in library.contexts:
        assert context.asked == {
            "shape of frames": (2, 32, 32, 3),
            "frames": 4096,
            "patch_features": 8192,
        }
    assert library.ran == [7, 7, 7]


def test_an_engine_that_is_not_taken_says_why() -> None:
    with (
        pytest.raises(DeviceError, match=r"trunk.engine cannot be loaded: serialized with another"),
        open_engine("trunk.engine", b"of another version", Library()),  # type: ignore[arg-type]
    ):
        pytest.fail("opened")


@pytest.mark.parametrize(
    ("tensors", "dtypes", "said"),
    [
        (["pixels", "patch_features"], ["uint8", "float32"], "not those of a trunk"),
        (["patch_features", "frames"], ["float32", "uint8"], "not those of a trunk"),
        (["frames", "patch_features"], ["float32", "float32"], "expected"),
        (["frames", "patch_features"], ["uint8", "float16"], "expected"),
    ],
)
def test_an_engine_that_is_no_trunk_is_refused(
    tensors: list[str], dtypes: list[str], said: str
) -> None:
    library = Library()
    library.tensors, library.dtypes = tensors, dtypes

    with pytest.raises(DeviceError, match=said), opened(library):
        pytest.fail("opened")


def test_an_engine_without_room_says_so() -> None:
    library = Library()
    library.full = True

    with (
        opened(library) as trunk,
        pytest.raises(DeviceError, match="no room for its work: out of memory"),
        trunk.open_pass(FRAMES, FEATURES),
    ):
        pytest.fail("opened")


def test_more_frames_than_the_engine_was_built_for_are_refused() -> None:
    many = DeviceArray(4096, (5, 32, 32, 3), np.dtype(np.uint8))

    with (
        opened(Library()) as trunk,
        pytest.raises(DeviceError, match="shape out of range"),
        trunk.open_pass(many, FEATURES),
    ):
        pytest.fail("opened")


def test_a_pass_that_fails_says_why() -> None:
    library = Library()
    library.broken = True

    with (
        opened(library) as trunk,
        trunk.open_pass(FRAMES, FEATURES) as it,
        pytest.raises(DeviceError, match="did not run: launch failed"),
    ):
        it.launch(SimpleNamespace(handle=7))  # type: ignore[arg-type]
