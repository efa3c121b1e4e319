"""`dualbank-deploy`: make sure that a bundle is whole before it goes anywhere."""

from __future__ import annotations

import argparse
import errno
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from inspection.bundle import Bundle, read_bundle
from inspection.errors import BundleError, DualbankError
from inspection.manifest import MANIFEST


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0 done, 1 failed, 2 wrong usage."""
    args = _parser().parse_args(arguments)
    try:
        result: int = args.run(args)
    except DualbankError as error:
        print(f"dualbank-deploy: {error}", file=sys.stderr)
        return 1
    return result


def verify(folder: Path) -> Bundle:
    """Read every file of a bundle and check its digest.

    Raises:
        BundleError: No bundle is there, or a file is missing or damaged; it is named.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}")
    bundle = read_bundle(lambda path: _read(folder, path))
    for name in bundle.manifest.files:
        bundle.file(name)
    return bundle


def _read(folder: Path, path: str) -> bytes:
    """Read a plain file below the folder; a link may not lead out of it."""
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()) or not place.is_file():
        raise OSError(errno.ENOENT, "no plain file below the bundle's folder", str(place))
    return place.read_bytes()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dualbank-deploy", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    verb = verbs.add_parser("verify", help="check every byte of a bundle against its manifest")
    verb.add_argument("bundle", type=Path, metavar="BUNDLE")
    verb.add_argument("--json", action="store_true", help="print the report as JSON")
    verb.set_defaults(run=_verify)
    return parser


def _verify(args: argparse.Namespace) -> int:
    bundle = verify(args.bundle)
    files = {name: entry.model_dump() for name, entry in bundle.manifest.files.items()}
    if args.json:
        report = {"bundle": bundle.id, "parent": bundle.manifest.parent, "files": files}
        print(json.dumps(report, indent=1))
        return 0
    print(f"bundle {bundle.id}")
    print(f"parent {bundle.manifest.parent or 'none'}")
    for name, entry in files.items():
        print(f"  {entry['sha256'][:12]}  {entry['size_bytes']:>11,} bytes  {name}")
    print(f"whole: {len(files)} files match the manifest")
    return 0


if __name__ == "__main__":
    sys.exit(main())
