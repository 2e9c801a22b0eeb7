"""Cases of networking.k8s.io/v1 NetworkPolicy: every kind of peer, port, target, conflict and change.

What each peer and list of ports means is written beside it, so that the cases made of them need no evaluator.
"""

from typing import Any

from policy_cases import Allowed, Case, Manifest, Only, Step, into, out_of

NS_Y = {"matchLabels": {"ns": "y"}}
POD_A = {"matchLabels": {"pod": "a"}}


def key(name: str, operator: str, *values: str) -> Manifest:
    """A selector of one expression."""
    expression: Manifest = {"key": name, "operator": operator}
    return {"matchExpressions": [expression | ({"values": list(values)} if values else {})]}


# Peers of a policy in namespace x, and whom they mean.
PEERS: dict[str, tuple[Manifest, str]] = {
    "all pods of the namespace": ({"podSelector": {}}, "x/*"),
    "a pod by label": ({"podSelector": POD_A}, "x/a"),
    "another pod by label": ({"podSelector": {"matchLabels": {"pod": "b"}}}, "x/b"),
    "pods in": ({"podSelector": key("pod", "In", "b", "c")}, "x/b x/c"),
    "pods not in": ({"podSelector": key("pod", "NotIn", "a", "b")}, "x/c"),
    "pods not in, by a key nobody has": ({"podSelector": key("tier", "NotIn", "a")}, "x/*"),
    "pods that have a key": ({"podSelector": key("pod", "Exists")}, "x/*"),
    "pods that lack a key": ({"podSelector": key("pod", "DoesNotExist")}, ""),
    "pods by a label nobody has": ({"podSelector": {"matchLabels": {"pod": "d"}}}, ""),
    "pods by two expressions": (
        {"podSelector": {"matchLabels": {"pod": "b"}, **key("pod", "NotIn", "a", "c")}},
        "x/b",
    ),
    "pods by expressions that exclude each other": (
        {"podSelector": {"matchLabels": {"pod": "b"}, **key("pod", "In", "a")}},
        "",
    ),
    "all namespaces": ({"namespaceSelector": {}}, "*"),
    "a namespace by label": ({"namespaceSelector": NS_Y}, "y/*"),
    "its own namespace by label": ({"namespaceSelector": {"matchLabels": {"ns": "x"}}}, "x/*"),
    "namespaces in": ({"namespaceSelector": key("ns", "In", "y", "z")}, "y/* z/*"),
    "namespaces not in": ({"namespaceSelector": key("ns", "NotIn", "y")}, "x/* z/*"),
    "namespaces that have a key": ({"namespaceSelector": key("ns", "Exists")}, "*"),
    "namespaces that lack a key": ({"namespaceSelector": key("ns", "DoesNotExist")}, ""),
    "a namespace by name": (
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}},
        "z/*",
    ),
    "a namespace nobody is": ({"namespaceSelector": {"matchLabels": {"ns": "w"}}}, ""),
    "all pods of all namespaces": ({"namespaceSelector": {}, "podSelector": {}}, "*"),
    "a pod of a namespace": ({"namespaceSelector": NS_Y, "podSelector": POD_A}, "y/a"),
    "a pod of every namespace": ({"namespaceSelector": {}, "podSelector": POD_A}, "*/a"),
    "all pods of a namespace": ({"namespaceSelector": NS_Y, "podSelector": {}}, "y/*"),
    "pods and namespaces by expressions": (
        {"namespaceSelector": key("ns", "NotIn", "x"), "podSelector": key("pod", "In", "a", "b")},
        "y/a y/b z/a z/b",
    ),
    "pods that have a key, of another namespace": (
        {"namespaceSelector": NS_Y, "podSelector": key("pod", "Exists")},
        "y/*",
    ),
    "every address": ({"ipBlock": {"cidr": "${all}"}}, "*"),
    "an address": ({"ipBlock": {"cidr": "${z/c}"}}, "z/c"),
    "every address but one": ({"ipBlock": {"cidr": "${all}", "except": ["${z/c}"]}}, "* !z/c"),
    "every address but two": (
        {"ipBlock": {"cidr": "${all}", "except": ["${z/c}", "${x/b}"]}},
        "* !z/c !x/b",
    ),
    "addresses of nobody": ({"ipBlock": {"cidr": "198.18.0.0/15"}}, ""),
    "addresses of nobody, of the other family": ({"ipBlock": {"cidr": "2001:db8::/32"}}, ""),
}

