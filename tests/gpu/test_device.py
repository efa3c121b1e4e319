"""The device as the station opens it, under the emulated driver; and what that driver catches."""

from __future__ import annotations

import gc
from contextlib import ExitStack

import numpy as np
import pytest

from edge.device import (
    device_array,
    device_arrays,
    open_device,
    open_event,
    open_stream,
    page_locked,
)
from edge.doctor import examine
from edge.findings import State
from edge.kernels import binary
from edge.settings import StationSettings
from inspection.errors import DeviceError

PROBE = np.dtype([("from", "u8"), ("to", "u8"), ("n", "i4"), ("step", "i4")], align=True)
N = 1000


class Bench:
    """Two streams, and buffers of N ints on both sides."""

    def __init__(self, device, held: ExitStack) -> None:
        enter = held.enter_context
        self.device = device
        self.near = enter(open_stream(device))
        self.far = enter(open_stream(device))
        self.event = enter(open_event(device))
        self.a = enter(device_array(device, (N,), np.int32))
        self.b = enter(device_array(device, (N,), np.int32))
        self.given = enter(page_locked(device, (N,), np.int32))
        self.taken = enter(page_locked(device, (N,), np.int32))
        held.callback(self.near.synchronize)
        held.callback(self.far.synchronize)
        self.given[:] = np.arange(N)

    def launch(self, name, stream, source, to, step=0):
        task = np.zeros((), PROBE)
        task["from"], task["to"], task["n"], task["step"] = source.address, to.address, N, step
        self.device.kernel(name, PROBE).launch(stream, task, (1,), (32,))


@pytest.fixture
def bench(driver, probe_folder):
    with open_device(kernels=probe_folder) as device, ExitStack() as held:
        yield Bench(device, held)


@pytest.fixture
def expected():
    return np.arange(N) + 7


# --- what is right comes out right, in every order ---


def test_work_on_one_stream_is_done_in_its_order(any_schedule, bench, expected):
    bench.device.copy_in(bench.near, bench.a, bench.given)
    bench.launch("add", bench.near, bench.a, bench.b, step=7)
    bench.device.copy_out(bench.near, bench.taken, bench.b)
    bench.near.synchronize()

    np.testing.assert_array_equal(bench.taken, expected)


def test_a_stream_that_waits_for_an_event_sees_what_came_before(any_schedule, bench, expected):
    bench.device.copy_in(bench.near, bench.a, bench.given)
    bench.event.record(bench.near)
    bench.far.wait_for(bench.event)
    bench.launch("add", bench.far, bench.a, bench.b, step=7)
    bench.device.copy_out(bench.far, bench.taken, bench.b)
    bench.far.synchronize()

    np.testing.assert_array_equal(bench.taken, expected)


# --- what lacks a synchronisation comes out wrong ---


def test_reading_before_waiting_reads_nothing_of_the_answer(bench, expected):
    bench.device.copy_in(bench.near, bench.a, bench.given)
    bench.launch("add", bench.near, bench.a, bench.b, step=7)
    bench.device.copy_out(bench.near, bench.taken, bench.b)

    assert (bench.taken != expected).all()


def test_changing_what_is_still_to_be_copied_changes_the_answer(bench, expected):
    bench.device.copy_in(bench.near, bench.a, bench.given)
    bench.given[:] = 0
    bench.launch("add", bench.near, bench.a, bench.b, step=7)
    bench.device.copy_out(bench.near, bench.taken, bench.b)
    bench.near.synchronize()

    assert (bench.taken == 7).all()


@pytest.mark.parametrize("schedule", [0, 1])
def test_streams_without_an_event_between_them_do_not_wait_for_each_other(
    driver, bench, expected, schedule
):
    """One order finds a reader that is too early, the other a writer that is."""
    driver.set_schedule(schedule)
    bench.device.copy_in(bench.near, bench.a, bench.given)
    bench.near.synchronize()
    bench.launch("add", bench.near, bench.a, bench.b, step=7)
    if schedule == 0:
        bench.device.copy_out(bench.far, bench.taken, bench.b)
        bench.far.synchronize()
    else:
        bench.device.zero(bench.far, bench.a)
        bench.device.copy_out(bench.near, bench.taken, bench.b)
        bench.near.synchronize()

    assert (bench.taken[1:] != expected[1:]).all()


def test_an_asynchronous_copy_of_ordinary_memory_is_refused(driver, bench):
    with pytest.raises(DeviceError, match="copying to the device failed"):
        bench.device.copy_in(bench.near, bench.a, np.zeros(N, np.int32))

    assert "not page-locked" in driver.failure()


# --- what leaves its memory is caught ---


