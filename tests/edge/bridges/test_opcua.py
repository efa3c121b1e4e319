"""OPC UA: the newest state, Bad when nobody speaks for it, and only for whom it is meant."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from edge.bridges.latest import MOST_CAMERAS, Latest
from edge.bridges.serving import NAMESPACE, Serving
from edge.cli import main
from inspection.errors import StationError
from inspection.verdicts import Reason, Verdict
from tests.edge.bridges.certificates import make_certificate
from tests.edge.bridges.mosquitto import free_port
from tests.edge.bridges.processes import BridgeProcess, bridging
from tests.edge.published_station import BUNDLE, PATIENCE_S, FakeStation, verdict


@pytest.fixture
def station() -> Iterator[FakeStation]:
    with FakeStation() as started:
        yield started


@pytest.fixture
def endpoint() -> str:
    return f"opc.tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def bridge(station: FakeStation, endpoint: str) -> Iterator[BridgeProcess]:
    with bridging("opcua", station, "--endpoint", endpoint) as started:
        started.says("bridge ready")
        yield started


@asynccontextmanager
async def connected(endpoint: str) -> AsyncIterator[Reader]:
    async with Client(endpoint) as client:
        yield Reader(client, await client.get_namespace_index(NAMESPACE))


class Reader:
    """Reads by path, and waits."""

    def __init__(self, client: Client, index: int) -> None:
        self.client = client
        self.index = index

    def node(self, path: str) -> Any:
        return self.client.get_node(ua.NodeId(f"Station/{path}", self.index))

    async def data(self, path: str) -> Any:
        return await self.node(path).read_data_value(raise_on_bad_status=False)

    async def value(self, path: str) -> Any:
        return (await self.data(path)).Value.Value

    async def until(self, path: str, value: object, good: bool = True) -> None:
        async def is_so() -> bool:
            data = await self.data(path)
            return data.StatusCode.is_good() == good and data.Value.Value == value

        await comes(is_so)


async def comes(claim: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds."""

    async def wait() -> None:
        while not await claim():
            await asyncio.sleep(0.02)

    await asyncio.wait_for(wait(), PATIENCE_S)


def test_the_newest_verdict_of_each_camera_is_shown(
    station: FakeStation, bridge: BridgeProcess, endpoint: str
) -> None:
    async def read() -> dict[str, Any]:
        async with connected(endpoint) as reader:
            station.say(3, camera="left", part="P1")
            station.say(camera="left", part="P2", product="bolt", verdict=Verdict.FAIL, score=7.5)
            await reader.until("Cameras/left/StationSeq", 4)
            names = ["Verdict", "Reason", "Score", "PartId", "ProductId", "ResultId", "Bundle"]
            return {name: await reader.value(f"Cameras/left/{name}") for name in names}

    assert asyncio.run(read()) == {
        "Verdict": "FAIL",
        "Reason": "score_above_reject",
        "Score": 7.5,
        "PartId": "P2",
        "ProductId": "bolt",
        "ResultId": "left/s/4",
        "Bundle": BUNDLE,
    }


def test_what_a_verdict_lacks_is_empty(
    station: FakeStation, bridge: BridgeProcess, endpoint: str
) -> None:
    async def read() -> tuple[Any, ...]:
        async with connected(endpoint) as reader:
            station.say(verdict=Verdict.UNKNOWN, reason=Reason.BAD_IMAGE, score=None)
            await reader.until("Cameras/cam/Verdict", "UNKNOWN")
            return await reader.value("Cameras/cam/PartId"), await reader.value("Cameras/cam/Score")

    part, score = asyncio.run(read())

    assert part == ""
    assert math.isnan(score)


def test_the_state_is_there_though_nothing_comes_any_more(
    station: FakeStation, endpoint: str
) -> None:
    station.say(camera="left")
    station.say(camera="a/b")

    async def read() -> None:
        async with connected(endpoint) as reader:
            await reader.until("Cameras/left/StationSeq", 1)
            await reader.until("Cameras/a%2Fb/StationSeq", 2)
            await reader.until("State", "running")
            await reader.until("StationSeq", 2)

    with bridging("opcua", station, "--endpoint", endpoint) as started:
        started.says("bridge ready")
        asyncio.run(read())


def test_cameras_are_found_by_browsing(
    station: FakeStation, bridge: BridgeProcess, endpoint: str
) -> None:
    async def read() -> list[str]:
        async with connected(endpoint) as reader:
            station.say(camera="left")
            await reader.until("Cameras/left/StationSeq", 1)
            path = [f"{reader.index}:{name}" for name in ("Station", "Cameras", "left")]
            camera = await reader.client.nodes.objects.get_child(path)
            children = await camera.get_children()
            return [(await child.read_browse_name()).Name for child in children]

    found = asyncio.run(read())

    assert {"Verdict", "Reason", "Score", "PartId", "StationSeq", "Bundle"} <= set(found)


