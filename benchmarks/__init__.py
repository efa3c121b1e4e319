"""One script a question; each writes what it found into `benchmarks/results`."""
