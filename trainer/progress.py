"""Progress bars of long work, on standard error, so that reports can be piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars


@dataclass(frozen=True, slots=True)
class Progress:
    """Shows one bar for each piece of work, or nothing.

    Attributes:
        shown: Whether anything is drawn. Where standard error is no terminal, a bar is one line,
            when it is done.
    """

    shown: bool = True

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that is told how much was done since it was last told."""
        if not self.shown:
            yield lambda done: None
            return
        with Bars(
            TextColumn("{task.description:<26}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as bars:
            bar = bars.add_task(name, total=total)
            yield lambda done: bars.advance(bar, done)
