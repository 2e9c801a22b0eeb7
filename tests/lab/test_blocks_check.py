"""``towpath ipam check`` of block mode: what is wrong is found, all of it and nothing else, and mended."""

import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_world import TOKEN, World, world
from test_blocks_race import CALICO, Node, api, marked

from towpath.cli import ipam_check_blocks
from towpath.cli.ipam_check_blocks import Routed, check_blocks
from towpath.ipam.block_plan import handle_of
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig

__all__ = ["api"]
SPACE = "/api/v1/namespaces/default/pods"
NOBODY_ASKED: Routed = {}


@pytest.fixture
async def client(api: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """Nodes ``a`` and ``b`` with four pods each of one pool, every pod in the API."""
    monkeypatch.setattr(ipam_check_blocks, "_APART", 0.0)
    await api.do("POST", f"{CALICO}/ippools", pool("small", "10.42.0.0/26", 28), 201)
    async with Client(ClientConfig(server=api.url, source="test", token=TOKEN)) as found:
        for name in ("a", "b"):
            await api.do("POST", "/api/v1/nodes", {"metadata": {"name": name}}, 201)
            node = Node(name, found)
            await node.start()
            for number in range(4):
                assert await node.pod()
                await put_pod(api, f"{name}-{number}", name, str(list(node.leased)[-1]))
        yield found


def pool(name: str, cidr: str, size: int) -> dict[str, Any]:
    meta = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": name}}
    return {**meta, "spec": {"cidr": cidr, "blockSize": size}}


async def put_pod(api: World, name: str, node: str, address: str) -> None:
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
    made = await api.do("POST", SPACE, {"metadata": {"name": name}, "spec": spec}, 201)
    made["status"] = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    await api.do("PUT", f"{SPACE}/{name}/status", made)


async def blocks_of(api: World, node: str) -> dict[str, Any]:
    found = (await api.do("GET", f"{CALICO}/ipamblocks"))["items"]
    return next(o for o in found if o["spec"]["affinity"] == f"host:{node}")


async def problems(
    client: Client, *, fix: bool = False, routed: Routed = NOBODY_ASKED
) -> list[tuple[str, str]]:
    row = await check_blocks(client, routed, fix=fix)
    assert row is not None and row["error"] == ""
    return [(p["code"], p["object"]) for p in row["left" if fix else "problems"]]


async def test_where_all_is_well_nothing_is_found(client: Client) -> None:
    assert await problems(client) == []


async def test_every_kind_of_damage_is_found_and_mended(api: World, client: Client) -> None:
    block = await blocks_of(api, "a")
    cidr, name = block["spec"]["cidr"], block["metadata"]["name"]
    # An affinity for which there is no block, and one for another's.
    have = {cidr, (await blocks_of(api, "b"))["spec"]["cidr"]}
    free = next(net for n in range(0, 64, 16) if (net := f"10.42.0.{n}/28") not in have)
    for node, net in (("b", free), ("b", cidr)):
        meta = {"name": f"{node}-{net.replace('.', '-').replace('/', '-')}"}
        spec = {"node": node, "cidr": net, "state": "confirmed", "deleted": "false"}
        kind = {"apiVersion": "crd.projectcalico.org/v1", "kind": "BlockAffinity"}
        await api.do("POST", f"{CALICO}/blockaffinities", {**kind, "metadata": meta, "spec": spec}, 201)
    # A handle that counts too much, one that counts nothing, and one that is not there.
    handle = await api.do("GET", f"{CALICO}/ipamhandles/{handle_of('b')}")
    handle["spec"]["block"] = {key: n + 3 for key, n in handle["spec"]["block"].items()}
    await api.do("PUT", f"{CALICO}/ipamhandles/{handle_of('b')}", handle)
    stray = {
        "metadata": {"name": "k8s-pod-network.aa"},
        "spec": {"handleID": "k8s-pod-network.aa", "block": {}},
    }
    stray |= {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMHandle"}
    await api.do("POST", f"{CALICO}/ipamhandles", stray, 201)
    # A pod whose address is free in its block, and one of Calico's that is gone.
    spec, lost = block["spec"], (await api.do("GET", f"{SPACE}/a-0"))["status"]["podIP"]
    ordinal = int(lost.rpartition(".")[2]) % 16
    spec["allocations"][ordinal] = None
    spec["unallocated"].append(ordinal)
    spec["attributes"].append(
        {"handle_id": "k8s-pod-network.bb", "secondary": {"node": "a", "pod": "gone", "namespace": "n"}}
    )
    spec["allocations"][15] = len(spec["attributes"]) - 1  # the node has it in stock
    await api.do("PUT", f"{CALICO}/ipamblocks/{name}", block)
    # What is left of a node that is no more.
    gone = Node("gone", client)
    await gone.start()
    assert await gone.pod()

    found = await problems(client)
    assert [code for code, _ in found] == [
        "TP4040",
        "TP4040",
        "TP4041",
        "TP4041",
        "TP4041",
        "TP4041",
        "TP4042",
        "TP4043",
        "TP4044",
    ]
    handles = (handle_of("a"), handle_of("b"), "k8s-pod-network.aa", "k8s-pod-network.bb")
    assert {obj for code, obj in found if code == "TP4041"} == {f"IPAMHandle/{h}" for h in handles}
    assert ("TP4044", "Pod/default/a-0") in found and ("TP4042", "Node/gone") in found
    assert await problems(client, fix=True) == [("TP4043", "IPAMHandle/k8s-pod-network.bb")]
    assert await problems(client) == [("TP4043", "IPAMHandle/k8s-pod-network.bb")]
    # With the word of its node it is freed; not while the node's kernel leads to it.
    (calico,) = [a for a, handle in (await marked(api)).items() if handle == "k8s-pod-network.bb"]
    told = {"a": frozenset({calico})}
    assert await problems(client, fix=True, routed=told) == [("TP4043", "IPAMHandle/k8s-pod-network.bb")]
    assert await problems(client, fix=True, routed={"a": frozenset()}) == []
    assert await problems(client) == [] and calico not in await marked(api)
    left = (await api.do("GET", f"{CALICO}/blockaffinities"))["items"]
    assert sorted(o["spec"]["node"] for o in left) == ["a", "b"]


async def test_a_block_edited_into_nonsense_is_named_and_left_alone(api: World, client: Client) -> None:
    block = await blocks_of(api, "b")
    broken = copy.deepcopy(block)
    broken["spec"]["unallocated"] = [1, 1, 1]
    await api.do("PUT", f"{CALICO}/ipamblocks/{block['metadata']['name']}", broken)
    await api.do("POST", f"{CALICO}/ippools", pool("zz", "10.42.0.0/27", 28), 201)
    found = await problems(client, fix=True)
    assert found == [
        ("TP4031", f"ipamblocks/{block['metadata']['name']}"),
        ("TP4032", "ippools/zz"),
    ]
    after = await api.do("GET", f"{CALICO}/ipamblocks/{block['metadata']['name']}")
    assert after["spec"]["unallocated"] == [1, 1, 1]


async def test_a_cluster_without_the_kinds_has_no_row(tmp_path: Path) -> None:
    async with (
        world(tmp_path) as bare,
        Client(ClientConfig(server=bare.url, source="test", token=TOKEN)) as found,
    ):
        assert await check_blocks(found, NOBODY_ASKED, fix=False) is None
