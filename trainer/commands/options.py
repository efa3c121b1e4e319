"""Options that several verbs share, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path

from inspection.bundle import LINEAGE
from inspection.lineage import lineage_from_bytes
from trainer.bundle_folder import open_bundle


def add_quiet(verb: argparse.ArgumentParser) -> None:
    """Let progress bars be left out."""
    verb.add_argument("--quiet", action="store_true", help="no progress bars")


def add_json(verb: argparse.ArgumentParser, what: str = "report") -> None:
    """Let the answer be JSON."""
    verb.add_argument("--json", action="store_true", help=f"print the {what} as JSON")


def add_tested(verb: argparse.ArgumentParser) -> None:
    """Take what is tested, on which images."""
    verb.add_argument("data", type=Path, metavar="DIR", help="categories, at any depth")
    verb.add_argument("--bundle", type=Path, required=True, metavar="B")
    verb.add_argument(
        "--without",
        type=Path,
        action="append",
        default=[],
        metavar="B",
        help="leave out the test images that this bundle learned from, as those of --bundle always "
        "are; may be given again",
    )


def learned_by(bundles: list[Path]) -> set[str]:
    """SHA-256 of every labelled image that one of the bundles has learned from.

    Raises:
        BundleError: One of them cannot be read.
    """
    return {
        digest
        for folder in bundles
        for digest in lineage_from_bytes(open_bundle(folder).file(LINEAGE)).digests
    }
