"""What `make gpu` asks of a GPU, asked of the emulated one; and a wrong answer does not pass."""

from __future__ import annotations

import numpy as np

from benchmarks import scan_check
from edge.device import open_device


def checked(monkeypatch, kernels_folder):
    monkeypatch.setattr(scan_check, "SHAPES", scan_check.SHAPES[:2])
    with open_device(kernels=kernels_folder) as device:
        return scan_check.held_to_float64(device)


def test_every_precision_agrees_with_float64(driver, kernels_folder, monkeypatch):
    found = checked(monkeypatch, kernels_folder)

    assert {each["precision"] for each in found} == set(scan_check.PRECISIONS)
    assert all(each["right"] for each in found)


def test_a_wrong_row_and_a_wrong_residual_are_seen(driver, kernels_folder, monkeypatch):
    read = scan_check.read_answers

    def spoiled(*asked):
        (answer,) = read(*asked)
        if answer["neighbours"].shape[1] > 1:
            answer["neighbours"] = np.roll(answer["neighbours"], 1, axis=0)
        else:
            answer["residual"] = answer["residual"] + 1e-2
        return [answer]

    monkeypatch.setattr(scan_check, "read_answers", spoiled)

    assert not any(each["right"] for each in checked(monkeypatch, kernels_folder))
