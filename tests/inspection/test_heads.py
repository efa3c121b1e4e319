"""Heads come back as they were written, each under its product, and nothing else is taken."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

from inspection.errors import BundleError
from inspection.heads import head_arrays, heads_from_bytes, heads_to_bytes
from inspection.scoring import Head

NAMES = ("hidden_weight", "hidden_bias", "output_weight")


def a_head(seed: int, units: int = 7, inputs: int = 5) -> Head:
    rng = np.random.default_rng(seed)
    return Head(
        hidden_weight=rng.normal(size=(inputs, units)).astype(np.float32),
        hidden_bias=rng.normal(size=units).astype(np.float32),
        output_weight=rng.normal(size=units).astype(np.float32),
        output_bias=0.25 * seed,
    )


def assert_same(one: Head, other: Head) -> None:
    for name in NAMES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.output_bias == other.output_bias


def test_heads_come_back_in_order_each_under_its_product() -> None:
    given = {"nut": a_head(1), "0.output_bias": a_head(2, units=3), "šroub": a_head(3)}

    found = heads_from_bytes(heads_to_bytes(given))

    assert list(found) == list(given)
    for product, head in given.items():
        assert_same(found[product], head)


def test_how_weights_lie_in_memory_does_not_change_what_is_written() -> None:
    head = a_head(1)
    turned = Head(
        np.asfortranarray(head.hidden_weight),
        head.hidden_bias[::-1][::-1],
        head.output_weight,
        head.output_bias,
    )

    assert heads_to_bytes({"nut": turned}) == heads_to_bytes({"nut": head})


def test_a_head_is_fed_to_the_graph_as_float32_however_it_lies_in_memory() -> None:
    head = a_head(1)
    turned = Head(np.asfortranarray(head.hidden_weight), head.hidden_bias, head.output_weight, 0.1)

    arrays = head_arrays(turned)

    assert {name: array.shape for name, array in arrays.items()} == {
        "hidden_weight": (5, 7), "hidden_bias": (7,), "output_weight": (7,), "output_bias": (1,),
    }  # fmt: skip
    assert all(array.flags.c_contiguous for array in arrays.values())
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(arrays["hidden_weight"], head.hidden_weight)
    assert arrays["output_bias"].tolist() == [np.float32(0.1)]


ONE = {f"0.{name}": array for name, array in head_arrays(a_head(1)).items()}
NUT = json.dumps({"products": ["nut"]})


def bytes_of(names: str | None, **changed: np.ndarray | None) -> bytes:
    """A head whose names, or one of whose arrays, are something else; None leaves an array out."""
    arrays = {name: array for name, array in {**ONE, **changed}.items() if array is not None}
    return bytes(safetensors.numpy.save(arrays, metadata={} if names is None else {"names": names}))


def test_the_unchanged_form_of_the_bad_bytes_below_is_a_head() -> None:
    assert_same(heads_from_bytes(bytes_of(NUT))["nut"], a_head(1))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes_of(NUT)[:-1], id="cut short"),
        pytest.param(bytes_of(None), id="no names"),
        pytest.param(bytes_of("[" * 100_000), id="names that nest too deep"),
        pytest.param(bytes_of("[]"), id="names that are a list"),
        pytest.param(bytes_of(json.dumps({"products": 1})), id="products that are a number"),
        pytest.param(bytes_of(json.dumps({"products": [["nut"]]})), id="a product that is a list"),
        pytest.param(bytes_of(json.dumps({"products": [None]})), id="a product without a name"),
        pytest.param(
            bytes_of(
                json.dumps({"products": ["nut", "nut"]}),
                **{name.replace("0.", "1."): array for name, array in ONE.items()},
            ),
            id="a product twice",
        ),
        pytest.param(
            bytes_of(json.dumps({"products": ["nut", "bolt"]})), id="a product without a head"
        ),
        pytest.param(bytes_of(json.dumps({"products": []})), id="a head of no product"),
        pytest.param(bytes_of(NUT, **{"1.hidden_bias": np.zeros(7)}), id="an array left over"),
        pytest.param(bytes_of(NUT, **{"0.hidden_bias": None}), id="an array short"),
        pytest.param(
            bytes_of(NUT, **{"0.hidden_bias": np.zeros(6, np.float32)}), id="arrays that do not fit"
        ),
        pytest.param(bytes_of(NUT, **{"0.output_weight": np.zeros(7)}), id="weights of float64"),
        pytest.param(
            bytes_of(NUT, **{"0.output_bias": np.zeros(2, np.float32)}), id="two output biases"
        ),
        pytest.param(
            bytes_of(NUT, **{"0.output_bias": np.zeros(0, np.float32)}), id="no output bias"
        ),
        pytest.param(
            bytes_of(NUT, **{"0.output_bias": np.full(1, np.nan, np.float32)}), id="not a number"
        ),
    ],
)
def test_bytes_that_are_no_heads_are_a_bundle_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(BundleError, match="these are not heads"):
        heads_from_bytes(data)