@pytest.fixture
def broken(loaded_driver, probe_folder):
    """A bench whose context is broken by the test: only what it says is looked at."""
    loaded_driver.be()
    with ExitStack() as after:
        after.enter_context(pytest.raises(DeviceError))
        with open_device(kernels=probe_folder) as device, ExitStack() as held:
            yield Bench(device, held)
    gc.collect()


@pytest.mark.parametrize("name", ["write_beyond", "read_beyond"])
def test_a_kernel_that_leaves_its_buffers_breaks_the_context(loaded_driver, broken, name):
    broken.device.zero(broken.near, broken.a)
    # A buffer ends at most 255 bytes before a page that nobody may touch.
    broken.launch(name, broken.near, broken.a, broken.b, step=64)
    with pytest.raises(DeviceError, match="work on a stream failed"):
        broken.near.synchronize()

    assert name in loaded_driver.failure()
    with pytest.raises(DeviceError):
        broken.device.zero(broken.near, broken.a)


def test_work_that_finds_its_buffer_freed_breaks_the_context(loaded_driver, broken):
    with device_array(broken.device, (N,), np.int32) as gone:
        broken.device.zero(broken.near, gone)
    with pytest.raises(DeviceError):
        broken.near.synchronize()

    assert "freed before" in loaded_driver.failure()


def test_after_a_broken_context_the_next_one_works(driver, bench, expected):
    test_work_on_one_stream_is_done_in_its_order(driver, bench, expected)


# --- opening and closing ---


def test_running_out_half_way_frees_what_was_held(driver, probe_folder):
    driver.be(memory_bytes=1 << 20)
    wanted = {"small": ((1 << 18,), np.uint8), "large": ((1 << 20,), np.uint8)}

    with open_device(kernels=probe_folder) as device:
        with (
            pytest.raises(DeviceError, match=r"1048576 bytes of device memory.*not enough"),
            device_arrays(device, wanted),
        ):
            pytest.fail("there is no room for both")

        assert driver.counters().device_buffers == 0


def test_a_leak_is_counted(driver, probe_folder):
    with open_device(kernels=probe_folder) as device:
        kept = device.driver.mem_alloc(100)

        with pytest.raises(AssertionError, match="left behind"), driver.nothing_is_left():
            leaked = device.driver.mem_alloc(100)

        kept.free()
        leaked.free()


def test_a_stream_that_is_left_has_done_its_work(bench):
    with open_stream(bench.device) as stream:
        bench.device.copy_in(stream, bench.a, bench.given)
        bench.device.copy_out(stream, bench.taken, bench.a)

    np.testing.assert_array_equal(bench.taken, np.arange(N))


def test_an_array_without_elements_has_an_address(driver, probe_folder):
    with open_device(kernels=probe_folder) as device, device_array(device, (0, 3), np.int8) as it:
        assert it.address
        assert it.nbytes == 0


def test_a_chip_without_our_kind_of_tensor_cores_is_refused(driver, probe_folder):
    driver.be(capability=(7, 0))

    with (
        pytest.raises(DeviceError, match=r"7\.0; the kernels need 7\.5"),
        open_device(kernels=probe_folder),
    ):
        pytest.fail("opened")


def test_a_gpu_that_is_not_there_is_refused(driver, probe_folder):
    with pytest.raises(DeviceError, match=r"no GPU 3.*has 1"), open_device(3, probe_folder):
        pytest.fail("opened")


def test_kernels_without_code_for_the_chip_say_how_to_build_it(driver, tmp_path):
    binary.write_binary(tmp_path, b"\x50\xed\x55\xba" + bytes(60), "nvcc", ("sm_90",))

    with pytest.raises(DeviceError, match=r"--nvrtc 8\.6"), open_device(kernels=tmp_path):
        pytest.fail("opened")


def test_a_kernel_that_is_not_there_is_named(driver, probe_folder):
    with open_device(kernels=probe_folder) as device:  # noqa: SIM117
        with pytest.raises(DeviceError, match="finding kernel subtract"):
            device.kernel("subtract", PROBE)


def test_an_argument_of_another_layout_is_refused(bench):
    with pytest.raises(TypeError):
        bench.device.kernel("add", PROBE).launch(bench.near, np.zeros((), "i4"), (1,), (32,))


def test_the_doctor_opens_the_gpu_as_a_station_would(driver, kernels_folder, tmp_path):
    settings = StationSettings(state_dir=tmp_path)

    found = {each.what: each for each in examine(settings, kernels=kernels_folder)}

    assert [found[what].state for what in ("driver", "pycuda", "kernels", "GPU")] == [
        State.FINE
    ] * 4
    driver.be(capability=(7, 0))
    found = {each.what: each for each in examine(settings, kernels=kernels_folder)}
    assert found["GPU"].state is State.LACKING
    assert "compute capability 7.0" in found["GPU"].found
