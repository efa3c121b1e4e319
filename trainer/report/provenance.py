"""What a report rests on: settings, thresholds, what was learned and left out, and every digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from inspection.bundle import LINEAGE, Bundle, digest
from inspection.lineage import LearnedImage, lineage_from_bytes
from trainer.learned import digest_of
from trainer.report.markup import Markup, join, tag
from trainer.report.tables import column, numbers, table
from trainer.results import CategoryResults


def provenance_section(
    bundle: Bundle,
    results: Sequence[CategoryResults],
    figures: Mapping[str, Any],
    command: str,
    versions: Mapping[str, str],
) -> Markup:
    """Everything that somebody needs who doubts the figures or wants them again."""
    return join(
        tag("h3", "Command"),
        tag("pre", tag("code", command)),
        tag("p", " · ".join(f"{name} {version}" for name, version in versions.items())),
        tag("h3", "Model"),
        _facts(_model_facts(bundle)),
        tag("h3", "Intervals"),
        _facts(
            {
                "method": "percentile bootstrap over images, good and defective ones apart",
                "confidence": f"{100 * figures['intervals']['confidence']:g} %",
                "draws": f"{figures['intervals']['draws']}, seed {figures['intervals']['seed']}",
            }
        ),
        tag("h3", "Thresholds"),
        _routes_table(bundle),
        tag("h3", "Test images"),
        _tests_table(results),
        tag("h3", "Labelled defects learned from"),
        _lineage(lineage_from_bytes(bundle.file(LINEAGE)).labelled),
        tag("h3", "Files of the bundle"),
        _files_table(bundle),
    )


def _model_facts(bundle: Bundle) -> dict[str, str]:
    manifest = bundle.manifest
    preprocessing, scoring = manifest.preprocessing.model_dump(), manifest.scoring.model_dump()
    return {
        "bundle": bundle.id,
        "parent": manifest.parent or "none: trained afresh",
        "bank": bundle.bank_id,
        "format": manifest.format,
        "backbone": manifest.backbone,
        "backbone weights": manifest.weights or "digest not recorded",
        "seed": str(manifest.seed),
        **{name: str(value) for name, value in (preprocessing | scoring).items()},
        "normal bank": f"{len(bundle.normal.features)} rows of {bundle.normal.dimensions}",
        "abnormal bank": f"{len(bundle.abnormal.features)} rows of {bundle.abnormal.dimensions}",
    }


def _routes_table(bundle: Bundle) -> Markup:
    rows = [
        join(
            tag("th", product, scope="row"),
            tag("td", f"{entry.review:.3f}", class_="number"),
            tag("td", f"{entry.reject:.3f}", class_="number"),
            tag("td", f"{entry.abnormal_weight:g}", class_="number"),
            tag("td", entry.statement),
        )
        for product, entry in bundle.manifest.routes.items()
    ]
    limits = [numbers(name) for name in ("review", "reject", "abnormal weight")]
    return table((column("product"), *limits, column("what they rest on")), rows)


def _tests_table(results: Sequence[CategoryResults]) -> Markup:
    rows = [
        join(
            tag("th", each.name, scope="row"),
            tag("td", str(len(each.images)), class_="number"),
            tag("td", _contents(each), class_="digest"),
            tag("td", _names([sample.image.name for sample in each.left_out])),
        )
        for each in results
    ]
    note = (
        "The digest is the SHA-256 over those of the images' files, sorted: the same images give "
        "the same digest whatever they are called. Left out is what a bundle has learned from."
    )
    head = (column("product"), numbers("images"), column("digest"), column("left out"))
    return join(table(head, rows), tag("p", note, class_="note"))


def _contents(results: CategoryResults) -> str:
    digests = sorted(digest_of(image.sample.image) for image in results.images)
    return digest("".join(digests).encode())


def _lineage(labelled: Sequence[LearnedImage]) -> Markup:
    if not labelled:
        return tag("p", "None: this bundle has seen good parts only.")
    kinds = Counter((image.category, image.defect, image.regions) for image in labelled)
    rows = [
        join(
            tag("th", category, scope="row"),
            tag("td", defect),
            tag("td", str(count), class_="number"),
            tag("td", regions),
            tag(
                "td",
                _names(
                    [
                        image.name
                        for image in labelled
                        if (image.category, image.defect, image.regions)
                        == (category, defect, regions)
                    ]
                ),
            ),
        )
        for (category, defect, regions), count in kinds.items()
    ]
    head = (
        *(column("product"), column("defect type"), numbers("images")),
        *(column("outlined by"), column("files")),
    )
    return table(head, rows)


def _files_table(bundle: Bundle) -> Markup:
    rows = [
        join(
            tag("th", name, scope="row"),
            tag("td", f"{entry.size_bytes:,}", class_="number"),
            tag("td", entry.sha256, class_="digest"),
        )
        for name, entry in sorted(bundle.manifest.files.items())
    ]
    return table((column("file"), numbers("bytes"), column("SHA-256")), rows)


def _facts(facts: Mapping[str, str]) -> Markup:
    return tag(
        "dl", *(tag("div", tag("dt", name), tag("dd", said)) for name, said in facts.items())
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "–"
