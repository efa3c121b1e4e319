"""Looks at what a station needs of its machine, one thing after another, each with its remedy.

Nothing is changed, and a station that runs is not disturbed. Without what only a GPU needs a
station scores on the CPU. `edge.check` proves the model itself.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import zmq

from edge.bundle_folder import open_bundle, verify_files
from edge.device import OLDEST_CAPABILITY, open_device
from edge.kernels.binary import BINARY, DESCRIPTION, FOLDER, read_binary
from edge.settings import StationSettings
from inspection.errors import DualbankError

LEDGER_BYTES = 1 << 30
"""Room for verdicts beside the label queue: about two million of them."""

TENSORRT = ((10, 3), (12, 0))
"""TensorRT from the first version to before the second."""

TEGRA = Path("/etc/nv_tegra_release")
"""Only a Jetson has it."""

FASTEST = "sudo nvpmodel -m 0 && sudo jetson_clocks, where cooling allows it"

UNSYNCHRONISED = 5
"""What adjtimex says of a clock that nobody sets: TIME_ERROR."""


class State(Enum):
    """How bad a finding is."""

    FINE = "fine"
    LACKING = "lacking"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: Its name.
        state: `BROKEN` keeps a station from running as it is set; `LACKING` does not.
        found: What is there.
        remedy: What to do; empty if it is fine.
    """

    what: str
    state: State
    found: str
    remedy: str = ""


def examine(settings: StationSettings, kernels: Path = FOLDER) -> list[Finding]:
    """Look at everything; what cannot be looked at is a finding too.

    Args:
        settings: Of the station that is to run here, or runs.
        kernels: Folder of the built kernels.
    """
    return [
        _bundle(settings),
        _state_dir(settings),
        _disk(settings),
        _address("frames", settings.frames),
        _address("verdicts", settings.verdicts),
        _clock(),
        _power(),
        _driver(),
        _pycuda(),
        _kernels(kernels),
        _gpu(kernels),
        _tensorrt(),
    ]


def _bundle(settings: StationSettings) -> Finding:
    if settings.bundle is None:
        return Finding(
            "bundle", State.BROKEN, "none is set", "give the station one: --bundle DIR, or in TOML"
        )
    try:
        bundle = open_bundle(settings.bundle)
        files = verify_files(bundle)
    except DualbankError as error:
        return Finding("bundle", State.BROKEN, str(error), "copy the bundle to this machine again")
    products = ", ".join(bundle.normal.categories)
    return Finding("bundle", State.FINE, f"{bundle.id[:12]}, {files} files whole: {products}")


def _state_dir(settings: StationSettings) -> Finding:
    place = settings.state_dir
    if not place.exists():
        parent = next(each for each in place.absolute().parents if each.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return Finding("state_dir", State.FINE, f"{place} will be made")
        return Finding(
            "state_dir",
            State.BROKEN,
            f"{place} is not there, and {parent} may not be written",
            f"sudo install -d -m 700 -o {_user()} {place.absolute()}",
        )
    if not place.is_dir() or not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            "state_dir",
            State.BROKEN,
            f"{place} is no folder that {_user()} may read and write",
            f"sudo chown -R {_user()} {place.absolute()}",
        )
    if place.stat().st_mode & 0o077:
        return Finding(
            "state_dir",
            State.LACKING,
            f"other users may look into {place}",
            f"chmod 700 {place.absolute()}",
        )
    return Finding("state_dir", State.FINE, f"{place} is {_user()}'s own")


def _disk(settings: StationSettings) -> Finding:
    place = settings.state_dir.absolute()
    there = next(each for each in (place, *place.parents) if each.exists())
    free, wanted = shutil.disk_usage(there).free, settings.label_queue_bytes + LEDGER_BYTES
    found = f"{free / 1e9:.1f} GB free at {there}"
    if free >= wanted:
        return Finding("disk", State.FINE, found)
    return Finding(
        "disk",
        State.LACKING,
        f"{found}; label queue and ledger want {wanted / 1e9:.1f} GB",
        "free some, move state_dir, or set a smaller label_queue_bytes",
    )


def _address(name: str, address: str) -> Finding:
    if address.startswith("ipc://"):
        return _ipc_address(name, Path(address.removeprefix("ipc://")).absolute())
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.linger = 0
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            return Finding(
                name,
                State.LACKING,
                f"{address} is taken",
                "if no station runs here, stop what listens there (ss -ltnp), or set another",
            )
        return Finding(
            name, State.BROKEN, f"{address}: {error}", "set an address of this machine, or ipc://"
        )
    finally:
        socket.close()
        context.term()
    return Finding(name, State.FINE, f"{address} is free")


def _ipc_address(name: str, socket: Path) -> Finding:
    # Not bound to try it: that would take the socket from a station that runs.
    if not os.access(socket.parent, os.W_OK | os.X_OK):
        return Finding(
            name,
            State.BROKEN,
            f"{socket.parent} is no folder that {_user()} may write",
            f"sudo install -d -m 700 -o {_user()} {socket.parent}",
        )
    return Finding(name, State.FINE, f"ipc://{socket} " + ("exists" if socket.exists() else "fits"))


def _clock() -> Finding:
    if _adjtimex() == UNSYNCHRONISED:
        return Finding(
            "clock",
            State.LACKING,
            "nobody sets the clock: verdicts carry its time, though nothing is judged by it",
            "sudo timedatectl set-ntp true",
        )
    return Finding("clock", State.FINE, "set by a time server")


def _adjtimex() -> int:
    # modes = 0 at the beginning of struct timex: nothing is set. The struct has 208 bytes.
    return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))


def _power() -> Finding:
    if not TEGRA.exists():
        return Finding("power mode", State.FINE, f"no Jetson: {platform.machine()}")
    try:
        said = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, check=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("power mode", State.LACKING, f"nvpmodel does not answer: {error}", FASTEST)
    mode = next((line for line in said.splitlines() if "Power Mode" in line), "unknown power mode")
    if "MAXN" in mode:
        return Finding("power mode", State.FINE, mode)
    return Finding("power mode", State.LACKING, f"{mode}: chips run below their clocks", FASTEST)


def _driver() -> Finding:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Finding(
            "driver",
            State.LACKING,
            "no NVIDIA driver",
            "install it from the system's packages; on a Jetson it comes with JetPack",
        )
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return Finding("driver", State.LACKING, "the driver does not answer", "restart the machine")
    return Finding(
        "driver", State.FINE, f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    )


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


def _kernels(folder: Path) -> Finding:
    try:
        image = read_binary(folder)
        targets = json.loads((folder / DESCRIPTION).read_text())["targets"]
    except DualbankError as error:
        found, _, remedy = str(error).partition("; ")
        return Finding("kernels", State.LACKING, found, remedy)
    found = f"{BINARY}, {len(image) >> 10} KiB for {' '.join(targets)}"
    return Finding("kernels", State.FINE, found)


def _gpu(kernels: Path) -> Finding:
    """Open the GPU as a station would: driver, chip and kernels together."""
    try:
        with open_device(kernels=kernels) as device:
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
    try:
        version = importlib.metadata.version("tensorrt")
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            "TensorRT",
            State.LACKING,
            "not installed",
            f"install TensorRT {wanted}; on a Jetson it comes with JetPack (python3-libnvinfer)",
        )
    if oldest <= tuple(int(part) for part in version.split(".")[:2]) < beyond:
        return Finding("TensorRT", State.FINE, version)
    return Finding("TensorRT", State.LACKING, version, f"install TensorRT {wanted}")


def _user() -> str:
    return os.environ.get("USER") or str(os.getuid())
