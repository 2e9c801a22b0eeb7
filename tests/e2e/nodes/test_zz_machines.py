"""Nodes come and go. Last in the folder: afterwards the cluster has other nodes."""

from functools import partial

import pytest
from installed import PORT, Installed, addresses, patiently

from towpath.lab.real.echo import ask
from towpath.lab.topology import NodeSpec

pytestmark = pytest.mark.e2e


def test_reboot(cluster: Installed) -> None:
    before = cluster.deploy("survivor", 6)
    machine = cluster.real.machines["n2"]
    here = {ip for p in before if p["spec"]["nodeName"] == "n2" for ip in addresses(p)}
    assert here
    assert here <= cluster.leases("n2")
    boot = machine.boot_id
    machine.reboot()
    cluster.real.wait_until(
        lambda: cluster.real.get("node", "n2")["status"]["nodeInfo"]["bootID"] == machine.boot_id != boot,
        "the new boot id",
        300,
    )
    cluster.wait_nodes()
    cluster.wait_nothing_leaked()
    pods = cluster.wait_pods("survivor", 6)
    for pod in pods:
        for address in addresses(pod):
            # n1 has perhaps not heard yet where the node's tunnel ends now.
            answer = patiently(partial(cluster.real.machines["n1"].inside, partial(ask, address, PORT)))
            assert answer[0] == pod["metadata"]["name"]


def test_drained_and_removed_then_another_added(cluster: Installed) -> None:
    cluster.deploy("mover", 6)
    cidrs = cluster.real.get("node", "n3")["spec"]["podCIDRs"]
    own = cluster.real.machines["n3"].one
    cluster.real.kubectl("cordon", "n3")

    def moved() -> bool:
        """A scheduler that has not heard of it yet puts there what drain has just evicted: that goes, too."""
        cluster.real.kubectl(
            "drain", "n3", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=300s"
        )
        return {p["spec"]["nodeName"] for p in cluster.wait_pods("mover", 6)} == {"n1", "n2"}

    cluster.real.wait_until(moved, "all of them elsewhere", 300)
    cluster.real.remove_node("n3")
    cluster.real.kubectl("delete", "node", "n3")
    for name in ("n1", "n2"):
        machine = cluster.real.machines[name]

        def forgotten(one: str = name) -> bool:
            here = cluster.real.machines[one]
            routes = here.run("ip", "route") + here.run("ip", "-6", "route")
            entries = here.run("bridge", "fdb", "show")
            known = (*cidrs, f"dst {own.ipv4.ip} ", f"dst {own.ipv6.ip} ")
            return not any(text in routes + entries for text in known)

        cluster.real.wait_until(forgotten, f"{name} forgets n3", 300)
        assert machine.init

    cluster.real.add_node(NodeSpec(name="n4", host=14))
    cluster.wait_nodes()
    pod = cluster.run("fresh", "n4")
    for address in addresses(pod):
        for name in ("n1", "n2"):
            from_there = partial(cluster.real.machines[name].inside, partial(ask, address, PORT))
            assert patiently(from_there)[0] == "fresh"  # once it has heard of the new node
