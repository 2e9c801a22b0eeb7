"""Pods have the right addresses, reach whom they should, and are seen as whom they should be."""

import contextlib
import itertools
import socket
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from installed import PORT, Installed, addresses, patiently, service

from towpath.lab import topology
from towpath.lab.real.cluster import OUTSIDE_PORT
from towpath.lab.real.echo import ask

pytestmark = pytest.mark.e2e


def test_versions_show_as_canals_do(cluster: Installed) -> None:
    wide = cluster.real.kubectl("get", "daemonset", "-n", "kube-system", "towpath", "-o", "wide")
    image = cluster.values.image
    assert image in wide

    def found() -> list[str]:
        """Grep towpath -A1."""
        lines = cluster.real.kubectl("get", "node", "-o", "yaml").splitlines()
        pairs = itertools.pairwise(map(str.strip, lines))
        return [following for line, following in pairs if "towpath-agent@sha256:" in line]

    # A kubelet tells of its images once in a while.
    cluster.real.wait_until(lambda: len(found()) == len(cluster.real.machines), "images listed", 300)
    assert set(found()) == {f"- {image}"}


def test_the_agents_are_the_images_with_another_user_and_one_capability(cluster: Installed) -> None:
    for name in cluster.real.machines:
        (pid,) = agents(name)
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        assert status["Uid"] == [str(cluster.values.uid)] * 4
        capabilities = [int(status[f"Cap{kind}"][0], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
        net_admin = 1 << 12
        assert capabilities == [0, net_admin, net_admin, net_admin, 0], "and nothing for who comes after it"
        assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
        assert int(status["Seccomp_filters"][0]) >= 2, "the launcher's, and the profile on the node"
        root = Path(f"/proc/{pid}/root")
        assert (root / "usr/bin/towpath-launch").exists()
        assert not (root / "bin/sh").exists()


def agents(node: str) -> list[int]:
    """Processes of the agent on ``node``."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
            if b"towpath.agent" in words and f"TOWPATH_NODE_NAME={node}".encode() in environment:
                found.append(int(folder.name))
    return found


def test_thirty_pods_two_families_three_nodes(cluster: Installed) -> None:
    pods = cluster.deploy("web", 30)
    ranges = {n["metadata"]["name"]: n["spec"]["podCIDRs"] for n in cluster.real.get("nodes")["items"]}
    for pod in pods:
        four, six = (ip_address(ip) for ip in addresses(pod))
        cidr4, cidr6 = (ip_network(cidr) for cidr in ranges[pod["spec"]["nodeName"]])
        assert four in cidr4
        assert six in cidr6
    assert len({ip for pod in pods for ip in addresses(pod)}) == 60
    assert {pod["spec"]["nodeName"] for pod in pods} == set(cluster.real.machines)
    cluster.wait_nothing_leaked()  # as many leases and interfaces as pods

    one_a_node = {pod["spec"]["nodeName"]: pod for pod in pods}
    for node, pod in one_a_node.items():
        name = pod["metadata"]["name"]
        for other in one_a_node.values():
            for mine, theirs in zip(addresses(pod), addresses(other), strict=True):
                assert cluster.ask_from(name, theirs) == (other["metadata"]["name"], mine)
                machine = cluster.real.machines[node]
                assert machine.inside(partial(ask, theirs, PORT))[0] == other["metadata"]["name"]


def test_to_nodes_and_to_the_outside(cluster: Installed) -> None:
    pod = cluster.run("caller", "n2")
    spec = cluster.real.spec
    for machine in cluster.real.machines.values():
        for address in topology.internal_ips(spec, machine.one):
            cluster.inside("caller", partial(_connect, address))
    mine = topology.internal_ips(spec, spec.node("n2"))
    assert len(addresses(pod)) == 2
    for address, node in zip(topology.outside_addresses(spec), mine, strict=True):
        assert cluster.ask_from("caller", address, OUTSIDE_PORT) == ("outside", node)  # masqueraded


def test_services(cluster: Installed) -> None:
    pods = cluster.deploy("web", 3)
    names = {pod["metadata"]["name"] for pod in pods}
    caller = cluster.run("caller", "n1")
    cluster.real.apply([service("web")])
    for address in cluster.real.get("service", "web")["spec"]["clusterIPs"]:
        mine = addresses(caller)[":" in address]
        assert {cluster.ask_from("caller", address, 80)[1] for _ in range(4)} == {mine}  # not masqueraded
        from_node = patiently(partial(cluster.real.machines["n1"].inside, partial(ask, address, 80)))
        assert from_node[0] in names
    everybody: set[str] = set()

    def all_answer() -> bool:
        everybody.add(patiently(lambda: cluster.ask_from("caller", address, 80))[0])
        return everybody >= names

    cluster.real.wait_until(all_answer, f"each of {names} answers", 300)
    assert everybody == names


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_node_ports(cluster: Installed, policy: str) -> None:
    pod = cluster.run("web", "n1")
    cluster.real.apply([service("web", type="NodePort", externalTrafficPolicy=policy)])
    port = cluster.real.get("service", "web")["spec"]["ports"][0]["nodePort"]
    spec = cluster.real.spec
    outside = topology.outside_addresses(spec)
    for family, (own, node) in enumerate(
        zip(outside, topology.internal_ips(spec, spec.node("n1")), strict=True)
    ):
        name, seen = patiently(partial(cluster.real.outside, partial(ask, node, port)))
        assert name == "web"
        # Cluster: masqueraded, so that the answer comes back the same way; Local: the caller is seen.
        mine = own if policy == "Local" else seen
        assert seen == mine
        assert (seen == own) == (policy == "Local")
        other = topology.internal_ips(spec, spec.node("n2"))[family]
        if policy == "Cluster":
            assert patiently(partial(cluster.real.outside, partial(ask, other, port)))[0] == "web"
        else:
            with pytest.raises(OSError):
                cluster.real.outside(partial(ask, other, port, timeout=1))
    assert pod["spec"]["nodeName"] == "n1"


def test_a_pod_reaches_itself_through_its_service(cluster: Installed) -> None:
    cluster.run("web", "n1")
    cluster.real.apply([service("web")])
    for address in cluster.real.get("service", "web")["spec"]["clusterIPs"]:
        assert cluster.ask_from("web", address, 80)[0] == "web"


def test_host_ports(cluster: Installed) -> None:
    pod = cluster.run("web", "n1", ports=({"containerPort": PORT, "hostPort": 18080},))
    caller = cluster.run("caller", "n2")
    spec = cluster.real.spec
    outside = topology.outside_addresses(spec)
    for own, mine, node in zip(
        outside, addresses(caller), topology.internal_ips(spec, spec.node("n1")), strict=True
    ):
        assert patiently(partial(cluster.real.outside, partial(ask, node, 18080))) == ("web", own)
        assert cluster.ask_from("caller", node, 18080)[0] == "web"
        assert mine in addresses(caller)
        assert cluster.real.machines["n1"].inside(partial(ask, node, 18080))[0] == "web"
        assert cluster.ask_from("web", node, 18080)[0] == "web"  # hairpin
    assert cluster.real.machines["n1"].inside(lambda: ask("127.0.0.1", 18080))[0] == "web"
    cluster.real.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    held = set(addresses(pod))
    cluster.real.wait_until(lambda: not held & cluster.leases("n1"), "the addresses are free", 300)
    with pytest.raises(OSError):
        cluster.real.outside(lambda: ask(node, 18080, timeout=1))


def test_deletion_frees_the_address(cluster: Installed) -> None:
    held = set(addresses(cluster.run("short", "n1")))
    assert held <= cluster.leases("n1")
    cluster.real.kubectl("delete", "pod", "short", "--wait=false")
    cluster.real.wait_until(lambda: not held & cluster.leases("n1"), "the addresses are free", 300)


def _connect(address: str) -> None:
    """A TCP connection to the kubelet's port of a node."""
    socket.create_connection((address, 10250), 3).close()
