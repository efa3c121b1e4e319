"""A trunk as a TensorRT engine: which of a bundle's fits this machine, and how it is run.

Only what TensorRT 10.3 to 11 and TensorRT-RTX share is called. An engine is executable code: its
bytes come from `Bundle.file`, which has checked the digest over the very bytes it gives.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from edge.device import DeviceArray
from edge.streams import Stream
from inspection.bundle import Bundle
from inspection.engines import (
    PROVIDERS,
    EngineKey,
    Provider,
    dotted,
    engines_for,
    is_engine,
    key_of,
)
from inspection.errors import DeviceError, InputError

log = logging.getLogger(__name__)


class TensorRTTrunk:
    """A `Trunk` that TensorRT runs; made by `open_engine`."""

    def __init__(self, name: str, library: ModuleType, engine: Any, heard: Any) -> None:
        self.name = name
        self._library, self._engine, self._heard = library, engine, heard
        modes, inward = library.TensorIOMode, {}
        for i in range(engine.num_io_tensors):
            tensor = engine.get_tensor_name(i)
            inward[tensor] = engine.get_tensor_mode(tensor) == modes.INPUT
        if inward != {"frames": True, "patch_features": False}:
            raise DeviceError(f"{name} has the tensors {inward}, not those of a trunk")
        types = library.uint8, library.float32
        found = tuple(engine.get_tensor_dtype(tensor) for tensor in ("frames", "patch_features"))
        if found != types:
            raise DeviceError(f"{name} takes and gives {found}, expected {types}")
        _, _, most = engine.get_tensor_profile_shape("frames", 0)
        given = engine.get_tensor_shape("patch_features")
        self.most_frames, self.side_px = int(most[0]), int(most[1])
        self.patches, self.dimensions = int(given[1]), int(given[2])

    @contextmanager
    def open_pass(self, frames: DeviceArray, features: DeviceArray) -> Iterator[TensorRTPass]:
        """See `Trunk`. Each has a context of its own: a graph must find it as it was recorded."""
        context = self._engine.create_execution_context()
        if context is None:
            raise DeviceError(f"{self.name} has no room for its work: {self._heard.last}")
        addresses = {"frames": frames.address, "patch_features": features.address}
        done = context.set_input_shape("frames", frames.shape)
        for tensor, address in addresses.items():
            done = done and context.set_tensor_address(tensor, address)
        if not done or context.infer_shapes():
            raise DeviceError(f"{self.name} refuses {frames.shape}: {self._heard.last}")
        yield TensorRTPass(self.name, context, self._heard)


class TensorRTPass:
    """A `TrunkPass`."""

    def __init__(self, name: str, context: Any, heard: Any) -> None:
        self._name, self._context, self._heard = name, context, heard

    def launch(self, stream: Stream) -> None:
        """See `TrunkPass`."""
        if not self._context.execute_async_v3(stream.handle):
            raise DeviceError(f"{self._name} did not run: {self._heard.last}")


def installed() -> dict[Provider, ModuleType]:
    """Import what there is to run engines with."""
    found: dict[Provider, ModuleType] = {}
    for provider in PROVIDERS:
        module = _import_library(provider)
        if module is not None:
            found[provider] = module
    return found


def engine_of(
    bundle: Bundle,
    versions: dict[Provider, str],
    capability: tuple[int, int],
    wanted: EngineKey | None = None,
) -> EngineKey:
    """Choose the bundle's engine for this machine, or make sure that one is.

    Args:
        bundle: Lists the engines.
        versions: Of the libraries that are installed.
        capability: Of the chip.
        wanted: The one and only that will do.

    Raises:
        DeviceError: There is none; the text names what the bundle has and what is needed.
    """
    digests = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    try:
        fit = engines_for(digests, versions.items(), capability)
        there = sorted(key_of(name).runtime for name in digests if is_engine(name))
    except InputError as error:
        raise DeviceError(str(error)) from error
    if fit and (wanted is None or wanted in fit):
        return wanted or fit[0]
    libraries = " or ".join(f"{name} {version}" for name, version in versions.items())
    raise DeviceError(
        f"this machine has {libraries or 'no TensorRT'} and a chip of compute capability "
        f"{dotted(capability)}; the bundle has engines for {'; '.join(there) or 'none'}: run "
        "`dualbank-deploy build BUNDLE` on this machine"
    )


@contextmanager
def open_engine(name: str, engine: bytes, library: ModuleType) -> Iterator[TensorRTTrunk]:
    """Hold an engine in the context that is current.

    Args:
        name: For logs and errors.
        engine: Checked bytes.
        library: Of the provider and version that built it.

    Raises:
        DeviceError: The library does not take it, or it is no trunk.
    """
    heard = _listener(library)
    runtime = library.Runtime(heard)
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise DeviceError(f"{name} cannot be loaded: {heard.last}")
    yield TensorRTTrunk(name, library, loaded, heard)


def _listener(library: ModuleType) -> Any:
    """Make a logger of the library that passes on to ours, and keeps the last complaint."""

    class Listener(library.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.last = "it does not say why"

        def log(self, severity: Any, text: str) -> None:
            grave = severity in (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR)
            if grave:
                self.last = text
            if grave or severity == library.ILogger.WARNING:
                log.warning("TensorRT says", extra={"text": text})

    return Listener()


def _import_library(provider: Provider) -> ModuleType | None:
    try:
        if provider == "tensorrt":
            import tensorrt as library
        else:
            library = _import_rtx()
    except (ImportError, OSError):
        # OSError: the bindings are there, and a library that they load is not.
        return None
    module: ModuleType = library
    return module


def _import_rtx() -> Any:
    try:
        import tensorrt_rtx
    except ImportError:
        # The wheel of the bindings, without the one that gives them their short name.
        import tensorrt_rtx_bindings

        return tensorrt_rtx_bindings
    return tensorrt_rtx