def test_everything_is_bad_while_the_station_is_silent_and_good_when_it_speaks(
    station: FakeStation, bridge: BridgeProcess, endpoint: str
) -> None:
    async def read() -> None:
        async with connected(endpoint) as reader:
            station.say(camera="left")
            await reader.until("Cameras/left/Verdict", "PASS")
            station.__exit__(None, None, None)

            # A value that is Bad is not told at all.
            await reader.until("Cameras/left/Verdict", None, good=False)
            await reader.until("State", None, good=False)
            data = await reader.data("Cameras/left/Verdict")
            assert data.StatusCode.value == ua.StatusCodes.BadNoCommunication
            station.__enter__()

            await reader.until("Cameras/left/Verdict", "PASS")
            await reader.until("State", "running")

    asyncio.run(read())


def test_a_verdict_that_nobody_heard_is_shown_all_the_same(
    station: FakeStation, bridge: BridgeProcess, endpoint: str
) -> None:
    async def read() -> None:
        async with connected(endpoint) as reader:
            station.say(camera="left")
            await reader.until("Cameras/left/StationSeq", 1)
            station.say(camera="left", heard=False)

            await reader.until("Cameras/left/StationSeq", 2)

    asyncio.run(read())


def test_every_result_that_is_shown_is_an_event(
    station: FakeStation, bridge: BridgeProcess, endpoint: str
) -> None:
    events: list[Any] = []

    class Handler:
        def event_notification(self, event: Any) -> None:
            events.append(event)

    async def read() -> None:
        async with connected(endpoint) as reader:
            await reader.until("State", "running")
            subscription = await reader.client.create_subscription(50, Handler())
            kind = await reader.client.nodes.base_event_type.get_child(
                f"{reader.index}:ResultReadyEventType"
            )
            await subscription.subscribe_events(
                reader.client.get_node(ua.NodeId("Station", reader.index)), kind
            )
            station.say(camera="left", part="P1", verdict=Verdict.FAIL)

            async def came() -> bool:
                return bool(events)

            await comes(came)

    asyncio.run(read())

    assert (events[0].Camera, events[0].Verdict, events[0].PartId) == ("left", "FAIL", "P1")


def test_a_source_timestamp_and_a_subscription_follow_the_verdicts(
    station: FakeStation, bridge: BridgeProcess, endpoint: str
) -> None:
    seen: list[int] = []

    class Handler:
        def datachange_notification(self, _: Any, value: int, data: Any) -> None:
            assert data.monitored_item.Value.SourceTimestamp is not None
            seen.append(value)

    async def read() -> None:
        async with connected(endpoint) as reader:
            station.say(camera="left")
            await reader.until("Cameras/left/StationSeq", 1)
            subscription = await reader.client.create_subscription(20, Handler())
            await subscription.subscribe_data_change(reader.node("Cameras/left/StationSeq"))
            station.say(camera="left")

            async def came() -> bool:
                return bool(seen) and seen[-1] == 2

            await comes(came)

    asyncio.run(read())


def test_a_client_can_change_nothing(
    station: FakeStation, bridge: BridgeProcess, endpoint: str
) -> None:
    async def tried() -> None:
        async with connected(endpoint) as reader:
            station.say(camera="left")
            await reader.until("Cameras/left/StationSeq", 1)
            node = reader.node("Cameras/left/Verdict")
            with pytest.raises(ua.UaStatusCodeError):
                await node.write_value("PASS")
            with pytest.raises(ua.UaStatusCodeError):
                await reader.client.delete_nodes([node])
            with pytest.raises(ua.UaStatusCodeError):
                await reader.client.nodes.objects.add_object(reader.index, "mine")
            assert await reader.value("Cameras/left/Verdict") == "PASS"

    asyncio.run(tried())


async def connect_with(endpoint: str, certificate: Path, key: Path, server: Path) -> None:
    client = Client(endpoint)
    client.application_uri = "urn:test"
    # The client goes by the ending, and takes a .key for DER.
    key = key.rename(key.with_suffix(".key.pem")) if key.exists() else key.with_suffix(".key.pem")
    await client.set_security(SecurityPolicyBasic256Sha256, certificate, key, None, server)
    async with client:
        node = client.get_node(ua.NodeId("Station/State", 2))
        await node.read_data_value(raise_on_bad_status=False)


