"""The demonstration that `make demo` runs; not a part of the product."""
