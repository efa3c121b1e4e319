"""One script a question; each writes what it found into `benchmarks/results`."""

BOXED = frozenset({"pcb"})
"""Categories whose masks are filled boxes, not outlines: their AUPRO is left out of means."""
