"""What the tests of the GPU host code share: the emulated driver, and kernels that run on this CPU.

Without pycuda or g++ the tests are skipped, unless REQUIRE_PYCUDA=1 says that they must run.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from edge.device import open_device
from edge.kernels import binary
from tests.gpu import emulated_driver
from tests.gpu.kernels_on_cpu import built
from tests.gpu.station_banks import Station


@pytest.fixture(scope="session")
def loaded_driver():
    """The emulated driver in place of the real one, for the rest of this process."""
    if lack := emulated_driver.missing():
        if os.environ.get("REQUIRE_PYCUDA") == "1":
            pytest.fail(lack)
        pytest.skip(lack)
    return emulated_driver.EmulatedDriver(emulated_driver.built_driver())


@pytest.fixture
def driver(loaded_driver):
    """The emulated driver as it begins; whatever a test leaves open fails it."""
    loaded_driver.be()
    loaded_driver.set_schedule(emulated_driver.WHEN_WAITED_FOR)
    with loaded_driver.nothing_is_left():
        yield loaded_driver
    loaded_driver.set_schedule(emulated_driver.WHEN_WAITED_FOR)


@pytest.fixture(
    params=[
        pytest.param(emulated_driver.WHEN_WAITED_FOR, id="when_waited_for"),
        pytest.param(emulated_driver.OTHERS_FIRST, id="others_first"),
        pytest.param(emulated_driver.AT_ONCE, id="at_once"),
    ]
)
def any_schedule(request, driver):
    """The same test in every order of streams."""
    driver.set_schedule(request.param)
    return driver


def write_module(folder, library):
    """A shared library as if it were the built kernels, under the digest of these sources."""
    binary.write_binary(folder, library.read_bytes(), "g++", ("this CPU",))
    return folder


@pytest.fixture(scope="session")
def probe_folder(tmp_path_factory):
    """Kernels that do one thing, right or wrong: `driver/probe.cpp`."""
    return write_module(tmp_path_factory.mktemp("probe"), emulated_driver.built_probe())


@pytest.fixture(scope="session")
def kernels_folder(tmp_path_factory):
    """The kernels themselves, for capability 8.6, as a binary that the emulated driver loads."""
    return write_module(tmp_path_factory.mktemp("kernels"), built(860))


@pytest.fixture
def device(driver, kernels_folder):
    with open_device(kernels=kernels_folder) as device:
        yield device


@pytest.fixture
def station(device):
    """Makes stations that are closed after the test."""
    with ExitStack() as held:
        yield lambda **kinds: Station(device, held, **kinds)
