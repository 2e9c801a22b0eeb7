"""Two conductors whose clocks differ exclude each other all the same; a clock that is wrong is told."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import LEASES
from towpath.upgrade import exclusion
from towpath.upgrade.clock import difference
from towpath.upgrade.exclusion import NAME, Held, alone


def lease(ago: float, holder: str = "other") -> dict[str, object]:
    at = datetime.now(UTC) - timedelta(seconds=ago)
    spec = {"holderIdentity": holder, "renewTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    return {"metadata": {"name": NAME, "namespace": "kube-system"}, "spec": spec}


@pytest.mark.parametrize("behind", [600.0, -600.0])
async def test_a_holder_whose_clock_differs_lives_while_it_renews(
    behind: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusion, "RENEW_EVERY", 0.2)
    server = await FakeApiServer.start()
    server.put(LEASES, lease(behind))

    async def renewing() -> None:
        for turn in range(1000):
            await asyncio.sleep(0.02)
            server.put(LEASES, lease(behind - turn - 1))

    other = asyncio.create_task(renewing())
    async with Client(server.config()) as client:
        with pytest.raises(Held, match="other conducts it"):
            async with alone(client, "me"):
                raise AssertionError
        other.cancel()
        async with alone(client, "me"):  # it renews no more, whatever its clock said
            assert server.get(LEASES, NAME, "kube-system")["spec"]["holderIdentity"] == "me"
    assert server.get(LEASES, NAME, "kube-system")["spec"]["holderIdentity"] == ""
    await server.down()


@pytest.mark.parametrize(("ago", "held"), [(1.0, True), (-5.0, True), (86400.0, False)])
async def test_a_holder_by_its_time_alone(ago: float, held: bool) -> None:
    server = await FakeApiServer.start()
    server.put(LEASES, lease(ago))
    async with Client(server.config()) as client:
        if held:
            with pytest.raises(Held):
                async with alone(client, "me"):
                    raise AssertionError
        else:
            async with alone(client, "me"):
                pass
    await server.down()


def test_how_far_a_clock_is_off() -> None:
    stamp = "2026-11-27T10:00:00Z"
    at = datetime(2026, 11, 27, 10, tzinfo=UTC).timestamp()
    assert difference(at + 0.2, at + 0.4, stamp) == 0
    assert difference(at - 0.1, at + 0.1, stamp) == 0
    assert difference(at + 61, at + 61.5, stamp) == 60
    assert difference(at - 61, at - 60, stamp) == -60
    with pytest.raises(ValueError, match="does not match"):
        difference(at, at, "yesterday")
