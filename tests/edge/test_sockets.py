"""Sockets: an address that cannot be bound is told with the reason and what to look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from edge.sockets import bind, context, socket
from inspection.errors import StationError


def test_an_address_that_is_taken_names_itself_and_who_may_have_it() -> None:
    with context() as owner, socket(owner, zmq.PULL, {}) as first:
        taken = bind(first, "tcp://127.0.0.1:*")

        with (
            socket(owner, zmq.PULL, {}) as second,
            pytest.raises(StationError) as caught,
        ):
            bind(second, taken)

    assert str(caught.value) == (
        f"cannot bind to {taken}: Address already in use; another station or another program has it"
    )


def test_an_ipc_path_without_its_folder_says_that_the_folder_must_be_there(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/missing/frames"

    with (
        context() as owner,
        socket(owner, zmq.PULL, {}) as opened,
        pytest.raises(StationError, match="No such file or directory; the folder of an ipc://"),
    ):
        bind(opened, address)


def test_an_address_of_another_machine_is_told_as_one() -> None:
    with (
        context() as owner,
        socket(owner, zmq.PULL, {}) as opened,
        pytest.raises(StationError, match="this machine has no such address"),
    ):
        bind(opened, "tcp://192.0.2.1:5555")  # for documentation, RFC 5737: nobody has it
