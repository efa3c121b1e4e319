"""Labelled scores to measure, and how exactly a fast metric must agree with a slow one."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

# Both sides add at most some thousand float64 terms in [0, 1]: rounding stays far below this.
EXACT = 1e-12

# Seeded by the test itself, and nothing is written beside the tests.
claim = settings(derandomize=True, database=None, deadline=None, max_examples=100)


@st.composite
def parts(draw):
    """Scores (N,) and labels (N,) with both classes; few distinct values, so ties abound."""
    n = draw(st.integers(2, 30))
    # Small integers: sums and products with small integers are exact, so ties stay ties.
    scores = draw(st.lists(st.integers(-8, 8), min_size=n, max_size=n))
    defects = draw(st.integers(1, n - 1))
    is_defect = draw(st.permutations([True] * defects + [False] * (n - defects)))
    return np.array(scores, np.float64), np.array(is_defect)


def random_parts(seed, ties):
    """Scores (N,) and labels (N,), both classes, overlapping more or less."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 400))
    is_defect = rng.random(n) < rng.uniform(0.05, 0.6)
    is_defect[:2] = True, False
    scores = rng.normal(size=n) + is_defect * rng.uniform(0, 3)
    return (np.round(scores) if ties else scores), is_defect


def random_maps(seed, ties, images=5):
    """Maps in [0, 1] with rectangles of very different size; the last image is a good part."""
    rng = np.random.default_rng(seed)
    maps, regions = [], []
    for image in range(images):
        region = np.zeros((37, 53), np.int32)
        if image < images - 1:
            region[1:3, 2:5] = 1  # 6 pixels
            region[10 : 20 + image, 8:30] = 2  # 220 pixels and more
            region[30:31, 40:52] = 3  # 12 pixels
        scores = rng.beta(2, 5, region.shape)
        scores[region > 0] = rng.beta(4, 4, int((region > 0).sum()))
        maps.append((np.round(scores * 8) / 8 if ties else scores).astype(np.float32))
        regions.append(region)
    return maps, regions
