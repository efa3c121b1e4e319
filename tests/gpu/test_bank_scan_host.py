"""The host side of the bank scan under the emulated driver, with the kernels themselves.

What waits for what is in `test_bank_scan_fences.py`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.scan_check import read_answers
from edge import bank_rows
from edge.bank_rows import BankShape
from edge.bank_scan import ScanShape, open_scan, splits_for
from edge.device import device_array, open_device, open_stream, page_locked
from edge.device_bank import open_bank
from inspection.errors import DeviceError, InputError
from tests.gpu.conftest import write_module
from tests.gpu.kernels_on_cpu import built
from tests.gpu.searches import int8_columns
from tests.gpu.station_banks import (
    CATEGORIES,
    POSITION,
    ROWS_EACH,
    SCORINGS,
    D,
    K,
    P,
    assert_answers,
    copied_out,
    make_bank,
    make_patches,
)

COLUMNS = (
    *("features", "valid", "category", "source", "position", "label", "admitted_unix_s", "hits"),
)


# --- answers ---


@pytest.mark.parametrize("precision", ["f16", "bf16", "f32"])
def test_both_banks_answer_as_inspection_does(any_schedule, station, precision):
    it, banks = station(precision=precision, frames=3), (make_bank(1), make_bank(2))
    asked, patches = ["screw", None, "cable"], make_patches(3, seed=3)

    it.load(*banks)
    it.ask(patches, asked)
    answers = it.read()

    assert_answers(answers, banks, patches, asked)
    if precision != "f32":
        # Else the exhaustive search hides what is wrong with the scan.
        assert [said["uncertified"][0] for said in answers] == [0, 0]


def test_an_int8_bank_is_the_bank_of_its_rounded_rows(any_schedule, device, station):
    it, bank = station(precision="s8", banks=1), make_bank(1)
    patches = make_patches(1, seed=3)
    it.load(bank)
    it.ask(patches, ["tile"])
    answers = it.read()

    assert "located" not in it.banks[0].arrays
    names = ("rows", "scale", "mean")
    rows, scale, mean = copied_out(device, *(it.banks[0].arrays[name] for name in names))
    rows = rows[:, int8_columns(it.banks[0].shape.padded)][:, : D + 2].astype(np.float64)
    rows = (rows * scale[:, None] + mean).astype(np.float32)
    # The rounded places take the part of features, so that nothing is placed any more.
    of = bank.rows_of("tile")
    asked = np.concatenate([patches, SCORINGS["tile"].position_weight * POSITION], axis=1)
    gaps = np.linalg.norm(asked[:, None] - rows[of].astype(np.float64), axis=2)
    gaps[:, ~bank.valid[of]] = np.inf
    expected = np.argsort(gaps, axis=1, kind="stable")[:, :K]
    np.testing.assert_array_equal(answers[0]["neighbours"], expected)
    np.testing.assert_allclose(
        answers[0]["distances"], np.take_along_axis(gaps, expected, axis=1), rtol=1e-5
    )


def test_a_bank_larger_than_the_staging_memory_arrives_whole(any_schedule, station, monkeypatch):
    monkeypatch.setattr(bank_rows, "STAGING_BYTES", 50 * 4 * (D + 2))
    it, banks = station(), (make_bank(1), make_bank(2))
    patches = make_patches(1, seed=3)

    it.load(*banks)
    it.ask(patches, [None])

    assert it.banks[0].shape.staged_rows == 50
    assert_answers(it.read(), banks, patches, [None])


def test_both_banks_are_searched_in_four_launches(driver, station):
    it = station()
    it.load(make_bank(1), make_bank(2))
    it.ask(make_patches(1, seed=3), [None])
    it.loading.synchronize()
    before = driver.counters().launches

    it.read()

    assert driver.counters().launches - before == 4


def test_patches_may_lie_where_a_network_writes_them_as_float16(device):
    bank, patches = make_bank(1), make_patches(1, seed=3).astype(np.float16)
    shape = BankShape(len(bank.features), D, placed=False)
    with ExitStack() as held:
        stream = held.enter_context(open_stream(device))
        theirs = held.enter_context(device_array(device, (P, D), np.float16))
        given = held.enter_context(page_locked(device, (P, D), np.float16))
        on_device = held.enter_context(open_bank(device, shape))
        scan_shape = ScanShape(1, P, K, half_patches=True)
        scan = held.enter_context(open_scan(device, [on_device], scan_shape, theirs))
        on_device.replace(stream, bank, SCORINGS)
        scan.aim(stream, [None], POSITION)
        given[:] = patches
        device.copy_in(stream, theirs, given)
        scan.scan(stream)
        (answers,) = read_answers(device, scan, stream)

    far = np.linalg.norm(patches.astype(float)[:, None] - bank.features[bank.valid], axis=2)
    np.testing.assert_allclose(answers["distances"][:, 0], far.min(axis=1), rtol=1e-5)


# --- what is refused ---


def test_a_bank_that_was_replaced_must_be_aimed_at_again(station):
    it = station()
    it.load(make_bank(1), make_bank(2))
    it.ask(make_patches(1, seed=3), [None])
    it.load(make_bank(5), make_bank(6))

    with pytest.raises(InputError, match=r"call aim\(\)"):
        it.scans[0].scan(it.streams[0])


def test_a_bank_without_rows_is_not_aimed_at(station):
    it = station()

    with pytest.raises(InputError, match="holds no rows yet"):
        it.scans[0].aim(it.streams[0], [None], POSITION)


def test_a_category_with_too_few_valid_rows_is_refused_and_others_are_not(station):
    it, bank = station(banks=1), make_bank(1)
    valid = bank.valid.copy()
    valid[bank.rows_of("screw")] = np.arange(ROWS_EACH) < K - 1
    it.load(replace(bank, valid=valid))

    with pytest.raises(InputError, match="between 1 and the 3 valid rows, got 4"):
        it.ask(make_patches(1, seed=3), ["screw"])
    it.ask(make_patches(1, seed=3), ["tile"])


def test_frames_of_no_known_product_are_refused_where_no_room_was_made_for_them(device):
    bank, shape = make_bank(1), BankShape(ROWS_EACH * len(CATEGORIES), D, placed=True)
    with ExitStack() as held:
        stream = held.enter_context(open_stream(device))
        one = held.enter_context(open_bank(device, shape))
        one.replace(stream, bank, SCORINGS)

        assert one.rows_of("tile", K) == bank.rows_of("tile")
        with pytest.raises(InputError, match="open it with any_product"):
            one.rows_of(None, K)
        stream.synchronize()


def test_a_category_without_constants_is_refused_and_the_old_rows_stay(station):
    it, bank, patches = station(banks=1), make_bank(1), make_patches(1, seed=3)
    it.load(bank)

    for lacking in ("screw", None):
        some = {name: each for name, each in SCORINGS.items() if name != lacking}
        with pytest.raises(InputError, match=f"got none for \\[{lacking!r}\\]"):
            it.banks[0].replace(it.loading, make_bank(5), some)
    it.ask(patches, ["tile"])

    assert_answers(it.read(), [bank], patches, ["tile"])


def test_a_bank_for_another_number_of_neighbours_is_not_aimed_at(station):
    it = station(banks=1)
    others = {name: replace(each, k=K + 1) for name, each in SCORINGS.items()}
    it.banks[0].replace(it.loading, make_bank(1), others)

    with pytest.raises(InputError, match="opened for k = 4"):
        it.scans[0].aim(it.streams[0], ["tile"], POSITION)


def test_a_category_that_nobody_knows_is_refused(station):
    it = station(banks=1)
    it.load(make_bank(1))

    with pytest.raises(InputError, match="'bottle' is not in this bank"):
        it.ask(make_patches(1, seed=3), ["bottle"])


def test_a_bank_of_another_capacity_is_refused_and_the_old_rows_stay(station):
    it, bank, patches = station(banks=1), make_bank(1), make_patches(1, seed=3)
    it.load(bank)
    smaller = replace(
        bank,
        **{name: getattr(bank, name)[:-1] for name in COLUMNS},
    )

    with pytest.raises(InputError, match="never changes its capacity"):
        it.load(smaller)
    it.ask(patches, [None])

    assert_answers(it.read(), [bank], patches, [None])


def test_other_numbers_of_frames_or_patches_are_refused(station):
    it = station(banks=1)
    it.load(make_bank(1))

    with pytest.raises(InputError, match="expected 1 categories"):
        it.scans[0].aim(it.streams[0], [None, None], POSITION)
    with pytest.raises(InputError, match="expected 1 categories"):
        it.scans[0].aim(it.streams[0], [None], POSITION[:-1])


@pytest.mark.parametrize(
    ("precisions", "shape", "expected"),
    [
        (["f16"], ScanShape(1, P, 17), "1 to 16 neighbours, got k = 17"),
        (["f16"], ScanShape(1, P, 0), "1 to 16 neighbours, got k = 0"),
        (["f16", "s8"], ScanShape(1, P, K), "of one D and precision"),
        (["f16"] * 3, ScanShape(1, P, K), "one or two banks"),
        (["f16"], ScanShape(0, P, K), "at least one frame"),
    ],
)
def test_what_the_kernels_cannot_search_is_refused(device, precisions, shape, expected):
    with ExitStack() as held:
        banks = [
            held.enter_context(open_bank(device, BankShape(9, D, True, precision)))
            for precision in precisions
        ]

        with pytest.raises(InputError, match=expected), open_scan(device, banks, shape):
            pytest.fail("opened")


def test_bfloat16_is_refused_where_the_chip_does_not_know_it(driver, tmp_path):
    driver.be(capability=(7, 5))
    folder = write_module(tmp_path, built(750))

    with (
        open_device(kernels=folder) as device,
        pytest.raises(DeviceError, match="keep the bank"),
        open_bank(device, BankShape(9, D, True, "bf16")),
    ):
        pytest.fail("opened")


def test_a_search_that_finds_no_room_gives_back_what_it_took(driver, kernels_folder):
    driver.be(memory_bytes=1 << 20)
    with open_device(kernels=kernels_folder) as device, ExitStack() as held:
        bank = held.enter_context(open_bank(device, BankShape(50, D, True)))
        before = driver.counters()

        with (
            pytest.raises(DeviceError, match="not enough memory"),
            open_scan(device, [bank], ScanShape(8, 1000, K)),
        ):
            pytest.fail("opened")

        assert driver.counters() == before


@pytest.mark.parametrize(
    ("multiprocessors", "patches", "rows", "splits"),
    [
        (4, 64, 100, 1),  # too few rows to share
        (4, 64, 16_384, 8),  # two blocks a multiprocessor
        (4, 65, 16_384, 4),
        (132, 784, 2_048, 4),  # a split keeps four tiles
        (1, 4_096, 65_536, 2),  # more rows than a split can count
    ],
)
def test_splits_fill_the_chip_about_once(
    driver, kernels_folder, multiprocessors, patches, rows, splits
):
    driver.be(multiprocessors=multiprocessors)

    with open_device(kernels=kernels_folder) as device:
        assert splits_for(device, ScanShape(1, patches, K), rows, searches=1) == splits


def test_every_category_is_a_range_of_its_own():
    bank = make_bank(1)

    assert [bank.rows_of(name).start for name in CATEGORIES] == [0, ROWS_EACH, 2 * ROWS_EACH]