async def read_in_plain(endpoint: str, shown: Path | None) -> None:
    """Go on without encryption though the server offers none, as its own client would not."""
    client = Client(endpoint)
    await client.connect_sessionless()
    try:
        session = ua.CreateSessionParameters()
        session.ClientNonce, session.EndpointUrl = b"x" * 32, endpoint
        session.ClientCertificate = shown and ssl.PEM_cert_to_DER_cert(shown.read_text())
        session.RequestedSessionTimeout = 60_000
        await client.uaclient.create_session(session)
        activation = ua.ActivateSessionParameters()
        activation.UserIdentityToken = ua.AnonymousIdentityToken()
        await client.uaclient.activate_session(activation)
        await client.get_node(ua.NodeId("Station/State", 2)).read_data_value(False)
    finally:
        await client.disconnect_sessionless()


def test_with_a_certificate_only_trusted_clients_are_let_in_and_none_in_plain(
    station: FakeStation, endpoint: str, tmp_path: Path
) -> None:
    server, server_key = make_certificate(tmp_path, "server", uri=NAMESPACE)
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    friend = make_certificate(tmp_path, "friend")
    (trusted / "friend.pem").write_bytes(friend[0].read_bytes())
    stranger = make_certificate(tmp_path, "stranger")

    async def tried() -> None:
        await connect_with(endpoint, *friend, server)
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            await connect_with(endpoint, *stranger, server)
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            await read_in_plain(endpoint, None)
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            await read_in_plain(endpoint, friend[0])  # which is no secret
        await connect_with(endpoint, *friend, server)

    told = ["--certificate", str(server), "--private-key", str(server_key)]
    with bridging(
        "opcua", station, "--endpoint", endpoint, *told, "--trusted", str(trusted)
    ) as started:
        started.says("bridge ready")
        asyncio.run(tried())


def test_without_trusted_clients_anybody_may_read_but_encrypted(
    station: FakeStation, endpoint: str, tmp_path: Path
) -> None:
    server, server_key = make_certificate(tmp_path, "server", uri=NAMESPACE)
    anybody = make_certificate(tmp_path, "anybody")

    async def tried() -> None:
        await connect_with(endpoint, *anybody, server)
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            await read_in_plain(endpoint, None)

    told = ["--certificate", str(server), "--private-key", str(server_key)]
    with bridging("opcua", station, "--endpoint", endpoint, *told) as started:
        started.says("bridge ready")
        asyncio.run(tried())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"endpoint": "opc.tcp://0.0.0.0:4840"}, "other machines"),
        ({"endpoint": "opc.tcp://plant.example:4840"}, "other machines"),
        ({"endpoint": "http://127.0.0.1:4840"}, "no endpoint"),
        ({"endpoint": "opc.tcp://127.0.0.1"}, "no endpoint"),
        ({"endpoint": "opc.tcp://127.0.0.1:99999"}, "no endpoint"),
        ({"certificate": Path("x")}, "go together"),
        ({"trusted": Path("/nowhere")}, "no folder"),
        ({"trusted": Path("/")}, "encrypted"),
    ],
)
def test_what_would_be_open_to_anybody_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(StationError, match=words):
        Serving(**{"endpoint": "opc.tcp://127.0.0.1:4840", **wrong})


def test_an_endpoint_that_is_taken_is_told(
    station: FakeStation,
    bridge: BridgeProcess,
    endpoint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = ["--endpoint", endpoint, "--from", station.verdicts, "--catch-up", station.catch_up]

    assert main(["bridge", "opcua", *told]) == 1
    assert endpoint in capsys.readouterr().err


def test_it_ends_when_it_is_told_to(bridge: BridgeProcess) -> None:
    assert bridge.end() == 0


# --- the newest state -----------------------------------------------------------------------------


def test_what_is_replaced_before_it_is_shown_is_counted() -> None:
    latest = Latest()
    for number in range(1, 6):
        latest.put(verdict(number, "left"))
    latest.put(verdict(6, "right"))

    messages, _, _ = latest.take()

    assert [message.station_seq for message, _ in messages] == [5, 6]
    assert latest.skipped == 4
    assert latest.take()[0] == []


def test_cameras_beyond_the_limit_are_counted_and_not_kept() -> None:
    latest = Latest()
    for number in range(MOST_CAMERAS + 10):
        latest.put(verdict(1, f"c{number}"))
        latest.take()
    latest.put(verdict(2, "c0"))

    assert latest.skipped == 10
    assert len(latest._known) == MOST_CAMERAS
    assert len(latest.take()[0]) == 1


def test_verdicts_of_the_past_do_not_make_a_station_heard() -> None:
    latest = Latest()
    latest.put(verdict(1), is_new=False)

    assert latest.take()[2]
    latest.put(verdict(2))
    assert not latest.take()[2]
