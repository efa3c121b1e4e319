"""Figures of an evaluation as HTML: headlines, products, defect types, charts of each product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inspection.bundle import Bundle
from trainer.report.charts import interval_bar, precision_recall_chart, roc_chart, score_chart
from trainer.report.markup import Markup, join, tag
from trainer.results import CategoryResults

HEADLINES = (
    ("mean", "image_auroc", "Image AUROC", "mean over products, product known"),
    ("mean", "aupro", "AUPRO", "mean over products whose defects are outlined"),
    ("class_blind", "image_auroc", "Pooled AUROC", "all products under one threshold"),
    ("unknown_product", "image_auroc", "Product unknown", "pooled AUROC, routed by look"),
    ("mean", "frr", "Good, not passed", "mean over products, product known"),
    ("mean", "escape_rate", "Defective, passed", "mean over products, product known"),
)
"""Part of the report, figure, what it is called, and what of."""

LOWEST_AUROC = 0.5
"""Where the track of an AUROC begins: what guessing gives."""


def headlines(figures: Mapping[str, Any]) -> Markup:
    """The figures that are asked for first, each with its interval."""
    tiles = []
    for part, name, title, of in HEADLINES:
        value = figures.get(part, {}).get(name)
        if value is None:
            continue
        ends = figures["intervals"][part][name]
        tiles.append(
            tag(
                "div",
                tag("h3", title),
                tag("p", percent(value), tag("span", " %"), class_="figure"),
                tag("p", _ends(ends), class_="ends"),
                tag("p", of, class_="of"),
            )
        )
    return tag("div", join(*tiles), class_="tiles")


def products_table(figures: Mapping[str, Any]) -> Markup:
    """One row a product and one of means; figures in percent, intervals below them."""
    counts, others = ("good", "defective", "left out"), ("image AP", "AUPRO", "pixel AUROC")
    head = (
        column("product"),
        *(numbers(each) for each in (*counts, "image AUROC")),
        column(""),
        *(numbers(each) for each in (*others, "not passed", "passed")),
    )
    spread = figures["intervals"]
    rows = [
        _product_row(tag("th", name, scope="row"), row, spread["categories"][name])
        for name, row in figures["categories"].items()
    ]
    mean = _product_row(tag("th", "mean", scope="row"), figures["mean"], spread["mean"])
    return table(head, rows, foot=[mean])


def types_table(figures: Mapping[str, Any]) -> Markup:
    """Each defect type against all good parts of its product."""
    rows = []
    for product, types in figures["defect_types"].items():
        for i, (defect, row) in enumerate(types.items()):
            spread = figures["intervals"]["defect_types"][product][defect]
            rows.append(
                join(
                    tag("th", product, scope="rowgroup", rowspan=len(types)) if i == 0 else "",
                    tag("td", defect),
                    tag("td", str(row["n_defect"]), class_="number"),
                    figure(row["image_auroc"], spread["image_auroc"]),
                    _bar(row["image_auroc"], spread["image_auroc"], LOWEST_AUROC),
                    figure(row["escape_rate"], spread["escape_rate"]),
                    _bar(row["escape_rate"], spread["escape_rate"]),
                )
            )
    if not rows:
        return tag("p", "There are no defective test images.")
    head = (
        *(column("product"), column("defect type"), numbers("images")),
        *(numbers("image AUROC"), column(""), numbers("passed"), column("")),
    )
    return table(head, rows)


def product_charts(results: CategoryResults, bundle: Bundle) -> Markup:
    """Scores, ROC and precision over recall of one product."""
    title = tag("h3", results.name, tag("span", _counted(results)))
    if not results.has_both_kinds:
        missing = "Curves need good and defective test images; one kind is missing."
        return tag("section", title, tag("p", missing), class_="product")
    thresholds = bundle.route(results.name).thresholds
    drawn = [
        tag("figure", tag("figcaption", name), chart(results.scores, results.defects, thresholds))
        for name, chart in (
            ("Scores", score_chart),
            ("ROC", roc_chart),
            ("Precision and recall", precision_recall_chart),
        )
    ]
    return tag("section", title, tag("div", join(*drawn), class_="charts"), class_="product")


def column(name: str) -> Markup:
    """The heading of a column of words."""
    return tag("th", name, scope="col")


def numbers(name: str) -> Markup:
    """The heading of a column of numbers."""
    return tag("th", name, scope="col", class_="number")


def table(head: Sequence[Markup], rows: Sequence[Markup], foot: Sequence[Markup] = ()) -> Markup:
    """A table from a heading for every column and the cells of every row."""
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", *head)),
            tag("tbody", *(tag("tr", row) for row in rows)),
            tag("tfoot", *(tag("tr", row) for row in foot)) if foot else "",
        ),
        class_="scroll",
    )


def figure(value: float | None, ends: Sequence[float] | None) -> Markup:
    """A cell with a figure in percent and its interval below it."""
    return tag("td", percent(value), tag("small", _ends(ends)), class_="number")


def percent(value: float | None) -> str:
    """A fraction in percent; a dash for none."""
    return "–" if value is None else f"{100 * value:.1f}"


def _product_row(name: Markup, row: Mapping[str, Any], spread: Mapping[str, Any]) -> Markup:
    counts = ("n_good", "n_defect", "left_out")
    shown = ("image_ap", "aupro", "pixel_auroc", "frr", "escape_rate")
    return join(
        name,
        *(tag("td", str(row.get(each, "")), class_="number") for each in counts),
        figure(row["image_auroc"], spread["image_auroc"]),
        _bar(row["image_auroc"], spread["image_auroc"], LOWEST_AUROC),
        *(figure(row[each], spread[each]) for each in shown),
    )


def _bar(value: float | None, ends: Sequence[float] | None, low: float = 0.0) -> Markup:
    return tag("td", "" if value is None else interval_bar(value, ends, low), class_="bar")


def _ends(ends: Sequence[float] | None) -> str:
    if ends is None:
        return ""
    return "no spread" if ends[0] == ends[1] else f"{100 * ends[0]:.1f} – {100 * ends[1]:.1f}"


def _counted(results: CategoryResults) -> str:
    defects = int(results.defects.sum())
    return f"{len(results.images) - defects} good, {defects} defective"
