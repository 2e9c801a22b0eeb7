"""Small worlds for policy tests: what a test is about spelt out, or drawn by hypothesis."""

from ipaddress import ip_address, ip_network
from typing import Any, Literal

from hypothesis import strategies as st
from msgspec.structs import replace

from towpath.model.net import Net
from towpath.policy.evaluate import Flow
from towpath.policy.ir import (
    ICMP,
    ICMPV6,
    KIND,
    METADATA_NAME,
    NAMESPACE,
    NAMESPACE_NAME,
    NAMESPACE_PREFIX,
    ORCHESTRATOR,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    Aspect,
    Endpoint,
    Icmp,
    NamedPort,
    NetworkSet,
    Peer,
    Policy,
    Ports,
    Rule,
    Tier,
    World,
)
from towpath.policy.selector import All, Has, In, Not, Selector, Text, conjunction, disjunction

PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP, "icmp": ICMP, "icmpv6": ICMPV6, "udplite": UDPLITE}


def pod(name: str, *addresses: str, ports: tuple[NamedPort, ...] = (), **labels: str) -> Endpoint:
    """Pod ``NAMESPACE/NAME``."""
    namespace = name.split("/")[0]
    complete = {
        **labels,
        KIND: "pod",
        ORCHESTRATOR: "k8s",
        NAMESPACE: namespace,
        NAMESPACE_NAME: namespace,
        NAMESPACE_PREFIX + METADATA_NAME: namespace,
    }
    return Endpoint(
        name=f"Pod/{name}", labels=complete, addresses=tuple(map(ip_address, addresses)), ports=ports
    )


def node(name: str, *addresses: str, **labels: str) -> Endpoint:
    """A node: a peer, never judged."""
    return Endpoint(
        name=f"Node/{name}", labels={**labels, KIND: "node"}, addresses=tuple(map(ip_address, addresses))
    )


def host(name: str, *addresses: str, **labels: str) -> Endpoint:
    """A host endpoint, which denies what no tier decides."""
    return Endpoint(
        name=f"HostEndpoint/{name}",
        labels={**labels, KIND: "hostendpoint"},
        addresses=tuple(map(ip_address, addresses)),
        unmatched="deny",
    )


def nets(*texts: str) -> tuple[Net, ...]:
    """Networks from their texts."""
    return tuple(map(ip_network, texts))


def flow(source: str, destination: str, protocol: str | int = "tcp", port: int = 80, **fields: int) -> Flow:
    """To ``port``, of a protocol named or numbered."""
    number = protocol if isinstance(protocol, int) else PROTOCOLS[protocol]
    return Flow(
        source=ip_address(source),
        destination=ip_address(destination),
        protocol=number,
        destination_port=port,
        **fields,
    )


def policy(name: str, **fields: Any) -> Policy:
    """A policy whose kind is of no interest."""
    return Policy(**{"kind": "Policy", "name": name, **fields})


# Few values of everything, so that what is drawn overlaps.
KEYS, VALUES = ("app", "env", "x-app"), ("a", "b", "ab")
ADDRESSES = tuple(f"10.0.0.{n}" for n in range(8)) + tuple(f"fd00::{n}" for n in range(4))
OUTSIDE = ("10.0.0.200", "10.9.0.1", "192.0.2.1", "fd00::99", "2001:db8::1")
NETS = nets(
    *("10.0.0.0/30", "10.0.0.2/32", "10.0.0.4/31", "10.0.0.0/8", "0.0.0.0/0", "192.0.2.0/24"),
    *("fd00::/126", "fd00::2/128", "::/0"),
)
PORTS = (0, 22, 79, 80, 81, 90, 443, 65535)
NAMES = ("http", "dns")

_labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
_kinds = st.sampled_from(("pod", "hostendpoint", "node", "networkset"))
_atoms: st.SearchStrategy[Selector] = st.one_of(
    st.just(All()),
    st.builds(Has, st.sampled_from(KEYS)),
    st.builds(In, st.sampled_from(KEYS), st.lists(st.sampled_from(VALUES), unique=True).map(tuple)),
    st.builds(
        Text,
        st.sampled_from(KEYS),
        st.sampled_from(("contains", "starts with", "ends with")),
        st.sampled_from(("a", "b")),
    ),
    _kinds.map(lambda kind: In(KIND, (kind,))),
)
selectors: st.SearchStrategy[Selector] = st.recursive(
    _atoms,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.lists(inner, max_size=2).map(lambda parts: conjunction(*parts)),
        st.lists(inner, max_size=2).map(lambda parts: disjunction(*parts)),
    ),
    max_leaves=3,
)
_nets = st.lists(st.sampled_from(NETS), max_size=3, unique=True).map(tuple)
_port_ranges = st.sampled_from(
    ((), ((80, 80),), ((80, 81),), ((0, 79), (443, 443)), ((81, 65535),), ((0, 65535),))
)
ports = st.builds(Ports, ranges=_port_ranges, names=st.sampled_from(((), (), ("http",), ("http", "dns"))))
_named = st.builds(
    NamedPort,
    name=st.sampled_from(NAMES),
    protocol=st.sampled_from((TCP, UDP)),
    port=st.sampled_from((80, 81, 443)),
)


def _maybe(strategy: st.SearchStrategy[Any], odds: int = 3) -> st.SearchStrategy[Any]:
    return st.one_of(*(st.none() for _ in range(odds)), strategy)


