"""The GPU kernels and what the host must know of them: see README.md beside this file."""
