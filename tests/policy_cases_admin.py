"""Cases of policy.networking.k8s.io: ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy.

What holds is what the types' comments say, and what the conformance tests of sigs.k8s.io/network-policy-api
try: the admin tier before NetworkPolicy, the baseline after it, and only where no NetworkPolicy isolates.
"""

from typing import Any

from policy_cases import Case, Manifest, Only, Step, into, out_of
from policy_cases_kubernetes import policy as network_policy

GROUP = "policy.networking.k8s.io"
EVERYONE: Manifest = {"namespaces": {}}
X: Manifest = {"namespaces": {"matchLabels": {"ns": "x"}}}
Y: Manifest = {"namespaces": {"matchLabels": {"ns": "y"}}}
X_A: Manifest = {
    "pods": {
        "namespaceSelector": {"matchLabels": {"ns": "x"}},
        "podSelector": {"matchLabels": {"pod": "a"}},
    }
}
ANY_A: Manifest = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"pod": "a"}}}}

HTTP: list[Manifest] = [{"tcp": {"destinationPort": {"number": 80}}}]


def cluster_policy(
    name: str = "p", tier: str = "Admin", priority: int = 10, subject: Manifest = X, **spec: Any
) -> Manifest:
    """A ClusterNetworkPolicy."""
    return {
        "apiVersion": f"{GROUP}/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": tier, "priority": priority, "subject": subject, **spec},
    }


def admin_policy(name: str = "p", priority: int = 10, subject: Manifest = X, **spec: Any) -> Manifest:
    """An AdminNetworkPolicy."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"priority": priority, "subject": subject, **spec},
    }


def baseline_policy(subject: Manifest = X, **spec: Any) -> Manifest:
    """The BaselineAdminNetworkPolicy."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "BaselineAdminNetworkPolicy",
        "metadata": {"name": "default"},
        "spec": {"subject": subject, **spec},
    }


def rule(action: str, *peers: Manifest, protocols: list[Manifest] | None = None) -> Manifest:
    """Of ingress."""
    return {"action": action, "from": list(peers or (EVERYONE,))} | (
        {"protocols": protocols} if protocols else {}
    )


def rule_out(action: str, *peers: Manifest, protocols: list[Manifest] | None = None) -> Manifest:
    """Of egress."""
    return {"action": action, "to": list(peers or (EVERYONE,))} | (
        {"protocols": protocols} if protocols else {}
    )


def _still(title: str, manifests: list[Manifest], *expected: Only) -> Case:
    return Case(f"admin: {title}", "admin", (Step(expected, tuple(manifests)),))


_DENY_Y_IN = into("x/*", ("* !y/*", "*"))
_DENY_ALL = cluster_policy("deny", priority=20, ingress=[rule("Deny")])
_ISOLATED = network_policy(podSelector={}, policyTypes=["Ingress"])
_OPENED = network_policy(podSelector={}, policyTypes=["Ingress"], ingress=[{}])


def _tiers() -> list[Case]:
    accept = cluster_policy("accept", ingress=[rule("Accept", Y)])
    passes = cluster_policy("pass", ingress=[rule("Pass", Y)])
    baseline = cluster_policy("base", "Baseline", ingress=[rule("Deny")])
    return [
        _still("a deny", [cluster_policy(ingress=[rule("Deny", Y)])], _DENY_Y_IN),
        _still(
            "a deny of egress", [cluster_policy(egress=[rule_out("Deny", Y)])], out_of("x/*", ("* !y/*", "*"))
        ),
        _still("an accept alone isolates nobody", [accept]),
        _still("a pass alone isolates nobody", [passes]),
        _still("a deny comes before a NetworkPolicy that allows", [_DENY_ALL, _OPENED], into("x/*")),
        _still(
            "an accept comes before a NetworkPolicy that isolates",
            [accept, _ISOLATED],
            into("x/*", ("y/*", "*")),
        ),
        _still(
            "a pass leaves it to the NetworkPolicy", [passes, _DENY_ALL, _OPENED], into("x/*", ("y/*", "*"))
        ),
        _still("a pass leaves it to the baseline", [passes, _DENY_ALL, baseline], into("x/*")),
        _still("a pass with nothing after it", [passes, _DENY_ALL], into("x/*", ("y/*", "*"))),
        _still("the lower priority comes first", [accept, _DENY_ALL], into("x/*", ("y/*", "*"))),
        _still(
            "the higher priority comes last",
            [cluster_policy("accept", priority=30, ingress=[rule("Accept", Y)]), _DENY_ALL],
            into("x/*"),
        ),
        _still(
            "the first rule that matches",
            [cluster_policy(ingress=[rule("Accept", Y), rule("Deny")])],
            into("x/*", ("y/*", "*")),
        ),
        _still(
            "a rule behind one that matches all",
            [cluster_policy(ingress=[rule("Deny"), rule("Accept", Y)])],
            into("x/*"),
        ),
        _still("the baseline, where there is nothing else", [baseline], into("x/*")),
        _still("the baseline gives way to a NetworkPolicy", [baseline, _OPENED], into("x/*", ("*", "*"))),
        _still(
            "the baseline holds for those that no NetworkPolicy isolates",
            [baseline, network_policy(policyTypes=["Ingress"], ingress=[{}])],
            into("x/b x/c"),
        ),
        _still(
            "the baseline of a direction that no NetworkPolicy speaks of",
            [cluster_policy("base", "Baseline", egress=[rule_out("Deny", Y)]), _ISOLATED],
            into("x/*"),
            out_of("x/*", ("* !y/*", "*")),
        ),
    ]


