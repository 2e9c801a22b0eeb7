"""MultiNetworkPolicy on interfaces in other networks: real shim, sockets, rules, packets."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from attach_node import run
from network_node import NetworkNode, executable
from shim_harness import Shim, shim
from test_networks import MACVLAN, api, fresh, node

from towpath.kernel.netns import run_in
from towpath.kernel.nft_owner import ownable
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import NAMESPACES, Kind, Raw
from towpath.policy.secondary import POLICY_FOR

pytestmark = pytest.mark.kernel

POLICIES: Kind[Raw] = Kind(
    plural="multi-networkpolicies", type=dict, group="k8s.cni.cncf.io", version="v1beta1"
)
STATIC = {"type": "static", "addresses": [{"address": "10.9.0.254/24"}, {"address": "fd09::fe/64"}]}
A, B, C = "10.9.0.1", "10.9.0.2", "10.9.0.3"


@pytest.fixture
def policed(api: FakeApiServer) -> FakeApiServer:
    """An API server that has the kind."""
    api.served["k8s.cni.cncf.io", "v1beta1"] = [POLICIES.plural]
    api.put(NAMESPACES, {"metadata": {"name": "default", "labels": {"team": "one"}}})
    return api


def policy(api: FakeApiServer, name: str, spec: dict[str, Any], networks: str = "mv") -> None:
    api.put(
        POLICIES,
        {
            "metadata": {"name": name, "namespace": "default", "annotations": {POLICY_FOR: networks}},
            "spec": spec,
        },
    )


def only_from(app: str, to: str = "a", **ports: Any) -> dict[str, Any]:
    peer = {"podSelector": {"matchLabels": {"app": app}}}
    return {
        "podSelector": {"matchLabels": {"app": to}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [peer], **ports}],
    }


async def pods(node: NetworkNode) -> None:
    """a, b and c in the network ``mv``, each with the label ``app``."""
    node.define("mv", {**MACVLAN, "ipam": STATIC})
    for number, name in enumerate("abc", 1):
        node.pod(name, [{"name": "mv", "ips": [f"10.9.0.{number}", f"fd09::{number}"]}], app=name)
        await node.add(name)


@contextmanager
def ends(node: NetworkNode, source: str, target: str, address: str, port: int) -> Iterator[tuple[Any, Any]]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        run_in(node.attach.netns(target), lambda: socket.socket(family, socket.SOCK_DGRAM)) as server,
        run_in(node.attach.netns(source), lambda: socket.socket(family, socket.SOCK_DGRAM)) as client,
    ):
        server.bind((address, port))
        server.settimeout(0.2)
        client.settimeout(0.2)
        yield server, client


def reaches(node: NetworkNode, source: str, target: str, address: str, port: int = 7) -> bool:
    """A datagram gets there, and its answer back: by the first, or one of those that follow it."""
    with ends(node, source, target, address, port) as (server, client):
        for _ in range(300):
            client.sendto(b"ask", (address, port))
            with suppress(TimeoutError):
                _, peer = server.recvfrom(100)
                server.sendto(b"answer", peer)
                return bool(client.recv(100) == b"answer")
    return False


def denied(node: NetworkNode, source: str, target: str, address: str, port: int = 7) -> bool:
    """The target's rules count a datagram as denied, and it does not get there."""
    before = drops(node, target)
    with ends(node, source, target, address, port) as (server, client):
        for _ in range(300):
            client.sendto(b"ask", (address, port))
            with suppress(TimeoutError):
                server.recvfrom(100)
                return False
            if drops(node, target) > before:
                return True
    return False


def drops(node: NetworkNode, pod: str) -> int:
    listed = run_in(node.attach.netns(pod), lambda: run("nft list ruleset"))
    [packets] = re.findall(r"chain denied {\s+counter packets (\d+)", listed)
    return int(packets)


def rules(node: NetworkNode, pod: str) -> str:
    return run_in(node.attach.netns(pod), lambda: run("nft --stateless list ruleset"))


