"""New TCP connections per second to a pod: without policies, with thousands, and by chains as Calico's.

One node has Towpath's table, programmed by the product's own compiler and kernel layer, and a pod for each
case; two more have the chains that Felix writes (``bench.policy_chains``), by nftables and by iptables. Only
the last policy, or rule, allows.
"""

import json
import statistics
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

from bench import policy_chains
from bench.policy_chains import CHAINS, PeerOf
from bench.policy_node import PORT, Node
from towpath.desired.protection import Peering
from towpath.desired.ruleset import ruleset
from towpath.model.net import Addr
from towpath.model.network import ClusterNetwork
from towpath.policy.engine import Batch, Engine
from towpath.policy.ir import TCP, Action, Endpoint, Peer, Policy, Ports, Rule
from towpath.policy.selector import equal
from towpath.reconcile.tables import diff_table

CLIENT = "10.42.0.2"
CASES = {"none": 0, "many": 10_000, "half": 5_000, "alternating": 1_000}
# Short turns: how fast the machine is changes from one second to the next.
ROUNDS, SECONDS = 60, 0.2
_PEERS = int(IPv4Address("10.48.0.0"))


def allowing(number: int, action: Action = "allow") -> Rule:
    """A rule about peer ``number``."""
    peer = Peer(selector=equal("app", f"peer-{number}"))
    return Rule(action=action, protocol=TCP, source=peer, destination_ports=Ports(((PORT, PORT),)))


def policies(case: str, count: int) -> list[Policy]:
    """Those of a pod. The client is the peer with number ``count``."""
    if case == "alternating":
        rules = (allowing(count - n, "allow" if n % 2 == 0 else "deny") for n in reversed(range(count)))
        return [Policy(kind="Policy", name=case, selector=equal("app", case), ingress=tuple(rules))]
    return [
        Policy(
            kind="Policy", name=f"{case}-{n}", order=n, selector=equal("app", case), ingress=(allowing(n),)
        )
        for n in range(1, count + 1)
    ]


def towpath() -> Node:
    """A pod for each of ``CASES``; the client is in all of them the last peer."""
    node = Node()
    client = node.add("client", CLIENT)
    numbers = {count for count in CASES.values() if count}
    others = [n for n in range(1, max(numbers) + 1) if n not in numbers]
    # The last peer of each case is at the client's address.
    endpoints = [_peer(n, (IPv4Address(_PEERS + n),)) for n in others]
    endpoints += [_peer(n, client.addresses) for n in sorted(numbers)]
    found: list[Policy] = []
    endpoints.append(Endpoint(name="Pod/default/client", labels={}, addresses=client.addresses))
    for place, (case, count) in enumerate(CASES.items()):
        att = node.add(case, f"10.42.0.{10 + place}")
        labels = {"app": case}
        endpoints.append(Endpoint(name=f"Pod/default/{case}", labels=labels, addresses=att.addresses))
        found += policies(case, count)
    engine = Engine()
    engine.apply(Batch(endpoints=tuple(endpoints), policies=tuple(found)))
    names = {att.host_ifname: f"Pod/default/{att.container_id}" for att in node.attachments}
    engine.set_local(names)
    cidr = IPv4Network("10.42.0.0/16")
    table = ruleset(ClusterNetwork(ipv4=cidr), (cidr,), node.attachments, engine.program(), Peering())
    update = diff_table(None, table)
    assert update is not None
    node.kernel.apply([update])
    return node


def _peer(number: int, addresses: tuple[Addr, ...]) -> Endpoint:
    return Endpoint(name=f"Pod/default/peer-{number}", labels={"app": f"peer-{number}"}, addresses=addresses)


def chains(write: Callable[[Node, str, PeerOf], None]) -> Node:
    """The same pod behind chains of Felix's."""
    node = Node()
    node.add("client", CLIENT)
    server = node.add("chains", "10.42.0.10")
    write(node, server.host_ifname, lambda n: IPv4Address(CLIENT if n == CHAINS else _PEERS + n))
    return node


def main() -> None:
    """All cases, turn by turn; the medians."""
    ours = towpath()
    theirs = {"chains": chains(policy_chains.nftables), "iptables": chains(policy_chains.iptables)}
    places = {case: (ours, f"10.42.0.{10 + n}") for n, case in enumerate(CASES)}
    places |= {name: (node, "10.42.0.10") for name, node in theirs.items()}
    seen: dict[str, list[float]] = {case: [] for case in places}
    try:
        for case, (node, _) in places.items():
            node.serve(case if node is ours else "chains")
        for node in (ours, *theirs.values()):
            node.settle()
        for turn in range(ROUNDS):
            for case, (node, address) in places.items():
                seen[case].append(node.connections("client", address, SECONDS))
            if turn % 10 == 9:
                last = ", ".join(f"{case} {rates[-1]:.0f}" for case, rates in seen.items())
                print(f"connections/s {turn + 1}/{ROUNDS}: {last}", file=sys.stderr)
    finally:
        for node in (ours, *theirs.values()):
            node.close()
    # Each turn by itself, as the machine's speed changes from one to the next.
    compared = {
        "many": ("many", "none"),
        "alternating": ("alternating", "none"),
        "chains": ("half", "chains"),
        "iptables": ("half", "iptables"),
    }
    ratios = {
        name: statistics.median(a / b for a, b in zip(seen[case], seen[base], strict=True))
        for name, (case, base) in compared.items()
    }
    medians = {case: round(statistics.median(rates)) for case, rates in seen.items()}
    print(json.dumps({"ratios": ratios, "per_second": medians}))


if __name__ == "__main__":
    main()
