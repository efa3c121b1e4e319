"""The wire: what is well-formed comes back as it was, nothing else gets in or breaks anything."""

from __future__ import annotations

import math
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from inspection.messages import (
    Frame,
    FrameHeader,
    HeatmapHeader,
    RegionEntry,
    VerdictMessage,
    decode_frame,
    decode_heatmap,
    decode_verdict,
    encode_frame,
    encode_heatmap,
    encode_verdict,
)
from inspection.verdicts import Reason, Verdict
from inspection.wire import MAX_ENTRIES, MAX_HEADER_BYTES, MAX_SIDE_PX, FrameName, MessageError

LIMIT = 1 << 20
PIXELS = bytes(range(96))

HEADER = {
    "v": 1,
    "camera": "left",
    "session": "2f9c",
    "seq": 7,
    "encoding": "raw",
    "shape": [8, 12],
    "dtype": "uint8",
    "trigger_ns": 123,
    "part": "S/N 5",
    "product": "screw",
    "deadline_ms": 80.5,
    "live": True,
}
REQUIRED = ("v", "camera", "session", "seq", "encoding")
NAME = FrameName("left", "2f9c", 7, "S/N 5")

VERDICT = VerdictMessage(
    camera="left",
    session="2f9c",
    seq=7,
    part="S/N 5",
    product="screw",
    verdict=Verdict.REVIEW,
    reason=Reason.SCORE_ABOVE_REVIEW,
    detail=None,
    score=3.25,
    p_value=0.005,
    threshold=3.0,
    reject_threshold=4.5,
    regions=(RegionEntry(x_px=1, y_px=2, width_px=3, height_px=4, score=9.5),),
    bundle="ab" * 32,
    bank="cd" * 32,
    station_seq=41,
    latency_ms={"decode": 1.5, "features": 9.75},
)
HEATMAP = HeatmapHeader(camera="left", session="2f9c", seq=7, station_seq=41, shape=(3, 5))
VALUES = np.arange(15, dtype="<f4").tobytes()

claim = settings(derandomize=True, database=None, deadline=None, max_examples=300)


def frame_with(pixels=PIXELS, without=(), **changed):
    """The parts of a frame whose header differs from `HEADER`."""
    header = {key: value for key, value in {**HEADER, **changed}.items() if key not in without}
    return [msgpack.packb(header), pixels]


def refusal(parts, max_frame_bytes=LIMIT):
    """The error that a frame is refused with."""
    with pytest.raises(MessageError) as caught:
        decode_frame(parts, max_frame_bytes)
    return caught.value


# --- frames -------------------------------------------------------------------------------------


def test_a_frame_comes_back_as_it_was_and_its_pixels_are_not_copied():
    header = FrameHeader(**HEADER)

    frame = decode_frame(encode_frame(header, PIXELS), LIMIT)

    assert frame == Frame(header, PIXELS)
    assert frame.pixels is PIXELS
    assert frame.header.frame_name == NAME


def test_a_frame_that_says_only_what_it_must_is_taken():
    frame = decode_frame(
        frame_with(encoding="jpeg", without=[key for key in HEADER if key not in REQUIRED]), LIMIT
    )

    assert frame.header.model_dump(exclude_defaults=True) == {
        "camera": "left",
        "session": "2f9c",
        "seq": 7,
        "encoding": "jpeg",
    }
    assert frame.header.frame_name == FrameName("left", "2f9c", 7, None)
    assert frame.header.raw_bytes == 0


@pytest.mark.parametrize("key", ["shape", "trigger_ns", "part", "product", "deadline_ms"])
def test_an_optional_field_may_be_nil(key):
    frame = decode_frame(frame_with(**{"encoding": "png", key: None}), LIMIT)

    assert getattr(frame.header, key) is None


