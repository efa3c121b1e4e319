"""The router: what a frame is taken for, and which routers are refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from inspection.errors import BundleError, InputError
from inspection.routing import Router, descriptor, router_from_bytes, router_to_bytes


def a_router(**changes: Any) -> Router:
    """Nuts lie at (1, 0) and (0.6, 0.8), screws at (0, −1)."""
    fields: dict[str, Any] = {
        "products": ("nut", "screw"),
        "prototypes": np.array([[1, 0], [0.6, 0.8], [0, -1]], np.float32),
        "product": np.array([0, 0, 1], np.int32),
        "reach": np.array([0.5, 0.1], np.float32),
    }
    return Router(**fields | changes)


@pytest.mark.parametrize(
    ("described", "product"),
    [
        pytest.param([1.0, 0.0], "nut", id="on a prototype"),
        pytest.param([0.6, 0.9], "nut", id="near its second prototype"),
        pytest.param([0.0, -1.05], "screw", id="near the other product's"),
        pytest.param([0.0, -1.2], None, id="beyond the reach of the nearest, within another's"),
        pytest.param([-1.0, 0.0], None, id="far from all"),
        pytest.param([np.nan, 0.0], None, id="not a number"),
        pytest.param([np.inf, 0.0], None, id="infinite"),
    ],
)
def test_a_frame_is_of_the_nearest_product_in_reach(
    described: list[float], product: str | None
) -> None:
    assert a_router().product_of(np.array(described)) == product


def test_a_descriptor_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected a descriptor of \(2,\), got \(3,\)"):
        a_router().product_of(np.zeros(3))


def test_a_descriptor_is_mean_and_deviation_of_length_one() -> None:
    found = descriptor(np.array([[1.0, 4.0], [3.0, 4.0]], np.float32))

    expected = np.array([2.0, 4.0, 1.0, 0.0])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected))


def test_where_a_patch_lies_does_not_matter_to_a_descriptor() -> None:
    patches = np.random.default_rng(0).random((16, 3))

    np.testing.assert_allclose(descriptor(patches), descriptor(patches[::-1]))
    assert (descriptor(np.zeros((4, 3))) == 0).all()


@pytest.mark.parametrize("shape", [(4,), (0, 3), (2, 2, 2)])
def test_what_is_no_list_of_patches_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected patches"):
        descriptor(np.zeros(shape))


def test_a_router_comes_back_as_it_was_written() -> None:
    router = a_router()

    again = router_from_bytes(router_to_bytes(router))

    assert again.products == router.products
    for name in ("prototypes", "product", "reach"):
        np.testing.assert_array_equal(getattr(again, name), getattr(router, name))
        assert not getattr(again, name).flags.writeable
    assert router_to_bytes(again) == router_to_bytes(router)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"products": ("nut", "nut")}, "differ", id="a product twice"),
        pytest.param({"products": ("nut", 7)}, "texts", id="a product that is no text"),
        pytest.param(
            {"products": (), "product": np.zeros(0, np.int32)}, "some", id="no product at all"
        ),
        pytest.param({"prototypes": np.zeros((3, 2))}, "float32", id="another dtype"),
        pytest.param({"prototypes": np.zeros(3, np.float32)}, r"\(R, E\)", id="another shape"),
        pytest.param(
            {"prototypes": np.full((3, 2), np.nan, np.float32)}, "finite", id="not a number"
        ),
        pytest.param({"product": np.array([0, 0, 0], np.int32)}, "needs a", id="none of screws"),
        pytest.param({"product": np.array([0, 1, 2], np.int32)}, "no other", id="of a third"),
        pytest.param({"product": np.array([-1, 0, 1], np.int32)}, "no other", id="of minus one"),
        pytest.param({"product": np.array([0, 1], np.int32)}, r"\(3,\)", id="too few"),
        pytest.param({"reach": np.array([0.5], np.float32)}, r"\(2,\)", id="a reach missing"),
        pytest.param({"reach": np.array([-1, 1], np.float32)}, "0 or more", id="a negative reach"),
        pytest.param({"reach": np.array([np.inf, 1], np.float32)}, "finite", id="takes anything"),
    ],
)
def test_a_router_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        a_router(**changes)


def bytes_of(names: str | None, **changes: NDArray[Any]) -> bytes:
    router = a_router()
    arrays = {name: getattr(router, name) for name in ("prototypes", "product", "reach")}
    metadata = {} if names is None else {"names": names}
    return bytes(safetensors.numpy.save(arrays | changes, metadata=metadata))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x80\x04]", id="a pickle"),
        pytest.param(router_to_bytes(a_router())[:-4], id="cut short"),
        pytest.param(bytes_of(None), id="no names"),
        pytest.param(bytes_of("{"), id="names that are no JSON"),
        pytest.param(bytes_of("[" * 100_000), id="names that nest too deep"),
        pytest.param(bytes_of("[]"), id="names that are a list"),
        pytest.param(bytes_of(json.dumps({"products": 7})), id="products that are a number"),
        pytest.param(bytes_of(json.dumps({"products": [["a"], ["b"]]})), id="products of lists"),
        pytest.param(
            bytes_of(json.dumps({"products": ["a", "b"]}), more=np.zeros(1)), id="a tensor more"
        ),
        pytest.param(
            bytes_of(json.dumps({"products": ["a", "b"]}), reach=np.array([np.nan, 1], np.float32)),
            id="a reach that is not a number",
        ),
    ],
)
def test_bytes_that_are_no_router_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="this is not a router"):
        router_from_bytes(data)


def test_a_router_cannot_be_changed() -> None:
    router = a_router()

    with pytest.raises(dataclasses.FrozenInstanceError):
        router.products = ()  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        router.reach[0] = 9
