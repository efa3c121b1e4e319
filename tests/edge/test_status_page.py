"""The status page in a real browser, without any network but the station's own address.

Chromium is where Debian puts it, or where CHROMIUM says; with REQUIRE_CHROMIUM its absence fails.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edge.http_server import open_http
from edge.sources import LatestSwap
from inspection.verdicts import Verdict
from tests.edge.stations import StandInStation

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
PATIENCE_MS = 30_000

if not os.environ.get("REQUIRE_CHROMIUM"):
    if not Path(CHROMIUM).is_file():
        pytest.skip("there is no Chromium here", allow_module_level=True)
    pytest.importorskip("playwright")

from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

LOUD = ("rgb(179, 19, 15)", "rgb(138, 90, 0)", "rgb(122, 31, 162)")
"""--alarm, --warning and --insecure of style.css."""

# Every colour that anything on the page is drawn in, with what has no text of its own.
COLOURS = """() => [...document.querySelectorAll("body *")]
  .filter((each) => each.getClientRects().length)
  .flatMap((each) => [getComputedStyle(each).color, getComputedStyle(each).backgroundColor])"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Without its sandbox, which root cannot have; it sees nothing but pages of ours.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened.new_context().close()
        yield opened
        opened.close()


@contextmanager
def shown(
    browser: Browser, station: StandInStation, width_px: int = 1280, height_px: int = 800
) -> Iterator[Page]:
    """Show a station; whatever the page asks of another address, or complains of, fails."""
    with open_http("127.0.0.1:0", station.sources, lambda e: pytest.fail(str(e))) as address:
        page = browser.new_page(viewport={"width": width_px, "height": height_px})
        elsewhere, complaints = [], []
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith(f"http://{address}/") else elsewhere.append(asked.url)
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text))
        expect.set_options(timeout=PATIENCE_MS)
        try:
            page.goto(f"http://{address}/")
            page.wait_for_selector("#state[data-state]", timeout=PATIENCE_MS)
            yield page
            assert (elsewhere, complaints) == ([], [])
        finally:
            page.close()


def test_a_quiet_station_is_grey_and_says_that_it_is_quiet(
    browser: Browser, tmp_path: Path
) -> None:
    with shown(browser, StandInStation(tmp_path)) as page:
        expect(page.locator("#state")).to_have_text("QUIET")
        expect(page.locator("#alarms > *")).to_have_count(0)
        expect(page.locator("#latest tbody")).to_have_text("no frame yet")
        assert not set(LOUD) & set(page.evaluate(COLOURS))


def test_a_station_that_runs_shows_counters_that_add_up(browser: Browser, tmp_path: Path) -> None:
    station = StandInStation(tmp_path)
    for verdict in (Verdict.PASS, Verdict.PASS, Verdict.REVIEW, Verdict.FAIL):
        station.record(verdict)
    station.health.count("received", 3)
    station.health.count("malformed")
    with shown(browser, station) as page:
        expect(page.locator("#state")).to_have_text("RUNNING")
        expect(page.locator("#received b")).to_have_text(["7", "1", "0", "4", "2"])
        expect(page.locator("#recorded b")).to_have_text(["4", "2", "1", "1", "0"])
        expect(page.locator(".check")).to_have_text(["✓ adds up", "✓ adds up"])
        expect(page.locator("#latest tbody tr td:first-child")).to_have_text(
            ["FAIL", "REVIEW", "PASS", "PASS"]
        )
        expect(page.locator("#cameras tbody tr")).to_have_count(1)
        assert not set(LOUD) & set(page.evaluate(COLOURS)), "a FAIL is what the line makes"


def test_every_verdict_has_a_word_and_a_shape_of_its_own(browser: Browser, tmp_path: Path) -> None:
    station = StandInStation(tmp_path)
    for verdict in Verdict:
        station.record(verdict)
    with shown(browser, station) as page:
        words = page.locator("#latest tbody tr td:first-child").all_inner_texts()
        shapes = page.locator("#latest tbody tr td:first-child use").evaluate_all(
            "all => all.map(each => document.querySelector(each.getAttribute('href')).innerHTML)"
        )

    assert [word.strip() for word in words] == [verdict.value for verdict in reversed(Verdict)]
    assert len(set(shapes)) == len(Verdict)