def test_keys_that_we_do_not_know_are_passed_over():
    frame = decode_frame(frame_with(colour="red", lens={"f": [1, 2]}), LIMIT)

    assert frame.header == FrameHeader(**HEADER)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_taken(kind):
    header, pixels = frame_with()

    assert decode_frame([kind(header), kind(pixels)], LIMIT).header == FrameHeader(**HEADER)


@pytest.mark.parametrize("key", REQUIRED)
def test_a_field_that_is_missing_is_named(key):
    error = refusal(frame_with(without=[key]))

    assert error.reason is Reason.BAD_HEADER
    assert str(error).startswith(("expected v = 1", f"{key}: "))


def test_raw_pixels_without_a_shape_are_refused():
    assert "raw pixels need a shape" in str(refusal(frame_with(without=["shape"])))


MISTYPED = {
    "v": ["1", 2, 0, None, [1], {}, math.nan],
    "camera": [None, 7, b"left", ["left"], "", "x" * 129],
    "session": [None, 7, b"2f9c", True, "", "x" * 129],
    "seq": [None, "7", 7.0, True, -1, 1 << 63, math.nan],
    "encoding": [None, "bmp", "RAW", 1, b"raw", ""],
    "shape": [
        *([], [8], [8, 12, 3, 1], [8, "12"], [8, 12.0], [8, True], "8x12", 96, {"8": 12}),
        *([0, 12], [8, -12], [8, MAX_SIDE_PX + 1], [8, 1 << 63]),
        *([8, 12, 2], [8, 12, 0], [8, 12, -3]),
    ],
    "dtype": [None, "float32", "uint32", 8, ""],
    "trigger_ns": ["123", 1.5, -1, 1 << 63, True],
    "part": [5, b"S/N 5", "", "x" * 129, ["S"]],
    "product": [5, b"screw", "", "x" * 129],
    "deadline_ms": ["80", 0, -1.0, math.nan, math.inf, True],
    "live": [None, "no", 0, 1.0],
}


def test_every_field_of_the_header_is_mistyped_below():
    assert set(MISTYPED) == set(FrameHeader.model_fields) == set(HEADER)


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in MISTYPED.items() for value in values]
)
def test_a_field_of_another_type_or_out_of_range_is_refused(key, value):
    error = refusal(frame_with(**{key: value}))

    assert error.reason is Reason.BAD_HEADER
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("key", "value"),
    [("seq", 0), ("seq", (1 << 63) - 1), ("camera", "x" * 128), ("part", "é" * 128)],
)
def test_a_value_on_the_edge_of_its_range_is_taken(key, value):
    assert getattr(decode_frame(frame_with(**{key: value}), LIMIT).header, key) == value


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"encoding": "bmp"}, id="another field is wrong"),
        pytest.param({"v": 2}, id="a camera of another version"),
        pytest.param({"shape": [9, 12]}, id="the pixels do not fit"),
        pytest.param({"shape": [4096, 4096], "dtype": "uint16"}, id="the frame is too large"),
    ],
)
def test_a_refused_frame_is_still_named_so_that_it_gets_its_verdict(changed):
    assert refusal(frame_with(**changed)).name == NAME


@pytest.mark.parametrize("part", [5, "", "x" * 129, b"\xff"])
def test_a_serial_number_that_is_wrong_does_not_cost_the_frame_its_name(part):
    assert refusal(frame_with(part=part)).name == FrameName("left", "2f9c", 7, None)


