"""The GPU as the station sees it: context, memory, streams and kernels, each opened by `with`.

Whoever opens something frees it, in reverse; everyone else borrows. All of it belongs to the thread
that opened the device. pycuda is imported when a device is opened and no earlier: without a driver
it cannot be imported at all, and a station without a GPU never asks for one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge.kernels.binary import FOLDER, read_binary
from edge.streams import Event, Stream, as_device_error
from inspection.errors import DeviceError

log = logging.getLogger(__name__)

OLDEST_CAPABILITY = (7, 5)
"""The kernels multiply with tensor cores as chips from Turing on have them."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """Room for an array in device memory, at an address that stays; contents begin undefined.

    Attributes:
        address: In device memory, a multiple of 256.
        shape: Of the array, rows first.
        dtype: Of its elements.
    """

    address: int
    shape: Shape
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes that the array takes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Kernel:
    """One entry point of the kernels, which takes one struct by value."""

    def __init__(self, driver: ModuleType, function: Any, argument: np.dtype[np.void]) -> None:
        self._driver = driver
        self._function = function
        self._argument = argument
        function.prepare([f"{argument.itemsize}s"])

    def allow_shared(self, nbytes: int) -> None:
        """Raise what a block may take of dynamic shared memory above 48 KiB."""
        attribute = self._driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
        with as_device_error(self._driver, f"{nbytes} bytes of shared memory"):
            self._function.set_attribute(attribute, nbytes)

    def launch(
        self,
        stream: Stream,
        argument: NDArray[np.void],
        grid: Shape,
        block: Shape,
        shared_bytes: int = 0,
    ) -> None:
        """Put the kernel on a stream; the argument is copied, so that it may be changed after."""
        if argument.dtype != self._argument:
            raise TypeError(f"expected an argument {self._argument}, got {argument.dtype}")
        with as_device_error(self._driver, "launching a kernel"):
            self._function.prepared_async_call(
                (*grid, 1, 1)[:3],
                (*block, 1, 1)[:3],
                stream.borrowed,
                argument.tobytes(),
                shared_size=shared_bytes,
            )

    def close(self) -> None:
        """Let go of the module; the kernel is of no more use."""
        self._function = None


class Device:
    """An open GPU with its kernels loaded; made by `open_device`, valid until its `with` ends.

    Attributes:
        name: As the driver calls the chip.
        capability: Compute capability (major, minor).
        multiprocessors: How many blocks of a large kernel run at once.
    """

    def __init__(self, driver: ModuleType, chip: Any, module: Any) -> None:
        self.driver = driver
        self.name = str(chip.name())
        self.capability: tuple[int, int] = chip.compute_capability()
        self.multiprocessors = int(chip.get_attribute(driver.device_attribute.MULTIPROCESSOR_COUNT))
        self._module = module
        self._kernels: dict[str, Kernel] = {}

    def kernel(self, name: str, argument: np.dtype[np.void]) -> Kernel:
        """Find an entry point of `edge/kernels/README.md`."""
        if name not in self._kernels:
            with as_device_error(self.driver, f"finding kernel {name}"):
                function = self._module.get_function(name)
                self._kernels[name] = Kernel(self.driver, function, argument)
        return self._kernels[name]

    def copy_in(self, stream: Stream, to: DeviceArray, array: NDArray[Any]) -> None:
        """Copy page-locked memory to the device, when the stream comes to it.

        Until then the array must neither be freed nor changed.
        """
        _check_fits(to, array)
        with as_device_error(self.driver, "copying to the device"):
            self.driver.memcpy_htod_async(to.address, array, stream.borrowed)

    def copy_out(self, stream: Stream, array: NDArray[Any], of: DeviceArray) -> None:
        """Copy to page-locked memory, which holds it once the stream was waited for."""
        _check_fits(of, array)
        with as_device_error(self.driver, "copying from the device"):
            self.driver.memcpy_dtoh_async(array, of.address, stream.borrowed)

    def copy_within(self, stream: Stream, to: DeviceArray, of: DeviceArray) -> None:
        """Copy device memory to device memory, when the stream comes to it."""
        if (to.shape, to.dtype) != (of.shape, of.dtype):
            raise TypeError(f"expected {to.shape} {to.dtype}, got {of.shape} {of.dtype}")
        with as_device_error(self.driver, "copying within the device"):
            self.driver.memcpy_dtod_async(to.address, of.address, to.nbytes, stream.borrowed)

    def zero(self, stream: Stream, array: DeviceArray) -> None:
        """Set every byte to 0, when the stream comes to it."""
        with as_device_error(self.driver, "zeroing device memory"):
            self.driver.memset_d8_async(array.address, 0, array.nbytes, stream.borrowed)

    def close(self) -> None:
        """Unload the kernels: as long as one is referred to, so is the module."""
        for kernel in self._kernels.values():
            kernel.close()
        self._kernels.clear()
        self._module = None


@contextmanager
def open_device(ordinal: int = 0, kernels: Path = FOLDER) -> Iterator[Device]:
    """Hold a GPU's primary context, which other libraries of the process use too.

    Args:
        ordinal: Which GPU, as the driver counts.
        kernels: Folder of the built kernels.

    Raises:
        DeviceError: There is no driver or no such GPU, the kernels are missing, damaged or of other
            sources, or they hold no code for the chip.
    """
    image = read_binary(kernels)
    driver = _import_driver()
    with as_device_error(driver, "finding the GPU"):
        driver.init()
        count = driver.Device.count()
        if not 0 <= ordinal < count:
            raise DeviceError(f"there is no GPU {ordinal}: this machine has {count}")
        chip = driver.Device(ordinal)
    if chip.compute_capability() < OLDEST_CAPABILITY:
        raise DeviceError(
            f"{chip.name()} has compute capability {_dotted(chip.compute_capability())}; the "
            f"kernels need {_dotted(OLDEST_CAPABILITY)} or later: score on the CPU instead"
        )
    with ExitStack() as held:
        context = chip.retain_primary_context()
        # pycuda gives a primary context back only from the thread that has it current.
        held.callback(context.detach)
        context.push()
        held.callback(context.pop)
        device = Device(driver, chip, _load(driver, image, chip))
        held.callback(device.close)
        log.info("GPU open", extra={"gpu": device.name, "capability": _dotted(device.capability)})
        yield device


@contextmanager
def open_stream(device: Device) -> Iterator[Stream]:
    """Hold a stream; it is waited for before it goes, because its work borrows memory."""
    with as_device_error(device.driver, "making a stream"):
        stream = Stream(device.driver)
    try:
        yield stream
    finally:
        try:
            stream.synchronize()
        finally:
            stream.close()


@contextmanager
def open_event(device: Device) -> Iterator[Event]:
    """Hold an event."""
    with as_device_error(device.driver, "making an event"):
        event = Event(device.driver)
    try:
        yield event
    finally:
        event.close()


@contextmanager
def device_array(device: Device, shape: Shape, dtype: DTypeLike) -> Iterator[DeviceArray]:
    """Hold room for an array in device memory. Whoever uses it on a stream waits for that first.

    Raises:
        DeviceError: There is not enough memory left; the text says how much was asked.
    """
    wanted = DeviceArray(0, shape, np.dtype(dtype))
    # A buffer of no bytes is none: what is empty gets room for one element.
    nbytes = max(wanted.nbytes, wanted.dtype.itemsize)
    with as_device_error(device.driver, f"allocating {nbytes} bytes of device memory"):
        allocation = device.driver.mem_alloc(nbytes)
    try:
        yield DeviceArray(int(allocation), shape, wanted.dtype)
    finally:
        allocation.free()


@contextmanager
def device_arrays(
    device: Device, wanted: Mapping[str, tuple[Shape, DTypeLike]]
) -> Iterator[dict[str, DeviceArray]]:
    """Hold one array per name; a failure half-way frees the ones already held."""
    with ExitStack() as held:
        yield {
            name: held.enter_context(device_array(device, shape, dtype))
            for name, (shape, dtype) in wanted.items()
        }


@contextmanager
def page_locked(device: Device, shape: Shape, dtype: DTypeLike) -> Iterator[NDArray[Any]]:
    """Hold an array of host memory that the GPU copies from and to by itself.

    It is gone when the `with` ends, so that no view of it may be kept.
    """
    nbytes = max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
    with as_device_error(device.driver, f"allocating {nbytes} bytes of page-locked memory"):
        room = device.driver.pagelocked_empty(nbytes, np.uint8)
    try:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        yield room[:size].view(dtype).reshape(shape)
    finally:
        room.base.free()


def _import_driver() -> ModuleType:
    try:
        import pycuda.driver
    except ImportError as error:
        raise DeviceError(
            f"the GPU cannot be used: {error}; install NVIDIA's driver and pycuda, or score on the "
            "CPU instead"
        ) from error
    module: ModuleType = pycuda.driver
    return module


def _load(driver: ModuleType, image: bytes, chip: Any) -> Any:
    try:
        return driver.module_from_buffer(image)
    except driver.Error as error:
        capability = _dotted(chip.compute_capability())
        raise DeviceError(
            f"the kernels hold no code that {chip.name()} (compute capability {capability}) can "
            f"run: {error}; build them with `python -m edge.kernels.build --nvrtc {capability}`"
        ) from error


def _check_fits(on_device: DeviceArray, array: NDArray[Any]) -> None:
    if (array.shape, array.dtype) != (on_device.shape, on_device.dtype):
        raise TypeError(
            f"expected an array {on_device.shape} {on_device.dtype}, "
            f"got {array.shape} {array.dtype}"
        )


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
