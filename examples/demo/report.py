"""What the demonstration ends with: figures, a table, and a picture of what the station saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from examples.demo.line import Heard, Trigger, trigger_of
from inspection.metrics import auroc, escape_rate, false_reject_rate
from inspection.thresholds import Thresholds
from inspection.verdicts import Region, Verdict
from trainer.dataset import Category, Sample, read_image
from trainer.pictures import COLOURS, overlay

matplotlib.use("Agg")
from matplotlib import pyplot

Tile = tuple[str, Sample, Heard]


def summarise(
    categories: Sequence[Category],
    sent: int,
    heard: Mapping[Trigger, Heard],
    account: Mapping[str, Any],
) -> dict[str, Any]:
    """Put the station's own counters beside what was sent and heard.

    `frr` and `escape_rate` count REVIEW as not passed: a good part that a person must look at is a
    false reject, and a defect that a person looks at has not escaped.
    """
    figures = {category.name: _figures([category], heard) for category in categories}
    return {
        "sent": sent,
        "received": account["received"],
        "recorded": account["recorded"],
        "published": account["published"],
        "heard": len(heard),
        "verdicts": account["verdicts"],
        **_figures(categories, heard),
        "categories": figures,
        "latency_ms": account["latency_ms"],
        "bundle": next(iter(heard.values())).verdict.bundle if heard else None,
    }


def table(summary: Mapping[str, Any]) -> Table:
    """Lay the summary out for a terminal."""
    drawn = Table(title="dualbank demonstration", show_header=False)
    drawn.add_column()
    drawn.add_column(justify="right")
    for name in ("sent", "received", "recorded", "published", "heard"):
        drawn.add_row(
            f"frames {name}" if name in ("sent", "received") else f"verdicts {name}",
            str(summary[name]),
        )
    drawn.add_section()
    for verdict, count in summary["verdicts"].items():
        drawn.add_row(verdict, str(count))
    drawn.add_section()
    for name, row in {**summary["categories"], "all under one threshold": summary}.items():
        drawn.add_row(f"{name}: image AUROC", _percent(row["image_auroc"]))
        drawn.add_row("  good parts not passed", _percent(row["frr"]))
        drawn.add_row("  defects passed", _percent(row["escape_rate"]))
    drawn.add_section()
    for stage, row in summary["latency_ms"].items():
        drawn.add_row(f"{stage}, p50 / p99", f"{row['p50']:.1f} / {row['p99']:.1f} ms")
    return drawn


def contact_sheet(
    categories: Sequence[Category], heard: Mapping[Trigger, Heard], target: Path
) -> None:
    """Draw image, map and verdict of the most telling parts of each category."""
    rows = [(category, tiles) for category in categories if (tiles := _tiles(category, heard))]
    if not rows:
        return
    columns = max(len(tiles) for _, tiles in rows)
    figure, axes = pyplot.subplots(
        2 * len(rows), columns, figsize=(2.1 * columns, 4.7 * len(rows)), squeeze=False
    )
    for axis in axes.ravel():
        axis.axis("off")
    for number, (category, tiles) in enumerate(rows):
        for column, tile in enumerate(tiles):
            _draw(axes[2 * number, column], axes[2 * number + 1, column], tile)
        axes[2 * number, 0].text(
            -0.08,
            0.5,
            category.name,
            rotation=90,
            va="center",
            ha="right",
            fontsize=11,
            transform=axes[2 * number, 0].transAxes,
        )
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def _figures(categories: Sequence[Category], heard: Mapping[Trigger, Heard]) -> dict[str, Any]:
    pairs = [
        (sample.defect is not None, heard[trigger].verdict)
        for category in categories
        for i, sample in enumerate(category.test)
        if (trigger := trigger_of(category, i)) in heard
    ]
    scored = [(defect, said) for defect, said in pairs if said.score is not None]
    defects = np.array([defect for defect, _ in scored], bool)
    if not defects.any() or defects.all():
        return {"image_auroc": None, "frr": None, "escape_rate": None}
    passed = np.array([said.verdict is Verdict.PASS for _, said in scored])
    return {
        "image_auroc": auroc(np.array([said.score for _, said in scored], float), defects),
        "frr": false_reject_rate(passed, defects),
        "escape_rate": escape_rate(passed, defects),
    }


def _tiles(category: Category, heard: Mapping[Trigger, Heard]) -> list[Tile]:
    """Choose the highest and lowest defects, and the highest and a usual good part."""
    known = [
        (sample, heard[trigger])
        for i, sample in enumerate(category.test)
        if (trigger := trigger_of(category, i)) in heard
        and heard[trigger].verdict.score is not None
        and heard[trigger].anomaly_map is not None
    ]
    known.sort(key=lambda pair: -(pair[1].verdict.score or 0.0))
    defects = [pair for pair in known if pair[0].defect is not None]
    good = [pair for pair in known if pair[0].defect is None]
    picked = [("highest defect", pair) for pair in defects[:3]]
    picked += [("lowest defect", pair) for pair in defects[3:][-2:]]
    picked += [("highest good", pair) for pair in good[:2]]
    picked += [("usual good", pair) for pair in good[2:][len(good) // 2 :][:1]]
    return [(title, sample, each) for title, (sample, each) in picked]


def _draw(above: Any, below: Any, tile: Tile) -> None:
    title, sample, each = tile
    said, scores = each.verdict, each.anomaly_map
    assert scores is not None
    image: NDArray[np.uint8] = read_image(sample.image)
    thresholds = Thresholds(said.threshold or 0.0, said.reject_threshold or 0.0)
    regions = tuple(
        Region(box.x_px, box.y_px, box.width_px, box.height_px, box.score) for box in said.regions
    )
    above.imshow(image)
    above.set_title(f"{title}\n{sample.defect or 'good'}", fontsize=8)
    below.imshow(overlay(image, scores, thresholds, regions, said.verdict))
    below.set_title(
        f"{said.verdict.value} {said.score:.1f}",
        fontsize=9,
        color=tuple(channel / 255 for channel in COLOURS[said.verdict]),
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
