"""Cases of Calico's policies, as stored (crd.projectcalico.org/v1): actions, order, tiers, criteria."""

from typing import Any

from policy_cases import Case, Manifest, Only, Step, into, out_of
from policy_cases_kubernetes import policy as network_policy

API = "crd.projectcalico.org/v1"
FROM_Y: Manifest = {"source": {"namespaceSelector": "ns == 'y'"}}
FROM_A: Manifest = {"source": {"selector": "pod == 'a'"}}


def calico(name: str = "p", namespace: str | None = "x", **spec: Any) -> Manifest:
    """A policy of ingress, unless it says otherwise; global if it is in no namespace."""
    place = {"name": name} | ({"namespace": namespace} if namespace else {})
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    return {"apiVersion": API, "kind": kind, "metadata": place, "spec": {"types": ["Ingress"], **spec}}


def rule(action: str, **criteria: Any) -> Manifest:
    """One rule."""
    return {"action": action, **criteria}


def tier(name: str, order: float, default: str = "Deny") -> Manifest:
    """A Tier."""
    spec = {"order": order, "defaultAction": default}
    return {"apiVersion": API, "kind": "Tier", "metadata": {"name": name}, "spec": spec}


def _still(title: str, manifests: list[Manifest], *expected: Only) -> Case:
    return Case(f"calico: {title}", "calico", (Step(expected, tuple(manifests)),))


_X = into("x/*")
_FROM_Y_ONLY = into("x/*", ("y/*", "*"))
_NOT_FROM_Y = into("x/*", ("* !y/*", "*"))
ALLOW, DENY = rule("Allow"), rule("Deny")


def _actions() -> list[Case]:
    deny_y = calico("deny", order=1, ingress=[rule("Deny", **FROM_Y)])
    allow = calico("allow", order=2, ingress=[ALLOW])
    return [
        _still("no rules", [calico()], _X),
        _still("an allow", [calico(ingress=[rule("Allow", **FROM_Y)])], _FROM_Y_ONLY),
        _still("a deny alone", [deny_y], _X),
        _still("a deny before an allow", [calico(ingress=[rule("Deny", **FROM_Y), ALLOW])], _NOT_FROM_Y),
        _still(
            "an allow before a deny",
            [calico(ingress=[ALLOW, rule("Deny", **FROM_Y)])],
            into("x/*", ("*", "*")),
        ),
        _still(
            "a log decides nothing", [calico(ingress=[rule("Log"), rule("Allow", **FROM_Y)])], _FROM_Y_ONLY
        ),
        _still("a log alone", [calico(ingress=[rule("Log")])], _X),
        _still("a pass past the last policies", [calico(ingress=[rule("Pass", **FROM_Y)])], _FROM_Y_ONLY),
        _still(
            "a pass past others of its tier",
            [calico("a", order=1, ingress=[rule("Pass")]), calico("b", order=2)],
            into("x/*", ("*", "*")),
        ),
        _still("the lower order comes first", [deny_y, allow], _NOT_FROM_Y),
        _still(
            "the higher order comes last",
            [calico("deny", order=3, ingress=[rule("Deny", **FROM_Y)]), allow],
            into("x/*", ("*", "*")),
        ),
        _still(
            "no order comes last",
            [calico("deny", ingress=[rule("Deny", **FROM_Y)]), allow],
            into("x/*", ("*", "*")),
        ),
        _still(
            "before a Kubernetes policy",
            [deny_y, network_policy(podSelector={}, policyTypes=["Ingress"], ingress=[{}])],
            _NOT_FROM_Y,
        ),
        _still(
            "behind a Kubernetes policy",
            [
                calico("deny", order=1001, ingress=[DENY]),
                network_policy(
                    podSelector={}, policyTypes=["Ingress"], ingress=[{"from": [{"podSelector": {}}]}]
                ),
            ],
            into("x/*", ("x/*", "*")),
        ),
        _still(
            "of egress",
            [calico(types=["Egress"], egress=[rule("Deny", destination={"selector": "pod == 'b'"}), ALLOW])],
            out_of("x/*", ("* !x/b", "*")),
        ),
        _still(
            "of both directions, where it has no types",
            [_without_types()],
            into("x/*", ("y/*", "*")),
            out_of("x/*"),
        ),
    ]


