"""A trunk under the emulated driver: ONNX Runtime on this CPU, called when its stream comes to it.

It stands where TensorRT stands on a GPU. Its graph is the bundle's own, so that what comes out of
the pipeline can be held to `full.onnx`.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager

import numpy as np
import onnxruntime

from inspection.bundle import TRUNK, Bundle

HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class EmulatedTrunk:
    """A `Trunk` that counts its passes, and ends the context at one of them, `breaks_at`."""

    def __init__(self, driver, bundle: Bundle, most_frames=8, graph=None) -> None:
        self.name = "the bundle's trunk, emulated"
        spec = bundle.preprocessing
        self.side_px, self.patches = spec.size_px, spec.patches
        self.dimensions, self.most_frames = bundle.normal.dimensions, most_frames
        self.passes, self.breaks_at = 0, None
        self.opened = 0
        self._driver = driver
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            graph or bundle.file(TRUNK), options, providers=["CPUExecutionProvider"]
        )

    @contextmanager
    def open_pass(self, frames, features):
        self.opened += 1
        try:
            yield _Pass(self, frames, features)
        finally:
            self.opened -= 1

    def run(self, frames, features):
        self.passes += 1
        if self.passes == self.breaks_at:
            self._driver.break_context()
            return
        (found,) = self._session.run(["patch_features"], {"frames": memory_of(frames)})
        memory_of(features)[...] = found.reshape(features.shape)


class _Pass:
    def __init__(self, trunk, frames, features) -> None:
        self._trunk = trunk
        # Called from C: it must live as long as a graph that holds it.
        self._function = HOST_FUNCTION(lambda _: trunk.run(frames, features))

    def launch(self, stream) -> None:
        library = self._trunk._driver.library
        assert library.cuLaunchHostFunc(ctypes.c_void_p(stream.handle), self._function, None) == 0


def memory_of(array):
    """An array of the emulated device's memory, which is this process's."""
    raw = (ctypes.c_uint8 * array.nbytes).from_address(array.address)
    return np.frombuffer(raw, array.dtype).reshape(array.shape)
