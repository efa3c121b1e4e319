"""The emulated CUDA driver under pycuda: built by g++, loaded in place of the real one.

What it promises is said in `driver/emulator.h`. It must be loaded before pycuda is imported, and
stays for the rest of the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import subprocess
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).resolve().parent / "driver"

WHEN_WAITED_FOR, OTHERS_FIRST, AT_ONCE = 0, 1, 2
"""Orders in which streams run: `emulator.h`, `Schedule`."""


# The driver has functions that are deprecated, and pycuda links with them.
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations")


@dataclass(frozen=True)
class Counters:
    """How many of each kind live now; `launches` is how many kernels have run."""

    device_buffers: int
    device_bytes: int
    page_locked_buffers: int
    streams: int
    events: int
    modules: int
    graphs: int
    contexts: int
    launches: int

    @property
    def living(self) -> tuple[int, ...]:
        """All but the launches."""
        return astuple(self)[:-1]


class EmulatedDriver:
    """The loaded driver, and what it tells tests."""

    def __init__(self, library: Path) -> None:
        # The name it was linked under is libcuda.so.1: whatever asks for the driver gets this one.
        self.library = ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        self.library.emulator_failure.restype = ctypes.c_char_p
        self.be()

    def be(self, capability=(8, 6), multiprocessors=4, memory_bytes=1 << 30) -> None:
        """Become another chip; nothing may be open."""
        self.library.emulator_set_device(
            *capability, multiprocessors, ctypes.c_size_t(memory_bytes)
        )

    def set_schedule(self, schedule: int) -> None:
        self.library.emulator_set_schedule(schedule)

    @contextmanager
    def hanging(self):
        """Let no work get done, as if a kernel never ended."""
        self.library.emulator_hang(1)
        try:
            yield
        finally:
            self.library.emulator_hang(0)

    def break_context(self) -> None:
        """End the context with an error, as a kernel that failed does."""
        self.library.emulator_break()

    def counters(self) -> Counters:
        values = (ctypes.c_long * 9)()
        self.library.emulator_counters(values)
        return Counters(*values)

    def failure(self) -> str:
        """What was refused or broken last."""
        return self.library.emulator_failure().decode()

    @contextmanager
    def nothing_is_left(self):
        """Fail if what was opened inside is still there at the end."""
        before = self.counters()
        yield
        after = self.counters()
        assert after.living == before.living, f"left behind: {before} became {after}"


def missing() -> str | None:
    """What the emulated driver lacks on this machine; None if nothing."""
    if importlib.util.find_spec("pycuda") is None:
        return "pycuda is not installed: tests/gpu/build_pycuda.sh builds it"
    if importlib.util.find_spec("cuda") is None:
        return "cuda-bindings is not installed: pip install 'cuda-bindings==13.0.*'"
    if not (cuda_include() / "cuda.h").exists():
        return f"there is no cuda.h in {cuda_include()}: set CUDA_HOME"
    return None


def cuda_include() -> Path:
    return Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"


def built_driver() -> Path:
    """Compile and link the driver unless these sources were before."""
    folder = _folder_of(SOURCES.glob("*"))
    library = folder / "libcuda.so.1"
    if library.exists():
        return library
    objects = [folder / f"{source.stem}.o" for source in sorted(SOURCES.glob("*.cpp"))]
    objects = [each for each in objects if each.stem != "probe"]
    for each in objects:
        _compile("-c", str(SOURCES / f"{each.stem}.cpp"), "-o", str(each))
    stubs = folder / "not_emulated.cpp"
    stubs.write_text(_not_emulated(objects), "utf-8")
    fresh = folder / f"libcuda.{os.getpid()}"
    _compile("-shared", "-Wl,-soname,libcuda.so.1", *map(str, [*objects, stubs]), "-o", str(fresh))
    fresh.replace(library)
    return library


def built_probe() -> Path:
    """Compile the module that the tests of the driver load."""
    library = _folder_of(SOURCES.glob("probe.cpp")) / "probe.so"
    if not library.exists():
        _compile("-shared", str(SOURCES / "probe.cpp"), "-o", str(library))
    return library


def _folder_of(sources) -> Path:
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(sources)))
    folder = ROOT / "build/emulated_driver" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _compile(*arguments: str) -> None:
    options = ("-std=c++17", "-O1", "-fPIC", *WARNINGS, f"-I{cuda_include()}")
    subprocess.run(["g++", *options, *arguments], check=True)


def _not_emulated(objects: Sequence[Path]) -> str:
    """C++ that answers CUDA_ERROR_NOT_SUPPORTED to what pycuda links with and nobody emulates."""
    (pycuda,) = importlib.util.find_spec("pycuda").submodule_search_locations
    (extension,) = Path(pycuda).glob("_driver*.so")
    asked = _symbols("-D", "--undefined-only", str(extension))
    emulated = _symbols("--defined-only", *map(str, objects))
    return "".join(
        f'extern "C" int {name}() {{ return 801; }}\n' for name in sorted(asked - emulated)
    )


def _symbols(*arguments: str) -> set[str]:
    listed = subprocess.run(["nm", *arguments], check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1] for line in listed.splitlines() if line.split()}
    return {name for name in names if name.startswith("cu") and name[2:3].isupper()}
