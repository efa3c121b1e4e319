"""Test images that a model has learned from are no test: they are found by content and left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from inspection.bundle import digest
from inspection.errors import DatasetError
from trainer.dataset import Category


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hex.

    Raises:
        DatasetError: The file cannot be read.
    """
    try:
        return digest(path.read_bytes())
    except OSError as error:
        raise DatasetError(
            f"cannot read {path}: {error.strerror or error}; replace or remove the file"
        ) from error


def without_learned(
    categories: Sequence[Category], digests: Collection[str]
) -> tuple[Category, ...]:
    """Take test images out whose file is among those learned from, whatever they are called.

    Args:
        categories: In any order, which is kept; what they train on is not looked at.
        digests: SHA-256 of files, hex. With none, no file is opened.

    Raises:
        DatasetError: A test image cannot be read.
    """
    if not digests:
        return tuple(categories)
    known = frozenset(digests)
    return tuple(
        replace(
            category,
            test=tuple(each for each in category.test if digest_of(each.image) not in known),
        )
        for category in categories
    )