# Lists of ports, and what they mean.
PORTS: dict[str, tuple[list[Any], str]] = {
    "no list": ([], "*"),
    "a number": ([{"port": 80}], "80/tcp"),
    "a TCP port": ([{"port": 81, "protocol": "TCP"}], "81/tcp"),
    "a UDP port": ([{"port": 80, "protocol": "UDP"}], "80/udp"),
    "an SCTP port": ([{"port": 81, "protocol": "SCTP"}], "81/sctp"),
    "an empty entry": ([{}], "*/tcp"),
    "TCP": ([{"protocol": "TCP"}], "*/tcp"),
    "UDP": ([{"protocol": "UDP"}], "*/udp"),
    "SCTP": ([{"protocol": "SCTP"}], "*/sctp"),
    "a name": ([{"port": "serve-80-tcp"}], "80/tcp"),
    "a name of UDP": ([{"port": "serve-81-udp", "protocol": "UDP"}], "81/udp"),
    "a name of SCTP": ([{"port": "serve-80-sctp", "protocol": "SCTP"}], "80/sctp"),
    "a name of another protocol": ([{"port": "serve-80-udp", "protocol": "TCP"}], ""),
    "a name nobody has": ([{"port": "serve-82-tcp"}], ""),
    "a range": ([{"port": 80, "endPort": 81}], "*/tcp"),
    "a range that ends there": ([{"port": 1, "endPort": 80}], "80/tcp"),
    "a range that begins there": ([{"port": 81, "endPort": 65535}], "81/tcp"),
    "a range of one": ([{"port": 81, "endPort": 81, "protocol": "UDP"}], "81/udp"),
    "a range beside": ([{"port": 82, "endPort": 90}], ""),
    "ranges that overlap": ([{"port": 1, "endPort": 80}, {"port": 80, "endPort": 81}], "*/tcp"),
    "a port nobody listens on": ([{"port": 7981}], ""),
    "two numbers": ([{"port": 80}, {"port": 81}], "*/tcp"),
    "a number and a name": ([{"port": 81}, {"port": "serve-80-tcp"}], "*/tcp"),
    "a number twice": ([{"port": 80}, {"port": 80}], "80/tcp"),
    "two protocols": ([{"port": 80}, {"port": 81, "protocol": "UDP"}], "80/tcp 81/udp"),
    "a protocol and a port of another": ([{"protocol": "UDP"}, {"port": 80}], "*/udp 80/tcp"),
    "all protocols": ([{"protocol": p} for p in ("TCP", "UDP", "SCTP")], "*"),
}

# Whom a policy of namespace x selects.
TARGETS: dict[str, tuple[Manifest, str]] = {
    "all pods": ({}, "x/*"),
    "a pod": (POD_A, "x/a"),
    "pods in": (key("pod", "In", "a", "b"), "x/a x/b"),
    "pods not in": (key("pod", "NotIn", "a"), "x/b x/c"),
    "pods that have a key": (key("pod", "Exists"), "x/*"),
    "pods that lack a key": (key("pod", "DoesNotExist"), ""),
    "nobody": ({"matchLabels": {"pod": "d"}}, ""),
}

DIRECTIONS = {"ingress": ("Ingress", "from", into), "egress": ("Egress", "to", out_of)}