@pytest.mark.parametrize("key", ["camera", "session", "seq"])
def test_a_frame_that_does_not_say_whose_it_is_has_no_name(key):
    assert refusal(frame_with(without=[key])).name is None


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        pytest.param([], None, id="no part"),
        pytest.param(frame_with()[:1], NAME, id="no pixels"),
        pytest.param([*frame_with(), b""], NAME, id="one too many"),
        pytest.param([b"", *frame_with()], None, id="an envelope"),
    ],
)
def test_another_number_of_parts_is_refused(parts, name):
    error = refusal(parts)

    assert (error.reason, error.name) == (Reason.BAD_HEADER, name)
    assert f"got {len(parts)}" in str(error)


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "png"])
def test_an_empty_pixel_part_is_refused(encoding):
    assert refusal(frame_with(b"", encoding=encoding)).reason is Reason.BAD_PAYLOAD


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [
        ([8, 12], "uint8", 96),
        ([8, 12, 1], "uint16", 192),
        ([8, 12, 3], "uint8", 288),
        ([8, 12, 4], "uint16", 768),
        ([1, 1], "uint8", 1),
    ],
)
def test_raw_pixels_have_exactly_the_size_that_the_header_says(shape, dtype, size):
    fits = decode_frame(frame_with(bytes(size), shape=shape, dtype=dtype), LIMIT)

    assert fits.header.raw_bytes == size
    for wrong in (size - 1, size + 1, 2 * size):
        error = refusal(frame_with(bytes(wrong), shape=shape, dtype=dtype))
        assert error.reason is Reason.BAD_PAYLOAD


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "png"])
def test_a_bomb_by_shape_is_refused_before_anything_is_allocated_for_it(encoding):
    parts = frame_with(shape=[MAX_SIDE_PX, MAX_SIDE_PX, 4], dtype="uint16", encoding=encoding)

    assert refusal(parts).reason is Reason.FRAME_TOO_LARGE


def test_a_frame_on_the_limit_is_taken_and_one_byte_more_is_not():
    assert decode_frame(frame_with(), max_frame_bytes=96)

    assert refusal(frame_with(), max_frame_bytes=95).reason is Reason.FRAME_TOO_LARGE


# --- headers that are no headers ----------------------------------------------------------------


def padded(size):
    """A valid header of exactly `size` bytes, filled up by a key we do not know."""
    filling = size - len(msgpack.packb({**HEADER, "filling": bytes(300)})) + 300
    return msgpack.packb({**HEADER, "filling": bytes(filling)})


def test_a_header_on_the_limit_is_taken_and_one_byte_more_is_not():
    assert len(padded(MAX_HEADER_BYTES)) == MAX_HEADER_BYTES
    assert decode_frame([padded(MAX_HEADER_BYTES), PIXELS], LIMIT)

    error = refusal([padded(MAX_HEADER_BYTES + 1), PIXELS])

    assert f"at most {MAX_HEADER_BYTES} bytes, got {MAX_HEADER_BYTES + 1}" in str(error)


GOOD = msgpack.packb(HEADER)
# The map of HEADER without its first key, so that another value may be put there for `v`.
REST = msgpack.packb({key: value for key, value in HEADER.items() if key != "v"})[1:]
OPEN = bytes([0x80 | len(HEADER)]) + msgpack.packb("v")
FOUR_BILLION = b"\xff\xff\xff\xff"

