"""What a bundle says of the labelled images it learned from, and what is not believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from inspection.errors import BundleError
from inspection.lineage import (
    NOTHING_LABELLED,
    LearnedImage,
    Lineage,
    lineage_from_bytes,
    lineage_to_bytes,
)

ENTRY = {
    "category": "bolt",
    "name": "Größe 1.png",
    "defect": "scratch",
    "sha256": "ab" * 32,
    "regions": "mask",
}


def written(*entries: Any) -> bytes:
    return json.dumps({"labelled": list(entries)}).encode()


def test_a_record_comes_back_as_it_was_written() -> None:
    lineage = Lineage(
        labelled=(LearnedImage(**ENTRY), LearnedImage(**ENTRY | {"sha256": "cd" * 32}))
    )

    assert lineage_from_bytes(lineage_to_bytes(lineage)) == lineage
    assert lineage.digests == {"ab" * 32, "cd" * 32}


def test_nothing_labelled_is_an_empty_list() -> None:
    assert json.loads(lineage_to_bytes(NOTHING_LABELLED)) == {"labelled": []}
    assert lineage_from_bytes(b'{"labelled": []}').digests == frozenset()


@pytest.mark.parametrize("regions", ["mask", "boxes", "image"])
def test_a_defect_is_outlined_in_one_of_three_ways(regions: str) -> None:
    (image,) = lineage_from_bytes(written(ENTRY | {"regions": regions})).labelled

    assert image.regions == regions


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", "no JSON|Invalid|JSON", id="empty"),
        pytest.param(b"{", "JSON", id="cut short"),
        pytest.param(b"\xff\xfe\x00", "JSON", id="bytes"),
        pytest.param(b"[" * 100_000, "JSON", id="deep"),
        pytest.param(b"[]", "not labelled images", id="a list"),
        pytest.param(b"{}", "labelled: Field required", id="no list"),
        pytest.param(b'{"labelled": [], "more": 1}', "more: Extra", id="unknown key"),
        pytest.param(b'{"labelled": [], "labelled": []}', "twice", id="twin keys"),
        pytest.param(written({**ENTRY, "sha256": "AB" * 32}), "labelled.0.sha256", id="capitals"),
        pytest.param(written({**ENTRY, "sha256": "ab" * 31}), "labelled.0.sha256", id="short"),
        pytest.param(written({**ENTRY, "regions": "lines"}), "labelled.0.regions", id="regions"),
        pytest.param(written({**ENTRY, "name": 3}), "labelled.0.name", id="type"),
        pytest.param(written({**ENTRY, "when": "now"}), "labelled.0.when", id="unknown field"),
        pytest.param(written(ENTRY, ENTRY), "there twice", id="same image twice"),
        *(
            pytest.param(
                written({key: value for key, value in ENTRY.items() if key != missing}),
                f"labelled.0.{missing}: Field required",
                id=f"no {missing}",
            )
            for missing in ENTRY
        ),
    ],
)
def test_what_is_no_record_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        lineage_from_bytes(data)


def test_a_record_cannot_be_made_with_a_wrong_digest() -> None:
    with pytest.raises(ValidationError):
        LearnedImage(**ENTRY | {"sha256": "../x"})
