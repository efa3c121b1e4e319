"""`docs/ledger.md` cannot drift, and an auditor gets along with it alone."""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge.cli import _parser
from edge.ledger import open_ledger
from edge.ledger_table import COLUMNS, FILE, FROM_VERSION_1, VERSION
from tests.edge.ledgers import entry, tamper, write_ledger
from tests.test_docs import DOCS, code_below, names, table_below

LEDGER = (DOCS / "ledger.md").read_text("utf-8")

CHAIN = code_below(LEDGER, "## Verify by hand", "python")
RECORDS = LEDGER.split("```python\n")[2].split("```")[0]


def by_hand(program: str, state_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", program, str(state_dir / FILE)],
        capture_output=True,
        text=True,
    )


def test_the_columns_are_those_of_the_table(tmp_path: Path) -> None:
    with open_ledger(tmp_path):
        pass

    listed = [tuple(row[:3]) for row in table_below(LEDGER, "## The table")]

    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        found = list(connection.execute("PRAGMA table_info(verdicts)"))
    assert listed == [
        (f"`{name}`", kind, "no" if needed or key else "yes")
        for _, name, kind, needed, _, key in found
    ]
    assert tuple(names(table_below(LEDGER, "## The table"))) == COLUMNS


def test_the_commands_are_those_of_the_program() -> None:
    listed = [
        name.removeprefix("dualbank-edge ")
        for name in names(table_below(LEDGER, "## The commands"))
    ]

    (verbs,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    (does,) = (
        action
        for action in verbs.choices["ledger"]._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    assert listed == [*(f"ledger {name}" for name in does.choices), "replay"]


@pytest.mark.parametrize(
    "said",
    [
        f"This is version {VERSION}.",
        f"`PRAGMA user_version` is {VERSION}.",
        f"`{FROM_VERSION_1}` for what an older ledger held",
        f"`{FILE}`",
    ],
)
def test_what_the_document_says_in_prose_is_so(said: str) -> None:
    assert said in LEDGER


def test_by_hand_a_ledger_that_nobody_touched_gives_the_head_that_the_station_has(
    tmp_path: Path,
) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record([entry(number, part="Ø") for number in range(1, 6)])

        done = by_hand(CHAIN, tmp_path)  # while the station runs

        assert done.stdout.strip() == f"5:{ledger.head.hex()}"
    assert by_hand(RECORDS, tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("program", "statement", "row"),
    [
        (CHAIN, "UPDATE verdicts SET record = zeroblob(9) WHERE station_seq = 3", 3),
        (CHAIN, "UPDATE verdicts SET received_unix_ns = 1 WHERE station_seq = 3", 3),
        (CHAIN, "DELETE FROM verdicts WHERE station_seq = 3", 4),
        (RECORDS, "UPDATE verdicts SET verdict = 'FAIL' WHERE station_seq = 3", 3),
    ],
)
def test_by_hand_the_first_row_that_is_wrong_is_found(
    tmp_path: Path, program: str, statement: str, row: int
) -> None:
    write_ledger(tmp_path, 5)
    tamper(tmp_path, statement)

    done = by_hand(program, tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith(f"row {row} ")
