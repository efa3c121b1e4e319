"""Looks at what only a GPU needs of a machine: driver, permissions, libraries, kernels, engine.

Nothing is changed. Without any of it a station scores on the CPU.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path

from edge.device import OLDEST_CAPABILITY, open_device
from edge.findings import Finding, State, user
from edge.kernels.binary import BINARY, DESCRIPTION, read_binary
from edge.settings import StationSettings
from edge.tensorrt_engine import engine_of, installed
from inspection.bundle import Bundle
from inspection.engines import is_engine
from inspection.errors import DeviceError, DualbankError

TENSORRT = ((10, 3), (12, 0))
"""TensorRT from the first version to before the second."""

DEVICES = Path("/dev")

NODES = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm")
"""Device nodes that CUDA opens on cards, and on newer Jetsons."""

NVMAP = "nvmap"
"""The memory of a Jetson: only there; some releases let its group read it and no more."""

JETSON_NODES = (NVMAP, "host1x-fence", "nvhost-*gpu*", "nvgpu/*/*", "dri/renderD*")
"""What CUDA opens on Jetsons beside them."""

NOT_FOR_CUDA = {"root", "debug"}
"""Groups of nodes that schedulers, profilers and debuggers open, and a station need not."""


def look_at_gpu(settings: StationSettings, bundle: Bundle | None, kernels: Path) -> list[Finding]:
    """Look at everything that only a GPU needs, in the order in which each needs the other.

    Args:
        settings: With `scorer = "gpu"`, what is lacking keeps the station from running.
        bundle: Whose engine would run; None if it cannot be read.
        kernels: Folder of the built kernels.
    """
    driver, cuda = _driver()
    findings = [
        driver,
        _permissions(DEVICES),
        _pycuda(),
        _cuda_bindings(cuda),
        _kernels(kernels),
        _gpu(settings, kernels),
        _tensorrt(),
        _engine(bundle, settings, kernels),
    ]
    if settings.scorer != "gpu":
        return findings
    return [
        replace(each, state=State.BROKEN) if each.state is State.LACKING else each
        for each in findings
    ]


def _driver() -> tuple[Finding, int | None]:
    """Look at the driver, and give the CUDA major version that it can serve, if it is there."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        remedy = "install it from the system's packages; on a Jetson it comes with JetPack"
        return Finding("driver", State.LACKING, "no NVIDIA driver", remedy), None
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        silent = "the driver does not answer"
        return Finding("driver", State.LACKING, silent, "restart the machine"), None
    major, minor = version.value // 1000, version.value % 1000 // 10
    return Finding("driver", State.FINE, f"CUDA {major}.{minor}"), major


def _permissions(devices: Path) -> Finding:
    """Look whether this user may open the GPU's device nodes, where there are any."""
    patterns = NODES + (JETSON_NODES if (devices / NVMAP).exists() else ())
    nodes = sorted({each for pattern in patterns for each in devices.glob(pattern)})
    closed = [each for each in nodes if not _may_open(each)]
    if len(closed) < len(nodes):
        closed = [each for each in closed if _group(each) not in NOT_FOR_CUDA]
    if closed:
        return Finding(
            "permissions",
            State.LACKING,
            f"{user()} may not open {', '.join(map(str, closed[:3]))}",
            f"sudo usermod -aG video,render {user()}, and log in again",
        )
    found = f"{len(nodes)} device nodes of NVIDIA's, as open as CUDA needs them"
    return Finding("permissions", State.FINE, found if nodes else "nothing to open")


def _may_open(node: Path) -> bool:
    return os.access(node, os.R_OK if node.name == NVMAP else os.R_OK | os.W_OK)


def _group(node: Path) -> str:
    """Name the group of a file; nothing if it has no name here, as in a container."""
    try:
        return node.group()
    except (KeyError, OSError):
        return ""


def _pycuda() -> Finding:
    if importlib.util.find_spec("pycuda") is None:
        return Finding("pycuda", State.LACKING, "not installed", "pip install 'dualbank[gpu]'")
    version = importlib.metadata.version("pycuda")
    try:
        import pycuda.driver  # noqa: F401
    except ImportError as error:
        return Finding(
            "pycuda",
            State.LACKING,
            f"{version} cannot be loaded: {error}",
            "install the driver; if it is there, pip install --no-binary :all: --force pycuda",
        )
    return Finding("pycuda", State.FINE, version)