_peers = st.builds(
    Peer,
    selector=_maybe(selectors, 1),
    not_selector=_maybe(selectors, 4),
    nets=_maybe(_nets),
    not_nets=st.one_of(st.just(()), st.just(()), _nets),
)
_icmp = st.sampled_from((Icmp(), Icmp(8), Icmp(8, 0), Icmp(3, 1), Icmp(128), Icmp(128, 0)))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Any rule that says what a converter may say."""
    fields: dict[str, Any] = {
        "action": draw(st.sampled_from(("allow", "allow", "deny", "pass", "log"))),
        "family": draw(_maybe(st.sampled_from((4, 6)), 5)),
        "source": draw(_peers),
        "destination": draw(_peers),
    }
    about = draw(st.sampled_from(("any", "any", "protocol", "ports", "ports", "ports", "icmp")))
    if about == "protocol":
        which = draw(st.sampled_from(("protocol", "not_protocol")))
        fields[which] = draw(st.sampled_from((TCP, UDP, ICMP, ICMPV6, UDPLITE, 47)))
    elif about == "ports":
        fields["protocol"] = draw(st.sampled_from((TCP, TCP, UDP, SCTP)))
        fields["destination_ports"] = draw(_maybe(ports, 1))
        fields["not_destination_ports"] = draw(_maybe(ports, 4))
        fields["source_ports"] = draw(_maybe(ports, 6))
        fields["not_source_ports"] = draw(_maybe(ports, 8))
    elif about == "icmp":
        fields[draw(st.sampled_from(("icmp", "not_icmp")))] = draw(_icmp)
    return Rule(**fields)


def numbered(direction: str, found: list[Rule]) -> tuple[Rule, ...]:
    """With paths as a converter gives them."""
    return tuple(replace(rule, path=f"spec.{direction}[{number}]") for number, rule in enumerate(found))


@st.composite
def policies(draw: st.DrawFn) -> list[Policy]:
    """A few, with distinct names, in several tiers."""

    def direction(name: str) -> st.SearchStrategy[tuple[Rule, ...] | None]:
        return st.one_of(st.none(), st.lists(rules(), max_size=3).map(lambda found: numbered(name, found)))

    return [
        Policy(
            kind="Policy",
            name=f"p{number}",
            tier=draw(st.sampled_from(("default", "default", "first", "last", "missing"))),
            order=draw(st.sampled_from((1.0, 2.0, float("inf")))),
            selector=draw(selectors),
            ingress=draw(direction("ingress")),
            egress=draw(direction("egress")),
            do_not_track=(place := draw(st.integers(0, 9))) == 0,
            pre_dnat=place == 1,
        )
        for number in range(draw(st.integers(0, 4)))
    ]


_defaults: st.SearchStrategy[Literal["deny", "pass", "allow"]] = st.sampled_from(("deny", "pass", "allow"))


@st.composite
def endpoints(draw: st.DrawFn) -> list[Endpoint]:
    """Pods of one or two families, host endpoints and nodes; now and then two share an address."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(("pod", "pod", "pod", "hostendpoint", "node")))
        found.append(
            Endpoint(
                name=f"{kind}/{number}",
                labels={**draw(_labels), KIND: kind},
                addresses=tuple(
                    map(ip_address, draw(st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True)))
                ),
                ports=tuple(draw(st.lists(_named, max_size=2))),
                unmatched=draw(st.sampled_from(("allow", "deny"))) if kind == "hostendpoint" else "allow",
            )
        )
    return found


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A whole world; every criterion of every rule comes up."""
    return World(
        tiers=(
            Tier(name="first", order=1, default=draw(_defaults)),
            Tier(name="last", order=2_000_000, default=draw(_defaults)),
        ),
        policies=tuple(draw(policies())),
        endpoints=tuple(draw(endpoints())),
        network_sets=tuple(
            NetworkSet(
                name=f"GlobalNetworkSet/{number}",
                labels={**draw(_labels), KIND: "networkset"},
                nets=draw(_nets),
            )
            for number in range(draw(st.integers(0, 2)))
        ),
    )


_ASPECTS: tuple[Aspect, ...] = ("local", "forwarded", "forwarded", "untracked", "pre-dnat")


@st.composite
def hosted_worlds(draw: st.DrawFn) -> World:
    """``worlds`` with policies for host endpoints of every kind, and two host endpoints at least."""
    sparse = draw(worlds())
    lists = st.lists(rules(), max_size=3)
    policies = tuple(
        Policy(
            kind="Policy",
            name=f"p{number}",
            tier=draw(st.sampled_from(("default", "default", "first", "last"))),
            order=draw(st.sampled_from((1.0, 2.0))),
            selector=draw(st.one_of(st.just(All()), st.just(All()), selectors)),
            ingress=draw(st.one_of(st.none(), *[lists.map(lambda found: numbered("ingress", found))] * 2)),
            egress=draw(st.one_of(st.none(), *[lists.map(lambda found: numbered("egress", found))] * 2)),
            apply_on_forward=kind != "local",
            do_not_track=kind == "untracked",
            pre_dnat=kind == "pre-dnat",
        )
        for number, kind in enumerate(draw(st.lists(st.sampled_from(_ASPECTS), min_size=1, max_size=4)))
    )
    hosts = tuple(
        Endpoint(
            name=f"HostEndpoint/{name}",
            labels={"app": name, KIND: "hostendpoint"},
            unmatched=draw(st.sampled_from(("allow", "deny"))),
        )
        for name in ("a", "b")
    )
    return replace(sparse, policies=policies, endpoints=(*sparse.endpoints, *hosts))
