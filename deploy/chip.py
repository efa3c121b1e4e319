"""Which chip is here: the driver is asked, and nothing but the driver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from inspection.errors import DeviceError

DRIVER = "libcuda.so.1"

# CUdevice_attribute of cuda.h.
_MAJOR, _MINOR = 75, 76


def capability_here(load: Callable[[str], Any] = ctypes.CDLL) -> tuple[int, int]:
    """Ask the driver for the compute capability (major, minor) of the first GPU.

    Args:
        load: Opens a shared library by its name.

    Raises:
        DeviceError: No driver, or a driver without a GPU.
    """
    try:
        driver = load(DRIVER)
    except OSError as error:
        raise DeviceError(
            "no GPU here: build on the machine that will run it, or use --plan "
            f"({DRIVER} cannot be loaded)"
        ) from error
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _ask(driver, "cuInit", 0)
    _ask(driver, "cuDeviceGet", ctypes.byref(device), 0)
    for value, attribute in ((major, _MAJOR), (minor, _MINOR)):
        _ask(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return major.value, minor.value


def _ask(driver: Any, function: str, *arguments: Any) -> None:
    status = getattr(driver, function)(*arguments)
    if status:
        raise DeviceError(
            "no GPU here that the driver can use: build on the machine that will run it, or use "
            f"--plan ({function} answered {status})"
        )