def _terms() -> list[Case]:
    port_range = [{"udp": {"destinationPort": {"range": {"start": 1, "end": 80}}}}]
    named = [{"destinationNamedPort": "serve-81-sctp"}]
    address = {"networks": ["${z/c}"]}
    return [
        _still(
            "a port",
            [cluster_policy(ingress=[rule("Deny", protocols=HTTP)])],
            into("x/*", ("*", "* !80/tcp")),
        ),
        _still(
            "a range of ports",
            [cluster_policy(ingress=[rule("Deny", protocols=port_range)])],
            into("x/*", ("*", "* !80/udp")),
        ),
        _still(
            "a named port",
            [cluster_policy(ingress=[rule("Deny", protocols=named)])],
            into("x/*", ("*", "* !81/sctp")),
        ),
        _still(
            "several protocols",
            [cluster_policy(ingress=[rule("Deny", Y, protocols=[*HTTP, *port_range])])],
            into("x/*", ("* !y/*", "*"), ("y/*", "* !80/tcp !80/udp")),
        ),
        _still("a subject by pods", [cluster_policy(subject=X_A, ingress=[rule("Deny")])], into("x/a")),
        _still(
            "a subject in every namespace",
            [cluster_policy(subject=ANY_A, ingress=[rule("Deny")])],
            into("*/a"),
        ),
        _still(
            "everybody",
            [cluster_policy(subject=EVERYONE, ingress=[rule("Deny", X)])],
            into("*", ("* !x/*", "*")),
        ),
        _still(
            "a peer by pods", [cluster_policy(ingress=[rule("Deny", ANY_A)])], into("x/*", ("* !*/a", "*"))
        ),
        _still(
            "peers, any of them",
            [cluster_policy(ingress=[rule("Deny", Y, X_A)])],
            into("x/*", ("* !y/* !x/a", "*")),
        ),
        _still(
            "a network", [cluster_policy(egress=[rule_out("Deny", address)])], out_of("x/*", ("* !z/c", "*"))
        ),
        _still(
            "both directions",
            [cluster_policy(ingress=[rule("Deny", Y)], egress=[rule_out("Deny", Y, protocols=HTTP)])],
            _DENY_Y_IN,
            out_of("x/*", ("* !y/*", "*"), ("y/*", "* !80/tcp")),
        ),
    ]


def _older() -> list[Case]:
    deny_y = admin_policy("deny", ingress=[rule("Deny", Y)])
    port = [{"portNumber": {"protocol": "UDP", "port": 81}}]
    return [
        _still("AdminNetworkPolicy: a deny", [deny_y], _DENY_Y_IN),
        _still("AdminNetworkPolicy: before a NetworkPolicy", [deny_y, _OPENED], _DENY_Y_IN),
        _still(
            "AdminNetworkPolicy: an allow before a NetworkPolicy",
            [admin_policy(ingress=[rule("Allow", Y)]), _ISOLATED],
            into("x/*", ("y/*", "*")),
        ),
        _still(
            "AdminNetworkPolicy: a pass, by priority",
            [
                admin_policy("pass", 5, ingress=[rule("Pass", X_A)]),
                admin_policy("deny", 6, ingress=[rule("Deny")]),
            ],
            into("x/*", ("x/a", "*")),
        ),
        _still(
            "AdminNetworkPolicy: a port",
            [admin_policy(ingress=[{**rule("Deny"), "ports": port}])],
            into("x/*", ("*", "* !81/udp")),
        ),
        _still(
            "BaselineAdminNetworkPolicy: a deny", [baseline_policy(ingress=[rule("Deny", Y)])], _DENY_Y_IN
        ),
        _still(
            "BaselineAdminNetworkPolicy: gives way",
            [baseline_policy(ingress=[rule("Deny")]), _OPENED],
            into("x/*", ("*", "*")),
        ),
    ]


def _over_time() -> list[Case]:
    accept = cluster_policy("accept", ingress=[rule("Accept", Y)])
    steps = {
        "a priority changed": (
            Step((into("x/*", ("y/*", "*")),), (accept, _DENY_ALL)),
            Step((into("x/*"),), (cluster_policy("accept", priority=40, ingress=[rule("Accept", Y)]),)),
        ),
        "an action changed": (
            Step((_DENY_Y_IN,), (cluster_policy(ingress=[rule("Deny", Y)]),)),
            Step((), (cluster_policy(ingress=[rule("Accept", Y)]),)),
        ),
        "a tier changed": (
            Step((into("x/*"),), (_DENY_ALL, _OPENED)),
            Step(
                (into("x/*", ("*", "*")),),
                (cluster_policy("deny", "Baseline", priority=20, ingress=[rule("Deny")]),),
            ),
            Step((into("x/*"),), delete=("NetworkPolicy x/p",)),
        ),
    }
    return [Case(f"admin, over time: {title}", "admin", found) for title, found in steps.items()]


CASES = (*_tiers(), *_terms(), *_older(), *_over_time())
