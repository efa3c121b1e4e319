"""The report as a whole: which section follows which, and the one file that they make."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from inspection.bundle import Bundle
from trainer.report.markup import Markup, join, tag
from trainer.report.mistakes import accepts_section, rejects_section
from trainer.report.provenance import provenance_section
from trainer.report.tables import headlines, product_charts, products_table, types_table
from trainer.results import CategoryResults

SECTIONS = {
    "products": "Products",
    "types": "Defect types",
    "curves": "Scores and curves",
    "accepts": "Defective parts that passed",
    "rejects": "Good parts that did not pass",
    "rests-on": "What this rests on",
}

READING = (
    "Figures are in percent; below each stands the interval that holds {confidence:g} % of {draws} "
    "bootstrap draws of the test images. It tells how far a figure may be off because images are "
    "few, not whether they are like those of your line. No spread means that all draws agree, and "
    "proves nothing: after n parts without a mistake, a rate of up to 3/n remains possible. Not "
    "passed is what a person must look at or what is ejected."
)

CHARTS = (
    "Scores: good parts upwards, defective ones downwards, the last bar holds everything beyond. "
    "The dashed line and the full dot are the review threshold, the solid line and the open square "
    "the reject threshold, grey dots what guessing gives."
)

EXHIBITS = (
    "Left the image, right the same with its anomaly map: colour begins at half the review "
    "threshold and is full at twice the reject threshold, white boxes are regions found, a blue "
    "line is the mask, and the frame has the colour of the verdict. Scores are robust σ above the "
    "median good part; p is the share of good parts that look at least as bad."
)


def report_page(
    bundle: Bundle,
    results: Sequence[CategoryResults],
    figures: Mapping[str, Any],
    root: Path,
    command: str,
) -> str:
    """Write a report as HTML. Equal arguments, images and versions give equal pages.

    Args:
        bundle: What was evaluated.
        results: From `trainer.evaluate.inspect_tests`.
        figures: From `trainer.evaluate.figures_of` the same results.
        root: The folder that was evaluated; files are named below it.
        command: That made the report.

    Raises:
        DatasetError: An image cannot be read again.
    """
    title = f"Evaluation of bundle {bundle.id[:12]}"
    charts = [product_charts(each, bundle) for each in results]
    content = {
        "products": products_table(figures),
        "types": types_table(figures),
        "curves": join(tag("p", CHARTS, class_="note"), *charts),
        "accepts": join(tag("p", EXHIBITS, class_="note"), accepts_section(bundle, results, root)),
        "rejects": rejects_section(bundle, results, root),
        "rests-on": provenance_section(bundle, results, figures, command, versions()),
    }
    sections = [
        tag("section", tag("h2", name), content[key], id=key) for key, name in SECTIONS.items()
    ]
    style = resources.files("trainer.report").joinpath("style.css").read_text("utf-8")
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag("main", _opening(bundle, results, figures), join(*sections))
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def versions() -> dict[str, str]:
    """What ran: name → version."""
    found = {"Python": platform.python_version()}
    for name in ("dualbank", "numpy", "onnxruntime", "opencv-python-headless"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "(not installed as a package)"
    return found


def _opening(
    bundle: Bundle, results: Sequence[CategoryResults], figures: Mapping[str, Any]
) -> Markup:
    manifest, spread = bundle.manifest, figures["intervals"]
    good = sum(int((~each.defects).sum()) for each in results)
    defective = sum(int(each.defects.sum()) for each in results)
    facts = (
        f"bundle {bundle.id[:12]}",
        f"{manifest.backbone}, {manifest.preprocessing.size_px} px",
        f"{len(results)} product{'s' if len(results) != 1 else ''}",
        f"{good} good and {defective} defective test images",
    )
    links = [tag("a", name, href=f"#{key}") for key, name in SECTIONS.items()]
    reading = READING.format(confidence=100 * spread["confidence"], draws=spread["draws"])
    return tag(
        "header",
        tag("h1", "Evaluation"),
        tag("p", " · ".join(facts), class_="facts"),
        headlines(figures),
        tag("p", reading, class_="note"),
        tag("nav", *links),
    )