def _cuda_bindings(cuda: int | None) -> Finding:
    """Look for the bindings; those of a later CUDA major version than the driver's will not do.

    Source: installation guide of cuda-bindings 13, which asks for a driver of CUDA 13.
    """
    remedy = f"pip install 'cuda-bindings=={cuda or 'M'}.*'"
    if cuda is None:
        remedy += ", M the CUDA major version of the driver"
    try:
        version = importlib.metadata.version("cuda-bindings")
    except importlib.metadata.PackageNotFoundError:
        absent = "not installed, so that no work can be recorded"
        return Finding("cuda-bindings", State.LACKING, absent, remedy)
    if cuda is not None and int(version.split(".")[0]) > cuda:
        newer = f"{version} is for drivers of a later CUDA than {cuda}"
        return Finding("cuda-bindings", State.LACKING, newer, remedy)
    return Finding("cuda-bindings", State.FINE, version)


def _kernels(folder: Path) -> Finding:
    try:
        image = read_binary(folder)
        targets = json.loads((folder / DESCRIPTION).read_text())["targets"]
    except DualbankError as error:
        found, _, remedy = str(error).partition("; ")
        return Finding("kernels", State.LACKING, found, remedy)
    found = f"{BINARY}, {len(image) >> 10} KiB for {' '.join(targets)}"
    return Finding("kernels", State.FINE, found)


def _gpu(settings: StationSettings, kernels: Path) -> Finding:
    """Open the GPU as a station would: driver, chip and kernels together."""
    try:
        with open_device(settings.gpu, kernels) as device:
            major, minor = device.capability
            return Finding("GPU", State.FINE, f"{device.name}, compute capability {major}.{minor}")
    except DualbankError as error:
        oldest = ".".join(map(str, OLDEST_CAPABILITY))
        return Finding(
            "GPU",
            State.LACKING,
            str(error).partition("; ")[0],
            f"mend what is lacking above; a chip needs compute capability {oldest} or later",
        )


def _tensorrt() -> Finding:
    oldest, beyond = TENSORRT
    wanted = f"{oldest[0]}.{oldest[1]} to {beyond[0] - 1}.x"
    libraries = {name: str(module.__version__) for name, module in installed().items()}
    if not libraries:
        return Finding(
            "TensorRT",
            State.LACKING,
            "not installed, or not for this Python",
            f"install TensorRT {wanted}; on a Jetson it comes with JetPack (python3-libnvinfer), "
            "and a virtual environment sees it with --system-site-packages",
        )
    found = ", ".join(f"{name} {version}" for name, version in libraries.items())
    if "tensorrt_rtx" in libraries or oldest <= _begin(libraries["tensorrt"]) < beyond:
        return Finding("TensorRT", State.FINE, found)
    return Finding("TensorRT", State.LACKING, found, f"install TensorRT {wanted}")


def _begin(version: str) -> tuple[int, ...]:
    """10.3.0.26 → (10, 3)."""
    return tuple(map(int, version.split(".")[:2]))


def _engine(bundle: Bundle | None, settings: StationSettings, kernels: Path) -> Finding:
    """Choose the engine that a station would run here."""
    if bundle is None:
        return Finding("engine", State.LACKING, "no bundle to find one in", "see bundle, above")
    if settings.scorer == "cpu" or (
        settings.scorer == "auto" and not any(map(is_engine, bundle.manifest.files))
    ):
        return Finding("engine", State.FINE, "none is asked for: the CPU scores")
    versions = {name: str(module.__version__) for name, module in installed().items()}
    try:
        with open_device(settings.gpu, kernels) as device:
            return Finding(
                "engine", State.FINE, engine_of(bundle, versions, device.capability).name
            )
    except DeviceError as error:
        found, _, command = str(error).partition(": run ")
        remedy = f"run {command}" if command else "mend what is lacking above, then build one"
        return Finding("engine", State.LACKING, found, remedy)
