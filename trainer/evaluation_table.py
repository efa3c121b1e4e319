"""An evaluation as a table for a terminal of 80 columns, which is also what a pipe has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

SHOWN = ("image_auroc", "image_ap", "frr", "escape_rate", "pixel_auroc", "aupro")

POOLED = {"class_blind": "one threshold", "unknown_product": "product not known"}
"""What is measured of all products together, and what it is called."""


def table(report: Mapping[str, Any]) -> Table:
    """Lay a report of `trainer.evaluate` out: figures in percent, their intervals below them."""
    intervals = report["intervals"]
    drawn = Table(
        title=f"bundle {report['bundle'][:12]}, %",
        caption=f"below each figure: {intervals['confidence']:.0%} bootstrap interval",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    drawn.add_column("category", no_wrap=True)
    for name in (*SHOWN, "good", "bad"):
        drawn.add_column(name.replace("_", " "), justify="right")
    for name, row in report["categories"].items():
        counts = (str(row["n_good"]), str(row["n_defect"]))
        _add(drawn, name, row, intervals["categories"][name], counts)
    drawn.add_section()
    _add(drawn, "mean", report["mean"], intervals["mean"])
    for pool, title in POOLED.items():
        if pool in report:
            _add(drawn, title, report[pool], intervals[pool])
    return drawn


def _add(
    drawn: Table,
    title: str,
    figures: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float] | None],
    counts: Sequence[str] = (),
) -> None:
    shown = [name for name in SHOWN if name in figures]
    drawn.add_row(title, *(_percent(figures[name]) for name in shown), *counts)
    ends = [intervals[name] for name in shown]
    if any(ends):
        drawn.add_row("", *(_whole_percents(each) for each in ends), style="dim")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _whole_percents(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{100 * ends[0]:.0f}–{100 * ends[1]:.0f}"
