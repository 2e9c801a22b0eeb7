"""``towpath node takeover`` and ``handback`` on the real kernel, under traffic, from state as Canal leaves
it.

Real are the agent, the shim, host-local, portmap, bandwidth, iptables (both backends), ip6tables, ipset and
nft. Not to be had as packages, and so stand-ins (``towpath.lab.canal``, which says what they are not):
Felix, flanneld and Calico's CNI plugin.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path as File
from typing import Any

import pytest
from canal_probes import ENOUGH, Path, Probes, probes
from canal_world import (
    NODES,
    OUTSIDE4,
    OUTSIDE6,
    POLICIES,
    CanalNode,
    World,
    agent_running,
    canal_world,
    dev,
    finished,
    settled,
)
from wired_node import reach

from towpath.install.hold import held
from towpath.ipam.host_local import HostLocalFolder
from towpath.ipam.reading import read_leases
from towpath.lab.canal import programs

pytestmark = pytest.mark.kernel
PORTS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
]
LIMITS = {
    "ingressRate": 100_000_000,
    "ingressBurst": 8_000_000,
    "egressRate": 80_000_000,
    "egressBurst": (1 << 32) - 1,
}
NOBODY = {
    "metadata": {"name": "closed", "namespace": "default"},
    "spec": {"podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Ingress"], "ingress": []},
}


async def populated(world: World) -> None:
    """Pods of every kind: plain, with host ports, with limits, closed by policy; and one on the other
    node.
    """
    world.api.put(POLICIES, NOBODY)
    await world.n1.add(world.api, "web", portMappings=PORTS)
    await world.n1.add(world.api, "slow", bandwidth=LIMITS)
    await world.n1.add(world.api, "closed")
    await world.n2.add(world.api, "far")
    await settled(lambda: in_felix(world.n1, "web", "slow", "closed") and in_felix(world.n2, "far"), world.n1)
    # Canal's own: until duplicate address detection ends on a pod's link, IPv6 does not work.
    for one in (world.n1, world.n2):
        await settled(lambda one=one: "tentative" not in one.ip("-6 addr"), one)  # type: ignore[misc]


def in_felix(one: CanalNode, *names: str) -> bool:
    rules = one.sh("nft list table ip calico") if one.backend == "nftables" else one.saved()
    return all(f"cali-tw-{dev(name)}" in rules for name in names)


def paths(world: World) -> list[Path]:
    n1, n2 = world.n1, world.n2
    web, slow, closed, far = (n1.pods["web"], n1.pods["slow"], n1.pods["closed"], n2.pods["far"])
    found = []
    for number, (outside, host) in enumerate(((OUTSIDE4, "172.30.0.11"), (OUTSIDE6, "fd00:172:30::11"))):
        base = 7000 + 100 * number
        found += [
            Path(f"same{number}", slow.netns, web.netns, web.addresses[number], base),
            Path(f"cross{number}", slow.netns, far.netns, far.addresses[number], base + 1),
            Path(f"back{number}", far.netns, slow.netns, slow.addresses[number], base + 2),
            Path(f"outside{number}", slow.netns, n2.netns, outside, base + 3),
            Path(f"node{number}", n1.netns, web.netns, web.addresses[number], base + 4),
            Path(f"closed{number}", far.netns, closed.netns, closed.addresses[number], base + 5, denied=True),
            Path(f"shut{number}", slow.netns, closed.netns, closed.addresses[number], base + 6, denied=True),
        ]
        if number == 0:
            found.append(Path("port", n2.netns, web.netns, host, 8080, listen=80))
    return found


def judge(running: Probes, *, back: bool = False, told: object = "") -> None:
    """Nothing of what is allowed was lost, and of the rest nothing came through.

    On the way ``back`` portmap, as at every pod's start, deletes the connection tracking of the ports that it
    publishes: what is being answered in that very moment is lost.
    """
    for path in running.paths:
        outcome, lost = running.outcomes[path.name], running.lost(path.name)
        if path.denied:
            assert not outcome.seen, f"{path.name} was open: {outcome}"
        else:
            most = 1 if back and path.name == "port" else 0
            assert max(lost.values()) <= most, f"{path.name} lost {lost}: {outcome} {told}"
            assert set(lost) == {"connect", "datagram", "kept"}, path.name
            assert min(outcome.sent.values()) > ENOUGH, path.name


def label(world: World) -> str | None:
    labels: dict[str, str] = world.api.get(NODES, "n1")["metadata"].get("labels") or {}
    return labels.get("towpath.dev/network")


async def taken_over(world: World, *options: str) -> tuple[int, str, str]:
    """Run it, with the DaemonSets following the label as in a cluster."""
    done = asyncio.create_task(finished(world.n1.migrate("takeover", "--patience=300", *options)))
    while not done.done():
        if label(world) == "towpath" and world.n1.daemons:
            await asyncio.to_thread(world.n1.stop_canal)
        await asyncio.sleep(0.05)
    return await done


async def handed_back(world: World, *options: str) -> tuple[int, str, str]:
    """The reverse."""
    done = asyncio.create_task(finished(world.n1.migrate("handback", "--patience=300", *options)))
    while not done.done():
        if label(world) == "handback" and not world.n1.daemons:
            world.n1.start_canal()
        await asyncio.sleep(0.05)
    return await done


@pytest.fixture(params=["nft", "legacy", "nftables"])
async def world(request: pytest.FixtureRequest, tmp_path: File) -> AsyncIterator[World]:
    async with canal_world(tmp_path, backend=request.param) as made:
        yield made


async def test_over_and_back_under_traffic(world: World) -> None:
    await populated(world)
    n1 = world.n1
    notes, links, before = world.notes("n1"), n1.links(), n1.saved()
    addresses = {name: pod.addresses for name, pod in n1.pods.items()}
    async with agent_running(n1):
        with probes(*paths(world)) as running:
            await asyncio.sleep(0.5)
            status, _, said = await taken_over(world)
            assert status == 0, said
            await asyncio.sleep(0.5)
        judge(running)
        assert_taken(world, notes, links)
        await pods_come_and_go(world)
        with probes(*paths(world)) as running:
            await asyncio.sleep(0.5)
            status, _, said = await handed_back(world)
            assert status == 0, said
            await asyncio.sleep(0.5)
        judge(running, back=True)
    assert {name: pod.addresses for name, pod in n1.pods.items() if name != "late"} == addresses
    assert_given_back(world, links)
    await n1.remove(world.api, "late")
    for name in ("web", "slow", "closed"):
        await n1.remove(world.api, name)
    with contextlib.suppress(AssertionError):
        await settled(lambda: in_order(n1.saved()) == in_order(without_pods(before)))
    assert in_order(n1.saved()) == in_order(without_pods(before))
    assert not HostLocalFolder(n1.data / programs.NETWORK).read().leases


def without_pods(saved: str) -> str:
    return "".join(
        f"{line}\n"
        for line in saved.splitlines()
        if (
            "cali-tw-cali" not in line
            and "cali-fw-cali" not in line
            and "cali-pi-" not in line
            and "k8s-pod-network" not in line
            and not line.startswith((":CNI-DN-", "-A CNI-DN-"))
        )
        or "0123456789abcdef01234" in line
    )


def in_order(saved: str) -> list[str]:
    """Chains and rules of a node as a set: programs that come later put their hooks in other places."""
    return sorted(line for line in saved.splitlines() if "CNI-HOSTPORT" not in line)


def assert_taken(world: World, notes: dict[str, str], links: dict[str, Any]) -> None:
    """Nothing of Canal's is left, everything else is, and the overlay is the very same."""
    n1 = world.n1
    saved = n1.saved() + n1.sh("nft list tables") + n1.sh("ipset list -n")
    for word in ("cali-", "cali:", "cali4", "cali6", "FLANNEL", "flannel-ipv", "k8s-pod-network", "calico\n"):
        assert word not in saved.replace("OWN-calico", ""), word
    for word in (
        "KUBE-SERVICES",
        "KUBE-FORWARD",
        "OWN-calico",
        "caliper",
        'id: \\"beef\\"',
        "table inet towpath",
    ):
        assert word in saved, word
    now = n1.links()
    for name in ("flannel.1", "flannel-v6.1", *map(dev, ("web", "slow", "closed"))):
        assert (now[name]["ifindex"], now[name]["address"]) == (
            links[name]["ifindex"],
            links[name]["address"],
        )
    assert not [name for name in now if name.startswith("bwp")]
    assert world.notes("n1") == notes
    assert label(world) == "towpath"
    assert held(n1.state) is None
    shown = json.loads(n1.sh("tc -j qdisc show"))
    assert sorted(q["dev"][:3] for q in shown if q["kind"] == "tbf") == ["cal", "tpb"]
    leases = {att.pod.name: att for att in read_leases(n1.state / "leases.db").attachments if att.pod}
    assert {name: [str(a) for a in att.addresses] for name, att in leases.items()} == {
        name: pod.addresses for name, pod in n1.pods.items()
    }
    assert len(leases["web"].ports) == 2


