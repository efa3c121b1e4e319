"""The chip that is here, as a driver says it: none, a broken one, and one with a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.chip import capability_here
from inspection.errors import DeviceError


class Driver:
    """Answers as libcuda.so.1 of a machine with one Orin; `fails` is the function that does not."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.asked: list[str] = []

    def _done(self, name: str) -> int:
        self.asked.append(name)
        return 100 if name == self.fails else 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self._done("cuInit")

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = 41
        assert ordinal == 0
        return self._done("cuDeviceGet")

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        assert device.value == 41
        value._obj.value = {75: 8, 76: 7}[attribute]
        return self._done("cuDeviceGetAttribute")


def test_the_capability_is_that_of_the_first_gpu() -> None:
    driver = Driver()

    assert capability_here(lambda name: driver) == (8, 7)
    assert driver.asked[0] == "cuInit"


def test_the_driver_is_opened_by_the_name_that_a_driver_has() -> None:
    opened = []

    capability_here(lambda name: opened.append(name) or Driver())

    assert opened == ["libcuda.so.1"]


def test_without_a_driver_it_is_said_where_to_build() -> None:
    def load(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(DeviceError, match="no GPU here: build on the machine that will run it"):
        capability_here(load)


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGet", "cuDeviceGetAttribute"])
def test_a_driver_that_refuses_is_quoted(function: str) -> None:
    with pytest.raises(DeviceError, match=rf"no GPU here .*\({function} answered 100\)"):
        capability_here(lambda name: Driver(fails=function))
