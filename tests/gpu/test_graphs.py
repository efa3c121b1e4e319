"""Recorded work under the emulated driver: it is what was put on the stream, and no more."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from edge.device import device_array, open_device, open_stream, page_locked
from edge.graphs import record_graph
from inspection.errors import DeviceError


@pytest.fixture
def bench(driver, probe_folder):
    with open_device(kernels=probe_folder) as device, ExitStack() as held:
        stream = held.enter_context(open_stream(device))
        there = held.enter_context(device_array(device, (4,), np.int32))
        given = held.enter_context(page_locked(device, (4,), np.int32))
        taken = held.enter_context(page_locked(device, (4,), np.int32))
        held.callback(stream.synchronize)

        def there_and_back(on):
            device.copy_in(on, there, given)
            device.copy_out(on, taken, there)

        yield stream, given, taken, there_and_back


def test_a_recording_does_nothing_until_it_is_launched(bench):
    stream, given, taken, there_and_back = bench
    taken[:] = 0
    given[:] = 7
    with record_graph(stream, there_and_back):
        stream.synchronize()
        assert not taken.any()


def test_every_launch_does_it_again_with_what_is_there_then(any_schedule, bench):
    stream, given, taken, there_and_back = bench
    with record_graph(stream, there_and_back) as graph:
        for value in (3, 5, 8):
            given[:] = value
            graph.launch(stream)
            stream.synchronize()
            assert (taken == value).all()


def test_work_that_waits_cannot_be_recorded_and_the_stream_goes_on(bench):
    stream, given, taken, there_and_back = bench

    def waits(on):
        there_and_back(on)
        on.synchronize()

    with pytest.raises(DeviceError, match="work on a stream"), record_graph(stream, waits):
        pytest.fail("recorded")

    given[:] = 9
    there_and_back(stream)
    stream.synchronize()
    assert (taken == 9).all()


def test_work_that_fails_leaves_no_recording_behind(bench):
    stream, given, taken, there_and_back = bench

    def fails(on):
        there_and_back(on)
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"), record_graph(stream, fails):
        pytest.fail("recorded")

    given[:] = 4
    there_and_back(stream)
    stream.synchronize()
    assert (taken == 4).all()
