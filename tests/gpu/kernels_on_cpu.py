"""The kernels of `edge/kernels`, built by g++ and run on this CPU: what a test needs to call them.

Arrays that a kernel sees lie between guards of NaN: a write beyond them is found by `check`, and a
read beyond them ruins the answer.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
from pathlib import Path

import numpy as np

from edge.kernels import arguments

ROOT = Path(__file__).resolve().parents[2]
SHIM, KERNELS = ROOT / "tests/gpu/shim", ROOT / "edge/kernels"

# What nvcc defines for the chips whose tiles and instructions differ.
CHIPS = {(7, 5): 750, (8, 6): 860, (9, 0): 900}

GUARD_BYTES = 64


class KernelError(RuntimeError):
    """A kernel did what would be an error, or undefined, on a chip."""


class KernelsOnCpu:
    """The kernels as they are for one chip."""

    def __init__(self, library: Path, capability: tuple[int, int]) -> None:
        self.library = ctypes.CDLL(str(library))
        self.library.kernel_launch.restype = ctypes.c_char_p
        self.library.kernel_argument_bytes.restype = ctypes.c_size_t
        self.library.of_half.restype = ctypes.c_float
        self.tile = arguments.tile_of(capability)

    def launch(self, name, argument, grid, block, shared_bytes=0):
        """Run a kernel to its end; `argument` is a record of one of the dtypes of `arguments`."""
        expected = self.library.kernel_argument_bytes(name.encode())
        if argument.dtype.itemsize != expected:
            raise KernelError(f"{name} takes {expected} bytes, got {argument.dtype.itemsize}")
        sizes = [(ctypes.c_uint * 3)(*(*size, 1, 1)[:3]) for size in (grid, block)]
        failure = self.library.kernel_launch(
            name.encode(), argument.tobytes(), *sizes, ctypes.c_size_t(shared_bytes)
        )
        if failure is not None:
            raise KernelError(f"{name}: {failure.decode()}")

    def launch_watched(self, buffers, *launched):
        """`launch`, where a background copy from anywhere but those buffers is an error."""
        arrays = [(array.ctypes.data, array.nbytes) for array in buffers.arrays]
        begins = (ctypes.c_void_p * len(arrays))(*(begin for begin, _ in arrays))
        sizes = (ctypes.c_size_t * len(arrays))(*(nbytes for _, nbytes in arrays))
        self.library.set_readable(begins, sizes, len(arrays))
        try:
            self.launch(*launched)
        finally:
            self.library.set_readable(None, None, 0)

    def set_order(self, order):
        """Let blocks, warps and lanes run in another order: 0 ascending, 1 descending, 2… mixed."""
        self.library.set_order(order)


@functools.cache
def kernels_for(capability: tuple[int, int]) -> KernelsOnCpu:
    """The kernels of a chip of `CHIPS`; compiled unless the same sources were before."""
    return KernelsOnCpu(built(CHIPS[capability]), capability)


def built(architecture: int, folder: Path = KERNELS, source: Path | None = None) -> Path:
    """Compile the kernels of a folder for the CPU, or another source on the shim."""
    source = source or SHIM / "kernels_on_cpu.cpp"
    seen = sorted([*folder.glob("*.cu*"), *SHIM.iterdir()])
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in seen)).hexdigest()[:16]
    library = ROOT / f"build/kernels_on_cpu/{digest}-{source.stem}-{architecture}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        fresh = library.with_suffix(f".{os.getpid()}")
        language = ["-std=c++17", "-O2", "-march=native", "-ffp-contract=off"]
        warnings = ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror"]
        chip = [f"-D__CUDA_ARCH__={architecture}", f"-I{folder}", f"-I{SHIM}"]
        out = ["-fPIC", "-shared", "-o", str(fresh)]
        subprocess.run(["g++", *language, *warnings, *chip, *out, str(source)], check=True)
        fresh.replace(library)
    return library


class Buffers:
    """Guarded copies of arrays, at addresses that a kernel may be given."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.held: list[tuple[np.ndarray, np.ndarray]] = []

    def hold(self, array):
        """A copy between guards, on 64 bytes."""
        array = np.ascontiguousarray(array)
        raw = np.full(array.nbytes + 2 * GUARD_BYTES + 64, 0xFF, np.uint8)
        begin = GUARD_BYTES + -(raw.ctypes.data + GUARD_BYTES) % 64
        inside = raw[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
        inside[...] = array
        guards = np.ones(len(raw), bool)
        guards[begin : begin + array.nbytes] = False
        self.held.append((raw, guards))
        self.arrays.append(inside)
        return inside

    def empty(self, shape, dtype):
        """Room that holds nothing yet: every byte is 255, NaN or −1."""
        room = self.hold(np.zeros(shape, dtype))
        room.view(np.uint8)[...] = 0xFF
        return room

    def check(self):
        """Raise if a kernel wrote beyond an array."""
        for raw, guards in self.held:
            if (raw[guards] != 0xFF).any():
                raise KernelError("a kernel wrote beyond an array")


def record(dtype, **fields):
    """A record of a struct's dtype; arrays are given as their addresses, None as 0."""
    filled = np.zeros((), dtype)
    for name, value in fields.items():
        if isinstance(value, np.ndarray) and dtype[name].kind == "u":
            filled[name] = value.ctypes.data
        else:
            filled[name] = 0 if value is None else value
    return filled
