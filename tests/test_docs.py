"""The format documents cannot drift: tables, numbers and examples are held against the code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import zmq

from edge import answers, publish, questions, recent, sockets
from edge.settings import StationSettings
from inspection import bundle as bundles
from inspection import messages, preprocessing, station_messages, verdicts, wire
from inspection.bank import bank_to_bytes, empty_bank
from inspection.bundle import ANY_PRODUCT
from inspection.camera_messages import Credit, Hello
from inspection.control_messages import (
    ControlReply,
    ControlRequest,
    Flip,
    ProbationReport,
    ShadowReport,
    Step,
    SwapState,
    Terms,
)
from inspection.golden import RELATIVE_TOLERANCE
from inspection.heads import head_arrays
from inspection.lineage import LearnedImage
from inspection.manifest import (
    FORMAT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    FileEntry,
    LimitsEntry,
    Manifest,
    PreprocessingEntry,
    RouteEntry,
    ScoringEntry,
    parse_manifest,
)
from inspection.messages import FrameHeader, HeatmapHeader, RegionEntry, VerdictMessage
from inspection.station_messages import (
    CatchUpAnswer,
    CatchUpRequest,
    Heartbeat,
    RejectAnswer,
    RejectQuestion,
)
from inspection.verdicts import Reason, Verdict
from tests.edge.published_station import FakeStation

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIRE, BUNDLE, SWAP = (
    (DOCS / name).read_text("utf-8") for name in ("wire.md", "bundle.md", "swap.md")
)

PATIENCE_MS = 20_000


def table_below(text, heading, number=0):
    """Cells of a table below a heading, header row and rule left out."""
    lines = text.split(f"\n{heading}\n", 1)[1].splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith("#")), len(lines))
    tables, before = [], ""
    for line in lines[:end]:
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        before = line
    return tables[number][2:]


def names(rows):
    return [row[0].strip("`") for row in rows]


def code_below(text, heading, language):
    """The first block of code of a language below a heading."""
    below = text.split(f"\n{heading}\n", 1)[1]
    return below.split(f"```{language}\n", 1)[1].split("```", 1)[0]


@pytest.mark.parametrize(
    ("text", "heading", "model"),
    [
        pytest.param(WIRE, "### Frame header", FrameHeader, id="frame"),
        pytest.param(WIRE, "### Verdict header", VerdictMessage, id="verdict"),
        pytest.param(WIRE, "### Region", RegionEntry, id="region"),
        pytest.param(WIRE, "### Heatmap header", HeatmapHeader, id="heatmap"),
        pytest.param(WIRE, "### Hello", Hello, id="hello"),
        pytest.param(WIRE, "### Credit", Credit, id="credit"),
        pytest.param(WIRE, "### Control request", ControlRequest, id="control request"),
        pytest.param(WIRE, "### Terms", Terms, id="terms"),
        pytest.param(WIRE, "### Control reply", ControlReply, id="control reply"),
        pytest.param(WIRE, "### Swap state", SwapState, id="swap state"),
        pytest.param(WIRE, "### Shadow report", ShadowReport, id="shadow"),
        pytest.param(WIRE, "### Flip", Flip, id="flip"),
        pytest.param(WIRE, "### Probation report", ProbationReport, id="probation"),
        pytest.param(WIRE, "### Heartbeat header", Heartbeat, id="heartbeat"),
        pytest.param(WIRE, "### Catch-up request", CatchUpRequest, id="catch-up request"),
        pytest.param(WIRE, "### Catch-up answer", CatchUpAnswer, id="catch-up answer"),
        pytest.param(WIRE, "### Reject question", RejectQuestion, id="reject question"),
        pytest.param(WIRE, "### Reject answer", RejectAnswer, id="reject answer"),
        pytest.param(BUNDLE, "### Manifest fields", Manifest, id="manifest"),
        pytest.param(BUNDLE, "### preprocessing", PreprocessingEntry, id="preprocessing"),
        pytest.param(BUNDLE, "### scoring", ScoringEntry, id="scoring"),
        pytest.param(BUNDLE, "### A route", RouteEntry, id="route"),
        pytest.param(BUNDLE, "### Limits of a frame", LimitsEntry, id="limits"),
        pytest.param(BUNDLE, "### A file entry", FileEntry, id="file"),
        pytest.param(BUNDLE, "### Lineage", LearnedImage, id="lineage"),
    ],
)
def test_a_table_of_fields_lists_exactly_those_of_the_model(text, heading, model):
    listed = names(table_below(text, heading))

    assert sorted(listed) == sorted(model.model_fields)


@pytest.mark.parametrize(
    ("heading", "model"),
    [("### Frame header", FrameHeader), ("### Verdict header", VerdictMessage)],
)
def test_a_field_that_is_said_to_be_always_there_is_never_nil(heading, model):
    for row in table_below(WIRE, heading):
        name, presence = row[0].strip("`"), row[4]
        default = model.model_fields[name].get_default()

        # `v` and `regions` have a default in the code and are sent all the same.
        optional = default is None and not model.model_fields[name].is_required()
        assert optional == (presence != "always") or name in ("dtype", "live")


def test_every_term_has_the_default_that_the_page_says():
    for row in table_below(WIRE, "### Terms"):
        default = getattr(Terms(), row[0].strip("`"))

        assert row[4] == f"optional, {'nil' if default is None else f'{default:g}'}"


def test_every_step_of_a_swap_is_named_and_explained():
    (named,) = [row[3] for row in table_below(WIRE, "### Swap state") if row[0] == "`step`"]

    assert [word.strip("` ") for word in named.split(",")] == list(get_args(Step))
    assert sorted(names(table_below(SWAP, "## Steps"))) == sorted(get_args(Step))


@pytest.mark.parametrize(
    ("heading", "words"), [("### Reasons", Reason), ("### The four verdicts", Verdict)]
)
def test_every_word_of_the_wire_is_explained(heading, words):
    assert sorted(names(table_below(WIRE, heading))) == sorted(word.value for word in words)


def test_every_reason_names_the_verdict_it_comes_with():
    thresholds = verdicts.Thresholds(1.0, 2.0)
    judged = {
        decision.reason.value: decision.verdict.value
        for decision in (verdicts.decide(score, thresholds) for score in (1.5, 2.5, float("nan")))
    }

    for reason, verdict, _ in table_below(WIRE, "### Reasons"):
        assert verdict == judged.get(reason.strip("`"), "UNKNOWN")


def test_the_limits_are_those_of_the_code():
    limits = {row[0]: row[1:] for row in table_below(WIRE, "## Limits")}
    settings = StationSettings()

    assert {name: int(value.split()[0]) for name, (value, _) in limits.items()} == {
        "frame or heatmap header": wire.MAX_HEADER_BYTES,
        "entries of one list or map in a header": wire.MAX_ENTRIES,
        "side of a frame": wire.MAX_SIDE_PX,
        "shortest side of a frame": preprocessing.MIN_SIDE_PX,
        "decoded frame": settings.max_frame_bytes,
        "one message part": settings.max_message_bytes,
        "frames of one camera that wait": settings.backlog_frames,
        "topic of a subscription": sockets.MOST_TOPIC_BYTES,
        "different subscriptions at once": publish.MOST_TOPICS,
        "cameras whose last verdict is remembered": publish.MOST_CAMERAS,
        "verdicts of one catch-up answer": station_messages.MOST_RECORDS,
        "records of one catch-up answer": answers.MOST_ANSWER_BYTES,
        "parts that the reject signal remembers": recent.MOST_PARTS,
        "questions of the reject signal that wait": questions.MOST_WAITING,
        "bytes of frames that wait": settings.backlog_bytes,
    }
    for _, where in limits.values():
        if where != "fixed":
            assert where.split("`")[1] in StationSettings.model_fields


def test_the_addresses_are_the_defaults_of_the_station():
    settings = StationSettings()

    for row in table_below(WIRE, "## Sockets"):
        address, setting = row[3].strip("`"), row[4].strip("`")
        assert getattr(settings, setting) == address
        assert f'connect("{address}")' in WIRE


def test_the_topics_are_those_of_the_code():
    for topic in (messages.VERDICT_TOPIC, messages.HEATMAP_TOPIC):
        assert f"The topic is `{topic.decode()}` and the camera's name." in WIRE


# --- the examples run ---------------------------------------------------------------------------


def started(code):
    """An example as a process of its own: it ends, or is ended."""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def bound(context, kind):
    socket = context.socket(kind)
    socket.linger = 0
    return socket, f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"


def example(heading, address):
    code = code_below(WIRE, heading, "python")
    (line,) = [line for line in code.splitlines() if "connect(" in line]
    return code.replace(line.split('"')[1], address)


def test_the_camera_of_the_document_sends_frames_that_a_station_takes():
    with zmq.Context() as context:
        frames, address = bound(context, zmq.PULL)
        with frames, started(example("### A camera in Python", address)) as camera:
            received = []
            while len(received) < 10:
                assert frames.poll(PATIENCE_MS), "the camera of the document sends nothing"
                received.append(messages.decode_frame(frames.recv_multipart(), 1 << 20))

    assert camera.returncode == 0
    assert [frame.header.seq for frame in received] == list(range(10))
    assert len({frame.header.session for frame in received}) == 1
    assert all(frame.header.raw_bytes == len(frame.pixels) for frame in received)


def test_the_listener_of_the_document_tells_good_parts_from_others_and_counts_gaps():
    common = {"camera": "left", "session": "s", "bundle": "b", "bank": "k", "latency_ms": {}}
    passed = VerdictMessage(**common, seq=0, station_seq=5, verdict=Verdict.PASS, score=0.5)
    failed = VerdictMessage(
        **common, seq=2, station_seq=8, verdict=Verdict.UNKNOWN, reason=Reason.BAD_IMAGE
    )
    with zmq.Context() as context:
        socket, address = bound(context, zmq.XPUB)
        with socket, started(example("### A listener in Python", address)) as listener:
            try:
                assert socket.poll(PATIENCE_MS), "the listener of the document does not subscribe"
                assert socket.recv() == b"\x01" + messages.VERDICT_TOPIC
                for verdict in (passed, failed):
                    socket.send_multipart(messages.encode_verdict(verdict))
                lines = [listener.stdout.readline().strip() for _ in range(3)]
            finally:
                listener.terminate()

    assert lines == ["left 0 go on", "missed 2", "left 2 hold bad_image"]


def lines_of(example_, count):
    return [example_.stdout.readline().strip() for _ in range(count)]


def test_the_late_listener_of_the_document_knows_the_state_and_hears_on():
    with FakeStation() as station:
        station.say(camera="left")
        station.say(camera="right", verdict=Verdict.FAIL)
        with started(example("### A late listener in Python", station.verdicts)) as listener:
            try:
                known = lines_of(listener, 2)
                station.say(camera="left", verdict=Verdict.REVIEW)
                next_one = lines_of(listener, 1)
            finally:
                listener.terminate()

    assert sorted(known) == ["left PASS", "right FAIL"]
    assert next_one == ["left REVIEW"]


def test_the_watchman_of_the_document_hears_the_station_and_its_silence():
    with FakeStation() as station:
        station.say(3)
        with started(example("### A watchman in Python", station.verdicts)) as watchman:
            try:
                alive = lines_of(watchman, 1)
                station.__exit__(None, None, None)
                after = iter(watchman.stdout.readline, "")
                assert any(line.strip() == "silent" for line in after)
            finally:
                watchman.terminate()

    assert alive == ["running 3"]


def test_the_example_of_catching_up_gets_everything(monkeypatch):
    monkeypatch.setattr(answers, "MOST_ANSWER_BYTES", 1000)
    with FakeStation() as station:
        station.say(7, camera="left")
        with started(example("### Catching up in Python", station.catch_up)) as client:
            lines = [line.strip() for line in client.stdout]
        asked = station.health.count("catch_ups", 0)

    assert lines == [f"{number} left PASS" for number in range(1, 8)]
    assert asked > 1, "it was not asked for more"


def test_the_ejector_of_the_document_lets_only_good_parts_go_on():
    with FakeStation() as station:
        for camera in ("left", "right"):
            station.say(camera=camera, part="P1")
        station.say(camera="left", part="P2")
        with started(example("### An ejector in Python", station.reject)) as ejector:
            lines = [line.strip() for line in ejector.stdout]

    assert lines == ["P1 go on", "P2 eject"]


def test_the_ejector_of_the_document_ejects_when_nobody_answers():
    with started(example("### An ejector in Python", f"ipc://{DOCS}/nobody")) as ejector:
        lines = [line.strip() for line in ejector.stdout]

    assert lines == ["P1 eject", "P2 eject"]


def test_the_default_of_a_questions_age_is_the_one_of_the_document():
    default = RejectQuestion.model_fields["max_age_ms"].default

    assert f"optional, {default:.0f} |" in WIRE
    assert f"0 to {station_messages.MOST_DEADLINE_MS:.0f} |" in WIRE
    assert f"above 0 to {station_messages.MOST_AGE_MS:.0f} |" in WIRE


# --- the bundle -----------------------------------------------------------------------------------


def test_the_bundle_document_lists_the_required_files():
    assert sorted(names(table_below(BUNDLE, "## Files"))) == sorted(bundles.REQUIRED)


def test_the_bundle_document_lists_the_tensors_of_a_bank():
    tensors = {}
    for name, shape, dtype, _ in table_below(BUNDLE, "### Bank tensors"):
        tensors[name.strip("`")] = (shape, dtype)

    bank = empty_bank(("a",), rows_each=7, dimensions=5)
    expected = {}
    for name in bank.__dataclass_fields__:
        array = getattr(bank, name)
        if isinstance(array, np.ndarray):
            shape = {(7,): "(N,)", (7, 2): "(N, 2)", (7, 5): "(N, D)"}[array.shape]
            expected[name] = (shape, str(array.dtype))
    assert tensors == expected


def test_the_bundle_document_lists_the_tensors_of_a_head():
    head = bundles.Head(np.zeros((11, 7), np.float32), *np.zeros((2, 7), np.float32), 0.0)

    listed = {
        name.strip("`").removeprefix("i."): (shape, dtype)
        for name, shape, dtype, _ in table_below(BUNDLE, "### Heads")
    }

    shapes = {(11, 7): "(Z, U)", (7,): "(U,)", (1,): "(1,)"}
    assert listed == {
        name: (shapes[array.shape], str(array.dtype)) for name, array in head_arrays(head).items()
    }


def small_bundle():
    """A bundle in memory that is whole but for its networks."""
    bank = bank_to_bytes(empty_bank(("nut",), rows_each=1, dimensions=2))
    files = {name: name.encode() for name in bundles.REQUIRED}
    return bundles.pack(
        files | {bundles.NORMAL_BANK: bank, bundles.ABNORMAL_BANK: bank},
        parent=None,
        backbone="none",
        seed=0,
        preprocessing={"size_px": 32},
        scoring={"k": 1, "top_fraction": 1.0},
        routes={},
    )


def test_the_contract_of_the_graph_lists_what_a_route_feeds():
    bank = empty_bank(("nut",), rows_each=1, dimensions=2)
    route = bundles.Route(
        category="nut",
        scoring=bundles.Scoring(k=1, temperature=1.0),
        abnormal_weight=0.0,
        calibration=bundles.Calibration((1.0, 2.0)),
        thresholds=bundles.Thresholds(1.0, 2.0),
    )
    manifest, seen = parse_manifest(small_bundle()[MANIFEST]), np.ones((4, 4), np.uint8)
    head = bundles.Head(np.zeros((9, 1), np.float32), *np.zeros((2, 1), np.float32), 0.0)
    bundle = bundles.Bundle(
        "", manifest, "", bank, bank, {"nut": head}, {"nut": route}, None, {"nut": seen}, None
    )

    fed = []
    bundle.over_views(
        np.zeros((32, 32, 3), np.uint8),
        route,
        lambda feeds: fed.append(feeds) or np.zeros((4, 4)),
    )
    feeds = fed[0]

    inputs = {
        row[0].strip("`"): row[1:3] for row in table_below(BUNDLE, "## The contract of full.onnx")
    }
    assert set(inputs) == set(feeds)
    for name, array in feeds.items():
        shape, dtype = inputs[name]
        assert str(array.dtype) == dtype
        assert array.ndim == len([side for side in shape.strip("()").split(",") if side])


@pytest.mark.parametrize(
    "said",
    [
        f"`{FORMAT}`",
        f"at most {MAX_MANIFEST_BYTES >> 20} MiB",
        f"one under `{ANY_PRODUCT}`",
        f"agree to {RELATIVE_TOLERANCE:.0e}".replace("e-0", "e-"),
        f"`{MANIFEST}`",
    ],
)
def test_what_the_bundle_document_says_in_prose_is_so(said):
    assert said in BUNDLE


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum on this machine")
@pytest.mark.parametrize("damaged", [False, True])
def test_the_check_by_hand_finds_what_the_code_finds(tmp_path, damaged):
    for path, data in small_bundle().items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    if damaged:
        next((tmp_path / "files").iterdir()).write_bytes(b"something else")
    lines = code_below(BUNDLE, "## Verify by hand", "sh")

    done = subprocess.run(["sh", "-c", lines], cwd=tmp_path, capture_output=True, text=True)

    assert done.stdout.split()[0] == bundles.digest((tmp_path / MANIFEST).read_bytes())
    assert ("whole" in done.stdout.split()) == (not damaged)
