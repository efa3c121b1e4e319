"""Builds the kernels: nvcc for every chip we serve, or NVRTC for the one at hand.

`python -m edge.kernels.build` writes one fat binary with machine code for each of `TARGETS` and PTX
for chips to come; `--nvrtc 8.7` needs no toolkit, only NVIDIA's run-time compiler as a library.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from edge.kernels.binary import FOLDER, write_binary
from inspection.errors import DeviceError

log = logging.getLogger(__name__)

TARGETS = (75, 80, 86, 87, 89, 90, 100, 110, 120)
"""Compute capabilities with machine code of their own; the last one also as PTX. Orin is 87, and
Thor 110. A compiler that does not know the newest, as that of JetPack 6, leaves them out."""

COMPRESSES = (12, 8)
"""The first nvcc that can be asked for a small binary."""

SOURCE = "kernels.cu"

OPTIONS = ("-std=c++17", "-lineinfo")

NVRTC_LIBRARIES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build as the command line says: 0 built, 1 failed, 2 usage."""
    parser = argparse.ArgumentParser(prog="python -m edge.kernels.build", description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to")
    parser.add_argument("--nvcc", default="nvcc", help="the compiler to call")
    parser.add_argument(
        "--nvrtc", metavar="M.N", type=capability, help="build for this capability, without nvcc"
    )
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if asked.nvrtc:
            build_by_nvrtc(asked.nvrtc, asked.output)
        else:
            build_by_nvcc(asked.output, asked.nvcc)
    except DeviceError as error:
        log.error("%s", error)
        return 1
    return 0


def capability(text: str) -> tuple[int, int]:
    """Read `8.6`.

    Raises:
        ValueError: It is no compute capability.
    """
    found = re.fullmatch(r"(\d{1,2})\.(\d)", text)
    if not found:
        raise ValueError(f"expected a compute capability as 8.6, got {text!r}")
    return int(found[1]), int(found[2])


def build_by_nvcc(
    output: Path, nvcc: str = "nvcc", targets: Sequence[int] = TARGETS, folder: Path = FOLDER
) -> None:
    """Build one fat binary and write it with its description.

    Args:
        output: Folder for both files.
        nvcc: The compiler, of CUDA 12.
        targets: Compute capabilities times ten; those that it does not know are left out.
        folder: Where the sources lie.

    Raises:
        DeviceError: There is no such compiler, or it failed; the text ends with what it said.
    """
    if shutil.which(nvcc) is None:
        raise DeviceError(
            f"there is no {nvcc} on the path; install the CUDA toolkit, or build for the chip at "
            "hand with --nvrtc"
        )
    targets = _known(nvcc, targets)
    version = _version(nvcc)
    size = ["--compress-mode=size"] if version[:2] >= COMPRESSES else []
    codes = [f"arch=compute_{target},code=sm_{target}" for target in targets]
    codes.append(f"arch=compute_{targets[-1]},code=compute_{targets[-1]}")
    with tempfile.TemporaryDirectory() as work:
        binary = Path(work) / "kernels.fatbin"
        _run(
            [nvcc, "-O3", *OPTIONS, "-fatbin", *size, "-Werror", "all-warnings"]
            + [part for code in codes for part in ("-gencode", code)]
            + ["-o", str(binary), str(folder / SOURCE)]
        )
        built = binary.read_bytes()
    names = (*(f"sm_{target}" for target in targets), f"compute_{targets[-1]}")
    write_binary(output, built, f"nvcc {'.'.join(map(str, version))}", names)
    log.info("built %d KiB for %s in %s", len(built) >> 10, " ".join(names), output)


def _known(nvcc: str, targets: Sequence[int]) -> list[int]:
    """Give the targets that a compiler knows.

    Raises:
        DeviceError: It knows none.
    """
    listed = {
        int(name.removeprefix("compute_").rstrip("af"))
        for name in _run([nvcc, "--list-gpu-arch"]).split()
    }
    known = [target for target in targets if target in listed]
    if not known:
        raise DeviceError(f"{nvcc} knows none of {list(targets)}; use that of CUDA 12 or later")
    if left_out := [f"sm_{target}" for target in targets if target not in listed]:
        log.info("%s does not know %s: left out", nvcc, " ".join(left_out))
    return known


def _version(nvcc: str) -> tuple[int, ...]:
    found = re.search(r"V(\d+(?:\.\d+)*)", _run([nvcc, "--version"]))
    return tuple(map(int, found[1].split("."))) if found else (0, 0)


def build_by_nvrtc(chip: tuple[int, int], output: Path, folder: Path = FOLDER) -> None:
    """Build machine code for one capability by the run-time compiler, and write it.

    Raises:
        DeviceError: The library is not there, does not know the chip, or refuses the sources.
    """
    nvrtc = _load_nvrtc()
    name = f"sm_{chip[0]}{chip[1]}"
    options = [*OPTIONS, f"--gpu-architecture={name}", f"--include-path={folder}"]
    program = ctypes.c_void_p()
    source = (folder / SOURCE).read_bytes()
    created = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source, SOURCE.encode(), 0, None, None
    )
    if created:
        raise DeviceError(f"NVRTC could not begin: error {created}")
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = nvrtc.nvrtcCompileProgram(program, len(options), given)
        said = _nvrtc_text(nvrtc, program, "ProgramLog")
        if failed:
            raise DeviceError(f"NVRTC cannot build for {name}: {said.decode(errors='replace')}")
        built = _nvrtc_text(nvrtc, program, "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    write_binary(output, built, f"nvrtc {major.value}.{minor.value}", (name,))
    log.info("built %d KiB for %s in %s", len(built) >> 10, name, output)


def _nvrtc_text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    """Fetch the log or the machine code of a program."""
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    room = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, room)
    return room.raw


def _load_nvrtc() -> ctypes.CDLL:
    """Open the run-time compiler: from the loader's path, the toolkit, or the wheel of NVIDIA."""
    for path in _places_of_nvrtc():
        try:
            nvrtc = ctypes.CDLL(path)
            # It looks for its built-in functions on the loader's path alone, by this name: opened
            # from beside it, they are found all the same.
            for builtins in _beside(Path(path), "libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins))
        except OSError:
            continue
        return nvrtc
    raise DeviceError(
        f"none of {', '.join(NVRTC_LIBRARIES)} was found; install the CUDA toolkit or the package "
        "nvidia-cuda-nvrtc"
    )


def _beside(library: Path, pattern: str) -> list[Path]:
    """Files in a library's folder; none if the loader alone knows where it lies."""
    return sorted(library.parent.glob(pattern)) if library.is_absolute() else []


def _places_of_nvrtc() -> Iterator[str]:
    folders = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "lib64"]
    nvidia = find_spec("nvidia")
    for root in nvidia.submodule_search_locations or () if nvidia else ():
        folders += [Path(root) / "cu13/lib", Path(root) / "cuda_nvrtc/lib"]
    for folder in folders:
        yield from (str(folder / name) for name in NVRTC_LIBRARIES)
    yield from NVRTC_LIBRARIES


def _run(command: Sequence[str]) -> str:
    """Run a compiler; what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise DeviceError(f"{command[0]} failed with {done.returncode}: {said}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
