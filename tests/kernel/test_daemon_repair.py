"""What others do to a node's network while the agent runs, and how fast it is undone."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_node import FLANNEL, NODES, PODS, AgentNode, agent_node, call_shim, node, pod, pod_namespace
from msgspec.structs import replace

from patience import ATTEMPTS
from towpath.desired.names import host_ifname
from towpath.kernel.nft_owner import ownable
from towpath.kube.fake import FakeApiServer
from towpath.model.net import Vxlan
from towpath.model.state import NetState

pytestmark = pytest.mark.kernel


@pytest.fixture
def n1(tmp_path: Path) -> Iterator[AgentNode]:
    with agent_node(tmp_path) as made:
        yield made


@pytest.fixture
async def api(n1: AgentNode) -> AsyncIterator[FakeApiServer]:
    server = await n1.start_api()
    server.put(NODES, node(1))
    server.put(NODES, node(2, peer=True))
    yield server
    if n1.process is not None:
        n1.stop(signal.SIGKILL)
    await server.down()


def notes(api: FakeApiServer) -> dict[str, str]:
    annotations: dict[str, str] = api.get(NODES, "n1")["metadata"]["annotations"]
    return annotations


def report(api: FakeApiServer) -> dict[str, Any]:
    text: dict[str, Any] = json.loads(notes(api).get("towpath.dev/status", "{}"))
    return text


def owner(n1: AgentNode) -> str:
    found = n1.kernel.observe((), "towpath").nft
    return found.owner if found is not None else "absent"


async def test_the_table_is_owned_outlives_the_agent_and_is_owned_by_the_next(
    n1: AgentNode, api: FakeApiServer
) -> None:
    if not ownable():
        pytest.skip("this kernel has no owners that leave their table (before 6.9)")
    process = n1.start()
    await n1.ready()
    wanted = n1.observe().nft
    handle = _handle(n1)
    assert owner(n1) == "foreign"
    assert n1.run("nft", "flush", "ruleset").returncode == 0
    assert n1.observe().nft == wanted
    listing = n1.run("nft", "list", "table", "inet", "towpath").stdout
    assert "towpath_table_owned 1.0" in n1.get("/metrics")[1]
    assert f"# progname {Path(f'/proc/{process.pid}/comm').read_text().strip()}" in listing
    n1.stop(signal.SIGKILL)
    assert owner(n1) == "kept"
    n1.start(own_table=False)  # another release, say: it takes over what it cannot own
    await n1.ready()
    assert owner(n1) == "kept"
    assert "towpath_table_owned 0.0" in n1.get("/metrics")[1]
    n1.stop()
    n1.start()
    await n1.ready()
    await n1.until(lambda: owner(n1) == "foreign")
    assert n1.observe().nft == wanted
    assert _handle(n1) == handle, "the very same table all the while"
    n1.stop()
    assert n1.run("nft", "delete", "table", "inet", "towpath").returncode == 0, "as an uninstaller would"


def _handle(n1: AgentNode) -> str:
    found = re.search(r"# handle (\d+)", n1.run("nft", "-a", "list", "table", "inet", "towpath").stdout)
    assert found is not None
    return found[1]


# Everything that is ours, deleted or rewritten one by one.

ACCIDENTS = {
    "route": "ip route del 10.42.2.0/24",
    "route 6": "ip route del fd00:10:42:2::/64",
    "route elsewhere": "ip route replace 10.42.2.0/24 via 172.30.0.99 dev und0",
    "neighbour": "ip neigh del 10.42.2.0 dev flannel.1",
    "neighbour spoilt": "ip neigh replace 10.42.2.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
    "fdb": "bridge fdb del 02:00:00:00:04:02 dev flannel.1",
    "fdb elsewhere": "bridge fdb replace 02:00:00:00:04:02 dst 172.30.0.99 dev flannel.1",
    "address": "ip addr del 10.42.1.0/32 dev flannel.1",
    "device": "ip link del flannel.1",
    "device down": "ip link set flannel-v6.1 down",
    "device bounced": "ip link set flannel.1 down; ip link set flannel.1 up",
    "mac": "ip link set flannel.1 address 02:00:00:00:00:aa",
    "mtu": "ip link set flannel.1 mtu 1300",
    # The kernel takes IPv6 addresses off a NIC that goes down; who manages the NIC puts them back.
    "nic bounced": "ip link set und0 down; ip link set und0 up; ip addr add fd00:172:30::11/64 dev und0",
    "ip_forward": "sysctl -w net.ipv4.ip_forward=0",
    "forwarding 6": "sysctl -w net.ipv6.conf.all.forwarding=0",
    "accept_ra": "sysctl -w net.ipv6.conf.flannel-v6/1.accept_ra=1",
    "ruleset": "nft flush ruleset",
    "table": "nft delete table inet towpath",
    "rule": "nft flush chain inet towpath masq",
    "element": "nft delete element inet towpath net4 { 10.42.0.0/16 }",
    "pod's route": "ip route del 10.42.1.2",
    "pod's neighbour": "ip neigh del 10.42.1.2 dev {pod}",
    "pod's link down": "ip link set {pod} down; ip link set {pod} up",
    "pod's setting": "sysctl -w net.ipv4.conf.{pod}.proxy_arp=0",
    "pod's other setting": "sysctl -w net.ipv4.conf.{pod}.route_localnet=0",
    "pod's rule": "nft flush set inet towpath pod_src4",
}


FLUSHES = [accident for accident in ACCIDENTS.values() if accident.startswith("nft ")]


def whole(n1: AgentNode, settings: dict[str, str]) -> NetState:
    """All there is, and some settings; without learned things."""
    state = n1.kernel.observe(settings, "towpath")
    table = replace(state.nft, owner="free") if state.nft is not None else None
    return replace(state, nft=table)


async def test_each_accident_is_mended_within_a_second_counted_and_explained(
    n1: AgentNode, api: FakeApiServer
) -> None:
    api.put(PODS, pod("a"))
    # As on a kernel before 6.9, where anybody can change the table.
    n1.start(own_table=False, resync_seconds=600)
    took, flushes = {}, 0
    with pod_namespace() as netns:
        code, result = await call_shim(n1, "ADD", "a", netns)
        assert code == 0, result
        await n1.ready()
        dev = host_ifname("default", "a")
        names = [
            "net/ipv4/ip_forward",
            "net/ipv6/conf/all/forwarding",
            "net/ipv6/conf/flannel-v6.1/accept_ra",
        ]
        names += [f"net/ipv4/conf/{dev}/proxy_arp", f"net/ipv4/conf/{dev}/route_localnet"]
        wanted = None
        while (now := whole(n1, dict.fromkeys(names, ""))) != wanted:  # nothing changes any more
            wanted = now
            await asyncio.sleep(0.5)
        for name, accident in ACCIDENTS.items():
            # On a machine that is busy with other things a transaction alone takes seconds.
            for _ in range(ATTEMPTS):
                for command in accident.replace("{pod}", dev).split("; "):
                    done = n1.run(*command.split())
                    assert done.returncode == 0, (name, done.stderr)
                flushes += accident in FLUSHES
                took[name] = await n1.until(lambda: whole(n1, dict.fromkeys(names, "")) == wanted)
                if took[name] < 1:
                    break
    assert {name: seconds for name, seconds in took.items() if seconds >= 1} == {}
    metrics = n1.get("/metrics")[1]
    for kind in ("Add Route", "Add Neighbour", "Add Fdb", "AddLink", "SetLink", "SetSysctl", "NftUpdate"):
        assert f'towpath_repairs_total{{operation="{kind}"}}' in metrics
    told = re.search(r"towpath_fail_open_seconds_count (\d+)\.0", metrics)
    assert told and 2 <= int(told[1]) <= flushes
    log = [json.loads(line) for line in n1.log.read_text().splitlines()]
    explained = {line["kind"]: line["suspects"] for line in log if line["event"] == "mended"}
    assert len(explained) == len([line for line in log if line["event"] == "mended"]), "once a kind"
    assert "nft flush ruleset" in explained["NftUpdate"]
    await n1.until(lambda: any("TP1023" in f and "NftUpdate" not in f for f in report(api)["findings"]))


async def test_another_underlay_address_moves_the_tunnels(n1: AgentNode, api: FakeApiServer) -> None:
    """As DHCP does it; the kubelet tells later, or never."""
    n1.start(resync_seconds=600)
    await n1.ready()
    mac = n1.observe().links["flannel.1"].mac
    n1.ip("addr del 172.30.0.11/24 dev und0")
    n1.ip("addr add 172.30.0.21/24 dev und0")

    def local() -> str:
        link = n1.observe().links.get("flannel.1")
        return str(link.kind.local) if link is not None and isinstance(link.kind, Vxlan) else ""

    await n1.until(lambda: local() == "172.30.0.21")  # long before it looks again by itself
    await n1.until(lambda: notes(api).get(FLANNEL + "public-ip") == "172.30.0.21")
    state = n1.observe()
    assert state.links["flannel.1"].mac == mac
    assert {str(f.dst) for f in state.fdb} == {"172.30.0.12", "fd00:172:30::12"}
    assert "10.42.2.0/24" in {str(r.dst) for r in state.routes}
    # Gone for a moment only: nothing moves.
    n1.ip("addr del 172.30.0.21/24 dev und0")
    await asyncio.sleep(0.7)
    assert local() == "172.30.0.21"
    n1.ip("addr add 172.30.0.21/24 dev und0")
    await n1.ready()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("type bridge", "device flannel.1 is bridge"),
        ("type vxlan id 99 dstport 4789 dev und0 local 172.30.0.11", "is vxlan id 99 local 172.30.0.11"),
        ("type vxlan id 1 dstport 4789 dev und0 local 172.30.0.11", "port 4789"),
        ("type vxlan id 1 dstport 8472 dev und0 group 239.1.1.1", "of another kind"),
    ],
)
async def test_a_foreign_device_of_our_name_is_refused_and_told_apart(
    n1: AgentNode, api: FakeApiServer, made: str, words: str
) -> None:
    n1.ip(f"link add flannel.1 {made}")
    index = n1.ip("-o link show flannel.1").split(":")[0]
    n1.start()
    await n1.until(lambda: any("TP1024" in f for f in report(api).get("findings", [])))
    [told] = [f for f in report(api)["findings"] if "TP1024" in f]
    assert words in told
    assert "ours is vxlan id 1 local 172.30.0.11 dev und0 port 8472" in told
    code, text = n1.get("/readyz")
    assert code == 503
    assert "[-]kernel: device flannel.1 is" in text
    assert FLANNEL + "public-ip" not in notes(api), "nobody is sent to a device that is not ours"
    assert n1.ip("-o link show flannel.1").split(":")[0] == index
    assert any(str(r.dst) == "fd00:10:42:2::/64" for r in n1.observe().routes), "all else is done"
    n1.ip("link del flannel.1")
    await n1.ready()
    assert "10.42.2.0/24" in {str(r.dst) for r in n1.observe().routes}


async def test_our_own_device_with_an_old_endpoint_is_no_foreign_one(
    n1: AgentNode, api: FakeApiServer
) -> None:
    """The node got another address while no agent was there."""
    n1.start()
    await n1.until(lambda: report(api).get("ready"))
    n1.stop()
    mac = n1.observe().links["flannel.1"].mac
    n1.ip("addr del 172.30.0.11/24 dev und0")
    n1.ip("addr add 172.30.0.21/24 dev und0")
    n1.start()
    await n1.until(lambda: notes(api).get(FLANNEL + "public-ip") == "172.30.0.21")
    assert n1.observe().links["flannel.1"].mac == mac
