"""Which TensorRT compiles for which chip, and what is said of a pair that does not go together."""

from __future__ import annotations

import pytest

from deploy.supported import FIRST_UNKNOWN, OLDEST, SUPPORTED, check_pair, check_version
from inspection.engines import dotted
from inspection.errors import InputError

GOES = [
    ("10.3.0", (8, 7)),
    ("10.3.0.30", (8, 6)),
    ("10.3", (7, 5)),
    ("10.4.0", (7, 0)),
    ("10.4.9.9", (7, 0)),
    ("10.8.0.43", (12, 0)),
    ("10.16.1.11", (12, 1)),
    ("11.4.0.106", (7, 5)),
    ("11.4.0.106", (11, 0)),
]
GOES_NOT = [
    ("10.3.0", (12, 0), "takes one from 10.8 on"),
    ("10.7.0", (10, 0), "takes one from 10.8 on"),
    ("10.13.1", (12, 1), "takes one from 10.13.2 on"),
    ("10.5.0", (7, 0), "takes one older than 10.5"),
    ("11.4.0.106", (7, 0), "takes one older than 10.5"),
    ("10.3.0", (6, 1), "it does for 7.0, 7.5, 8.0, 8.6, 8.7, 8.9, 9.0"),
    ("11.0.0", (13, 0), "it does for 7.5, 8.0, "),
]


@pytest.mark.parametrize(("version", "capability"), GOES)
def test_a_pair_that_goes_together_is_taken(version: str, capability: tuple[int, int]) -> None:
    check_pair(version, capability)


@pytest.mark.parametrize(("version", "capability", "said"), GOES_NOT)
def test_a_pair_that_does_not_is_refused_by_both_names(
    version: str, capability: tuple[int, int], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        check_pair(version, capability)

    assert f"TensorRT {version} " in str(refused.value)
    assert f"compute capability {dotted(capability)}" in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0", "10.0.1", "10.2.0", "12.0.0", "12.1"])
def test_a_version_that_was_never_tried_is_refused_whatever_the_chip(version: str) -> None:
    for check in (check_version, lambda each: check_pair(each, (8, 6))):
        with pytest.raises(InputError, match=rf"TensorRT {version} .*from 10\.3 up to.* 12\.0"):
            check(version)


@pytest.mark.parametrize("version", ["", "ten", "10", "v10.3"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(InputError, match="expected a version"):
        check_version(version)


def test_versions_are_compared_as_numbers() -> None:
    assert check_version("10.13.3.9") == (10, 13, 3)
    assert check_version("10.13.3.9") > check_version("10.8.0.43")


def test_every_row_has_its_source_and_a_version_that_it_goes_with() -> None:
    for capability, support in SUPPORTED.items():
        first = max(support.since, OLDEST)
        assert first < (support.until or FIRST_UNKNOWN), capability
        assert any(digit.isdecimal() for digit in support.source), capability
        check_pair(".".join(map(str, first)), capability)
