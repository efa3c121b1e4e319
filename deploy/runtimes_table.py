"""The table of a bundle's runtimes, as people read it."""

from __future__ import annotations

from rich.table import Table

from deploy.gate import CheckReport, RuntimeResult
from inspection.engines import dotted, is_engine, key_of

NOTHING = "–"


def runtimes_table(report: CheckReport) -> Table:
    """Draw what every runtime answered; nothing is rounded to a better look."""
    table = Table("runtime", "runs under", "device")
    for number in ("score error", "map error", "flips", "ms a frame"):
        table.add_column(number, justify="right")
    table.add_column("holds")
    for result in report.runtimes:
        table.add_row(*_row(result))
    return table


def _row(result: RuntimeResult) -> tuple[str, ...]:
    name, under = result.runtime, "ONNX Runtime"
    if is_engine(result.runtime):
        key = key_of(result.runtime)
        name, under = "engine", f"{key.provider} {key.version}, {dotted(key.capability)}"
    holds = "yes" if result.holds else "NO"
    return (
        f"{name}, {result.precision}",
        under,
        result.device,
        _number(result.score_error, ".1e"),
        _number(result.map_error, ".1e"),
        _number(result.flips, "d"),
        _number(result.latency_ms, ".2f"),
        holds if result.ran else f"did not run: {result.why or 'no reason given'}",
    )


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
