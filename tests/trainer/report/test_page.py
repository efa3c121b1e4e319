"""The page that `report` writes: it has all it must, needs nothing else, and believes no name."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from inspection.lineage import LearnedImage, Lineage, lineage_to_bytes
from tests.bundles import bad_frame, doubtful_frame, good_frame, write_tiny_bundle
from tests.trainer.parts import write_image
from tests.trainer.report.test_markup import Reader, read
from trainer.bundle_folder import open_bundle
from trainer.cli import main
from trainer.learned import digest_of
from trainer.report.exhibits import LONGEST_PX, OUTLINE
from trainer.report.markup import VOID
from trainer.report.page import SECTIONS

# One bolt of which a person must make sure, and a dent that cannot be seen.
FRAMES = {
    "good/0": good_frame(seed=1),
    "good/1": good_frame(seed=2),
    "good/2": doubtful_frame(),
    "dent/0": bad_frame(seed=3),
    "dent/1": good_frame(seed=4),
    "smear/0": bad_frame(seed=5),
}


def write_test(folder: Path, frames: dict[str, NDArray[np.uint8]], *, masks: bool = True) -> Path:
    """Write test images KIND/NAME; every mask is the quarter that may be white."""
    for place, frame in frames.items():
        write_image(folder / "test" / f"{place}.png", frame)
        if masks and not place.startswith("good/"):
            mask = np.zeros(frame.shape[:2], np.uint8)
            mask[: len(mask) // 2, : len(mask) // 2] = 255
            write_image(folder / "ground_truth" / f"{place}_mask.png", mask)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bolts with masks, and nuts of which no defect is outlined."""
    root = tmp_path_factory.mktemp("data")
    write_test(root / "bolt", FRAMES)
    nuts = {f"good/{i}": good_frame("nut", i) for i in (1, 2, 3)}
    nuts |= {f"crack/{i}": bad_frame("nut", i) for i in range(2)}
    write_test(root / "nut", nuts, masks=False)
    return root


def report(data: Path, bundle: Path, out: Path, *options: str) -> str:
    call = ["report", str(data), "--bundle", str(bundle), "--out", str(out), "--quiet", *options]
    assert main(call) == 0
    return out.read_text("utf-8")