BOMBS = [
    pytest.param(b"\xdf" + FOUR_BILLION, id="map32 of four billion"),
    pytest.param(b"\xdd" + FOUR_BILLION, id="array32 of four billion"),
    pytest.param(b"\xdb" + FOUR_BILLION, id="str32 of four gigabytes"),
    pytest.param(b"\xc6" + FOUR_BILLION, id="bin32 of four gigabytes"),
    pytest.param(b"\xc9" + FOUR_BILLION + b"\x01", id="ext32 of four gigabytes"),
    pytest.param(b"\x81\xa1v\xdd" + FOUR_BILLION, id="array32 inside a map"),
    pytest.param(b"\x91" * MAX_HEADER_BYTES, id="arrays nested to the end"),
    pytest.param(b"\x81\xa0" * (MAX_HEADER_BYTES // 2), id="maps nested to the end"),
    pytest.param((b"\xdc\x1f\x40" * 1000).ljust(8192, b"\xc0"), id="8000 entries, nested"),
    pytest.param((b"\xdd\0\0\x1f\x40" * 1000).ljust(8192, b"\xc0"), id="the same in 32 bits"),
    pytest.param((b"\xdc\x01\x00" * 1000).ljust(8000, b"\xc0"), id="256 entries, nested"),
    *[
        pytest.param(OPEN + b"\x91" * depth + b"\x01" + REST, id=f"v nested {depth} deep")
        for depth in (900, 990, 1000, 1010, 1020, 1022, 1030)
    ],
]


@pytest.mark.parametrize("header", BOMBS)
def test_a_small_header_that_claims_a_lot_is_refused_and_costs_little(header):
    tracemalloc.start()

    error = refusal([header, PIXELS])

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.reason is Reason.BAD_HEADER
    assert len(str(error)) < 400
    # A thousand levels of MAX_ENTRIES pointers are 2 MB; without that limit it was 65 MB.
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="the byte that msgpack never uses"),
        pytest.param(GOOD[:-1], id="cut off"),
        pytest.param(GOOD + b"\x00", id="something after the end"),
        pytest.param(msgpack.packb([1, 2]), id="an array"),
        pytest.param(msgpack.packb("left"), id="a text"),
        pytest.param(msgpack.packb(None), id="nil"),
        pytest.param(msgpack.packb({1: 2}), id="a key that is a number"),
        pytest.param(b"\x81\x91\x01\x02", id="a key that is an array"),
        pytest.param(b"\x81\xa1\xff\x01", id="a key that is not UTF-8"),
        pytest.param(msgpack.packb({"v": msgpack.Timestamp(1)}), id="a timestamp"),
        pytest.param(b"\x81\xa1v\xd7\xff" + b"\xff" * 8, id="a timestamp out of range"),
        pytest.param(b"\x81\xa1v\xc7\x05\xff" + b"\x00" * 5, id="a timestamp of no known size"),
        pytest.param(msgpack.packb({"v": msgpack.ExtType(5, b"x")}), id="an extension"),
        pytest.param(msgpack.packb({**HEADER, "x": [0] * (MAX_ENTRIES + 1)}), id="array too long"),
        pytest.param(
            msgpack.packb({**HEADER, **{str(i): 0 for i in range(MAX_ENTRIES)}}), id="too many keys"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: station\r\n\r\n", id="a browser"),
        pytest.param(b'{"v": 1, "camera": "left"}', id="JSON"),
    ],
)
def test_a_header_that_is_no_header_is_refused(header):
    assert refusal([header, PIXELS]).reason is Reason.BAD_HEADER


# --- fuzz: nothing but MessageError ---------------------------------------------------------------


def decode_anything(parts):
    """Decode parts as every message there is: each succeeds, or raises MessageError."""
    for decode in (lambda parts: decode_frame(parts, LIMIT), decode_verdict, decode_heatmap):
        try:
            decode(parts)
        except MessageError as error:
            assert isinstance(error.reason, Reason)  # noqa: PT017  either outcome is right


@given(parts=st.lists(st.binary(max_size=64), max_size=4))
@claim
def test_random_bytes_only_ever_raise_message_error(parts):
    decode_anything(parts)


@given(data=st.data())
@claim
def test_mutations_of_valid_messages_only_ever_raise_message_error(data):
    valid = [[GOOD, PIXELS], encode_verdict(VERDICT), encode_heatmap(HEATMAP, VALUES)]
    parts = [bytearray(part) for part in data.draw(st.sampled_from(valid))]
    for _ in range(data.draw(st.integers(1, 4))):
        part = data.draw(st.sampled_from(parts))
        at = data.draw(st.integers(0, len(part)))
        cut = data.draw(st.integers(0, 3))
        part[at : at + cut] = data.draw(st.binary(max_size=3))

    decode_anything([bytes(part) for part in parts])


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)


