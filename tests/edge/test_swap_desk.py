"""What may be asked of a station that swaps, when, and where: over its control socket."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from edge.control import (
    MOST_SOCKET_PATH,
    ControlSocket,
    ask_station,
    control_address,
)
from edge.settings import StationSettings
from edge.sockets import context
from edge.swap_desk import AbortedError, SwapDesk
from inspection.control_messages import (
    ControlRequest,
    Step,
    SwapState,
    decode_reply,
    encode,
)
from inspection.errors import StationError
from tests.edge.open_station import open_sockets

SWAP = ControlRequest(ask="swap", bundle="/somewhere")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(clock: Clock) -> SwapDesk:
    return SwapDesk(SwapState(running="a" * 64, previous="b" * 64), clock)


def asked(desk: SwapDesk, ask: str) -> str | None:
    """Why it is refused; None if it is granted."""
    return desk.ask(ControlRequest(ask=ask)).why  # type: ignore[arg-type]


# --- what is granted ---


def test_a_swap_that_is_granted_is_under_way_at_once_and_another_is_refused(
    desk: SwapDesk,
) -> None:
    first = desk.ask(SWAP)
    second = desk.ask(ControlRequest(ask="swap", bundle="/another"))

    assert (first.granted, first.state.step, first.state.source) == (
        True,
        "verifying",
        "/somewhere",
    )
    assert not second.granted
    assert "another swap is under way, of /somewhere, in step verifying" in str(second.why)
    assert desk.take() == SWAP


def test_a_path_that_means_something_else_to_the_station_is_refused(desk: SwapDesk) -> None:
    reply = desk.ask(ControlRequest(ask="swap", bundle="here"))

    assert "absolute path" in str(reply.why)
    assert desk.state().step == "idle"


GRANTED: dict[str, set[str]] = {
    "status": {"idle", "verifying", "shadow", "activating", "probation", "steady", "refused"},
    "activate": {"shadow"},
    "abort": {"verifying", "shadow"},
    "rollback": {"idle", "probation", "steady", "refused"},
    "swap": {"idle", "steady", "refused"},
}
STEPS: tuple[Step, ...] = (
    *("idle", "verifying", "shadow", "activating", "probation", "steady", "refused"),
)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("ask", GRANTED)
def test_what_is_granted_depends_on_the_step(desk: SwapDesk, step: Step, ask: str) -> None:
    desk.enter(step)

    request = SWAP if ask == "swap" else ControlRequest(ask=ask)  # type: ignore[arg-type]
    assert desk.ask(request).granted == (step in GRANTED[ask])


def test_a_rollback_to_nothing_is_refused() -> None:
    desk = SwapDesk(SwapState(running="a" * 64))

    assert asked(desk, "rollback") == "there is no bundle to go back to"


def test_an_abort_that_was_granted_keeps_the_bundle_from_taking_over(desk: SwapDesk) -> None:
    desk.ask(SWAP)
    desk.enter("shadow")

    granted = asked(desk, "abort") is None

    assert granted
    with pytest.raises(AbortedError, match="by request"):
        desk.go_on()
    with pytest.raises(AbortedError):
        desk.enter("activating")
    desk.enter("refused")
    desk.ask(SWAP)
    desk.go_on()


def test_a_rollback_granted_as_the_probation_ends_is_done_all_the_same(desk: SwapDesk) -> None:
    desk.enter("probation")

    granted = asked(desk, "rollback") is None
    desk.enter("steady")

    assert granted
    assert desk.state().step == "activating"
    request = desk.take()
    assert request is not None
    assert request.ask == "rollback"


def test_a_desk_that_is_closed_grants_nothing_and_lets_its_thread_end(desk: SwapDesk) -> None:
    desk.close()

    assert desk.ask(SWAP).why == "the station is stopping"
    assert desk.take() is None
    with pytest.raises(AbortedError, match="stopping"):
        desk.go_on()


def test_steps_that_were_gone_through_are_timed(desk: SwapDesk, clock: Clock) -> None:
    desk.ask(SWAP)
    clock.now_s = 1.5
    desk.enter("loading")
    clock.now_s = 1.75
    desk.enter("refused", why="so")
    clock.now_s = 100.0
    desk.ask(SWAP)
    new = desk.state()

    desk.enter("refused")

    assert new.took_s == {}
    assert new.why is None
    assert desk.state().took_s == {"verifying": 0.0}


# --- the socket ---


@pytest.fixture
def served(desk: SwapDesk, tmp_path: Path) -> Iterator[ControlSocket]:
    with open_sockets(settings := StationSettings(state_dir=tmp_path)) as sockets:
        control = ControlSocket(sockets, settings, desk.ask)
        with control.running():
            yield control


def test_requests_are_answered_with_the_state(served: ControlSocket) -> None:
    granted = ask_station(served.address, SWAP, 10.0)
    refused = ask_station(served.address, SWAP, 10.0)

    assert granted.granted
    assert granted.state.step == "verifying"
    assert not refused.granted
    assert refused.state == granted.state


def test_only_its_owner_can_open_the_socket(served: ControlSocket) -> None:
    mode = Path(served.address.removeprefix("ipc://")).stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x80",
        encode(SWAP).replace(b"swap", b"swop"),
        encode(SWAP).replace(b"margin", b"morgin"),
        encode(ControlRequest(ask="status")).replace(b"status", b"swap\xc0\xc0"),
    ],
    ids=["empty", "no msgpack", "no fields", "no such word", "no such term", "trailing"],
)
def test_what_is_no_request_is_told_so_and_changes_nothing(
    served: ControlSocket, desk: SwapDesk, data: bytes
) -> None:
    with context() as owner, owner.socket(zmq.REQ) as asking:
        asking.linger = 0
        asking.connect(served.address)
        asking.send(data)

        assert asking.poll(10_000)
        reply = decode_reply(asking.recv())

    assert not reply.granted
    assert reply.why
    assert desk.state().step == "idle"
    assert ask_station(served.address, ControlRequest(ask="status"), 10.0).granted


def test_parts_that_no_client_sends_do_no_harm(served: ControlSocket) -> None:
    with context() as owner, owner.socket(zmq.DEALER) as odd:
        odd.linger = 0
        odd.connect(served.address)
        odd.send_multipart([b"a", b"b", b"c", encode(ControlRequest(ask="status"))])

        assert odd.poll(10_000)
        assert decode_reply(odd.recv_multipart()[-1]).granted


def test_a_station_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StationError, match=r"no station runs there: .*control is missing"):
        ask_station(control_address(tmp_path), ControlRequest(ask="status"), 10.0)


def test_a_station_that_does_not_answer_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "control").touch()  # what a crash leaves

    with pytest.raises(StationError, match=r"no answer from .* within 0.05 s"):
        ask_station(control_address(tmp_path), ControlRequest(ask="status"), 0.05)


def test_a_path_that_no_socket_can_have_is_refused_with_the_remedy(tmp_path: Path) -> None:
    most = MOST_SOCKET_PATH - len("/control")
    fits = Path("/" + "x" * (most - 1))

    assert control_address(fits) == f"ipc://{fits}/control"
    with pytest.raises(StationError, match=r"at most 107 bytes.* has 108; choose a shorter"):
        control_address(Path("/" + "x" * most))


def test_what_a_crash_left_in_the_way_of_the_socket_is_no_obstacle(
    desk: SwapDesk, tmp_path: Path
) -> None:
    for _ in range(2):
        with open_sockets(settings := StationSettings(state_dir=tmp_path)) as sockets:
            control = ControlSocket(sockets, settings, desk.ask)
            with control.running():
                assert ask_station(control.address, ControlRequest(ask="status"), 10.0).granted
        (tmp_path / "control").touch()


def test_a_station_may_be_asked_at_an_address_of_its_own(desk: SwapDesk, tmp_path: Path) -> None:
    settings = StationSettings(state_dir=tmp_path, control="tcp://127.0.0.1:*")
    with open_sockets(settings) as sockets:
        control = ControlSocket(sockets, settings, desk.ask)
        with control.running():
            assert ask_station(control.address, ControlRequest(ask="status"), 10.0).granted
    assert not (tmp_path / "control").exists()