async def pods_come_and_go(world: World) -> None:
    """Towpath's ADD gives no address away, its CHECK and DEL know Canal's pods, its policies close them."""
    n1, api = world.n1, world.api
    late = await n1.add(
        api, "late", portMappings=[{"hostPort": 8081, "containerPort": 81, "protocol": "tcp"}]
    )
    assert not set(late.addresses) & {a for pod in n1.pods.values() if pod is not late for a in pod.addresses}
    await check(n1, "web")
    assert reach(world.n2.netns, late.netns, "172.30.0.11", 8081, listen=81) == "172.30.0.12"
    await n1.add(api, "brief")
    await n1.remove(api, "brief")
    web = n1.pods["web"]
    api.put(POLICIES, policy_on("web"))
    await settled(lambda: reach(late.netns, web.netns, web.addresses[0], 99, patience=0.2) is None, n1)
    api.remove(POLICIES, "on-web", "default")
    await settled(lambda: reach(late.netns, web.netns, web.addresses[0], 99, patience=0.2), n1)


def policy_on(app: str) -> dict[str, Any]:
    spec = {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"], "ingress": []}
    return {"metadata": {"name": f"on-{app}", "namespace": "default"}, "spec": spec}


async def check(one: CanalNode, name: str) -> None:
    """CNI's CHECK through the real shim."""
    call = one.pods[name].call
    config: dict[str, Any] = {"cniVersion": "1.0.0", "name": "towpath", "type": "towpath-cni"}
    ips = [{"address": f"{a}/{128 if ':' in a else 32}", "interface": 0} for a in one.pods[name].addresses]
    interface = {"name": "eth0", "sandbox": call.netns}
    config["prevResult"] = {"cniVersion": "1.0.0", "interfaces": [interface], "ips": ips}
    plugin = json.dumps(config)
    environment = " ".join(
        f"{key}='{value}'"
        for key, value in {
            "CNI_COMMAND": "CHECK",
            "CNI_CONTAINERID": call.container_id,
            "CNI_NETNS": call.netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(one.bin),
            "CNI_ARGS": ";".join(f"{k}={v}" for k, v in call.args),
        }.items()
    )
    done = await asyncio.to_thread(
        one.run, "sh", "-c", f"printf %s '{plugin}' | env {environment} {one.bin}/towpath-cni"
    )
    assert done.returncode == 0, done.stdout


def assert_given_back(world: World, links: dict[str, Any]) -> None:
    """Canal has all of it again, pods included that were Towpath's; of Towpath nothing is in force."""
    n1 = world.n1
    assert "towpath" not in n1.sh("nft list tables")
    assert label(world) is None
    assert held(n1.state) is not None
    now = n1.links()
    assert now["flannel.1"]["ifindex"] == links["flannel.1"]["ifindex"]
    assert not [name for name in now if name.startswith("tpb")]
    assert len([name for name in now if name.startswith("bwp")]) == 1
    leased = {
        str(lease.address): lease for lease in HostLocalFolder(n1.data / programs.NETWORK).read().leases
    }
    for pod in n1.pods.values():
        for address in pod.addresses:
            assert leased[address].container_id == pod.call.container_id
            assert leased[address].ifname == "eth0"
    assert (n1.conf / programs.CONFLIST).read_text() == n1.conflist
    assert reach(world.n2.netns, n1.pods["late"].netns, "172.30.0.11", 8081, listen=81) == "172.30.0.12"
