"""Callers catch a family, never a message: one root, and every node says what it is."""

from __future__ import annotations

import inspect

import pytest

from inspection import errors

TREE = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, Exception)
}


def test_every_error_hangs_on_the_one_root():
    assert all(issubclass(kind, errors.DualbankError) for kind in TREE.values())


@pytest.mark.parametrize(
    "name", ["ImageError", "DatasetError", "BundleError", "NotEnoughSamplesError"]
)
def test_an_unusable_value_is_caught_as_an_input_error_and_as_a_value_error(name):
    assert issubclass(TREE[name], errors.InputError)
    assert issubclass(TREE[name], ValueError)


@pytest.mark.parametrize("name", ["ParityError", "StationError"])
def test_what_is_nobodys_input_is_not_caught_as_an_input_error(name):
    assert not issubclass(TREE[name], errors.InputError)


@pytest.mark.parametrize("kind", TREE.values())
def test_every_error_says_what_it_is(kind):
    assert kind.__doc__