@given(
    changed=st.dictionaries(
        st.sampled_from([*HEADER, *VerdictMessage.model_fields]), values, max_size=3
    ),
    message=st.sampled_from([HEADER, VERDICT.model_dump(mode="json"), HEATMAP.model_dump()]),
)
@claim
def test_valid_messages_with_other_values_only_ever_raise_message_error(changed, message):
    header = msgpack.packb({**message, **changed})

    decode_anything([header, PIXELS])
    decode_anything([b"verdict/left", header])
    decode_anything([b"heatmap/left", header, VALUES])


# --- verdicts -------------------------------------------------------------------------------------


def verdict_with(without=(), **changed):
    """The parts of a verdict that differs from `VERDICT`."""
    document = {**VERDICT.model_dump(mode="json"), **changed}
    document = {key: value for key, value in document.items() if key not in without}
    return [b"verdict/left", msgpack.packb(document)]


UNKNOWN = {
    "verdict": Verdict.UNKNOWN,
    "reason": Reason.BAD_IMAGE,
    "score": None,
    "p_value": None,
    "regions": (),
}


@pytest.mark.parametrize(
    "verdict",
    [
        pytest.param(VERDICT, id="every field"),
        pytest.param(VERDICT.model_copy(update=UNKNOWN), id="UNKNOWN, without a score"),
        pytest.param(
            VERDICT.model_copy(update={"verdict": Verdict.PASS, "reason": None}), id="PASS"
        ),
        pytest.param(VERDICT.model_copy(update={"score": math.inf}), id="an infinite score"),
    ],
)
def test_a_verdict_comes_back_as_it_was(verdict):
    assert decode_verdict(encode_verdict(verdict)) == verdict


def test_a_score_that_is_not_a_number_stays_so():
    verdict = VERDICT.model_copy(update={"score": math.nan, "p_value": math.nan})

    again = decode_verdict(encode_verdict(verdict))

    assert math.isnan(again.score)
    assert math.isnan(again.p_value)


def test_a_verdict_is_plain_msgpack_under_the_topic_of_its_camera():
    topic, header = encode_verdict(VERDICT)

    assert topic == b"verdict/left"
    document = msgpack.unpackb(header)
    assert document["verdict"] == "REVIEW"
    assert document["reason"] == "score_above_review"
    assert document["regions"] == [
        {"x_px": 1, "y_px": 2, "width_px": 3, "height_px": 4, "score": 9.5}
    ]


def test_a_subscriber_passes_over_keys_it_does_not_know():
    assert decode_verdict(verdict_with(colour="red")) == VERDICT


@pytest.mark.parametrize("verdict", [Verdict.UNKNOWN, Verdict.REVIEW, Verdict.FAIL])
def test_a_verdict_other_than_pass_has_a_reason_from_birth(verdict):
    fields = {**VERDICT.model_dump(), "verdict": verdict, "reason": None}

    with pytest.raises(ValidationError, match="needs a reason"):
        VerdictMessage(**fields)
    with pytest.raises(MessageError, match="needs a reason"):
        decode_verdict(verdict_with(verdict=verdict.value, reason=None))


REQUIRED_OF_VERDICT = [
    name for name, field in VerdictMessage.model_fields.items() if field.is_required()
]


@pytest.mark.parametrize("key", REQUIRED_OF_VERDICT)
def test_a_verdict_without_a_required_field_is_refused(key):
    with pytest.raises(MessageError, match=key):
        decode_verdict(verdict_with(without=[key]))


REGION = {"x_px": 1, "y_px": 2, "width_px": 3, "height_px": 4, "score": 9.5}
MISTYPED_VERDICT = {
    "v": [2, "1", None],
    "camera": [None, 7, b"left"],
    "session": [None, 7],
    "seq": ["7", 7.5, None, True],
    "part": [5],
    "product": [5],
    "verdict": ["pass", "MAYBE", None, 1],
    "reason": ["because", 1],
    "detail": [5],
    "score": ["3.25", True],
    "p_value": ["0"],
    "threshold": ["3"],
    "reject_threshold": ["4"],
    "regions": [None, 5, [5], [{**REGION, "x_px": "1"}], [{"x_px": 1}], {"x_px": 1}],
    "bundle": [None, 5],
    "bank": [None, 5],
    "frame_sha256": [5, b"ab"],
    "station_seq": ["41", None, 4.5],
    "latency_ms": [None, [], {"decode": "fast"}, 5.0],
}


