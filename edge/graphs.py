"""Work that was put on a stream once and is put there again in one call: CUDA graphs.

pycuda has none, so the driver is asked by `cuda.bindings`, for this alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edge.streams import Stream
from inspection.errors import DeviceError


class Graph:
    """What `record_graph` has recorded; addresses and sizes in it are as they were then."""

    def __init__(self, driver: Any, executable: Any) -> None:
        self._driver = driver
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        """Put everything that was recorded on a stream."""
        _checked(self._driver.cuGraphLaunch(self._executable, stream.handle), "launching a graph")


@contextmanager
def record_graph(stream: Stream, work: Callable[[Stream], None]) -> Iterator[Graph]:
    """Hold a graph of what `work` puts on a stream; nothing of it is done yet.

    Whoever launches it waits for its end before the `with` ends.

    Args:
        stream: Idle: what is put on it meanwhile belongs to the graph.
        work: May only put work on the stream: waiting, allocating and freeing spoil a recording. It
            has been done once before, so that whatever it makes at its first time is there.

    Raises:
        DeviceError: `cuda.bindings` is missing, or the work cannot be recorded.
    """
    driver = _import_bindings()
    # Of this thread alone: other threads of the process may allocate meanwhile.
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    _checked(driver.cuStreamBeginCapture(stream.handle, mode), "beginning to record")
    try:
        work(stream)
    except BaseException:
        # The stream must come out of the recording, and the first failure is the one to tell.
        error, unfinished = driver.cuStreamEndCapture(stream.handle)
        if int(error) == 0:
            driver.cuGraphDestroy(unfinished)
        raise
    recorded = _checked(driver.cuStreamEndCapture(stream.handle), "recording a graph")
    try:
        executable = _checked(driver.cuGraphInstantiate(recorded, 0), "making a graph")
    finally:
        driver.cuGraphDestroy(recorded)
    try:
        yield Graph(driver, executable)
    finally:
        # In a broken context this fails like everything else; the context's end takes it along.
        driver.cuGraphExecDestroy(executable)


def _import_bindings() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise DeviceError(
            f"work cannot be recorded: {error}; install cuda-bindings of the driver's CUDA version"
        ) from error
    return driver


def _checked(result: tuple[Any, ...], what: str) -> Any:
    error, *values = result
    if int(error) != 0:
        raise DeviceError(f"{what} failed: {error.name}")
    return values[0] if values else None
