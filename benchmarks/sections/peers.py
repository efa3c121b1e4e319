"""Ours beside anomalib's models: the result of `benchmarks.peers`."""

from __future__ import annotations

from typing import Any

OURS = "ours"

TITLES = {
    OURS: "**ours**, one model of all categories",
    "patchcore": "PatchCore",
    "padim": "PaDiM, strides 4 + 8 + 16",
    "padim-deep": "PaDiM, strides 8 + 16 + 16",
    "dfm": "DFM",
    "dfkde": "DFKDE",
}

ABSENT = """\
anomalib's other models are absent because they need weights that come only from a hub (AnomalyDINO, Dinomaly, INP-Former, FoundAD, WinCLIP, DSR, EfficientAD and others), are
written for certain backbones, none of them at hand (CFA, FastFlow, Reverse Distillation, UniNet, CS-Flow, U-Flow), or are trained by gradient, for which the package has no
schedule and a CPU needs hours (STFPM, SuperSimpleNet, CFlow, PatchFlow, FRE, GLASS, DRAEM, GANomaly): a shorter schedule would not be theirs. MH-PatchCore runs, but its
fit takes six seconds of CPU an image, more than an hour for these."""


def section(result: dict[str, Any]) -> str:
    """Accuracy with intervals, cost, and the figures of each category."""
    systems = result["systems"]
    rows = systems[OURS]["made_of"]["rows_each"]
    versions = next(each["made_of"] for name, each in systems.items() if name != OURS)
    return "\n".join(
        [
            f"anomalib {versions['anomalib']} with torch {versions['torch']}, on the same images, split and EfficientNet-Lite0 weights; every "
            "figure comes from our metrics code, maps and masks at the size of the images. A peer has one model a category, 256 × 256 px and its "
            f"defaults; PatchCore keeps {rows:,} rows a category, as ours does. Each system smooths its maps as it usually does. One seed. "
            "AUPRO is the mean of the categories whose masks are outlines.",
            "",
            "“Ahead by” is ours minus the peer, in points, with the middle 95 % of 1,000 draws of the test images, the same draws for both: it "
            "tells chance in the test images, not in training. “One threshold” pools the scores of all categories as the system gives them; "
            "peers' have no unit in common.",
            "",
            "| | image AUROC, % | ours ahead by | AUPRO, % | ours ahead by | one threshold, image AUROC, % |",
            "|---|--:|--:|--:|--:|--:|",
            *(_accuracy(name, each) for name, each in systems.items()),
            "",
            "| | fit, s | of CPU, s | peak memory, MiB | an image, ms | of CPU, ms |",
            "|---|--:|--:|--:|--:|--:|",
            *(_cost(name, each["cost"]) for name, each in systems.items()),
            "",
            "Fit: all categories, images read and resized; for ours the whole command, with calibration, export and checks. Memory: the process that "
            "fitted, libraries included. An image: median, prepared and single; ours by ONNX Runtime as the station runs it, peers by torch. The "
            f"machine was shared, so CPU time tells more than elapsed time.{_kept(systems)}",
            "",
            f"| image AUROC / AUPRO, % | {' | '.join(systems[OURS]['categories'])} |",
            f"|---|{'--:|' * len(systems[OURS]['categories'])}",
            *(_categories(name, each["categories"]) for name, each in systems.items()),
            "",
            ABSENT,
        ]
    )


def _accuracy(name: str, row: dict[str, Any]) -> str:
    ahead = row["ours_ahead_by"] or {"image_auroc": None, "aupro": None}
    cells = (
        TITLES[name],
        _one(row["image_auroc"]),
        _interval(ahead["image_auroc"]),
        _one(row["aupro"]),
        _interval(ahead["aupro"]),
        _one(row["class_blind_image_auroc"]),
    )
    return f"| {' | '.join(cells)} |"


def _kept(systems: dict[str, Any]) -> str:
    kept = [TITLES[name] for name, each in systems.items() if each["made_of"].get("earlier_run")]
    return f" Answers and times kept from an earlier run: {'; '.join(kept)}." if kept else ""


def _cost(name: str, cost: dict[str, float]) -> str:
    figures = ("fit_s", "fit_cpu_s", "peak_rss_mib", "image_ms", "image_cpu_ms")
    cells = [f"{cost[figure]:,.0f}" for figure in figures]
    return f"| {' | '.join([TITLES[name], *cells])} |"


def _categories(name: str, categories: dict[str, Any]) -> str:
    cells = [f"{_one(each['image_auroc'])} / {_one(each['aupro'])}" for each in categories.values()]
    return f"| {' | '.join([TITLES[name], *cells])} |"


def _one(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _interval(ahead: list[float] | None) -> str:
    if ahead is None:
        return "–"
    points, low, high = ahead
    return f"{points:+.1f} ({low:+.1f} … {high:+.1f})"
