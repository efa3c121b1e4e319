"""What looking at a machine finds: one thing each, how bad it is, and what to do about it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How bad a finding is."""

    FINE = "fine"
    LACKING = "lacking"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: Its name.
        state: `BROKEN` keeps a station from running as it is set; `LACKING` does not.
        found: What is there.
        remedy: What to do; empty if it is fine.
    """

    what: str
    state: State
    found: str
    remedy: str = ""


def user() -> str:
    """Name whoever runs this, for a remedy."""
    return os.environ.get("USER") or str(os.getuid())