def policy(name: str = "p", namespace: str = "x", **spec: Any) -> Manifest:
    """A NetworkPolicy, of the pods labelled a unless it says otherwise."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": POD_A, **spec},
    }


def rule(direction: str, *peers: str, ports: str = "no list") -> Manifest:
    """Of peers and ports by their names here."""
    _, side, _ = DIRECTIONS[direction]
    found: Manifest = {side: [PEERS[peer][0] for peer in peers]} if peers else {}
    return found | ({"ports": PORTS[ports][0]} if ports != "no list" else {})


def _meant(*peers: str, ports: str = "no list") -> tuple[Allowed, ...]:
    return tuple((PEERS[peer][1], PORTS[ports][1]) for peer in peers)


def _one_way(title: str, direction: str, rules: list[Manifest], *allowed: Allowed) -> Case:
    """A policy of pod x/a in one direction."""
    kind, _, only = DIRECTIONS[direction]
    spec: Manifest = {"policyTypes": [kind], direction: rules}
    manifest = policy(**spec)
    return Case(f"{direction}: {title}", "kubernetes", (Step((only("x/a", *allowed),), (manifest,)),))


def _still(title: str, manifests: list[Manifest], *expected: Only) -> Case:
    return Case(title, "kubernetes", (Step(expected, tuple(manifests)),))


_PAIRS = (
    ("a pod by label", "another pod by label"),
    ("all pods of the namespace", "a namespace by label"),
    ("a namespace by label", "a namespace by name"),
    ("a pod of a namespace", "pods in"),
    ("a pod of every namespace", "an address"),
    ("every address but one", "an address"),
    ("pods that lack a key", "namespaces that lack a key"),
    ("a pod by label", "every address"),
    ("namespaces not in", "pods not in"),
    ("every address but two", "another pod by label"),
)
_PEERS_WITH_PORTS = (
    ("all namespaces", "a number"),
    ("a pod by label", "UDP"),
    ("a namespace by label", "a name"),
    ("a pod of a namespace", "two protocols"),
    ("an address", "SCTP"),
    ("every address but one", "a range"),
    ("pods not in", "a name nobody has"),
    ("a namespace nobody is", "a number"),
)
_TWO_RULES = (
    (("a pod by label", "a number"), ("a namespace by label", "a UDP port")),
    (("another pod by label", "a number"), ("another pod by label", "a TCP port")),
    (("all namespaces", "a number"), ("a pod of every namespace", "no list")),
    (("every address but one", "TCP"), ("an address", "UDP")),
    (("a namespace by name", "a name"), ("a namespace nobody is", "no list")),
)


def _by_direction(direction: str) -> list[Case]:
    found = [
        _one_way("no rules", direction, []),
        _one_way("a rule that asks nothing", direction, [{}], ("*", "*")),
        _one_way("an empty list of peers", direction, [{DIRECTIONS[direction][1]: []}], ("*", "*")),
        _one_way("empty lists", direction, [{DIRECTIONS[direction][1]: [], "ports": []}], ("*", "*")),
    ]
    found += [_one_way(peer, direction, [rule(direction, peer)], *_meant(peer)) for peer in PEERS]
    for ports in PORTS:
        allowed = ("*", PORTS[ports][1])
        found.append(_one_way(f"ports, {ports}", direction, [rule(direction, ports=ports)], allowed))
    for pair in _PAIRS:
        found.append(_one_way(" or ".join(pair), direction, [rule(direction, *pair)], *_meant(*pair)))
    for peer, ports in _PEERS_WITH_PORTS:
        found.append(
            _one_way(
                f"{peer} on {ports}",
                direction,
                [rule(direction, peer, ports=ports)],
                *_meant(peer, ports=ports),
            )
        )
    for one, other in _TWO_RULES:
        rules = [rule(direction, peer, ports=ports) for peer, ports in (one, other)]
        allowed_by = [_meant(peer, ports=ports)[0] for peer, ports in (one, other)]
        title = " and by another rule ".join(f"{peer} on {ports}" for peer, ports in (one, other))
        found.append(_one_way(title, direction, rules, *allowed_by))
    return found


def _targets() -> list[Case]:
    found = []
    for title, (selector, meant) in TARGETS.items():
        manifest = policy(podSelector=selector, policyTypes=["Ingress"])
        found.append(_still(f"ingress isolates {title}", [manifest], into(meant)))
        manifest = policy(podSelector=selector, policyTypes=["Egress"])
        found.append(_still(f"egress isolates {title}", [manifest], out_of(meant)))
    manifest = policy(podSelector={}, policyTypes=["Ingress", "Egress"])
    found.append(_still("both directions isolate all pods", [manifest], into("x/*"), out_of("x/*")))
    return found


_TO_Y = {"to": [PEERS["a namespace by label"][0]]}
_FROM_Y = {"from": [PEERS["a namespace by label"][0]]}


def _types() -> list[Case]:
    """Which directions a policy speaks of."""
    y: Allowed = ("y/*", "*")
    return [
        _still("no types and no rules: ingress", [policy()], into("x/a")),
        _still("no types, rules for ingress: ingress", [policy(ingress=[_FROM_Y])], into("x/a", y)),
        _still("no types, rules for egress: both", [policy(egress=[_TO_Y])], into("x/a"), out_of("x/a", y)),
        _still("no types, no rules in a list for egress: ingress", [policy(egress=[])], into("x/a")),
        _still(
            "no types, rules for both: both",
            [policy(ingress=[_FROM_Y], egress=[_TO_Y])],
            into("x/a", y),
            out_of("x/a", y),
        ),
        _still("no types in a list: as if there were none", [policy(policyTypes=[])], into("x/a")),
        _still("egress only: ingress stays open", [policy(policyTypes=["Egress"])], out_of("x/a")),
        _still(
            "both types, rules for ingress",
            [policy(policyTypes=["Ingress", "Egress"], ingress=[_FROM_Y])],
            into("x/a", y),
            out_of("x/a"),
        ),
        _still(
            "both types, rules for egress",
            [policy(policyTypes=["Egress", "Ingress"], egress=[_TO_Y])],
            into("x/a"),
            out_of("x/a", y),
        ),
    ]


def _deny(name: str = "deny", direction: str = "ingress", **spec: Any) -> Manifest:
    return policy(name, policyTypes=[DIRECTIONS[direction][0]], **spec)


def _several() -> list[Case]:
    """Policies of one pod add up; a flow needs both its sides."""
    open_ = policy("open", policyTypes=["Ingress"], ingress=[{}])
    open_out = policy("open", policyTypes=["Egress"], egress=[{}])
    from_y = policy("y", policyTypes=["Ingress"], ingress=[_FROM_Y])
    to_y = policy("y", policyTypes=["Egress"], egress=[_TO_Y])
    http = policy("http", policyTypes=["Ingress"], ingress=[rule("ingress", ports="a number")])
    dns = policy("dns", policyTypes=["Egress"], egress=[rule("egress", ports="a UDP port")])
    everyone = policy("every", podSelector={}, policyTypes=["Ingress"], ingress=[_FROM_Y])
    into_y = policy(
        "in", "y", podSelector={}, policyTypes=["Ingress"], ingress=[{"from": [{"podSelector": {}}]}]
    )
    into_y_from_x = policy(
        "x",
        "y",
        podSelector={},
        policyTypes=["Ingress"],
        ingress=[{"from": [PEERS["its own namespace by label"][0]]}],
    )
    return [
        _still("deny all and allow all, ingress", [_deny(), open_], into("x/a", ("*", "*"))),
        _still(
            "deny all and allow all, egress", [_deny(direction="egress"), open_out], out_of("x/a", ("*", "*"))
        ),
        _still("deny all and allow some, ingress", [_deny(), from_y], into("x/a", ("y/*", "*"))),
        _still(
            "deny all and allow some, egress", [_deny(direction="egress"), to_y], out_of("x/a", ("y/*", "*"))
        ),
        _still("peers of one, ports of another", [from_y, http], into("x/a", ("y/*", "*"), ("*", "80/tcp"))),
        _still(
            "a policy for each direction",
            [from_y, dns],
            into("x/a", ("y/*", "*")),
            out_of("x/a", ("*", "80/udp")),
        ),
        _still(
            "one for all pods, one for one",
            [everyone, http],
            into("x/a", ("y/*", "*"), ("*", "80/tcp")),
            into("x/b x/c", ("y/*", "*")),
        ),
        _still(
            "the same policy twice", [from_y, policy("again", **from_y["spec"])], into("x/a", ("y/*", "*"))
        ),
        _still("one name in two namespaces", [_deny(), policy("deny", "y")], into("x/a y/a")),
        _still(
            "egress allowed, ingress refused",
            [to_y, into_y],
            out_of("x/a", ("y/*", "*")),
            into("y/*", ("y/*", "*")),
        ),
        _still(
            "egress and ingress allowed",
            [to_y, into_y_from_x],
            out_of("x/a", ("y/*", "*")),
            into("y/*", ("x/*", "*")),
        ),
        _still(
            "ports of egress and of ingress meet",
            [
                policy(policyTypes=["Egress"], egress=[rule("egress", ports="TCP")]),
                policy(
                    "p",
                    "y",
                    podSelector={},
                    policyTypes=["Ingress"],
                    ingress=[rule("ingress", ports="two protocols")],
                ),
            ],
            out_of("x/a", ("*", "*/tcp")),
            into("y/*", ("*", "80/tcp 81/udp")),
        ),
        _still(
            "every namespace isolated",
            [
                policy("deny", namespace, podSelector={}, policyTypes=["Ingress", "Egress"])
                for namespace in "xyz"
            ],
            into("*"),
            out_of("*"),
        ),
        _still(
            "every namespace to itself",
            [
                policy(
                    "own",
                    namespace,
                    podSelector={},
                    policyTypes=["Ingress"],
                    ingress=[{"from": [{"podSelector": {}}]}],
                )
                for namespace in "xyz"
            ],
            *(into(f"{namespace}/*", (f"{namespace}/*", "*")) for namespace in "xyz"),
        ),
        _still(
            "a chain: a to b to c",
            [
                policy(
                    "b",
                    podSelector={"matchLabels": {"pod": "b"}},
                    policyTypes=["Ingress"],
                    ingress=[rule("ingress", "a pod by label")],
                ),
                policy(
                    "c",
                    podSelector={"matchLabels": {"pod": "c"}},
                    policyTypes=["Ingress"],
                    ingress=[rule("ingress", "another pod by label")],
                ),
            ],
            into("x/b", ("x/a", "*")),
            into("x/c", ("x/b", "*")),
        ),
    ]


def _over_time() -> list[Case]:
    """What holds after each change."""
    everything: Allowed = ("*", "*")
    deny = _deny()
    from_y = policy("y", policyTypes=["Ingress"], ingress=[_FROM_Y])
    from_a = policy(
        "a", podSelector={}, policyTypes=["Ingress"], ingress=[rule("ingress", "a pod of every namespace")]
    )
    b_only = policy(podSelector={"matchLabels": {"pod": "b"}}, policyTypes=["Ingress"])
    cases: dict[str, tuple[Step, ...]] = {
        "created and deleted": (
            Step(()),
            Step((into("x/a"),), (deny,)),
            Step((), delete=("NetworkPolicy x/deny",)),
        ),
        "rules widened and narrowed": (
            Step((into("x/a"),), (policy(policyTypes=["Ingress"]),)),
            Step((into("x/a", everything),), (policy(policyTypes=["Ingress"], ingress=[{}]),)),
            Step(
                (into("x/a", ("*", "80/tcp")),),
                (policy(policyTypes=["Ingress"], ingress=[rule("ingress", ports="a number")]),),
            ),
            Step(
                (into("x/a", ("*", "81/udp")),),
                (policy(policyTypes=["Ingress"], ingress=[rule("ingress", ports="a name of UDP")]),),
            ),
        ),
        "its target changed": (
            Step((into("x/a"),), (policy(policyTypes=["Ingress"]),)),
            Step((into("x/b"),), (b_only,)),
            Step((into("x/*"),), (policy(podSelector={}, policyTypes=["Ingress"]),)),
        ),
        "its direction changed": (
            Step((into("x/a"),), (policy(policyTypes=["Ingress"]),)),
            Step((out_of("x/a"),), (policy(policyTypes=["Egress"]),)),
            Step((into("x/a"), out_of("x/a")), (policy(policyTypes=["Ingress", "Egress"]),)),
        ),
        "the second of two deleted": (
            Step((into("x/a", ("y/*", "*")),), (deny, from_y)),
            Step((into("x/a"),), delete=("NetworkPolicy x/y",)),
            Step((), delete=("NetworkPolicy x/deny",)),
        ),
        "the first of two deleted": (
            Step((into("x/a", ("y/*", "*")),), (deny, from_y)),
            Step((into("x/a", ("y/*", "*")),), delete=("NetworkPolicy x/deny",)),
            Step((), delete=("NetworkPolicy x/y",)),
        ),
        "a peer's label changed": (
            Step((into("x/*", ("*/a", "*")),), (from_a,)),
            Step((into("x/*", ("x/a z/a", "*")),), labels={"Pod y/a": {"pod": "other"}}),
            Step((into("x/*", ("x/a z/a y/b", "*")),), labels={"Pod y/b": {"pod": "a"}}),
        ),
        "a peer's label added and removed": (
            Step(
                (into("x/a"),),
                (
                    policy(
                        policyTypes=["Ingress"], ingress=[{"from": [{"podSelector": key("extra", "Exists")}]}]
                    ),
                ),
            ),
            Step((into("x/a", ("x/b", "*")),), labels={"Pod x/b": {"pod": "b", "extra": "yes"}}),
            Step((into("x/a"),), labels={"Pod x/b": {"pod": "b"}}),
        ),
        "the target's label changed": (
            Step((into("x/a"),), (deny,)),
            Step((), labels={"Pod x/a": {"pod": "other"}}),
            Step((into("x/b"),), labels={"Pod x/b": {"pod": "a"}}),
            Step((into("x/a x/b"),), labels={"Pod x/a": {"pod": "a"}}),
        ),
        "a namespace's label changed": (
            Step((into("x/a", ("y/*", "*")),), (from_y,)),
            Step((into("x/a"),), labels={"Namespace y": {"ns": "other"}}),
            Step((into("x/a", ("z/*", "*")),), labels={"Namespace z": {"ns": "y"}}),
            Step((into("x/a", ("y/* z/*", "*")),), labels={"Namespace y": {"ns": "y"}}),
        ),
        "a namespace loses its labels": (
            Step(
                (into("x/a", ("x/* z/*", "*")),),
                (policy(policyTypes=["Ingress"], ingress=[rule("ingress", "namespaces not in")]),),
            ),
            Step((into("x/a", everything),), labels={"Namespace y": {}}),
        ),
        "a peer deleted and made again": (
            Step((into("x/*", ("*/a", "*")),), (from_a,)),
            Step((into("x/*", ("*/a", "*")),), delete=("Pod y/a",)),
            Step((into("x/*", ("*/a", "*")),), create={"y/a": {"pod": "a"}}),
        ),
        "a new pod is selected, and is a peer": (
            Step((into("x/*", ("*/a", "*")),), (from_a,)),
            Step((into("x/*", ("*/a y/d", "*")),), create={"x/d": {"pod": "d"}, "y/d": {"pod": "a"}}),
            Step((into("x/*", ("*/a", "*")),), delete=("Pod y/d",)),
        ),
        "a named port's pod made again": (
            Step(
                (into("x/a", ("*", "80/tcp")),),
                (policy(policyTypes=["Ingress"], ingress=[rule("ingress", ports="a name")]),),
            ),
            Step((into("x/a", ("*", "80/tcp")),), delete=("Pod x/a",)),
            Step((into("x/a", ("*", "80/tcp")),), create={"x/a": {"pod": "a"}}),
        ),
        "a policy before its pods": (
            Step(
                (),
                (
                    policy(
                        podSelector={"matchLabels": {"pod": "later"}},
                        policyTypes=["Ingress"],
                        ingress=[_FROM_Y],
                    ),
                ),
            ),
            Step((into("x/d", ("y/*", "*")),), create={"x/d": {"pod": "later"}}),
        ),
    }
    return [Case(f"over time: {title}", "kubernetes", steps) for title, steps in cases.items()]


CASES = (
    *_by_direction("ingress"),
    *_by_direction("egress"),
    *_targets(),
    *_types(),
    *_several(),
    *_over_time(),
)
