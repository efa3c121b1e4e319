"""What the trunk promises of its patch features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.features import extract
from trainer.trunk import LENGTH_BATCH, SOFTNESS, Trunk, lengths, to_planes


def frames(count: int, size_px: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, size_px, size_px, 3), generator=generator).to(torch.uint8)


@pytest.mark.parametrize(("count", "size_px"), [(1, 32), (3, 48), (2, 80)])
def test_there_is_one_feature_for_every_eight_by_eight_pixels(
    trunk: Trunk, count: int, size_px: int
) -> None:
    found = extract(trunk, frames(count, size_px).numpy())

    assert found.shape == (count, (size_px // 8) ** 2, 40 + 80 + 112 + 192)
    assert found.dtype == np.float32


def test_no_feature_is_longer_than_one_and_none_of_a_picture_is_nothing(trunk: Trunk) -> None:
    blank = torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)

    found = extract(trunk, torch.cat([frames(2, 64), blank]).numpy())

    length = np.linalg.norm(found, axis=2)
    assert length.max() <= 1.0 + 1e-6  # a float32 sum of 424 squares
    assert length.min() > 0.1


def test_a_frame_has_the_same_features_alone_and_among_others(trunk: Trunk) -> None:
    batch = frames(5, 48).numpy()

    together = extract(trunk, batch)
    alone = np.concatenate([extract(trunk, frame[None]) for frame in batch])

    # Another batch size may choose another convolution, which sums in another order.
    assert np.abs(together - alone).max() < 1e-5


def test_patches_go_row_by_row(trunk: Trunk) -> None:
    left = np.full((1, 64, 64, 3), 90, np.uint8)
    marked = left.copy()
    marked[:, 48:56, 8:16] = 255

    moved = np.linalg.norm(extract(trunk, marked)[0] - extract(trunk, left)[0], axis=1)

    row, column = divmod(int(moved.argmax()), 8)
    assert abs(row - 6) <= 1
    assert abs(column - 1) <= 1


def test_usual_lengths_are_those_of_the_good_frames(trunk: Trunk) -> None:
    fresh = Trunk(trunk.backbone).eval()
    shown = frames(LENGTH_BATCH + 3, 48)  # more than one batch, and a broken one

    fresh.learn_lengths(shown)

    with torch.inference_mode():
        maps = fresh.backbone(to_planes(shown))
    expected = torch.stack([lengths(layer).mean() for layer in maps])
    assert torch.allclose(fresh.usual_length, expected, rtol=1e-5)
    assert len(fresh.usual_length) == 4


def test_what_is_weak_stays_weak(trunk: Trunk) -> None:
    fresh = Trunk(trunk.backbone).eval()
    shown = frames(2, 48).numpy()
    unscaled = np.linalg.norm(extract(fresh, shown), axis=2)

    fresh.learn_lengths(torch.from_numpy(shown))
    scaled = np.linalg.norm(extract(fresh, shown), axis=2)

    # ‖x‖ / (‖x‖ + m/2) is 2/3 at the usual length m, where directions alone are of length 1.
    assert np.allclose(unscaled, 1.0, atol=1e-3)
    assert np.median(scaled) == pytest.approx(1 / (1 + SOFTNESS), abs=0.05)
