"""Foregrounds: what comes back, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from inspection.errors import BundleError, InputError
from inspection.foreground import (
    check_foreground,
    everywhere,
    foregrounds_from_bytes,
    foregrounds_to_bytes,
    laid_over,
)

HALF = np.array([[0, 1], [0, 1]], np.uint8)


def test_a_foreground_is_stretched_over_maps_of_any_shape() -> None:
    corner = np.zeros((3, 4), np.uint8)
    corner[2, 0] = 1

    assert laid_over(corner, (3, 4)) is corner
    assert np.argwhere(laid_over(corner, (6, 4))).tolist() == [[4, 0], [5, 0]]
    # Half of the cell, and all of it: whatever has to do with it is inspected.
    assert np.argwhere(laid_over(corner, (2, 8))).tolist() == [[1, 0], [1, 1]]
    assert laid_over(corner, (1, 1)).all()
    assert laid_over(everywhere((8, 8)), (5, 31)).all()


def test_foregrounds_come_back_as_they_were_written() -> None:
    given = {"nut": HALF, "__metadata__": everywhere((2, 2))}

    found = foregrounds_from_bytes(foregrounds_to_bytes(given))

    assert list(found) == list(given)
    for product, foreground in found.items():
        np.testing.assert_array_equal(foreground, given[product])
        assert not foreground.flags.writeable


@pytest.mark.parametrize(
    ("foreground", "said"),
    [
        pytest.param(np.zeros((2, 2), np.uint8), "at least one patch", id="nothing to inspect"),
        pytest.param(HALF * 255, "0 and 1 only", id="white is not one"),
        pytest.param(HALF.astype(np.float32), "uint8", id="another dtype"),
        pytest.param(HALF[0], r"\(Gh, Gw\)", id="a row"),
        pytest.param(np.zeros((0, 2), np.uint8), "at least one patch", id="empty"),
    ],
)
def test_what_is_no_foreground_is_refused(foreground: NDArray[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_foreground(foreground)


def bytes_of(names: str | None, **arrays: NDArray[Any]) -> bytes:
    metadata = {} if names is None else {"names": names}
    return bytes(safetensors.numpy.save(arrays, metadata=metadata))


NUT = json.dumps({"products": ["nut"]})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes_of(NUT, **{"0": HALF})[:-1], id="cut short"),
        pytest.param(bytes_of(None, **{"0": HALF}), id="no names"),
        pytest.param(bytes_of("[" * 100_000, **{"0": HALF}), id="names that nest too deep"),
        pytest.param(bytes_of("[]", **{"0": HALF}), id="names that are a list"),
        pytest.param(bytes_of(NUT, **{"1": HALF}), id="another number"),
        pytest.param(bytes_of(NUT, **{"0": HALF, "1": HALF}), id="one too many"),
        pytest.param(
            bytes_of(json.dumps({"products": ["nut", "nut"]}), **{"0": HALF, "1": HALF}),
            id="a product twice",
        ),
        pytest.param(
            bytes_of(json.dumps({"products": [["nut"]]}), **{"0": HALF}), id="no text for a name"
        ),
        pytest.param(bytes_of(json.dumps({"products": [None]}), **{"0": HALF}), id="no name"),
        pytest.param(bytes_of(NUT, **{"0": HALF * 0}), id="nothing to inspect"),
        pytest.param(bytes_of(NUT, **{"0": HALF * 2}), id="a two"),
    ],
)
def test_bytes_that_are_no_foregrounds_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="these are not foregrounds"):
        foregrounds_from_bytes(data)
