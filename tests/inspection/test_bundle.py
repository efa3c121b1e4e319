"""A bundle is believed byte by byte or not at all, and its id names every byte it depends on."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.bank import MemoryBank, bank_to_bytes, empty_bank
from inspection.bundle import (
    ABNORMAL_BANK,
    ANY_PRODUCT,
    FOREGROUND,
    FULL,
    GOLDEN,
    HEAD,
    HEAD_GRAPH,
    LINEAGE,
    MODEL_CARD,
    NORMAL_BANK,
    REQUIRED,
    ROUTER,
    TRUNK,
    digest,
    pack,
    read_bundle,
)
from inspection.errors import BundleError, InputError
from inspection.foreground import everywhere, foregrounds_to_bytes
from inspection.frame_checks import FrameLimits
from inspection.heads import heads_to_bytes
from inspection.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    LimitsEntry,
    PreprocessingEntry,
    RouteEntry,
    ScoringEntry,
    manifest_bytes,
    parse_manifest,
)
from inspection.routing import Router, router_to_bytes
from inspection.scoring import Head, Scoring, enhanced_length

D, K = 5, 3
Z = enhanced_length(D, K)
CATEGORIES = ("nut", "screw")


def a_bank(seed, rows_each=4, valid_each=4, dimensions=D, categories=CATEGORIES) -> MemoryBank:
    bank = empty_bank(categories, rows_each, dimensions)
    rng = np.random.default_rng(seed)
    return replace(
        bank,
        features=rng.normal(size=bank.features.shape).astype(np.float32),
        valid=np.arange(len(bank.features)) % rows_each < valid_each,
        position=rng.integers(0, 8, bank.position.shape).astype(np.int32),
    )


def a_head(inputs=Z, seed=0) -> Head:
    rng = np.random.default_rng(seed)
    return Head(
        hidden_weight=rng.normal(size=(inputs, 7)).astype(np.float32),
        hidden_bias=rng.normal(size=7).astype(np.float32),
        output_weight=rng.normal(size=7).astype(np.float32),
        output_bias=0.25,
    )


def some_heads(products=CATEGORIES):
    """Another head for every product."""
    return {product: a_head(seed=seed) for seed, product in enumerate(products)}


def a_router(products=CATEGORIES, dimensions=2 * D) -> Router:
    return Router(
        products=tuple(products),
        prototypes=np.eye(len(products), dimensions, dtype=np.float32),
        product=np.arange(len(products), dtype=np.int32),
        reach=np.full(len(products), 0.5, np.float32),
    )


def some_files(**changed):
    """Bytes for every required file; the networks and golden frames are not read here."""
    files = {
        TRUNK: b"the trunk's graph",
        HEAD_GRAPH: b"the head's graph",
        FULL: b"the full graph",
        NORMAL_BANK: bank_to_bytes(a_bank(1)),
        ABNORMAL_BANK: bank_to_bytes(a_bank(2, rows_each=3, valid_each=3)),
        HEAD: heads_to_bytes(some_heads()),
        ROUTER: router_to_bytes(a_router()),
        FOREGROUND: foregrounds_to_bytes(dict.fromkeys(CATEGORIES, everywhere((8, 8)))),
        GOLDEN: b"golden frames",
        MODEL_CARD: b"# What this model is\n",
        LINEAGE: b'{"labelled": []}\n',
    }
    return files | changed


def a_route(**changed):
    fields = {
        "temperature": 0.5,
        "position_weight": 0.125,
        "abnormal_weight": 0.5,
        "good_scores": [1.0, 2.0, 3.0],
        "review": 1.0,
        "reject": 2.0,
        "statement": "three good parts",
    }
    return RouteEntry(**{**fields, **changed})


def some_routes(*products, **changed):
    """A route for every product, and the one of no product, which has no head to be asked."""
    routes = {product: a_route(**changed) for product in products or CATEGORIES}
    return routes | {ANY_PRODUCT: a_route(**{**changed, "abnormal_weight": 0.0})}


def a_document(**changed):
    document = {
        "parent": None,
        "backbone": "lite0",
        "seed": 7,
        "preprocessing": PreprocessingEntry(size_px=64),
        "scoring": ScoringEntry(k=K, top_fraction=0.02),
        "routes": some_routes(),
    }
    return document | changed


def packed(files=None, **changed):
    """A bundle in memory: path → bytes."""
    return pack(some_files() if files is None else files, **a_document(**changed))


def reader(laid_out):
    """`read` over a mapping, as a folder would answer."""

    def read(path):
        if path not in laid_out:
            raise FileNotFoundError(2, "No such file or directory")
        return laid_out[path]

    return read


def manifest_of(laid_out):
    return json.loads(laid_out[MANIFEST])


def with_manifest(laid_out, **changed):
    """The same files under a manifest whose fields differ."""
    return laid_out | {MANIFEST: json.dumps({**manifest_of(laid_out), **changed}).encode()}


def path_of(laid_out, name):
    return "files/" + manifest_of(laid_out)["files"][name]["sha256"]


# --- what is whole comes back ---------------------------------------------------------------------


def test_a_bundle_comes_back_as_it_was_packed():
    files = some_files()

    bundle = read_bundle(reader(packed(files)))

    assert {name: bundle.file(name) for name in files} == files
    assert bundle.manifest.seed == 7
    assert bundle.preprocessing.size_px == 64
    assert bundle.routes["nut"].scoring == Scoring(
        k=K, temperature=0.5, top_fraction=0.02, position_weight=0.125
    )
    np.testing.assert_array_equal(bundle.normal.features, a_bank(1).features)
    np.testing.assert_array_equal(bundle.abnormal.valid, a_bank(2, 3, 3).valid)
    for product, head in some_heads().items():
        np.testing.assert_array_equal(bundle.heads[product].hidden_weight, head.hidden_weight)
    assert bundle.routes["nut"].thresholds.reject == 2.0
    assert bundle.routes["nut"].calibration.good_scores == (1.0, 2.0, 3.0)


def test_files_lie_under_their_own_digest_and_the_id_is_that_of_the_manifest():
    laid_out = packed()

    for path, data in laid_out.items():
        if path != MANIFEST:
            assert path == f"files/{hashlib.sha256(data).hexdigest()}"
    assert read_bundle(reader(laid_out)).id == hashlib.sha256(laid_out[MANIFEST]).hexdigest()


def test_the_same_content_has_the_same_id_whatever_the_order():
    files = some_files()
    turned = dict(reversed(files.items()))
    routes = dict(reversed(a_document()["routes"].items()))

    assert packed(files) == packed(turned, routes=routes)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_byte_more_in_any_file_changes_the_id(name):
    before = digest(packed()[MANIFEST])

    after = digest(packed(some_files(**{name: some_files()[name] + b"\x00"}))[MANIFEST])

    assert after != before


@pytest.mark.parametrize(
    "changed",
    [
        {"parent": "0" * 64},
        {"backbone": "resnet50"},
        {"seed": 8},
        {"preprocessing": PreprocessingEntry(size_px=80)},
        {"scoring": ScoringEntry(k=K, top_fraction=0.0200001)},
        {"routes": {**some_routes(), "nut": a_route(temperature=0.5000001)}},
        {"routes": {**some_routes(), "nut": a_route(position_weight=0.1250001)}},
        {"routes": {**some_routes(), "nut": a_route(review=1.0000001)}},
    ],
)
def test_a_change_in_any_field_changes_the_id(changed):
    assert digest(packed(**changed)[MANIFEST]) != digest(packed()[MANIFEST])


LIMITS = {
    "least_brightness": 20.0,
    "most_white_share": 0.5,
    "least_sharpness": 2.0,
    "least_sharpness_one_way": 1.5,
    "least_change": 0.25,
}


def test_limits_of_frames_come_back_as_they_were_packed():
    routes = some_routes(limits=LimitsEntry(**LIMITS))

    bundle = read_bundle(reader(packed(routes=routes)))

    assert {route.limits for route in bundle.routes.values()} == {FrameLimits(**LIMITS)}


def test_a_bundle_without_limits_keeps_its_bytes_and_its_id():
    before = packed()[MANIFEST]

    assert b"limits" not in before
    assert manifest_bytes(parse_manifest(before)) == before
    assert {route.limits for route in read_bundle(reader(packed())).routes.values()} == {None}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("least_brightness", -1.0),
        ("most_white_share", 1.5),
        ("least_sharpness", 0.0),
        ("least_sharpness_one_way", 65.0),
        ("least_change", math.nan),
    ],
)
def test_limits_out_of_range_are_refused_by_name(name, value):
    routes = some_routes(limits=LimitsEntry(**{**LIMITS, name: value}))

    with pytest.raises(BundleError, match=name):
        read_bundle(reader(packed(routes=routes)))


def test_the_bank_id_changes_with_either_bank_and_with_nothing_else():
    def bank_id(**files):
        return read_bundle(reader(packed(some_files(**files)))).bank_id

    before = bank_id()

    assert bank_id(**{MODEL_CARD: b"# Other words\n"}) == before
    normal = bank_id(**{NORMAL_BANK: bank_to_bytes(a_bank(3))})
    abnormal = bank_id(**{ABNORMAL_BANK: bank_to_bytes(a_bank(3, 3, 3))})
    assert len({before, normal, abnormal}) == 3


def test_a_child_shares_every_file_with_its_parent_but_the_one_that_changed():
    parent = packed()

    child = packed(
        some_files(**{NORMAL_BANK: bank_to_bytes(a_bank(3))}), parent=digest(parent[MANIFEST])
    )

    assert set(child) - set(parent) == {path_of(child, NORMAL_BANK)}
    assert read_bundle(reader(child)).manifest.parent == digest(parent[MANIFEST])


def test_files_of_the_same_content_are_stored_once():
    same = some_files(**{HEAD_GRAPH: b"the trunk's graph"})

    assert len(packed(same)) == len(REQUIRED)


def test_a_file_beyond_the_required_ones_may_be_listed():
    bundle = read_bundle(reader(packed(some_files(**{"notes.txt": b"hello"}))))

    assert bundle.file("notes.txt") == b"hello"


# --- what is damaged is refused, by name ----------------------------------------------------------

TAMPERED = {
    "one bit flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "the last byte other": lambda data: data[:-1] + bytes([data[-1] ^ 0x80]),
    "cut off": lambda data: data[:-1],
    "empty": lambda data: b"",
    "a byte more": lambda data: data + b"\x00",
}
READ_AT_ONCE = (NORMAL_BANK, ABNORMAL_BANK, HEAD)


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("how", TAMPERED)
def test_a_file_that_was_tampered_with_is_refused_by_name(name, how):
    laid_out = packed()
    path = path_of(laid_out, name)
    laid_out[path] = TAMPERED[how](laid_out[path])

    with pytest.raises(BundleError, match=f"{name} is damaged"):
        read_bundle(reader(laid_out)).file(name)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_file_that_is_missing_is_refused_by_name(name):
    laid_out = packed()
    del laid_out[path_of(laid_out, name)]

    with pytest.raises(BundleError, match=f"cannot read {name} at files/.*No such file"):
        read_bundle(reader(laid_out)).file(name)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_manifest_that_does_not_list_a_required_file_is_refused(name):
    files = {key: data for key, data in some_files().items() if key != name}

    with pytest.raises(BundleError, match=f"lists no {name}"):
        read_bundle(reader(packed(files)))


def test_a_file_that_the_manifest_does_not_list_is_not_read():
    bundle = read_bundle(reader(packed() | {"secret": b"x"}))

    with pytest.raises(BundleError, match="lists no file 'secret'"):
        bundle.file("secret")


def test_an_error_of_the_disk_is_a_bundle_error_that_says_which_file():
    def read(path):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(BundleError, match=r"cannot read manifest.json.*Permission denied"):
        read_bundle(read)


def test_bytes_are_checked_each_time_they_are_read_and_those_given_are_those_checked():
    laid_out = packed()
    answers = {}

    def read(path):
        # The second answer for a path is another: a disk that changes between check and use.
        answers[path] = answers.get(path, 0) + 1
        return laid_out[path] if answers[path] == 1 else b"not what was checked"

    bundle = read_bundle(read)

    assert all(answers[path_of(laid_out, name)] == 1 for name in READ_AT_ONCE)
    assert answers[MANIFEST] == 1
    assert bundle.file(TRUNK) == b"the trunk's graph"
    with pytest.raises(BundleError, match=f"{TRUNK} is damaged"):
        bundle.file(TRUNK)


@given(data=st.data())
@settings(derandomize=True, database=None, deadline=None, max_examples=100)
def test_no_mutation_of_the_manifest_is_believed_under_the_same_id(data):
    laid_out = packed()
    mutated = bytearray(laid_out[MANIFEST])
    at = data.draw(st.integers(0, len(mutated) - 1))
    mutated[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))

    try:
        bundle = read_bundle(reader(laid_out | {MANIFEST: bytes(mutated)}))
    except BundleError:
        return
    assert (bundle.id == digest(laid_out[MANIFEST])) == (mutated == laid_out[MANIFEST])


# --- manifests that are no manifests --------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b"\xff\xfe\x00", "not JSON", id="not a text"),
        pytest.param(packed()[MANIFEST][:-3], "not JSON", id="cut off"),
        pytest.param(b"[" * 100_000, "not JSON", id="nested without end"),
        pytest.param(b'{"seed": ' + b"9" * 5000 + b"}", "not JSON", id="a number without end"),
        pytest.param(b"[]", "format", id="a list"),
        pytest.param(b"{}", "format", id="no format"),
        pytest.param(b'{"format": "dualbank-bundle/2"}', "dualbank-bundle/2", id="a later format"),
        pytest.param(b'{"format": ["dualbank-bundle/1"]}', "format", id="a format that is a list"),
    ],
)
def test_what_is_no_manifest_of_this_format_is_refused(data, says):
    with pytest.raises(BundleError, match=says):
        parse_manifest(data)


def test_a_manifest_beyond_the_limit_is_refused_before_it_is_decoded():
    with pytest.raises(BundleError, match="more than"):
        parse_manifest(bytes(MAX_MANIFEST_BYTES + 1))


ENTRY = {"sha256": "0" * 64, "size_bytes": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("colour", "red", id="an extra key"),
        pytest.param("parent", "abc", id="a parent that is no digest"),
        pytest.param("seed", "7", id="a seed that is a text"),
        pytest.param("backbone", None, id="no backbone"),
        pytest.param("preprocessing", {}, id="no size"),
        pytest.param("preprocessing", {"size_px": 64, "mean": 0}, id="an extra key further in"),
        pytest.param("scoring", {"k": 3.5, "top_fraction": 1.0}, id="half a k"),
        pytest.param("routes", {"nut": {}}, id="an empty route"),
        pytest.param("files", {TRUNK: {**ENTRY, "size_bytes": -1}}, id="a negative size"),
        pytest.param("files", {TRUNK: {**ENTRY, "path": "x"}}, id="a path of its own"),
        pytest.param("files", [TRUNK], id="files that are a list"),
    ],
)
def test_a_field_that_is_wrong_is_named(field, value):
    with pytest.raises(BundleError, match=f"manifest.json: {field}"):
        read_bundle(reader(with_manifest(packed(), **{field: value})))


@pytest.mark.parametrize(
    "field", ["parent", "backbone", "seed", "preprocessing", "scoring", "routes", "files"]
)
def test_a_field_that_is_missing_is_named(field):
    laid_out = packed()
    document = {key: value for key, value in manifest_of(laid_out).items() if key != field}

    with pytest.raises(BundleError, match=f"manifest.json: {field}"):
        read_bundle(reader(laid_out | {MANIFEST: json.dumps(document).encode()}))


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "",
        "0" * 63,
        "0" * 65,
        "0" * 64 + "\n",
        "A" * 64,
        "0" * 61 + "/..",
        "0" * 62 + "\x00/",
        "٠" * 64,  # digits, but not ASCII
    ],
)
def test_no_path_leads_out_of_the_folder(path):
    laid_out = packed()
    files = manifest_of(laid_out)["files"] | {TRUNK: {"sha256": path, "size_bytes": 1}}
    read = []

    with pytest.raises(BundleError, match="sha256"):
        read_bundle(lambda path: (read.append(path), with_manifest(laid_out, files=files)[path])[1])

    assert read == [MANIFEST]


def test_a_name_that_is_a_path_is_only_a_name():
    laid_out = packed(some_files(**{"../../etc/passwd": b"harmless"}))

    assert read_bundle(reader(laid_out)).file("../../etc/passwd") == b"harmless"
    assert all(path == MANIFEST or path.startswith("files/") for path in laid_out)
    assert not any(".." in path for path in laid_out)


# --- parts that contradict each other -------------------------------------------------------------

ROUTES = some_routes()
NO_DEFECTS = bank_to_bytes(a_bank(2, rows_each=3, valid_each=0))
OTHER_NAMES = ("nut", "bolt")


@pytest.mark.parametrize(
    ("files", "changed", "says"),
    [
        pytest.param(
            {ABNORMAL_BANK: bank_to_bytes(a_bank(2, dimensions=D + 1))}, {}, "do not fit",
            id="banks of different D",
        ),
        pytest.param(
            {HEAD: heads_to_bytes({**some_heads(), "screw": a_head(9)})}, {}, "do not fit",
            id="one head of other D",
        ),
        pytest.param({HEAD: heads_to_bytes({})}, {}, "do not fit", id="no heads"),
        pytest.param(
            {HEAD: heads_to_bytes({"nut": a_head()})}, {}, "expected heads of .*nut.*screw",
            id="a product without a head",
        ),
        pytest.param(
            {HEAD: heads_to_bytes(some_heads((*CATEGORIES, "bolt")))}, {}, "expected heads of",
            id="a head without a product",
        ),
        pytest.param(
            {HEAD: heads_to_bytes(some_heads((*CATEGORIES, ANY_PRODUCT)))}, {},
            "expected heads of", id="a head of no product",
        ),
        pytest.param(
            {}, {"routes": {**ROUTES, ANY_PRODUCT: a_route(abnormal_weight=0.5)}},
            "has no head", id="no product, and a head to be asked",
        ),
        pytest.param(
            {}, {"scoring": ScoringEntry(k=K + 1, top_fraction=0.02)},
            "do not fit", id="a head of other K",
        ),
        pytest.param(
            {NORMAL_BANK: bank_to_bytes(a_bank(1, valid_each=K - 1))}, {}, "valid rows",
            id="fewer good rows than K",
        ),
        pytest.param({ABNORMAL_BANK: NO_DEFECTS}, {}, "valid rows", id="weight, but no defects"),
        pytest.param(
            {}, {"routes": some_routes("nut")}, "routes",
            id="a category without a route",
        ),
        pytest.param(
            {}, {"routes": {**ROUTES, "bolt": a_route()}}, "routes", id="a route without rows"
        ),
        pytest.param(
            {}, {"routes": {"nut": a_route(), "screw": a_route()}}, "routes", id="no common route"
        ),
        pytest.param(
            {ABNORMAL_BANK: bank_to_bytes(a_bank(2, categories=OTHER_NAMES))}, {}, "categories",
            id="banks of different categories",
        ),
        pytest.param(
            {NORMAL_BANK: bank_to_bytes(a_bank(1, categories=(*CATEGORIES, ANY_PRODUCT)))}, {},
            "categories", id="a category named as the common route",
        ),
        pytest.param({NORMAL_BANK: b"no bank"}, {}, "not a memory bank", id="no bank"),
        pytest.param({HEAD: b"no head"}, {}, "not heads", id="a file that holds no heads"),
        pytest.param(
            {}, {"preprocessing": PreprocessingEntry(size_px=65)}, "size_px", id="a size of 65"
        ),
        pytest.param(
            {}, {"scoring": ScoringEntry(k=0, top_fraction=0.02)}, "k >= 1",
            id="no neighbour",
        ),
        pytest.param(
            {}, {"routes": {**ROUTES, "nut": a_route(temperature=math.nan)}},
            "temperature", id="a temperature that is not a number",
        ),
        pytest.param(
            {}, {"routes": {**ROUTES, "nut": a_route(review=3.0)}}, "must not exceed",
            id="review above reject",
        ),
        pytest.param(
            {}, {"routes": {**ROUTES, "nut": a_route(good_scores=[2.0, 1.0])}}, "ascending",
            id="good scores out of order",
        ),
        pytest.param(
            {}, {"routes": {**ROUTES, "nut": a_route(good_scores=[])}}, "2 good parts",
            id="no good scores",
        ),
    ],
)  # fmt: skip
def test_parts_that_contradict_each_other_are_refused(files, changed, says):
    laid_out = packed(some_files(**files), **changed)

    with pytest.raises(BundleError, match=says):
        read_bundle(reader(laid_out))


@pytest.mark.parametrize("name", ["abnormal_weight", "position_weight"])
@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_that_could_lower_a_score_is_refused(name, weight):
    laid_out = packed()
    routes = manifest_of(laid_out)["routes"]
    routes["nut"][name] = weight

    with pytest.raises(BundleError, match=rf"routes\.nut\.{name}"):
        read_bundle(reader(with_manifest(laid_out, routes=routes)))


def test_without_weight_the_abnormal_bank_may_be_empty():
    routes = some_routes(abnormal_weight=0.0)

    bundle = read_bundle(reader(packed(some_files(**{ABNORMAL_BANK: NO_DEFECTS}), routes=routes)))

    assert not bundle.abnormal.valid.any()


def test_exactly_k_valid_rows_are_enough():
    bank = bank_to_bytes(a_bank(1, valid_each=K))

    assert read_bundle(reader(packed(some_files(**{NORMAL_BANK: bank}))))


# --- routes and feeds -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "route"),
    [
        pytest.param("nut", "nut", id="its own"),
        pytest.param("screw", "screw", id="the other"),
        pytest.param(None, ANY_PRODUCT, id="not known: the common one"),
    ],
)
def test_a_frame_is_judged_by_the_route_of_its_product(product, route):
    bundle = read_bundle(reader(packed()))

    assert bundle.route(product) is bundle.routes[route]


def test_where_there_is_one_product_a_frame_that_names_none_is_of_it():
    one = {
        NORMAL_BANK: bank_to_bytes(a_bank(1, categories=("nut",))),
        ABNORMAL_BANK: bank_to_bytes(a_bank(2, categories=("nut",))),
        ROUTER: router_to_bytes(a_router(("nut",))),
        FOREGROUND: foregrounds_to_bytes({"nut": everywhere((8, 8))}),
        HEAD: heads_to_bytes({"nut": a_head()}),
    }

    bundle = read_bundle(reader(packed(some_files(**one), routes=some_routes("nut"))))

    assert bundle.route(None) is bundle.routes["nut"]


@pytest.mark.parametrize("product", ["bolt", "", ANY_PRODUCT, "NUT"])
def test_a_product_that_was_not_trained_is_refused_by_name(product):
    bundle = read_bundle(reader(packed()))

    with pytest.raises(InputError, match="it knows nut, screw"):
        bundle.route(product)


@pytest.mark.parametrize(
    ("product", "rows", "defects"),
    [("nut", slice(0, 4), slice(0, 3)), ("screw", slice(4, 8), slice(3, 6)), (None, ..., ...)],
)
def test_the_graph_is_fed_the_rows_of_the_route_without_a_copy(product, rows, defects):
    bundle = read_bundle(reader(packed(routes=some_routes(temperature=0.25))))

    feeds = bundle.bank_feeds(bundle.route(product))

    np.testing.assert_array_equal(feeds["normal_rows"], bundle.normal.features[rows])
    np.testing.assert_array_equal(feeds["normal_valid"], bundle.normal.valid[rows])
    np.testing.assert_array_equal(feeds["normal_places"], 0.125 * bundle.normal.position[rows])
    np.testing.assert_array_equal(feeds["abnormal_rows"], bundle.abnormal.features[defects])
    np.testing.assert_array_equal(feeds["abnormal_valid"], bundle.abnormal.valid[defects])
    assert np.shares_memory(feeds["normal_rows"], bundle.normal.features)
    assert feeds["normal_places"].dtype == np.float32
    for name, value in (("temperature", 0.25), ("abnormal_weight", 0.5 if product else 0.0)):
        assert feeds[name] == np.float32(value)
        assert feeds[name].shape == ()


@pytest.mark.parametrize("product", CATEGORIES)
def test_the_graph_is_fed_the_head_of_the_product(product):
    bundle = read_bundle(reader(packed()))

    feeds = bundle.bank_feeds(bundle.route(product))

    head = some_heads()[product]
    for name in ("hidden_weight", "hidden_bias", "output_weight"):
        np.testing.assert_array_equal(feeds[name], getattr(head, name))
    assert feeds["output_bias"].tolist() == [head.output_bias]


def test_the_graph_is_told_of_every_patch_where_it_lies_in_the_map_of_the_frame():
    tiles = {"size_px": 64, "fit": "tiles", "overlap_px": 16}
    routes = some_routes() | {"screw": a_route(position_weight=0.0)}
    bundle = read_bundle(reader(packed(preprocessing=tiles, routes=routes)))
    canvas = np.zeros((88, 112, 3), np.uint8)  # 11 x 14 patches: views at 0, 3 and at 0, 6

    def positions(product):
        fed = []
        bundle.over_views(
            canvas,
            bundle.route(product),
            lambda feeds: fed.append(feeds["places"]) or feeds["frames"][0, ::8, ::8, 0],
        )
        return fed

    inside = np.argwhere(np.ones((8, 8), np.bool_))
    for places, corner in zip(positions("nut"), ((0, 0), (0, 6), (3, 0), (3, 6)), strict=True):
        assert places.dtype == np.float32
        np.testing.assert_array_equal(places, [0.125 * (inside + corner)])
    assert not any(places.any() for places in positions("screw"))


def test_a_manifest_that_says_a_thing_twice_is_refused():
    files = packed()
    said_twice = files[MANIFEST].rstrip().removesuffix(b"}") + b', "seed": 7}'

    with pytest.raises(BundleError, match="twice"):
        parse_manifest(said_twice)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param(ROUTER, router_to_bytes(a_router(("nut",))), id="routes to one of two"),
        pytest.param(ROUTER, router_to_bytes(a_router(("nut", "bolt"))), id="routes elsewhere"),
        pytest.param(ROUTER, router_to_bytes(a_router(dimensions=D)), id="other descriptors"),
        pytest.param(
            FOREGROUND, foregrounds_to_bytes({"nut": everywhere((8, 8))}), id="one foreground"
        ),
        pytest.param(
            FOREGROUND,
            foregrounds_to_bytes(dict.fromkeys(CATEGORIES, everywhere((4, 16)))),
            id="another grid",
        ),
    ],
)
def test_a_router_or_foreground_that_does_not_fit_is_refused(name, data):
    with pytest.raises(BundleError, match=r"expected (a )?(router|foregrounds) of"):
        read_bundle(reader(packed(some_files(**{name: data}))))


def test_the_graph_is_fed_the_rows_of_the_route_and_what_is_inspected_of_each_view():
    tiles = {"size_px": 64, "fit": "tiles", "overlap_px": 16}
    bundle = read_bundle(reader(packed(preprocessing=tiles)))
    fed = []

    def run(feeds):
        fed.append(feeds)
        return feeds["frames"][0, ::8, ::8, 0]

    canvas = np.arange(72 * 64 * 3, dtype=np.uint8).reshape(72, 64, 3)
    merged = bundle.over_views(canvas, bundle.route("nut"), run)

    np.testing.assert_array_equal(merged, canvas[::8, ::8, 0])
    assert len(fed) == 2
    assert sum(feeds["foreground"].sum() for feeds in fed) == 9 * 8
    assert {feeds["foreground"].dtype for feeds in fed} == {np.dtype(np.float32)}
    assert set(fed[0]) == {
        "frames",
        "places",
        "foreground",
        *bundle.bank_feeds(bundle.route("nut")),
    }


def test_a_product_is_inspected_where_its_foreground_says_and_no_product_everywhere():
    half = np.repeat(np.array([[0], [1]], np.uint8), 4, axis=0) * np.ones(8, np.uint8)
    seen = foregrounds_to_bytes({"nut": half, "screw": everywhere((8, 8))})
    bundle = read_bundle(reader(packed(some_files(**{FOREGROUND: seen}))))

    nut, screw, every = (
        bundle.foreground(bundle.route(product), (8, 8)) for product in ("nut", "screw", None)
    )

    np.testing.assert_array_equal(nut, half)
    assert screw.all()
    assert every.all()


@pytest.mark.parametrize(
    ("mean", "route"), [(0, "nut"), (1, "screw"), (4, ANY_PRODUCT)], ids=["nut", "screw", "no"]
)
def test_a_frame_without_a_product_is_judged_as_what_it_looks_like(mean, route):
    bundle = read_bundle(reader(packed()))

    assert bundle.recognise(np.eye(D)[[mean] * 6]) is bundle.routes[route]
