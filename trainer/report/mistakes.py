"""The parts that were judged wrongly, the worst first, and the closest calls where they are few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspection.bundle import Bundle
from trainer.report.exhibits import exhibit
from trainer.report.markup import Markup, join, signed, tag
from trainer.results import CategoryResults, ImageResult

MOST = 20
"""How many wrong verdicts of each kind are shown."""

CLOSEST = 6
"""How many right verdicts are shown beside them, where there is room below MOST."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A test image and the product whose route judged it."""

    product: str
    result: ImageResult

    @property
    def score(self) -> float:
        """Standardised, hence comparable between products."""
        return self.result.judgement.score


def false_accepts(results: Sequence[CategoryResults]) -> list[Judged]:
    """Defective parts that passed, the lowest score first."""
    found = _where(results, lambda image: image.sample.defect is not None and image.passed)
    return sorted(found, key=lambda each: each.score)


def false_rejects(results: Sequence[CategoryResults]) -> list[Judged]:
    """Good parts that did not pass, the highest score first."""
    found = _where(results, lambda image: image.sample.defect is None and not image.passed)
    return sorted(found, key=lambda each: -each.score)


def accepts_section(bundle: Bundle, results: Sequence[CategoryResults], root: Path) -> Markup:
    """Show defective parts that passed, and those that were only just caught."""
    wrong = false_accepts(results)
    caught = _where(results, lambda image: image.sample.defect is not None and not image.passed)
    caught.sort(key=lambda each: _margin(bundle, each))
    total = len(wrong) + len(caught)
    said = f"{len(wrong)} of {total} defective parts passed"
    return _section(
        bundle,
        root,
        _how_many(said, len(wrong), "the lowest score first") if total else "None were tested.",
        wrong,
        "Closest of those that were caught",
        caught,
    )


def rejects_section(bundle: Bundle, results: Sequence[CategoryResults], root: Path) -> Markup:
    """Show good parts that did not pass, and those that only just did."""
    wrong = false_rejects(results)
    passed = _where(results, lambda image: image.sample.defect is None and image.passed)
    passed.sort(key=lambda each: -_margin(bundle, each))
    total = len(wrong) + len(passed)
    said = f"{len(wrong)} of {total} good parts did not pass"
    return _section(
        bundle,
        root,
        _how_many(said, len(wrong), "the highest score first") if total else "None were tested.",
        wrong,
        "Closest of those that passed",
        passed,
    )


def _section(
    bundle: Bundle,
    root: Path,
    said: str,
    wrong: Sequence[Judged],
    title: str,
    right: Sequence[Judged],
) -> Markup:
    room = min(CLOSEST, MOST - len(wrong))
    closest = right[: max(room, 0)]
    return join(
        tag("p", said),
        _cards(bundle, wrong[:MOST], root),
        tag("h3", title) if closest else "",
        _cards(bundle, closest, root),
    )


def _how_many(said: str, count: int, order: str) -> str:
    if count == 0:
        return f"{said}."
    shown = "all of them are shown" if count <= MOST else f"the worst {MOST} are shown"
    return f"{said}; {shown}, {order}."


def _cards(bundle: Bundle, shown: Sequence[Judged], root: Path) -> Markup:
    if not shown:
        return Markup("")
    cards = [_card(bundle, number, each, root) for number, each in enumerate(shown, 1)]
    return tag("ol", join(*cards), class_="cards")


def _card(bundle: Bundle, number: int, judged: Judged, root: Path) -> Markup:
    result, route = judged.result, bundle.route(judged.product)
    alone, mapped = exhibit(result, route)
    sample, judgement = result.sample, result.judgement
    verdict = judgement.decision.verdict.value
    place = sample.image.relative_to(root) if sample.image.is_relative_to(root) else sample.image
    review, reject = route.thresholds.review, route.thresholds.reject
    return tag(
        "li",
        _picture(alone, f"{judged.product}, {sample.defect or 'good'}"),
        _picture(mapped, "the same with the anomaly map"),
        tag(
            "div",
            tag("p", f"{number}", tag("b", verdict), class_="verdict"),
            tag("p", signed(judgement.score, ".2f"), class_="figure"),
            tag("p", f"review above {review:.2f}"),
            tag("p", f"reject above {reject:.2f}"),
            tag("p", f"p = {judgement.p_value:.3f}"),
            tag("p", tag("b", judged.product), " · ", sample.defect or "good"),
            tag("p", _breakable(place), class_="file"),
        ),
    )


def _breakable(place: Path) -> Markup:
    """A path that a line may end in, behind each folder."""
    *folders, name = place.parts
    return join(*(join(folder, "/", tag("wbr")) for folder in folders), name)


def _picture(uri: str, said: str) -> Markup:
    return tag("img", src=uri, alt=said)


def _where(
    results: Sequence[CategoryResults], wanted: Callable[[ImageResult], bool]
) -> list[Judged]:
    return [Judged(each.name, image) for each in results for image in each.images if wanted(image)]


def _margin(bundle: Bundle, judged: Judged) -> float:
    """How far a score lies above the review threshold of its product."""
    return judged.score - bundle.route(judged.product).thresholds.review
