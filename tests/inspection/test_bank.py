"""A memory bank is whole from birth, keeps its capacity, and comes back from bytes as it was."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import safetensors.numpy

from inspection.bank import FROM_TRAINING, MemoryBank, bank_from_bytes, bank_to_bytes, empty_bank
from inspection.errors import BundleError, InputError

COLUMNS = ("valid", "category", "source", "position", "label", "admitted_unix_s", "hits")


def a_bank(n_each=(3, 0, 4), dimensions=5, seed=0):
    """A bank of three categories, the second without a row, with every column filled."""
    rng = np.random.default_rng(seed)
    n = sum(n_each)
    return MemoryBank(
        categories=("screw", "tile", "žárovka"),
        sources=("a/001.png", "b 002.png"),
        features=rng.normal(size=(n, dimensions)).astype(np.float32),
        valid=rng.random(n) < 0.7,
        category=np.repeat(np.arange(3, dtype=np.int32), n_each),
        source=rng.integers(-1, 2, n).astype(np.int32),
        position=rng.integers(-1, 32, (n, 2)).astype(np.int32),
        label=rng.integers(0, 1 << 40, n),
        admitted_unix_s=rng.integers(0, 1 << 40, n),
        hits=rng.integers(0, 1 << 40, n),
    )


def assert_same(one, other):
    assert (one.categories, one.sources) == (other.categories, other.sources)
    for name in ("features", *COLUMNS):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


def test_a_bank_comes_back_from_its_bytes_as_it_was():
    bank = a_bank()

    again = bank_from_bytes(bank_to_bytes(bank))

    assert_same(again, bank)


def test_equal_banks_give_equal_bytes_however_they_lie_in_memory():
    bank = a_bank()
    turned = replace(
        bank,
        features=np.asfortranarray(bank.features),
        position=np.repeat(bank.position, 2, axis=0)[::2],
    )

    assert bank_to_bytes(turned) == bank_to_bytes(a_bank())


@pytest.mark.parametrize("name", ["features", *COLUMNS])
def test_a_change_in_any_column_changes_the_bytes(name):
    bank = a_bank()
    # Between 0 and 1 in the row where the third category begins: the bank stays well-formed.
    changed = getattr(bank, name).copy()
    changed.flat[3] = changed.flat[3] != 1

    assert bank_to_bytes(replace(bank, **{name: changed})) != bank_to_bytes(bank)


def test_the_arrays_of_a_bank_cannot_be_edited_in_place():
    for bank in (a_bank(), bank_from_bytes(bank_to_bytes(a_bank()))):
        for name in ("features", *COLUMNS):
            with pytest.raises(ValueError, match="read-only"):
                getattr(bank, name)[:1] = 0


@pytest.mark.parametrize(
    ("category", "rows"),
    [
        pytest.param("screw", slice(0, 3), id="first"),
        pytest.param("tile", slice(3, 3), id="a category without rows"),
        pytest.param("žárovka", slice(3, 7), id="last, not ASCII"),
        pytest.param(None, slice(0, 7), id="all of them"),
    ],
)
def test_a_category_owns_one_range_of_rows(category, rows):
    assert a_bank().rows_of(category) == rows


def test_a_category_that_the_bank_does_not_know_is_refused_by_name():
    with pytest.raises(InputError, match=r"'nut' is not in this bank; it knows screw, tile"):
        a_bank().rows_of("nut")


def test_an_empty_bank_has_its_capacity_and_no_evidence():
    bank = empty_bank(("a", "b"), rows_each=13, dimensions=7)

    assert bank.features.shape == (26, 7)
    assert bank.dimensions == 7
    assert not bank.valid.any()
    assert bank.rows_of("b") == slice(13, 26)
    assert set(bank.label) == {FROM_TRAINING}
    assert_same(bank_from_bytes(bank_to_bytes(bank)), bank)


def test_a_bank_without_rows_is_a_bank():
    bank = empty_bank(("a",), rows_each=0, dimensions=7)

    assert bank.rows_of("a") == slice(0, 0)
    assert_same(bank_from_bytes(bank_to_bytes(bank)), bank)


BAD = [
    pytest.param("features", lambda a: a.astype(np.float64), "float32", id="features of float64"),
    pytest.param("features", lambda a: a[0], r"\(N, D\)", id="features without rows"),
    pytest.param("features", lambda a: a * np.nan, "finite", id="features NaN"),
    pytest.param("features", lambda a: a + np.float32(np.inf), "finite", id="features infinite"),
    pytest.param("category", lambda a: a[::-1].copy(), "sorted", id="category descending"),
    pytest.param("category", lambda a: a - 1, "sorted", id="category negative"),
    pytest.param("category", lambda a: a + 1, "3 categories", id="category without a name"),
    pytest.param("source", lambda a: a * 0 + 2, "sources outside", id="source without a name"),
    pytest.param("source", lambda a: a * 0 - 2, "sources outside", id="source below -1"),
    *[
        pytest.param(name, lambda a: a[:-1], f"column {name}", id=f"{name} too short")
        for name in COLUMNS
    ],
    *[
        pytest.param(name, lambda a: a.astype(np.int16), f"column {name}", id=f"{name} of int16")
        for name in COLUMNS
    ],
]


@pytest.mark.parametrize(("name", "change", "says"), BAD)
def test_a_bank_of_parts_that_contradict_is_refused(name, change, says):
    bank = a_bank()

    with pytest.raises(InputError, match=says):
        replace(bank, **{name: change(getattr(bank, name))})


def test_two_categories_of_one_name_are_refused_since_the_second_could_not_be_reached():
    with pytest.raises(InputError, match="must differ"):
        empty_bank(("a", "a"), rows_each=2, dimensions=3)


def bytes_with(names=None, without=None, **more):
    """A bank's bytes with other names, a column missing, or one too many."""
    bank = a_bank()
    arrays = {
        field.name: getattr(bank, field.name)
        for field in fields(bank)
        if field.name not in ("categories", "sources", without)
    }
    names = names or json.dumps({"categories": bank.categories, "sources": bank.sources})
    return safetensors.numpy.save({**arrays, **more}, metadata={"names": names})


