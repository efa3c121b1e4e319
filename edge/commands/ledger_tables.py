"""How `ledger` and `replay` look on a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.ledger_audit import Audit
from edge.ledger_export import utc
from edge.ledger_stats import Stats
from inspection.verdicts import Verdict

MOST_SHOWN = 20
"""Cameras, products or bundles in one table; `--json` has all."""

STYLES = {"PASS": "green", "REVIEW": "yellow", "FAIL": "bold red", "UNKNOWN": "magenta"}

_WIDTH = 120


def console() -> Console:
    """Give a console that cuts nothing off in a pipe, and takes no name for a command."""
    narrow = Console(highlight=False, markup=False, emoji=False)
    width = max(narrow.width, _WIDTH)
    return Console(width=width, highlight=False, markup=False, emoji=False)


def plain_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Begin a table without frames; numbers stand to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=True, overflow="fold"
        )
    return table


def shown(name: str, most: int = 40) -> Text:
    """Write what came from a camera: it can neither move the cursor nor push columns away."""
    harmless = "".join(sign if sign.isprintable() else "\ufffd" for sign in name)
    return Text(harmless if len(harmless) <= most else f"{harmless[: most - 1]}…")


def print_audit(found: Audit) -> None:
    """Say whether a ledger holds, what is wrong, and what to note down."""
    out = console()
    for problem in found.problems:
        out.print(shown(problem, 400), style="bold red", soft_wrap=True)
    if more := found.problem_count - len(found.problems):
        out.print(f"and {more:,} more", style="bold red")
    verdicts = f"{found.rows:,} verdict{'' if found.rows == 1 else 's'}"
    if found.holds:
        out.print(f"the ledger holds: {verdicts}, none missing, none changed", style="green")
    else:
        out.print(
            f"THE LEDGER DOES NOT HOLD: {found.problem_count:,} wrong, {verdicts} looked at",
            style="bold red",
        )
    for anchor in found.anchored:
        out.print(f"anchor  {anchor}  holds", soft_wrap=True)
    out.print(f"head    {found.head}", soft_wrap=True)


def print_stats(stats: Stats) -> None:
    """Show what was counted."""
    out = console()
    if stats.first_unix_ns is None or stats.last_unix_ns is None:
        out.print("no verdicts")
        return
    out.print(f"{stats.rows:,} verdicts, {_minute(stats.first_unix_ns)} to ", end="")
    out.print(f"{_minute(stats.last_unix_ns)} UTC")
    out.print(_rate(stats), end="\n\n")
    verdicts = [verdict.value for verdict in Verdict]
    _print_shares(out, "verdict", stats.verdicts, stats.rows, verdicts)
    _print_shares(out, "reason", stats.reasons, stats.rows)
    for what, names, most in (
        ("camera", stats.cameras, 40),
        ("product", stats.products, 40),
        ("bundle", stats.bundles, 12),
    ):
        _print_by(out, what, names, most)
    _print_latency(out, stats)


def _rate(stats: Stats) -> str:
    said = [] if math.isnan(stats.per_minute) else [f"{stats.per_minute:,.1f} a minute"]
    if stats.busiest_hour is not None:
        began, verdicts = stats.busiest_hour
        said.append(f"{verdicts:,} in the busiest hour, from {_minute(began)}")
    return " · ".join(said)


def _minute(unix_ns: int) -> str:
    return utc(unix_ns)[:16].replace("T", " ")


def _print_shares(
    out: Console, what: str, counted: Mapping[str, int], total: int, order: Sequence[str] = ()
) -> None:
    if not counted:
        return
    table = plain_table(what, "count", "share", right=("count", "share"))
    by_count = sorted(counted, key=lambda name: -counted[name])
    for name in (*order, *(name for name in by_count if name not in order)):
        count = counted.get(name, 0)
        table.add_row(
            shown(name), f"{count:,}", f"{100 * count / total:.2f} %", style=STYLES.get(name)
        )
    out.print(table)
    out.print()


def _print_by(out: Console, what: str, names: Mapping[str, Counter[str]], most: int) -> None:
    verdicts = [verdict.value for verdict in Verdict]
    numbers = ["count", *verdicts, "not PASS"]
    table = plain_table(what, *numbers, right=numbers)
    most_used = sorted(names, key=lambda name: -names[name].total())[:MOST_SHOWN]
    for name in names if what == "bundle" else sorted(names):  # bundles in the order they came
        if name not in most_used:
            continue
        counted = names[name]
        held = 100 * (1 - counted["PASS"] / counted.total())
        table.add_row(
            shown(name[:most] if what == "bundle" else name, most),
            f"{counted.total():,}",
            *(f"{counted[verdict]:,}" if counted[verdict] else "·" for verdict in verdicts),
            f"{held:.2f} %",
        )
    out.print(table)
    if len(names) > MOST_SHOWN:
        out.print(f"and {len(names) - MOST_SHOWN:,} more; --json has them")
    out.print()


def _print_latency(out: Console, stats: Stats) -> None:
    shares = ("p50", "p95", "p99", "max")
    table = plain_table("latency, ms", *shares, right=shares)
    for stage, durations in stats.latency.items():
        values = [durations.percentile(share) for share in (0.5, 0.95, 0.99)]
        table.add_row(shown(stage), *(f"{each:,.2f}" for each in (*values, durations.highest_ms)))
    out.print(table)
