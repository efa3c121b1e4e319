"""BENCHMARKS.md, one module a section: each turns a result into Markdown, without its heading."""
