"""The CUDA-on-CPU shim does what a chip does, and complains of what a chip leaves undefined."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from edge.kernels import arguments
from tests.gpu.kernels_on_cpu import SHIM, Buffers, KernelError, built, kernels_for, record


@pytest.fixture(scope="module")
def faulty():
    library = ctypes.CDLL(str(built(900, source=SHIM / "faulty_kernels.cpp")))
    library.run_faulty.restype = ctypes.c_char_p

    def run(which, order=0):
        numbers, out = np.arange(256, dtype=np.int32), np.full(256, -7, np.int32)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (numbers, out)]
        return library.run_faulty(which, *pointers, order).decode(), out

    return run


PASSED_ON = (np.arange(64) + 33) % 64
TURNED = np.arange(256).reshape(64, 4)[::-1].ravel()


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_a_barrier_makes_every_order_right(faulty, order):
    said, out = faulty(0, order)

    assert said == ""
    assert (out[:64] == PASSED_ON).all()


def test_without_the_barrier_some_order_is_wrong(faulty):
    assert any((faulty(1, order)[1][:64] != PASSED_ON).any() for order in (0, 1, 2, 5))


def test_a_copy_has_come_once_it_was_waited_for_and_not_before(faulty):
    assert (faulty(2)[1] == TURNED).all()
    assert (faulty(3)[1] == -1).all(), "poison"


@pytest.mark.parametrize(
    ("which", "complaint"),
    [
        pytest.param(4, "not all lanes", id="half a warp waits for the block"),
        pytest.param(5, "not all lanes", id="a shuffle without all lanes"),
        pytest.param(6, "not all lanes", id="two instructions at once"),
        pytest.param(7, "past the end of shared memory", id="shared memory is overrun"),
        pytest.param(8, "wait at a barrier", id="a warp left before the barrier"),
        pytest.param(9, "stopped itself", id="a trap"),
    ],
)
def test_what_a_chip_leaves_undefined_is_an_error(faulty, which, complaint):
    assert complaint in faulty(which)[0]


def test_halves_are_rounded_as_ieee_says():
    library = kernels_for((8, 6)).library
    every = np.arange(65536, dtype=np.uint16)
    finite = every[np.isfinite(every.view(np.float16))]
    exact = finite.view(np.float16).astype(np.float32)
    # And points between neighbours: ties, and a little to either side of them.
    rng = np.random.default_rng(0)
    some = rng.choice(finite[:-1], 2000).view(np.float16).astype(np.float64)
    ulp = np.spacing(np.abs(some).astype(np.float16)).astype(np.float64)
    steps = np.concatenate([some + share * ulp for share in (0.25, 0.5, 0.500001, 0.75)])
    steps = steps.astype(np.float32)[np.abs(steps) <= 65504]
    numbers = np.concatenate([exact[::7], steps])

    rounded = [library.half_of(ctypes.c_float(x)) & 0xFFFF for x in numbers]

    assert (np.array(rounded, np.uint16) == numbers.astype(np.float16).view(np.uint16)).all()
    widened = [library.of_half(ctypes.c_ushort(int(bits))) for bits in finite[::7]]
    assert (np.array(widened, np.float32) == exact[::7]).all()


def test_bfloat16_is_the_nearest_number_of_16_bits():
    library = kernels_for((8, 6)).library
    rng = np.random.default_rng(0)
    numbers = np.concatenate([rng.standard_normal(500) * 10.0**e for e in range(-30, 31, 10)])
    numbers = numbers.astype(np.float32)

    bits = np.array([library.brain_of(ctypes.c_float(x)) & 0xFFFF for x in numbers], np.uint32)

    # 8 bits of precision: half a unit in the last place is 2^-8 of the number at most. Cutting bits
    # off instead would be off by up to 2^-7.
    off = np.abs((bits << 16).view(np.float32).astype(np.float64) - numbers)
    assert (off <= 2.0**-8 * np.abs(numbers)).all()


def test_an_argument_of_another_size_is_refused():
    with pytest.raises(KernelError, match="prepare_rows_f16 takes"):
        kernels_for((8, 6)).launch("prepare_rows_f16", np.zeros((), arguments.BLUR), (1,), (256,))


def test_the_scan_of_another_chip_is_refused():
    task = record(arguments.SEARCHES, searches=1, frames=1, patches=1)

    with pytest.raises(KernelError, match="stopped itself"):
        kernels_for((8, 6)).launch("scan_f16", task, (1, 1, 1), (256,), 60_000)


def test_a_write_beyond_an_array_is_found():
    buffers = Buffers()
    inside = buffers.hold(np.zeros(3, np.float32))
    ctypes.memset(inside.ctypes.data + inside.nbytes, 0, 1)

    with pytest.raises(KernelError, match="beyond"):
        buffers.check()