def test_the_unchanged_form_of_the_bad_bytes_below_is_a_bank():
    assert_same(bank_from_bytes(bytes_with()), a_bank())


NAMES = '{"categories": ["a", "b", "c"], "sources": ["x", "y"]}'


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x00" * 7, id="shorter than a length"),
        pytest.param(b"\xff" * 64, id="a length beyond everything"),
        pytest.param(bank_to_bytes(a_bank())[:-1], id="cut off"),
        pytest.param(bank_to_bytes(a_bank()) + b"\x00", id="something after the end"),
        pytest.param(safetensors.numpy.save({"features": np.zeros(3)}), id="other tensors"),
        pytest.param(bytes_with(without="hits"), id="a column missing"),
        pytest.param(bytes_with(colour=np.zeros(7)), id="a column too many"),
        pytest.param(bytes_with(NAMES.replace('["x", "y"]', "3")), id="names that are no list"),
        pytest.param(bytes_with(NAMES.replace('"b"', "5")), id="a name that is no text"),
        pytest.param(bytes_with(NAMES.replace('"b"', '"a"')), id="two categories of one name"),
        pytest.param(bytes_with('["a", "b"]'), id="names without their keys"),
        pytest.param(bytes_with("nothing"), id="names that are not JSON"),
        pytest.param(bytes_with("[" * 100_000), id="names nested without end"),
        pytest.param(bytes_with(features=np.zeros(())), id="features without an axis"),
    ],
)
def test_bytes_that_are_no_bank_are_a_bundle_error_and_nothing_else(data):
    with pytest.raises(BundleError, match="not a memory bank"):
        bank_from_bytes(data)