def _without_types() -> Manifest:
    manifest = calico(ingress=[rule("Allow", **FROM_Y)])
    del manifest["spec"]["types"]
    return manifest


def _tiers() -> list[Case]:
    early = tier("early", 10)
    opened = calico("opened", order=1, ingress=[ALLOW])
    return [
        _still("a tier's default is to deny", [early, calico("early.p", tier="early"), opened], _X),
        _still(
            "a tier's default to pass",
            [tier("early", 10, "Pass"), calico("early.p", tier="early"), opened],
            into("x/*", ("*", "*")),
        ),
        _still(
            "a pass to the next tier",
            [early, calico("early.p", tier="early", ingress=[rule("Pass", **FROM_Y)]), opened],
            _FROM_Y_ONLY,
        ),
        _still(
            "a pass to a tier that denies",
            [
                early,
                calico("early.p", tier="early", ingress=[rule("Pass")]),
                calico(ingress=[rule("Allow", **FROM_Y)]),
            ],
            _FROM_Y_ONLY,
        ),
        _still(
            "an allow ends it",
            [
                early,
                calico("early.p", tier="early", ingress=[rule("Allow", **FROM_Y), rule("Pass")]),
                calico(),
            ],
            _FROM_Y_ONLY,
        ),
        _still(
            "a tier whose policies select nobody",
            [early, calico("early.p", tier="early", selector="pod == 'd'"), opened],
            into("x/*", ("*", "*")),
        ),
        _still(
            "a tier whose policies speak of egress",
            [early, calico("early.p", tier="early", types=["Egress"], egress=[ALLOW])],
        ),
        _still(
            "the lower order of tiers comes first",
            [
                early,
                tier("late", 20),
                calico("late.p", tier="late", ingress=[ALLOW]),
                calico("early.p", tier="early", ingress=[DENY]),
            ],
            _X,
        ),
        _still(
            "a tier behind the default one",
            [tier("late", 2_000_000), calico("late.p", tier="late", ingress=[DENY]), opened],
            into("x/*", ("*", "*")),
        ),
        _still("a tier that does not exist comes last and denies", [calico("lost.p", tier="lost")], _X),
    ]


def _criteria() -> list[Case]:
    def allow(title: str, meant: Only, **criteria: Any) -> Case:
        return _still(title, [calico(ingress=[rule("Allow", **criteria)])], meant)

    def peer(title: str, meant: str, **source: Any) -> Case:
        return allow(f"peers, {title}", into("x/*", (meant, "*")), source=source)

    def ports(title: str, meant: str, protocol: str, **destination: Any) -> Case:
        return allow(f"ports, {title}", into("x/*", ("*", meant)), protocol=protocol, destination=destination)

    return [
        peer("a selector stays in the namespace", "x/a", selector="pod == 'a'"),
        peer("a selector of every namespace", "*/a", selector="pod == 'a'", namespaceSelector="all()"),
        peer("a selector of a namespace", "y/a", selector="pod == 'a'", namespaceSelector="ns == 'y'"),
        peer("a namespace", "y/*", namespaceSelector="ns == 'y'"),
        peer("namespaces not", "x/* z/*", namespaceSelector="ns != 'y'"),
        peer("namespaces in", "y/* z/*", namespaceSelector="ns in { 'y', 'z' }"),
        peer("not", "x/b x/c", selector="pod != 'a'"),
        peer("not in", "x/c", selector="pod not in { 'a', 'b' }"),
        peer("or", "x/a x/c", selector="pod == 'a' || pod == 'c'"),
        peer("and", "", selector="pod == 'a' && pod == 'c'"),
        peer("a bracket", "x/a", selector="(pod == 'a' || pod == 'c') && !(pod == 'c')"),
        peer("and before or", "x/a x/b", selector="pod == 'a' || pod == 'b' && has(pod)"),
        peer("has", "x/*", selector="has(pod)"),
        peer("has not", "", selector="!has(pod)"),
        peer("contains", "x/b", selector="pod contains 'b'"),
        peer("starts with", "x/c", selector="pod starts with 'c'"),
        peer("all", "x/*", selector="all()"),
        peer("a notSelector stays in the namespace", "x/b x/c", notSelector="pod == 'a'"),
        peer("a notSelector and a selector", "x/b", selector="pod in { 'a', 'b' }", notSelector="pod == 'a'"),
        peer("a network", "z/c", nets=["${z/c}"]),
        peer("networks", "z/c y/a", nets=["${z/c}", "${y/a}"]),
        peer("not a network", "* !z/c", notNets=["${z/c}"]),
        peer("a network and a selector", "x/a", nets=["${all}"], selector="pod == 'a'"),
        ports("a number", "80/tcp", "TCP", ports=[80]),
        ports("a range", "*/udp", "UDP", ports=["80:81"]),
        ports("a name", "81/sctp", "SCTP", ports=["serve-81-sctp"]),
        ports("a name of another protocol", "", "TCP", ports=["serve-81-udp"]),
        ports("not", "81/tcp", "TCP", notPorts=[80]),
        ports("some and not others", "81/tcp", "TCP", ports=["80:81"], notPorts=["serve-80-tcp"]),
        allow("a protocol", into("x/*", ("*", "*/sctp")), protocol="SCTP"),
        allow("a protocol by number", into("x/*", ("*", "*/udp")), protocol=17),
        allow("not a protocol", into("x/*", ("*", "* !*/tcp")), notProtocol="TCP"),
        allow("a rule about its own side", into("x/*", ("*", "")), destination={"nets": ["${z/c}"]}),
    ]


