"""``towpath ipam migrate`` on the lab's API server: what is said on Nodes, and when a node is let go."""

import json
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from apiserver_world import TOKEN, World, world
from test_blocks_race import CALICO, api

from towpath.api.report import BY_BLOCKS, IPAM_MODE, LEAVING, STATUS, AgentReport
from towpath.cli import ipam_ask
from towpath.cli.ipam_migrate import _to_blocks, _to_pod_cidrs
from towpath.ipam.block_plan import handle_of
from towpath.ipam.blocks import Owner, new_block, take, write_block
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig
from towpath.model.net import Net

__all__ = ["api"]
NODES = "/api/v1/nodes"


@pytest.fixture
async def client(api: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setattr(ipam_ask, "WITHIN", 0.3)  # no agent is here to answer
    async with Client(ClientConfig(server=api.url, source="test", token=TOKEN)) as found:
        yield found


async def put_node(api: World, name: str, number: int, says: str, *, by_blocks: bool) -> None:
    report = AgentReport(version="1", ready=True, leased={} if by_blocks else None)
    notes = {STATUS: msgspec.json.encode(report).decode(), **({IPAM_MODE: says} if says else {})}
    spec = {"podCIDR": f"10.42.{number}.0/24", "podCIDRs": [f"10.42.{number}.0/24"]}
    await api.do("POST", NODES, {"metadata": {"name": name, "annotations": notes}, "spec": spec}, 201)


async def put_block(api: World, cidr: Net, node: str, holder: str) -> None:
    block = new_block(cidr, node, 1)
    block = take(block, [block.address(3)], Owner(handle_of(holder), {"node": holder}))
    await api.do("POST", f"{CALICO}/ipamblocks", json.loads(json.dumps(write_block(block))), 201)


async def said(api: World, name: str) -> str:
    found: dict[str, Any] = await api.do("GET", f"{NODES}/{name}")
    return str(found["metadata"].get("annotations", {}).get(IPAM_MODE, ""))


async def test_a_node_is_let_go_when_nobody_has_anything_of_its_podcidrs(api: World, client: Client) -> None:
    await put_node(api, "n1", 1, BY_BLOCKS, by_blocks=False)
    await put_node(api, "n2", 2, LEAVING, by_blocks=False)
    await put_block(api, ip_network("10.42.1.0/28"), "n1", "n2")  # of n1's podCIDR, n2 has an address
    await put_block(api, ip_network("10.42.2.0/28"), "n2", "n2")

    _, rows = await _to_pod_cidrs(client, change=False)
    assert (await said(api, "n1"), await said(api, "n2")) == (BY_BLOCKS, LEAVING)
    assert not any(row["moved"] for row in rows)

    _, rows = await _to_pod_cidrs(client, change=True)
    assert (await said(api, "n1"), await said(api, "n2")) == (LEAVING, "")
    assert [(row["node"], row["moved"]) for row in rows] == [("n1", False), ("n2", True)]

    _, rows = await _to_pod_cidrs(client, change=True)  # said by now, and still in the way
    assert await said(api, "n1") == LEAVING
    assert "10.42.1.0/28" in rows[0]["left"][0]
    await api.do("DELETE", f"{CALICO}/ipamblocks/10-42-1-0-28")
    _, rows = await _to_pod_cidrs(client, change=True)
    assert await said(api, "n1") == "" and all(row["moved"] for row in rows)


async def test_no_node_is_let_go_while_an_agent_may_not_have_heard(api: World, client: Client) -> None:
    await put_node(api, "n1", 1, LEAVING, by_blocks=False)
    await put_node(api, "n2", 2, BY_BLOCKS, by_blocks=True)
    for _ in range(2):
        problems, rows = await _to_pod_cidrs(client, change=True)
        assert problems and "n2" in problems[0]
        assert await said(api, "n1") == LEAVING and not rows[0]["moved"]
    assert await said(api, "n2") == LEAVING


async def test_what_a_cluster_lacks_for_blocks_is_told(tmp_path: Path, api: World, client: Client) -> None:
    await put_node(api, "n1", 1, "", by_blocks=False)
    await put_node(api, "n2", 2, LEAVING, by_blocks=True)
    problems, rows = await _to_blocks(client, change=True)
    left = {row["node"]: " ".join(row["left"]) for row in rows}
    assert "roll out agent.ipam_mode=blocks" in left["n1"] and "did not answer" in left["n2"]
    assert await said(api, "n2") == ""  # called back: its agent says the rest
    (tmp_path / "bare").mkdir()
    async with (
        world(tmp_path / "bare") as bare,
        Client(ClientConfig(server=bare.url, source="test", token=TOKEN)) as found,
    ):
        problems, rows = await _to_blocks(found, change=True)
        assert "TP4030" in problems[0] and rows == []
