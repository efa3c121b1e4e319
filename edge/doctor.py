"""Looks at what a station needs of its machine, one thing after another, each with its remedy.

Nothing is changed, and a station that runs is not disturbed. Without what only a GPU needs a
station scores on the CPU. `edge.check` proves the model itself.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from pathlib import Path

import zmq

from edge.bundle_folder import open_bundle, verify_files
from edge.findings import Finding, State, user
from edge.gpu_looks import look_at_gpu
from edge.kernels.binary import FOLDER
from edge.key_looks import look_at_keys
from edge.settings import StationSettings
from inspection.bundle import Bundle
from inspection.errors import DualbankError

LEDGER_BYTES = 1 << 30
"""Room for verdicts beside the label queue: about two million of them."""

TEGRA = Path("/etc/nv_tegra_release")
"""Only a Jetson has it."""

GPU_CLOCKS = Path("/sys/class/devfreq")
"""Where a Jetson's kernel shows the range that each clock may move in."""

GPU_CLOCK_NAMES = ("*.gpu", "gpu-gpc-*")
"""Of the GPU: 17000000.gpu on Orin with JetPack 6, gpu-gpc-0 with JetPack 7."""

FASTEST = "sudo nvpmodel -m N, N of MAXN… in /etc/nvpmodel.conf, where cooling allows it"

HOLD = "sudo jetson_clocks, where cooling allows it"

UNSYNCHRONISED = 5
"""What adjtimex says of a clock that nobody sets: TIME_ERROR."""


def examine(settings: StationSettings, kernels: Path = FOLDER) -> list[Finding]:
    """Look at everything; what cannot be looked at is a finding too.

    Args:
        settings: Of the station that is to run here, or runs.
        kernels: Folder of the built kernels.
    """
    about_bundle, bundle = _bundle(settings)
    return [
        about_bundle,
        _state_dir(settings),
        _disk(settings),
        _address("frames", settings.frames),
        _address("verdicts", settings.verdicts),
        *look_at_keys(settings),
        _clock(),
        *_power(),
        *look_at_gpu(settings, bundle, kernels),
    ]


def _bundle(settings: StationSettings) -> tuple[Finding, Bundle | None]:
    """Look at the bundle, and give it if it is whole."""
    if settings.bundle is None:
        remedy = "give the station one: --bundle DIR, or in TOML"
        return Finding("bundle", State.BROKEN, "none is set", remedy), None
    try:
        bundle = open_bundle(settings.bundle)
        files = verify_files(bundle)
    except DualbankError as error:
        remedy = "copy the bundle to this machine again"
        return Finding("bundle", State.BROKEN, str(error), remedy), None
    products = ", ".join(bundle.normal.categories)
    found = f"{bundle.id[:12]}, {files} files whole: {products}"
    return Finding("bundle", State.FINE, found), bundle


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
            f"sudo install -d -m 700 -o {user()} {place.absolute()}",
        )
    if not place.is_dir() or not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            "state_dir",
            State.BROKEN,
            f"{place} is no folder that {user()} may read and write",
            f"sudo chown -R {user()} {place.absolute()}",
        )
    if place.stat().st_mode & 0o077:
        return Finding(
            "state_dir",
            State.LACKING,
            f"other users may look into {place}",
            f"chmod 700 {place.absolute()}",
        )
    return Finding("state_dir", State.FINE, f"{place} is {user()}'s own")


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
            f"{socket.parent} is no folder that {user()} may write",
            f"sudo install -d -m 700 -o {user()} {socket.parent}",
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


def _power() -> list[Finding]:
    """Look at a Jetson's power mode, and at its clocks where everyone may read them."""
    if not TEGRA.exists():
        return [Finding("power mode", State.FINE, f"no Jetson: {platform.machine()}")]
    ranges = _gpu_clocks_mhz()
    if not ranges:
        return [_power_mode("; whether jetson_clocks holds the clocks, only root can see")]
    found = ", ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in ranges)
    if all(low == high for low, high in ranges):
        return [_power_mode(), Finding("clocks", State.FINE, f"GPU held at {found} MHz")]
    moving = f"GPU at {found} MHz as load asks, so that latencies swing"
    return [_power_mode(), Finding("clocks", State.LACKING, moving, HOLD)]


def _power_mode(beside: str = "") -> Finding:
    try:
        said = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, check=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        silent = f"nvpmodel does not answer: {error}{beside}"
        return Finding("power mode", State.LACKING, silent, FASTEST)
    mode = next((line for line in said.splitlines() if "Power Mode" in line), "unknown power mode")
    if "MAXN" in mode:
        return Finding("power mode", State.FINE, mode + beside)
    slow = f"{mode}: chips run below their clocks{beside}"
    return Finding("power mode", State.LACKING, slow, FASTEST)


def _gpu_clocks_mhz() -> list[tuple[int, int]]:
    """Read between what and what each clock of the GPU may move; nothing if that is not known."""
    places = [each for name in GPU_CLOCK_NAMES for each in sorted(GPU_CLOCKS.glob(name))]
    try:
        return [(_mhz(each / "min_freq"), _mhz(each / "max_freq")) for each in places]
    except (OSError, ValueError):
        return []


def _mhz(file: Path) -> int:
    return int(file.read_text()) // 1_000_000
