"""Every error that dualbank raises on purpose: one tree, so that callers catch a family."""

from __future__ import annotations


class DualbankError(Exception):
    """Root of the tree; a command prints its text and exits 1, without a traceback."""


class InputError(DualbankError, ValueError):
    """A value is not what was expected; the text says what was, what came and what to do."""


class ImageError(InputError):
    """An image cannot be used: unreadable, truncated, or of a kind we refuse."""


class DatasetError(InputError):
    """A folder of images cannot be used as a data set."""


class BundleError(InputError):
    """A bundle is damaged, incomplete, or of a format this version does not know."""


class NotEnoughSamplesError(InputError):
    """Too few parts for the promise that was asked for."""


class ParityError(DualbankError):
    """Two implementations of the same model disagree beyond the stated tolerance."""


class StationError(DualbankError):
    """The station cannot start or go on: an address in use, a folder that cannot be written."""


class DeviceError(DualbankError):
    """The GPU cannot be used: no driver, no kernels for this chip, or no memory left on it."""
