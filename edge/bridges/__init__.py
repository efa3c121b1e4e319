"""Bridges from a station's verdicts to what a plant speaks, each a process of its own."""
