"""A swap from request to end: what is on disk whenever the process dies, and what runs on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from edge import swapping as module
from edge.bundle_folder import open_bundle
from edge.bundle_store import BUNDLES, BundleStore, Record
from edge.check import prove_beside
from edge.first_bundle import CRASHED, choose_bundle
from edge.onnx_scorer import OnnxScorer
from edge.outcome import NoScoreError
from edge.scorer import Question, Scorer, check_same_trunk
from edge.swapping import Means
from inspection.bundle import Bundle
from inspection.errors import DeviceError, ParityError, StationError
from inspection.verdicts import Reason, Verdict
from tests.bundles import (
    bad_frame,
    good_frame,
    write_tiny_bundle,
)
from tests.edge.swapping_line import Line
from tests.swapped_bundles import with_thresholds, with_wrong_golden_answers

ROOT = Path(__file__).parents[2]
OLD, NEW = "old", "new"


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "state")


@contextmanager
def running(
    configured: Path, store: BundleStore, means: Means | None = None, **options: object
) -> Iterator[Line]:
    first = choose_bundle(configured, store)
    line = Line(first, store, means or Means(prove_beside, nullcontext), **options)  # type: ignore
    with line.running():
        yield line


@pytest.fixture
def line(tiny_folder: Path, store: BundleStore) -> Iterator[Line]:
    """A station of the tiny bundle."""
    with running(tiny_folder, store) as it:
        yield it


def bundle_ids(store: BundleStore) -> set[str]:
    folder = store._state_dir / BUNDLES
    return {each.name for each in folder.iterdir()} if folder.is_dir() else set()


# --- dying ---

AT_NEXT_START = {
    "copied in part": OLD,
    "copied, not named": OLD,
    "before the record": OLD,
    "record written, not in place": OLD,
    "recorded, not active": OLD,
    "active": OLD,
    "rolled back, not recorded": OLD,
    "before it is kept": OLD,
    "kept": NEW,
}


@pytest.mark.parametrize("point", AT_NEXT_START)
def test_whenever_the_process_dies_the_next_start_knows_what_to_run(
    tiny_folder: Path, letterbox_folder: Path, store: BundleStore, point: str
) -> None:
    words = [store._state_dir, tiny_folder, letterbox_folder, point]
    module_words = [sys.executable, "-m", "tests.edge.swapping_line", *map(str, words)]
    died = subprocess.run(module_words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert died.returncode == -signal.SIGKILL, died

    expected = {OLD: tiny_folder, NEW: letterbox_folder}[AT_NEXT_START[point]]
    first = choose_bundle(tiny_folder, store)

    assert first.bundle.id == open_bundle(expected).id
    assert first.watch is None
    # And whatever was left behind is in nobody's way.
    other = {OLD: letterbox_folder, NEW: tiny_folder}[AT_NEXT_START[point]]
    with running(tiny_folder, store) as line:
        line.ask("swap", other, shadow_frames=0, probation_s=0)
        assert line.ended().step == "steady"
        assert line.send(good_frame())[0].bundle_id == open_bundle(other).id
    assert not any(name.startswith(".") for name in bundle_ids(store))


def test_a_crash_on_probation_is_told_as_such(
    tiny_folder: Path, letterbox_bundle: Bundle, store: BundleStore, tiny_bundle: Bundle
) -> None:
    watch = {"terms": {}, "before_judged": 0, "before_flagged": 0}
    store.write(
        Record.model_validate(
            {
                "running": letterbox_bundle.id,
                "previous": tiny_bundle.id,
                "configured_path": str(tiny_folder),
                "configured_id": tiny_bundle.id,
                "watch": watch,
            }
        )
    )
    with running(tiny_folder, store) as line:
        state = line.swapping.desk.state()

    assert state.running == tiny_bundle.id
    assert CRASHED in str(state.why)


# --- the way in ---


def test_a_bundle_takes_over_and_every_verdict_names_the_one_that_judged(
    line: Line, letterbox_folder: Path, letterbox_bundle: Bundle, tiny_bundle: Bundle
) -> None:
    before = line.send(good_frame(), 3)
    line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=0)

    state = line.ended()

    after = line.send(good_frame(), 3)
    assert {each.bundle_id for each in before} == {tiny_bundle.id}
    assert {each.bundle_id for each in after} == {letterbox_bundle.id}
    assert (state.step, state.running, state.previous) == (
        "steady",
        letterbox_bundle.id,
        tiny_bundle.id,
    )
    assert list(state.took_s) == ["verifying", "loading", "proving", "activating", "probation"]


def test_a_bundle_in_shadow_is_compared_and_not_published(
    line: Line, tmp_path: Path, tiny_bundle: Bundle
) -> None:
    strict = with_thresholds(tmp_path / "strict", review=-100.0, reject=-50.0)
    line.ask("swap", strict, shadow_frames=5, shadow_s=60, probation_s=60)
    line.at("shadow")
    said = []
    while line.swapping.desk.state().step == "shadow":
        said += line.send(good_frame())

    state = line.at("probation")

    assert state.shadow is not None
    assert state.shadow.compared == 5
    assert state.shadow.flipped == {"PASS>FAIL": 5}
    assert state.shadow.passed_over >= 0
    assert {each.bundle_id for each in said[:5]} == {tiny_bundle.id}
    assert {each.decision.verdict for each in said[:5]} == {Verdict.PASS}


def test_too_many_flips_refuse_the_bundle(line: Line, tmp_path: Path) -> None:
    strict = with_thresholds(tmp_path / "strict", review=-100.0, reject=-50.0)
    line.ask("swap", strict, shadow_frames=2, shadow_s=60, most_flipped=0.2)
    line.at("shadow")
    while line.swapping.desk.state().step == "shadow":
        line.send(good_frame())

    state = line.ended()

    assert state.step == "refused"
    assert "2 of 2 verdicts flipped" in str(state.why)
    assert state.running != open_bundle(strict).id


def test_a_shadow_ends_when_it_is_told_to(line: Line, letterbox_folder: Path) -> None:
    line.ask("swap", letterbox_folder, shadow_frames=1000, shadow_s=600, probation_s=0)
    line.at("shadow")
    line.ask("activate")

    assert line.ended().step == "steady"


def test_an_abort_leaves_the_running_bundle_and_nothing_else(
    line: Line, letterbox_folder: Path, store: BundleStore, tiny_bundle: Bundle
) -> None:
    line.ask("swap", letterbox_folder, shadow_frames=1000, shadow_s=600)
    line.at("shadow")
    line.ask("abort")

    state = line.ended()

    assert (state.step, state.why) == ("refused", "aborted by request")
    assert line.send(good_frame())[0].bundle_id == tiny_bundle.id
    assert bundle_ids(store) == set()
    assert store.read() is None


def test_the_bundle_that_runs_already_is_refused(line: Line, tiny_folder: Path) -> None:
    line.ask("swap", tiny_folder)

    state = line.ended()

    assert state.step == "refused"
    assert "runs already" in str(state.why)


def test_a_damaged_bundle_is_refused_and_the_next_is_taken(
    line: Line, letterbox_folder: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(letterbox_folder, tmp_path / "broken"))
    next((broken / "files").iterdir()).write_bytes(b"something else")
    line.ask("swap", broken)
    refused = line.ended()

    line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=0)

    assert refused.step == "refused"
    assert "damaged" in str(refused.why)
    assert line.ended().step == "steady"


def test_other_golden_answers_refuse_the_bundle(line: Line, tmp_path: Path) -> None:
    line.ask("swap", with_wrong_golden_answers(tmp_path / "wrong"))

    state = line.ended()

    assert state.step == "refused"
    assert "golden frame 0" in str(state.why)
    assert list(state.took_s) == ["verifying", "loading", "proving"]


def test_what_nobody_foresaw_refuses_the_bundle_and_swaps_go_on(
    tiny_folder: Path, letterbox_folder: Path, store: BundleStore, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def prove(*words: object) -> None:
        asked.append(words)
        if len(asked) == 1:
            raise ZeroDivisionError("nobody foresaw this")

    with running(tiny_folder, store, Means(prove, nullcontext)) as line:  # type: ignore[arg-type]
        line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=0)
        refused = line.ended()
        line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=0)
        steady = line.ended()

    assert refused.why == "ZeroDivisionError: nobody foresaw this"
    assert steady.step == "steady"
    assert "swap failed" in caplog.messages


def test_a_record_that_cannot_be_written_keeps_the_bundle_out(
    line: Line,
    letterbox_folder: Path,
    store: BundleStore,
    tiny_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "write", full)
    line.ask("swap", letterbox_folder, shadow_frames=0)

    state = line.ended()

    assert (state.step, state.why) == ("refused", "the disk is full")
    assert line.send(good_frame())[0].bundle_id == tiny_bundle.id
    assert store.read() is None


# --- probation ---


def test_a_bundle_stays_on_probation_while_it_cannot_be_recorded_that_it_is_kept(
    line: Line, letterbox_folder: Path, store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    write = store.write
    line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=0.2)
    line.at("probation")
    monkeypatch.setattr(store, "write", full)
    line.until(lambda: line.swapping.desk.state().why == "the disk is full")
    told = line.swapping.desk.state().step

    monkeypatch.setattr(store, "write", write)

    assert told == "probation"
    assert (line.ended().step, line.ended().why) == ("steady", None)


def test_a_mix_of_verdicts_out_of_bounds_brings_back_the_bundle_before(
    line: Line, tmp_path: Path, tiny_bundle: Bundle, store: BundleStore
) -> None:
    strict = with_thresholds(tmp_path / "strict", review=-100.0, reject=-50.0)
    line.send(good_frame(), 200)
    line.ask("swap", strict, shadow_frames=0, probation_s=600)
    line.at("probation")
    said = line.send(good_frame(), 40)

    state = line.ended()

    assert {each.decision.verdict for each in said[:30]} == {Verdict.FAIL}
    assert (state.step, state.running, state.previous) == ("rolled_back", tiny_bundle.id, None)
    assert "0 of 200" in str(state.why)
    assert state.rollbacks == 1
    assert line.send(good_frame())[0].decision.verdict is Verdict.PASS
    written = store.read()
    assert written is not None
    assert (written.running, written.watch) == (tiny_bundle.id, None)


def test_a_bundle_that_passes_everything_is_sent_back_too(line: Line, tmp_path: Path) -> None:
    blind = with_thresholds(tmp_path / "blind", review=1e6, reject=2e6)
    line.send(bad_frame(), 200)
    line.ask("swap", blind, shadow_frames=0, probation_s=600)
    line.at("probation")
    line.send(bad_frame(), 40)

    assert line.ended().step == "rolled_back"


def test_a_scorer_that_fails_on_probation_costs_its_frame_and_the_one_before_scores_on(
    line: Line,
    letterbox_folder: Path,
    tiny_bundle: Bundle,
    store: BundleStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=600)
    line.at("probation")

    def fails(*_: object) -> None:
        raise NoScoreError(Reason.SCORER_FAILED, "out of luck")

    with monkeypatch.context() as broken:
        broken.setattr(OnnxScorer, "score", fails)
        (lost,) = line.send(good_frame())
    after = line.send(good_frame(), 3)

    state = line.ended()
    assert lost.decision.reason is Reason.SCORER_FAILED
    assert {each.bundle_id for each in after} == {tiny_bundle.id}
    assert {each.decision.verdict for each in after} == {Verdict.PASS}
    assert (state.step, state.why) == ("rolled_back", "out of luck")
    written = store.read()
    assert written is not None
    assert written.running == tiny_bundle.id


def test_a_rollback_that_cannot_be_recorded_is_done_and_found_at_the_next_start(
    line: Line,
    letterbox_folder: Path,
    tiny_folder: Path,
    tiny_bundle: Bundle,
    store: BundleStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=600)
    line.at("probation")
    with monkeypatch.context() as disk:
        disk.setattr(store, "write", full)
        line.ask("rollback")
        state = line.ended()

    assert state.step == "rolled_back"
    assert line.send(good_frame())[0].bundle_id == tiny_bundle.id
    line.swapping.ended_in_order()
    assert choose_bundle(tiny_folder, store).bundle.id == tiny_bundle.id


def test_a_stop_on_probation_goes_on_with_it_and_a_rollback_then_loads_the_one_before(
    tiny_folder: Path, letterbox_folder: Path, store: BundleStore, tiny_bundle: Bundle
) -> None:
    with running(tiny_folder, store) as line:
        line.send(good_frame(), 20)
        line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=600)
        line.at("probation")
    line.swapping.ended_in_order()

    with running(tiny_folder, store) as again:
        state = again.at("probation")
        again.until(lambda: again.swapping.desk.state().probation is not None)
        resumed = again.swapping.desk.state().probation
        first = again.send(good_frame())[0]
        again.ask("rollback")
        after = again.ended()
        last = again.send(good_frame())[0]

    assert state.running == first.bundle_id == open_bundle(letterbox_folder).id
    assert resumed is not None
    assert (resumed.before_judged, resumed.before_flagged) == (20, 0)
    assert (after.step, after.running) == ("rolled_back", tiny_bundle.id)
    assert last.bundle_id == tiny_bundle.id


def test_a_bundle_that_failed_while_the_station_drained_does_not_run_again(
    tiny_folder: Path, letterbox_folder: Path, store: BundleStore, tiny_bundle: Bundle
) -> None:
    with running(tiny_folder, store) as line:
        line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=600)
        line.at("probation")
    line.relay.failure = "it failed after the swap's thread had ended"

    line.swapping.ended_in_order()

    assert choose_bundle(tiny_folder, store).bundle.id == tiny_bundle.id


def test_a_bundle_that_was_kept_can_be_taken_back_by_request(
    line: Line, letterbox_folder: Path, tiny_bundle: Bundle, store: BundleStore, tiny_folder: Path
) -> None:
    line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=0)
    line.ended()
    line.ask("rollback")

    state = line.at("rolled_back")

    assert (state.running, state.previous) == (tiny_bundle.id, None)
    assert line.send(good_frame())[0].bundle_id == tiny_bundle.id
    assert choose_bundle(tiny_folder, store).bundle.id == tiny_bundle.id
    assert bundle_ids(store) == set()


def test_only_the_running_bundle_and_the_one_before_are_kept_on_disk(
    line: Line, letterbox_folder: Path, tmp_path: Path, store: BundleStore
) -> None:
    folders = [
        letterbox_folder,
        *(write_tiny_bundle(tmp_path / name, model_card_md=name.encode()) for name in "abc"),
    ]
    for folder in folders:
        line.ask("swap", folder, shadow_frames=0, probation_s=0)
        assert line.ended().step == "steady"

    assert bundle_ids(store) == {open_bundle(folder).id for folder in folders[-2:]}


# --- on a GPU ---


class OnGpu:
    """As a GPU would: a bundle of the same trunk is offered and taken over later."""

    depth = most_frames = 1

    def __init__(self, bundle: Bundle, name: str = "an engine") -> None:
        self.name, self.bundle = name, bundle
        self.loses_offers = False
        self._offered: Bundle | None = None
        self._cpu = OnnxScorer(bundle, 1)

    def question(self, image: np.ndarray, product: str | None) -> Question:
        return Question(image, False, product)

    def submit(self, questions: Sequence[Question]) -> None:
        self._cpu.submit(questions)

    def poll(self):  # type: ignore[no-untyped-def]
        return self._cpu.poll()

    def expected_ms(self, frames: int) -> float:
        return 0.0

    def offer(self, bundle: Bundle) -> None:
        check_same_trunk(self.bundle, bundle)
        self._offered = None if self.loses_offers else bundle

    def tend(self) -> None:
        if self._offered is not None:
            self.bundle, self._cpu = self._offered, OnnxScorer(self._offered, 1)


def test_on_a_gpu_a_bundle_of_the_same_trunk_is_offered_and_offered_back(
    tiny_folder: Path, tiny_bundle: Bundle, store: BundleStore, tmp_path: Path
) -> None:
    other = write_tiny_bundle(tmp_path / "other", model_card_md=b"# Another\n")
    gpu = OnGpu(tiny_bundle)
    with running(tiny_folder, store, scorer=nullcontext(gpu)) as line:
        line.ask("swap", other, shadow_frames=1, shadow_s=60, probation_s=600)
        line.at("shadow")
        while line.swapping.desk.state().step == "shadow":
            line.send(good_frame())
        line.at("probation")
        there = line.send(good_frame())[0].bundle_id
        line.ask("rollback")
        back = line.ended()

        assert there == open_bundle(other).id
        assert back.step == "rolled_back"
        assert line.send(good_frame())[0].bundle_id == tiny_bundle.id
        assert line.relay.name == gpu.name


def test_on_a_gpu_another_trunk_is_opened_beside_it_and_closed_after_a_rollback(
    tiny_folder: Path, letterbox_folder: Path, tiny_bundle: Bundle, store: BundleStore
) -> None:
    opened: list[str] = []

    @contextmanager
    def open_gpu(bundle: Bundle) -> Iterator[Scorer]:
        opened.append(bundle.id)
        yield OnGpu(bundle, "another engine")
        opened.append("closed")

    gpu, means = OnGpu(tiny_bundle), Means(prove_beside, open_gpu)
    with running(tiny_folder, store, means, scorer=nullcontext(gpu)) as line:
        line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=600)
        line.at("probation")
        name = line.relay.name
        line.ask("rollback")
        line.ended()
        after = line.relay.name

    assert (name, after) == ("another engine", "an engine")
    assert opened == [open_bundle(letterbox_folder).id, "closed"]


@pytest.mark.parametrize("error", [DeviceError("no engine for this chip"), ParityError("others")])
def test_on_a_gpu_a_trunk_that_cannot_be_opened_is_refused_and_not_recorded(
    tiny_folder: Path,
    letterbox_folder: Path,
    tiny_bundle: Bundle,
    store: BundleStore,
    error: Exception,
) -> None:
    @contextmanager
    def open_gpu(bundle: Bundle) -> Iterator[Scorer]:
        raise error
        yield

    gpu, means = OnGpu(tiny_bundle), Means(prove_beside, open_gpu)
    with running(tiny_folder, store, means, scorer=nullcontext(gpu)) as line:
        line.ask("swap", letterbox_folder, shadow_frames=0, probation_s=600)
        state = line.ended()

        assert (state.step, state.why) == ("refused", str(error))
        assert line.send(good_frame())[0].bundle_id == tiny_bundle.id
    written = store.read()
    assert written is not None
    assert (written.running, written.watch) == (tiny_bundle.id, None)


def test_on_a_gpu_an_offer_that_is_lost_is_refused_in_time(
    tiny_folder: Path,
    tiny_bundle: Bundle,
    store: BundleStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TAKE_OVER_S", 0.1)
    other = write_tiny_bundle(tmp_path / "other", model_card_md=b"# Another\n")
    gpu = OnGpu(tiny_bundle)
    gpu.loses_offers = True
    with running(tiny_folder, store, scorer=nullcontext(gpu)) as line:
        line.ask("swap", other, shadow_frames=0)
        state = line.ended()

    assert state.step == "refused"
    assert "did not take over within 0.1 s" in str(state.why)


# --- a disk of a kind ---


def full(_: Record) -> None:
    raise StationError("the disk is full")
