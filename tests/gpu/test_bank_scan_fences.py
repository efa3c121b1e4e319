"""What the bank scan waits for: right with every synchronisation, wrong without any one of them.

Under the emulated driver with the kernels themselves. Each kind of synchronisation is shown to be
needed by leaving it out.
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack

import numpy as np
import pytest

from benchmarks.scan_check import read_answers
from edge import bank_rows
from edge.bank_rows import BankShape
from edge.bank_scan import ScanShape, open_scan
from edge.device import open_stream, page_locked
from edge.device_bank import open_bank
from tests.gpu.emulated_driver import OTHERS_FIRST, WHEN_WAITED_FOR
from tests.gpu.station_banks import (
    POSITION,
    SCORINGS,
    D,
    K,
    P,
    assert_answers,
    copied_out,
    make_bank,
    make_patches,
    truth,
    wrong,
)

# --- slots and swaps: with their synchronisation right, without it wrong ---


def in_two_slots(it, frames, banks, *, synchronised: bool) -> int:
    """Score frames in two slots in turn; how many came out wrong."""
    bad, waiting = 0, {}
    for n, patches in enumerate(frames):
        slot = n % 2
        if slot in waiting:
            bad += wrong(it.read(slot), banks, waiting.pop(slot), ["cable"])
        it.ask(patches, ["cable"], slot)
        if not synchronised:
            it.given[slot][:] = 0.0  # The camera writes its next frame.
        waiting[slot] = patches
    return bad + sum(wrong(it.read(s), banks, patches, ["cable"]) for s, patches in waiting.items())


@pytest.mark.parametrize(("synchronised", "bad"), [(True, 0), (False, 5)])
def test_two_slots_keep_their_frames_apart(station, synchronised, bad):
    it, banks = station(slots=2), (make_bank(1), make_bank(2))
    it.load(*banks)
    frames = [make_patches(1, seed) for seed in range(5)]

    assert in_two_slots(it, frames, banks, synchronised=synchronised) == bad


def test_slots_agree_in_every_order(any_schedule, station):
    it, banks = station(slots=2), (make_bank(1), make_bank(2))
    it.load(*banks)
    frames = [make_patches(1, seed) for seed in range(3)]

    assert in_two_slots(it, frames, banks, synchronised=True) == 0


def swap_under_way(it, old, new, patches) -> list:
    """Put a search and then a swap on two streams, and wait for the swap first."""
    it.load(*old)
    it.ask(patches, [None])
    it.load(*new)
    it.loading.synchronize()
    return it.read()


def test_a_swap_waits_for_the_search_that_is_under_way(any_schedule, station):
    old, new = (make_bank(1), make_bank(2)), (make_bank(5), make_bank(6))
    it, patches = station(), make_patches(1, seed=3)

    assert_answers(swap_under_way(it, old, new, patches), old, patches, [None])


def test_a_swap_that_does_not_wait_ruins_the_search_that_is_under_way(station):
    old, new = (make_bank(1), make_bank(2)), (make_bank(5), make_bank(6))
    it, patches = station(), make_patches(1, seed=3)
    for bank in it.banks:
        bank.fence.readers = []

    assert wrong(swap_under_way(it, old, new, patches), old, patches, [None])


@pytest.mark.parametrize("schedule", [WHEN_WAITED_FOR, OTHERS_FIRST])
def test_a_search_waits_for_the_rows(driver, station, schedule):
    driver.set_schedule(schedule)
    it, banks = station(), (make_bank(1), make_bank(2))
    patches = make_patches(1, seed=3)
    it.load(*banks)
    it.ask(patches, [None])

    assert_answers(it.read(), banks, patches, [None])


def test_a_search_that_does_not_wait_for_the_rows_misses_them(station):
    it, old, new = station(), (make_bank(1), make_bank(2)), (make_bank(5), make_bank(6))
    patches = make_patches(1, seed=3)
    it.load(*old)
    it.loading.synchronize()
    it.ask(patches, [None])
    it.streams[0].synchronize()
    it.load(*new)
    it.scans[0].aim(it.streams[0], [None], POSITION)
    it.scans[0].launch(it.streams[0])  # scan(), but for its fences

    answers = it.read()

    assert wrong(answers, new, patches, [None])


def test_answers_read_without_waiting_for_the_search_are_not_the_answers(device, station):
    it, banks = station(), (make_bank(1), make_bank(2))
    patches = make_patches(1, seed=3)
    it.load(*banks)
    it.ask(patches, [None])

    distances, evidence = copied_out(
        device, it.scans[0].answers[0].distances, it.scans[0].answers[0].evidence
    )

    assert np.isnan(distances).all()
    assert np.isnan(evidence).all()


class NeverWaits:
    """An event that says it has happened."""

    def __init__(self, event) -> None:
        self.borrowed, self.record = event.borrowed, event.record
        self.synchronize = event.synchronize

    def wait(self):
        return None


def aimed_twice(it, patches):
    """Search "screw", and aim at "tile" before it has begun; the evidence of the search."""
    it.ask(patches, ["screw"])
    with page_locked(it.device, (P,), np.float32) as room:
        it.device.copy_out(it.streams[0], room, it.scans[0].answers[0].evidence)
        it.scans[0].aim(it.streams[0], ["tile"], POSITION)
        it.streams[0].synchronize()
        return room.copy()


@pytest.mark.parametrize("waits", [True, False])
def test_an_aim_waits_for_the_aim_before_it_or_turns_that_search_aside(station, waits):
    it, bank, patches = station(banks=1), make_bank(1), make_patches(1, seed=3)
    it.load(bank)
    if not waits:
        it.scans[0]._aimed = NeverWaits(it.scans[0]._aimed)

    evidence = aimed_twice(it, patches)

    expected = truth(bank, patches, "screw", placed=True)[2]
    assert np.allclose(evidence, expected, rtol=1e-5) == waits


def test_rows_that_do_not_wait_for_the_staging_memory_are_lost(station, monkeypatch):
    monkeypatch.setattr(bank_rows, "STAGING_BYTES", 50 * 4 * (D + 2))
    it, bank, patches = station(banks=1), make_bank(1), make_patches(1, seed=3)
    it.banks[0]._sent = NeverWaits(it.banks[0]._sent)

    it.load(bank)
    it.ask(patches, [None])

    assert wrong(it.read(), [bank], patches, [None])


def test_leaving_in_the_middle_of_a_search_waits_for_it(driver, device):
    bank, shape = make_bank(1), ScanShape(1, P, K)
    with ExitStack() as held:
        stream = held.enter_context(open_stream(device))
        one = held.enter_context(open_bank(device, BankShape(len(bank.features), D, placed=True)))
        scan = held.enter_context(open_scan(device, [one], shape))
        device.zero(stream, scan.patches)
        one.replace(stream, bank, SCORINGS)
        scan.aim(stream, ["tile"], POSITION)
        scan.scan(stream)
    # The fixtures look at what is left, and at whether the context is whole.


def test_leaving_in_the_middle_of_a_swap_waits_for_it(driver, device):
    bank = make_bank(1)
    with ExitStack() as held:
        stream = held.enter_context(open_stream(device))
        one = held.enter_context(open_bank(device, BankShape(len(bank.features), D, placed=True)))
        one.replace(stream, bank, SCORINGS)


def test_answers_may_be_read_on_another_stream(any_schedule, station):
    it, banks = station(), (make_bank(1), make_bank(2))
    patches = make_patches(1, seed=3)
    it.load(*banks)
    it.ask(patches, [None])

    answers = read_answers(it.device, it.scans[0], it.loading)

    assert_answers(answers, banks, patches, [None])


def test_a_captured_search_sees_the_rows_that_were_swapped_in(driver, station):
    old, new = (make_bank(1), make_bank(2)), (make_bank(5), make_bank(6))
    it, patches = station(), make_patches(1, seed=3)
    it.load(*old)
    it.ask(patches, [None])
    it.read()
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    stream, cuda = ctypes.c_void_p(it.streams[0].handle), driver.library
    assert cuda.cuStreamBeginCapture_v2(stream, 1) == 0
    it.scans[0].launch(it.streams[0])
    assert cuda.cuStreamEndCapture(stream, ctypes.byref(graph)) == 0
    assert cuda.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_uint64()) == 0

    it.load(*new)
    it.scans[0].aim(it.streams[0], [None], POSITION)
    for bank in it.banks:
        it.streams[0].wait_for(bank.fence.ready)
    assert cuda.cuGraphLaunch(executable, stream) == 0
    it.scans[0].done.record(it.streams[0])
    answers = it.read()
    assert cuda.cuGraphExecDestroy(executable) == cuda.cuGraphDestroy(graph) == 0

    assert_answers(answers, new, patches, [None])