@pytest.fixture(scope="module")
def page(data: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(data, bundle, tmp_path_factory.mktemp("page") / "deep" / "report.html")


def section(page: str, key: str) -> str:
    return page.split(f'<section id="{key}">', 1)[1].split('<section id="', 1)[0]


def cards(page: str, key: str) -> list[str]:
    return re.findall(r"<li>.*?</li>", section(page, key))


def pictures(card: str) -> list[NDArray[np.uint8]]:
    """(H, W, 3) RGB, as a browser would show them."""
    coded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', card)
    found = [cv2.imdecode(np.frombuffer(base64.b64decode(each), np.uint8), 1) for each in coded]
    return [np.asarray(each[:, :, ::-1], np.uint8) for each in found]


def test_the_page_needs_no_network_no_script_and_no_second_file(page: str) -> None:
    found = read(page)

    assert {name for name, _ in found.tags} & {"script", "link", "iframe", "object"} == set()
    for _, attributes in found.tags:
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert str(value).startswith(("data:image/jpeg;base64,", "#"))
    assert "://" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_every_section_is_there_and_the_links_lead_to_them(page: str) -> None:
    for key, name in SECTIONS.items():
        assert f'<a href="#{key}">{name}</a>' in page
        assert f'<section id="{key}"><h2>{name}</h2>' in page


def test_every_element_is_closed(page: str) -> None:
    class Balance(Reader):
        open_: list[str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in VOID:
                self.open_.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open_.pop() == tag

    balance = Balance()
    balance.open_ = []
    balance.feed(page)

    assert balance.open_ == []


def test_the_figures_are_those_of_evaluate(
    data: Path, bundle: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(data), "--bundle", str(bundle), "--json", "-", "--quiet"]) == 0
    figures = json.loads(capsys.readouterr().out)

    text = read(page).text
    for name in ("image_auroc", "aupro", "frr", "escape_rate"):
        low, high = figures["intervals"]["mean"][name]
        spread = "no spread" if low == high else f"{100 * low:.1f} – {100 * high:.1f}"
        assert f"{100 * figures['mean'][name]:.1f} %{spread}" in text
    for product, types in figures["defect_types"].items():
        assert product in section(page, "types")
        for defect in types:
            assert f"<td>{defect}</td>" in section(page, "types")


def test_json_gives_the_figures_and_where_the_page_is(
    data: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(data, bundle, tmp_path / "r.html", "--json")

    printed = json.loads(capsys.readouterr().out)
    assert printed["report"] == str(tmp_path / "r.html")
    assert printed["categories"]["bolt"]["n_defect"] == 3


def test_people_are_told_where_the_page_is_and_how_many_were_wrong(
    data: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(data, bundle, tmp_path / "r.html")

    assert capsys.readouterr().out == (
        f"{tmp_path / 'r.html'}: defective parts passed: 1 of 5; good parts not passed: 1 of 6\n"
    )


def test_every_product_has_its_curves(page: str) -> None:
    curves = section(page, "curves")

    for product, counted in (("bolt", "3 good, 3 defective"), ("nut", "3 good, 2 defective")):
        assert f"<h3>{product}<span>{counted}</span></h3>" in curves
    assert curves.count('class="chart"') == 2 * 3


def test_a_wrong_verdict_is_shown_with_all_that_is_known_of_it(page: str) -> None:
    (missed,) = cards(page, "accepts")[:1]
    (stopped,) = cards(page, "rejects")[:1]

    assert "1 of 5 defective parts passed; all of them are shown" in section(page, "accepts")
    assert "1 of 6 good parts did not pass; all of them are shown" in section(page, "rejects")
    for card, verdict, kind, file in (
        (missed, "PASS", "dent", "bolt/<wbr>test/<wbr>dent/<wbr>1.png"),
        (stopped, "REVIEW", "good", "bolt/<wbr>test/<wbr>good/<wbr>2.png"),
    ):
        assert f"<b>{verdict}</b>" in card
        assert f"<b>bolt</b> · {kind}" in card
        assert file in card
        assert re.search(r'class="figure">−?\d+\.\d\d<', card)
        assert re.search(r"p = 0\.\d{3}", card)
        assert len(pictures(card)) == 2


def test_few_mistakes_are_not_filled_up_with_right_verdicts(page: str) -> None:
    wrong, _, right = section(page, "accepts").partition("<h3>Closest of those that were caught")

    assert wrong.count("<li>") == 1
    assert right.count("<b>FAIL</b>") == right.count("<li>") == 4
    assert "<b>PASS</b>" not in right


def test_a_mask_is_outlined_on_the_map_and_nowhere_else(page: str) -> None:
    def outlined(picture: NDArray[np.uint8]) -> bool:
        # JPEG blurs a line, but not to another colour: blue above red by far.
        apart = picture[:, :, 2].astype(int) - picture[:, :, 0]
        return bool((apart > (OUTLINE[2] - OUTLINE[0]) // 3).any())

    missed, good = cards(page, "accepts")[0], cards(page, "rejects")[0]

    assert [outlined(each) for each in pictures(missed)] == [False, True]
    assert [outlined(each) for each in pictures(good)] == [False, False]


def test_settings_thresholds_and_every_digest_are_there(
    page: str, bundle: Path, data: Path
) -> None:
    opened = open_bundle(bundle)
    rests_on = read(section(page, "rests-on")).text

    for said in (opened.id, opened.bank_id, "mean-colour", "digest not recorded", "size_px"):
        assert said in rests_on
    for name, entry in opened.manifest.files.items():
        assert name in rests_on
        assert entry.sha256 in rests_on
    for route in opened.manifest.routes.values():
        assert f"{route.review:.3f}" in rests_on
        assert route.statement in rests_on
    assert f"dualbank-train report {data} --bundle {bundle}" in rests_on
    assert "numpy " + np.__version__ in rests_on
    assert "None: this bundle has seen good parts only." in rests_on


def test_the_same_images_and_bundle_give_the_same_page(
    data: Path, bundle: Path, tmp_path: Path
) -> None:
    pages = [report(data, bundle, tmp_path / "r.html") for _ in range(2)]

    assert pages[0] == pages[1]


def test_what_was_learned_from_is_listed_and_left_out(data: Path, tmp_path: Path) -> None:
    shown = data / "bolt" / "test" / "dent" / "0.png"
    learned = LearnedImage(
        category="bolt", name="0.png", defect="dent", sha256=digest_of(shown), regions="mask"
    )
    lineage = lineage_to_bytes(Lineage(labelled=(learned,)))
    taught = write_tiny_bundle(tmp_path / "bundle", lineage_json=lineage)

    rests_on = section(report(data, taught, tmp_path / "r.html"), "rests-on")

    tests, lessons = rests_on.split("<h3>Labelled defects learned from</h3>")
    assert re.search(
        r'>bolt</th><td class="number">5</td><td class="digest">[0-9a-f]{64}</td><td>0.png<', tests
    )
    assert '<td>dent</td><td class="number">1</td><td>mask</td><td>0.png</td>' in lessons


def test_what_another_bundle_learned_from_can_be_left_out(
    data: Path, bundle: Path, tmp_path: Path
) -> None:
    shown = data / "bolt" / "test" / "dent" / "1.png"
    learned = LearnedImage(
        category="bolt", name="1.png", defect="dent", sha256=digest_of(shown), regions="mask"
    )
    lineage = lineage_to_bytes(Lineage(labelled=(learned,)))
    taught = write_tiny_bundle(tmp_path / "bundle", lineage_json=lineage)

    page = report(data, bundle, tmp_path / "r.html", "--without", str(taught))

    assert "0 of 4 defective parts passed." in section(page, "accepts")


def test_no_name_becomes_markup(bundle: Path, tmp_path: Path) -> None:
    folder = write_test(tmp_path / "bolt", FRAMES, masks=False)
    kind = folder / "test" / "<b onclick=alert(1)>"
    hostile = write_image(kind / "<script>alert(1)<|script>.png", good_frame(seed=6))
    hostile.rename(kind / os.fsdecode(b"<script>\xff'\".png"))

    page = report(tmp_path, bundle, tmp_path / "r.html")

    found = read(page)
    assert "script" not in {name for name, _ in found.tags}
    assert not any(name == "onclick" for _, attributes in found.tags for name, _ in attributes)
    assert r"""<script>\udcff'".png""" in found.text
    assert "bolt · <b onclick=alert(1)>" in found.text


def test_large_images_are_shown_small(bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (700, 1100, 3)).astype(np.uint8)
    frames = {f"{kind}/{i}": noise for kind in ("good", "dent") for i in range(2)}
    write_test(tmp_path / "bolt", frames)

    page = report(tmp_path, bundle, tmp_path / "r.html")

    for card in cards(page, "rejects"):
        assert [picture.shape for picture in pictures(card)] == [(204, LONGEST_PX, 3)] * 2
    # Nothing compresses worse than noise; eighty such pictures stay below 8 MB.
    assert max(len(each) for each in re.findall(r'src="([^"]*)"', page)) < 100_000


def test_a_product_without_defects_has_no_figures_and_says_why(
    bundle: Path, tmp_path: Path
) -> None:
    write_test(tmp_path / "bolt", {f"good/{i}": good_frame(seed=i) for i in (1, 3, 4)})

    page = report(tmp_path, bundle, tmp_path / "r.html")

    assert "one kind is missing" in section(page, "curves")
    assert "There are no defective test images." in section(page, "types")
    assert "None were tested." in section(page, "accepts")
    assert "0 of 3 good parts did not pass." in section(page, "rejects")
    assert 'class="figure"> <' not in page


def test_without_outlined_defects_there_are_no_pixel_figures(bundle: Path, tmp_path: Path) -> None:
    write_test(tmp_path / "bolt", FRAMES, masks=False)

    page = report(tmp_path, bundle, tmp_path / "r.html")

    assert "<h3>AUPRO</h3>" not in page
    assert "<h3>Image AUROC</h3>" in page
    assert section(page, "products").count('<td class="number">–<') == 2 * 2


def test_an_image_that_cannot_be_used_is_named_and_no_page_is_written(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_test(tmp_path / "bolt", FRAMES)
    (folder / "test" / "dent" / "0.png").write_bytes(b"no image")

    out = tmp_path / "r.html"
    assert main(["report", str(tmp_path), "--bundle", str(bundle), "--out", str(out)]) == 1

    assert "0.png" in capsys.readouterr().err
    assert not out.exists()
