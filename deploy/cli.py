"""`dualbank-deploy`: prove that a bundle is whole, and compile it for the GPU of a station."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.build import Built, Tools, build, plan
from deploy.bundle_folder import verify
from deploy.compiler import MOST_FRAMES
from deploy.gate import CheckReport, check
from deploy.plan import Plan, Wanted, parse_capability
from deploy.runtimes_table import runtimes_table
from inspection.bundle import Bundle
from inspection.engines import PRECISIONS, PROVIDERS, dotted
from inspection.errors import DualbankError

GATE_SAYS_NO = 3

TABLE_WIDTH = 120
"""Columns of a table where the terminal, or the lack of one, would make it narrower."""


def main(arguments: Sequence[str] | None = None, tools: Tools | None = None) -> int:
    """Run one command. 0 done, 1 failed, 2 wrong usage, 3 a runtime does not hold."""
    args = _parser().parse_args(arguments)
    try:
        result: int = args.run(args, tools or Tools())
    except DualbankError as error:
        print(f"dualbank-deploy: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"dualbank-deploy: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dualbank-deploy", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("verify", _verify, "check every byte of a bundle, and what its runtimes answer here"),
        ("build", _build, "compile the trunk, judge the engines, and add them to the bundle"),
    ):
        verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        verb.add_argument("bundle", type=Path, metavar="BUNDLE")
        verb.add_argument("--json", action="store_true", help="print the report as JSON")
        verb.set_defaults(run=run)
        if name == "verify":
            verb.add_argument("--files-only", action="store_true", help="run nothing")
        else:
            _add_build(verb)
    return parser


def _add_build(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=["fp16"],
        help="of the engines, one each (default fp16); int8 needs a bundle with INT8 ranges",
    )
    verb.add_argument(
        "--provider",
        choices=PROVIDERS,
        default="tensorrt",
        help="what compiles (default %(default)s)",
    )
    verb.add_argument(
        "--capability",
        metavar="8.6",
        help="compute capability of the chips (default that of the GPU here); tensorrt builds for "
        "no other",
    )
    verb.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="read it if it is there, and write it: the next build is faster (tensorrt only)",
    )
    verb.add_argument(
        "--plan", action="store_true", help="say what would be built, and build nothing"
    )


def _verify(args: argparse.Namespace, tools: Tools) -> int:
    bundle = verify(args.bundle)
    report = None if args.files_only else check(args.bundle, bundle.id, tools.check)
    if args.json:
        _print_json(_files(bundle) | _runtimes(report))
    else:
        _print_files(bundle)
        if report is not None:
            _print_runtimes(report)
    return 0 if report is None or report.holds else GATE_SAYS_NO


def _build(args: argparse.Namespace, tools: Tools) -> int:
    wanted = Wanted(
        precisions=tuple(dict.fromkeys(args.precision)),
        provider=args.provider,
        capability=None if args.capability is None else parse_capability(args.capability),
    )
    if args.plan:
        planned = plan(args.bundle, wanted, tools)
        if args.json:
            _print_json(planned.document())
        else:
            _print_plan(planned)
        return 0
    built = build(args.bundle, wanted, tools, args.timing_cache)
    if args.json:
        _print_json(_built(built) | _runtimes(built.report))
    else:
        _print_built(args.bundle, built)
    return 0 if built.holds else GATE_SAYS_NO


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=1))


def _files(bundle: Bundle) -> dict[str, Any]:
    return {
        "bundle": bundle.id,
        "parent": bundle.manifest.parent,
        "files": {name: entry.model_dump() for name, entry in bundle.manifest.files.items()},
    }


def _runtimes(report: CheckReport | None) -> dict[str, Any]:
    """What was checked, or null where nothing was."""
    if report is None:
        return {"holds": None, "runtimes": None}
    return {"holds": report.holds, "runtimes": [each.model_dump() for each in report.runtimes]}


def _built(built: Built) -> dict[str, Any]:
    return {
        "bundle": built.bundle,
        "before": built.plan.bundle,
        "added": list(built.added),
        "present": [each.name for each in built.plan.engines if each.present],
    }


def _print_files(bundle: Bundle) -> None:
    print(f"bundle {bundle.id}")
    print(f"parent {bundle.manifest.parent or 'none'}")
    for name, entry in bundle.manifest.files.items():
        print(f"  {entry.sha256[:12]}  {entry.size_bytes:>11,} bytes  {name}")
    print(f"whole: {len(bundle.manifest.files)} files match the manifest")


def _print_runtimes(report: CheckReport) -> None:
    Console(width=max(Console().width, TABLE_WIDTH)).print(runtimes_table(report))
    failed = [each.runtime for each in report.runtimes if each.ran and not each.holds]
    ran = sum(each.ran for each in report.runtimes)
    if failed:
        print(f"does not hold here: {', '.join(failed)}")
    else:
        print(f"holds here: {ran} of {len(report.runtimes)} runtimes ran")


def _print_plan(planned: Plan) -> None:
    capability = dotted(planned.capability) if planned.capability else "not known"
    print(f"bundle      {planned.bundle}")
    print(f"provider    {planned.provider} {planned.version or '(not installed)'}")
    print(f"capability  {capability}")
    print(f"trunk       SHA-256 {planned.onnx_sha256}")
    print(f"frames      1 to {MOST_FRAMES} at once, fast for 1")
    for each in planned.engines:
        state = "would be built" if each.source_bytes else "has no graph to be built of"
        state = "there already, would be left alone" if each.present else state
        print(f"  {each.precision}  {each.name or 'name not known yet'}: {state}")
        size = f"{each.source_bytes:,} bytes" if each.source_bytes else "not in this bundle"
        print(f"        from {each.source}, {size}")
    for name in planned.others:
        print(f"  also in this bundle: {name}")
    for error in planned.lacks:
        print(f"cannot be built here: {error}")


def _print_built(folder: Path, built: Built) -> None:
    for each in built.plan.engines:
        if each.present:
            print(f"{each.name} is in the bundle already")
    if built.report is None:
        print(f"nothing to build; bundle {built.bundle} is as it was")
        return
    _print_runtimes(built.report)
    if not built.added:
        print(f"nothing was added; bundle {built.bundle} is as it was")
        return
    for name in built.added:
        print(f"added {name}")
    print(f"{folder}: bundle {built.plan.bundle} -> {built.bundle}")


if __name__ == "__main__":
    sys.exit(main())