async def test_policy_of_a_network_in_both_families_and_replies(
    policed: FakeApiServer, node: NetworkNode
) -> None:
    policy(policed, "p", only_from("b", ports=[{"protocol": "UDP", "port": 7}]))
    await node.until(lambda: bool(node.policies._worlds))
    await pods(node)
    await node.until(lambda: "10.9.0.2" in rules(node, "a"))
    for address in (A, "fd09::1"):
        assert reaches(node, "b", "a", address)
        assert denied(node, "c", "a", address)
        assert denied(node, "b", "a", address, 8)
    # What a sends is not spoken of, and what answers it is known.
    assert reaches(node, "a", "c", C)
    assert reaches(node, "c", "b", B)
    assert rules(node, "b") == ""  # nothing where no policy is


async def test_policy_is_in_force_before_the_plugin_runs(policed: FakeApiServer, node: NetworkNode) -> None:
    policy(policed, "p", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
    await node.until(lambda: bool(node.policies._worlds))
    seen = node.attach.folder / "seen"
    node.script(
        f"[ $CNI_COMMAND = ADD ] || exit 0; nsenter --net=$CNI_NETNS nft list tables > {seen}\n"
        'echo \'{"cniVersion": "1.0.0", "ips": []}\''
    )
    node.define("mv", {"cniVersion": "1.0.0", "type": "script"})
    node.pod("a", "mv", app="a")
    await node.add("a")
    assert seen.read_text() == "table inet towpath_net1\n"


async def test_changes_reach_pods_that_run(policed: FakeApiServer, node: NetworkNode) -> None:
    await pods(node)
    assert reaches(node, "c", "a", A)
    policy(policed, "p", only_from("b"))
    await node.until(lambda: "10.9.0.2" in rules(node, "a"))
    assert denied(node, "c", "a", A)
    assert reaches(node, "b", "a", A)
    relabelled = policed.get(POLICIES, "p", "default")
    relabelled["spec"]["ingress"][0]["from"] = [{"namespaceSelector": {"matchLabels": {"team": "one"}}}]
    policed.put(POLICIES, relabelled)
    await node.until(lambda: "10.9.0.3" in rules(node, "a"))
    assert reaches(node, "c", "a", A)
    policed.put(NAMESPACES, {"metadata": {"name": "default", "labels": {"team": "two"}}})
    await node.until(lambda: "10.9.0.3" not in rules(node, "a"))
    assert denied(node, "c", "a", A)
    policed.remove(POLICIES, "p", "default")
    await node.until(lambda: "chain" not in rules(node, "a"))
    assert reaches(node, "c", "a", A)


async def test_policies_for_other_networks_or_none_do_nothing_here(
    policed: FakeApiServer, node: NetworkNode
) -> None:
    nothing = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    policy(policed, "other", nothing, "elsewhere, other/mv")
    policy(policed, "nowhere", nothing, "a/b/c")
    await node.until(lambda: len(node.policies._named) == 1)
    await pods(node)
    assert reaches(node, "c", "a", A)
    [finding] = [f for f in node.firewalls.findings() if f.code == "TP5138"]
    assert (finding.object, "'a/b/c'" in finding.message) == ("MultiNetworkPolicy/default/nowhere", True)


async def test_what_cannot_be_read_lets_nothing_through(policed: FakeApiServer, node: NetworkNode) -> None:
    await pods(node)
    spec = only_from("b")
    spec["ingress"][0]["from"].append({"podSelector": {"matchLabels": {"app": "c"}}, "odd": 1})
    policy(policed, "p", spec)
    await node.until(lambda: "chain" in rules(node, "a"))
    assert denied(node, "b", "a", A)
    assert [f.object for f in node.firewalls.findings()] == ["MultiNetworkPolicy/default/p"]


async def test_an_agent_started_anew_reaches_pods_by_the_next_call(
    policed: FakeApiServer, fresh: NetworkNode
) -> None:
    policy(policed, "p", only_from("b"))
    async with fresh.agent():
        await fresh.until(lambda: bool(fresh.policies._worlds))
        await pods(fresh)
        await fresh.until(lambda: "10.9.0.2" in rules(fresh, "a"))
        before = rules(fresh, "a")
    assert rules(fresh, "a") == before  # nothing is taken away
    assert denied(fresh, "c", "a", A)
    policed.remove(POLICIES, "p", "default")
    policy(policed, "p", only_from("c"))
    async with fresh.agent():
        await fresh.until(lambda: len(fresh.policies._worlds) == 1)
        assert rules(fresh, "a") == before
        await fresh.call("STATUS", "a")
        assert reaches(fresh, "c", "a", A)
        assert denied(fresh, "b", "a", A)
        for name in "abc":
            await fresh.delete(name)
        assert not fresh.firewalls._tables


async def test_while_nothing_is_known_new_interfaces_get_nothing_through(
    policed: FakeApiServer, fresh: NetworkNode
) -> None:
    async with fresh.agent():
        await pods(fresh)
    async with fresh.agent():
        fresh.policies._complete, fresh.policies._others = False, lambda: "pods not listed yet"
        await fresh.delete("a")
        await fresh.add("a")
        assert "goto denied" in rules(fresh, "a")
        assert "chain" not in rules(fresh, "b")  # what was there is left as it is
        fresh.policies._others = lambda: ""
        fresh.firewalls.enforce()
        assert reaches(fresh, "c", "a", A)


async def test_a_pod_that_cannot_be_guarded_does_not_start(
    policed: FakeApiServer, node: NetworkNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> Any:
        raise OSError("no nftables here")

    monkeypatch.setattr(node.firewalls, "_open", refuse)
    node.define("mv", {**MACVLAN, "ipam": STATIC})
    node.pod("a", [{"name": "mv", "ips": [A]}])
    code, text = await node.refused("ADD", "a")
    assert (code, "no nftables here" in text, "TP6025" in text) == (7, True, True)
    assert node.leftovers() == []
    assert [reason for reason, _ in await node.events("a")] == ["TP6025"]


async def test_nobody_in_the_pod_can_take_the_rules_away(policed: FakeApiServer, fresh: NetworkNode) -> None:
    if not ownable():
        pytest.skip("this kernel has no table owners that persist")
    fresh.owner = "own"
    policy(policed, "p", only_from("b"))
    async with fresh.agent():
        await fresh.until(lambda: bool(fresh.policies._worlds))
        await pods(fresh)
        run_in(fresh.attach.netns("a"), lambda: subprocess.run(["nft", "flush", "ruleset"], check=False))
        assert "goto denied" in rules(fresh, "a")
    async with fresh.agent():
        await fresh.until(lambda: bool(fresh.policies._worlds))
        await fresh.call("STATUS", "a")
        policed.remove(POLICIES, "p", "default")
        await fresh.until(lambda: "chain" not in rules(fresh, "a"))


async def test_only_pods_namespaces_are_handed_over(policed: FakeApiServer, node: NetworkNode) -> None:
    await pods(node)
    refused: list[str] = []

    async def ask(r: Any) -> None:
        for path in ("/proc/self/ns/net", f"/proc/{os.getpid()}/ns/net", "/etc/passwd", "/nowhere"):
            try:
                await r.netfilter(path)
            except OSError as error:
                refused.append(str(error))
        for path in ("/run/containerd/containerd.sock", "/var/lib/kubelet/pod-resources/kubelet.sock"):
            try:
                await r.kubelet(path)
            except OSError as error:
                refused.append(str(error))

    node.firewalls.catch_up = ask  # type: ignore[method-assign]
    await node.call("STATUS", "a")
    assert refused[:2] == ["refused: the network namespace of the host"] * 2
    assert "Invalid argument" in refused[2]
    assert refused[3] == "No such file or directory"
    assert refused[4].startswith("refused: not the kubelet's socket")
    assert refused[5] == "No such file or directory"