def _global() -> list[Case]:
    sets = {
        "apiVersion": API,
        "kind": "GlobalNetworkSet",
        "metadata": {"name": "s", "labels": {"kind": "partner"}},
        "spec": {"nets": ["${z/c}", "${y/b}"]},
    }
    partner = {"source": {"selector": "kind == 'partner'"}}
    return [
        _still("global: everybody", [calico("p", None, selector="ns == 'x'"), calico("q", None)], into("*")),
        _still("global: a selector", [calico("p", None, selector="pod == 'a'")], into("*/a")),
        _still("global: a namespace", [calico("p", None, namespaceSelector="ns == 'y'")], into("y/*")),
        _still(
            "global: a selector of a namespace",
            [calico("p", None, selector="pod == 'a'", namespaceSelector="ns != 'y'")],
            into("x/a z/a"),
        ),
        _still(
            "global: a peer's selector is of every namespace",
            [calico("p", None, selector="pod == 'b'", ingress=[rule("Allow", **FROM_A)])],
            into("*/b", ("*/a", "*")),
        ),
        _still(
            "global: a notSelector takes in all others",
            [
                calico(
                    "p",
                    None,
                    selector="pod == 'b'",
                    ingress=[rule("Allow", source={"notSelector": "pod == 'a'"})],
                )
            ],
            into("*/b", ("* !*/a", "*")),
        ),
        _still(
            "global: before a namespaced one, by order",
            [calico("p", None, order=1, ingress=[rule("Deny", **FROM_Y), rule("Pass")]), calico(order=2)],
            into("*", ("* !y/*", "*")),
        ),
        _still(
            "a network set",
            [sets, calico("p", None, selector="pod == 'a'", ingress=[rule("Allow", **partner)])],
            into("*/a", ("z/c y/b", "*")),
        ),
    ]


def _over_time() -> list[Case]:
    deny = calico("deny", order=1, ingress=[rule("Deny", **FROM_Y)])
    allow = calico("allow", order=2, ingress=[ALLOW])
    early = calico("early.p", tier="early", ingress=[rule("Pass", **FROM_Y)])
    steps = {
        "an order changed": (
            Step((_NOT_FROM_Y,), (deny, allow)),
            Step((into("x/*", ("*", "*")),), ({**deny, "spec": {**deny["spec"], "order": 3}},)),
        ),
        "an action changed": (
            Step((_NOT_FROM_Y,), (deny, allow)),
            Step((into("x/*", ("*", "*")),), ({**deny, "spec": {**deny["spec"], "ingress": [rule("Log")]}},)),
        ),
        "a tier's default changed": (
            Step((_FROM_Y_ONLY,), (tier("early", 10), early)),
            Step((), (tier("early", 10, "Pass"),)),
        ),
        "a tier comes after its policy": (
            Step((into("x/*", ("*", "*")),), (early, allow)),
            Step((_FROM_Y_ONLY,), (tier("early", 10),), delete=("NetworkPolicy x/allow",)),
        ),
    }
    return [Case(f"calico, over time: {title}", "calico", found) for title, found in steps.items()]


CASES = (*_actions(), *_tiers(), *_criteria(), *_global(), *_over_time())
