"""`run`: a station, until SIGTERM."""

from __future__ import annotations

import argparse
from typing import Any

from edge.commands.options import DONE, add_settings, print_json, settings_of
from edge.log_lines import log_to_stderr
from edge.service import serve


def add_run(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("run", help="run a station until SIGTERM")
    verb.set_defaults(verb=_run)
    verb.add_argument("--json", action="store_true", help="at the end, counters as JSON on stdout")
    add_settings(verb)


def _run(given: argparse.Namespace) -> int:
    settings = settings_of(given)
    log_to_stderr(log_format=settings.log_format)
    serve(settings, print_json if given.json else _print_account)
    return DONE


def _print_account(report: dict[str, Any]) -> None:
    for name, value in report.items():
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {_number(each)}" for key, each in value.items())
            print(f"{name:<13} {shown or '-'}")
        else:
            print(f"{name:<13} {value}")


def _number(value: Any) -> str:
    return f"{value['p50']:g} (p99 {value['p99']:g})" if isinstance(value, dict) else str(value)