def test_every_field_of_a_verdict_is_mistyped_above():
    assert set(MISTYPED_VERDICT) == set(VerdictMessage.model_fields)


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in MISTYPED_VERDICT.items() for value in values]
)
def test_a_field_of_a_verdict_of_another_type_is_refused_and_not_converted(key, value):
    with pytest.raises(MessageError, match=key):
        decode_verdict(verdict_with(**{key: value}))


@pytest.mark.parametrize("parts", [[], [b"verdict/left"], [*verdict_with(), b""]])
def test_a_verdict_of_another_number_of_parts_is_refused(parts):
    with pytest.raises(MessageError, match=f"got {len(parts)} parts"):
        decode_verdict(parts)


# --- heatmaps -------------------------------------------------------------------------------------


def test_a_heatmap_comes_back_as_it_was_and_its_values_are_not_copied():
    parts = encode_heatmap(HEATMAP, VALUES)

    header, values = decode_heatmap(parts)

    assert parts[0] == b"heatmap/left"
    assert header == HEATMAP
    assert values is VALUES


@pytest.mark.parametrize(
    ("changed", "values"),
    [
        pytest.param({}, VALUES[:-1], id="values cut off"),
        pytest.param({}, VALUES + b"\x00", id="values too many"),
        pytest.param({"shape": [3]}, VALUES, id="one side"),
        pytest.param({"shape": [3, 5, 1]}, VALUES, id="three sides"),
        pytest.param({"shape": [-3, -5]}, VALUES, id="sides below zero whose product fits"),
        pytest.param({"shape": [0, 5]}, b"", id="no patch"),
        pytest.param({"shape": [3, "5"]}, VALUES, id="a side that is a text"),
        pytest.param({"dtype": "float64"}, VALUES, id="another dtype"),
        pytest.param({"v": 2}, VALUES, id="another version"),
        pytest.param({"seq": "7"}, VALUES, id="a sequence number that is a text"),
    ],
)
def test_a_heatmap_that_contradicts_itself_is_refused(changed, values):
    header = msgpack.packb({**HEATMAP.model_dump(), **changed})

    with pytest.raises(MessageError):
        decode_heatmap([b"heatmap/left", header, values])


@pytest.mark.parametrize("key", ["camera", "session", "seq", "station_seq", "shape"])
def test_a_heatmap_without_a_required_field_is_refused(key):
    document = {name: value for name, value in HEATMAP.model_dump().items() if name != key}

    with pytest.raises(MessageError, match=key):
        decode_heatmap([b"heatmap/left", msgpack.packb(document), VALUES])


def test_a_heatmap_of_another_number_of_parts_is_refused():
    with pytest.raises(MessageError, match="got 2 parts"):
        decode_heatmap(encode_heatmap(HEATMAP, VALUES)[:2])


@pytest.mark.parametrize(
    "unbacked",
    [
        pytest.param({"score": None}, id="no score: nothing has looked at the part"),
        pytest.param({"reason": Reason.SCORER_FAILED}, id="a reason: something went wrong"),
    ],
)
def test_a_pass_that_nothing_backs_cannot_be_made(unbacked):
    backed = {
        "camera": "left",
        "session": "s",
        "seq": 0,
        "verdict": Verdict.PASS,
        "score": 0.5,
        "bundle": "b",
        "bank": "k",
        "station_seq": 1,
        "latency_ms": {},
    }
    VerdictMessage(**backed)

    with pytest.raises(ValidationError, match="PASS needs a score"):
        VerdictMessage(**{**backed, **unbacked})
