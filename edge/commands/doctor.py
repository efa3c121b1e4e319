"""`doctor`: what a station needs of this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from edge.commands.options import DONE, FAILED, add_settings, print_json, settings_of
from edge.doctor import examine
from edge.findings import Finding, State


def add_doctor(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("doctor", help="look at what a station needs of this machine")
    verb.set_defaults(verb=_doctor)
    verb.add_argument("--json", action="store_true", help="findings as JSON")
    add_settings(verb)
    verb.description = (
        "Nothing is changed. Exit 1 if a station with these settings cannot run here. What only a "
        "GPU needs may be lacking, unless --scorer gpu insists on one."
    )


def _doctor(given: argparse.Namespace) -> int:
    findings = examine(settings_of(given))
    if given.json:
        print_json({each.what: [each.state.value, each.found, each.remedy] for each in findings})
    else:
        _print_findings(findings)
    return FAILED if any(each.state is State.BROKEN for each in findings) else DONE


def _print_findings(findings: Sequence[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    styles = {State.FINE: "green", State.LACKING: "yellow", State.BROKEN: "bold red"}
    for each in findings:
        console.print(f"{each.state.value:<8}", style=styles[each.state], end="")
        console.print(f"{each.what:<14}{each.found}")
        if each.remedy:
            console.print(f"{'':<22}→ {each.remedy}")
