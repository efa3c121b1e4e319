"""Addresses for a station of a test: every one free, so that any number of stations can run."""

FREE = "tcp://127.0.0.1:*"

FREE_ADDRESSES = {
    **{key: FREE for key in ("cameras", "frames", "verdicts", "catch_up", "reject")},
    "http": "127.0.0.1:0",
}
"""By setting."""