def test_what_is_abnormal_is_told_with_a_word_and_a_sign(browser: Browser, tmp_path: Path) -> None:
    station = StandInStation(tmp_path)
    station.run_a_while(unknown=9)
    station.swap = LatestSwap("rolled_back", "77aa" * 16, "another verdict in 9 of 200 frames")
    with shown(browser, station) as page:
        lines = page.locator("#alarms > p")
        expect(lines.locator("b")).to_have_text(["unknown", "swap rolled back"])
        expect(lines.locator("svg use")).to_have_count(2)
        expect(lines.nth(1)).to_contain_text("another verdict in 9 of 200 frames")
        expect(page.locator("#alarms")).to_have_attribute("aria-live", "assertive")
        expect(page).to_have_title("2 ABNORMAL · line 4 · dualbank")


def test_an_insecure_station_is_shouted(browser: Browser, tmp_path: Path) -> None:
    plain = ("frames tcp://0.0.0.0:5555",)
    with shown(browser, StandInStation(tmp_path, insecure=True, plain=plain)) as page:
        line = page.locator("#alarms > .insecure")
        expect(line).to_contain_text("insecure")
        expect(line).to_contain_text("tcp://0.0.0.0:5555")
        assert line.evaluate("line => getComputedStyle(line).backgroundColor") == LOUD[2]


def test_what_a_station_no_longer_says_is_shown_as_old_and_then_as_new_again(
    browser: Browser, tmp_path: Path
) -> None:
    station = StandInStation(tmp_path)
    station.record()
    page = browser.new_page()
    with ExitStack() as serving:
        address = serving.enter_context(open_http("127.0.0.1:0", station.sources, lambda _: None))
        page.goto(f"http://{address}/")
        expect(page.locator("#state")).to_have_text("RUNNING")
        serving.close()

        expect(page.locator("#state")).to_have_text("STALE", timeout=PATIENCE_MS)
        expect(page.locator("body")).to_have_class("stale")
        expect(page.locator("#alarms")).to_contain_text("does not answer")
        expect(page.locator("#received b").first).to_have_text("1")
        expect(page).to_have_title("STALE · line 4 · dualbank")

        serving.enter_context(open_http(address, station.sources, lambda _: None))
        expect(page.locator("#state")).to_have_text("RUNNING", timeout=PATIENCE_MS)
        expect(page.locator("#alarms > *")).to_have_count(0)
    page.close()


def test_nothing_that_a_camera_names_becomes_part_of_the_page(
    browser: Browser, tmp_path: Path
) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    station = StandInStation(tmp_path)
    station.record(Verdict.UNKNOWN, camera=evil, part=evil, product=evil, detail=evil)
    with shown(browser, station) as page:
        expect(page.locator("#cameras tbody th")).to_have_text(evil)
        expect(page.locator("main img, main script")).to_have_count(0)


def test_the_numbers_follow_the_station_without_a_reload(browser: Browser, tmp_path: Path) -> None:
    station = StandInStation(tmp_path)
    with shown(browser, station) as page:
        expect(page.locator("#received b").first).to_have_text("0")
        station.record()

        expect(page.locator("#received b").first).to_have_text("1")
        expect(page.locator("#state")).to_have_text("RUNNING")


@pytest.mark.parametrize(("width_px", "height_px"), [(1280, 800), (390, 844), (320, 568)])
def test_nothing_sticks_out_on_a_panel_or_a_phone(
    width_px: int, height_px: int, browser: Browser, tmp_path: Path
) -> None:
    station = StandInStation(tmp_path)
    station.run_a_while(unknown=9)
    station.record(camera="x" * 128, part="y" * 128, product="z" * 128)
    with shown(browser, station, width_px, height_px) as page:
        expect(page.locator("#latest tbody tr")).to_have_count(20)
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px


def test_a_panel_of_1280_by_800_shows_a_station_that_runs_without_scrolling(
    browser: Browser, tmp_path: Path
) -> None:
    station = StandInStation(tmp_path)
    station.run_a_while()
    with shown(browser, station) as page:
        expect(page.locator("#latest tbody tr")).to_have_count(20)
        assert page.evaluate("document.documentElement.scrollHeight") <= 800


def test_the_keyboard_reaches_everything_that_scrolls(browser: Browser, tmp_path: Path) -> None:
    with shown(browser, StandInStation(tmp_path)) as page:
        reached = []
        for _ in range(3):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate(
                    "document.activeElement.getAttribute('aria-labelledby')"
                    " ?? document.activeElement.textContent"
                )
            )

        assert reached == ["To the verdicts", "h-latest", "h-cameras"]
