"""Objects of every kind of policy that together have every field there is; ``REFUSED`` what is not taken."""

from typing import Any

Manifest = dict[str, Any]

_CALICO = "projectcalico.org/v3"
_LABELS: Manifest = {
    "matchLabels": {"a": "b"},
    "matchExpressions": [{"key": "c", "operator": "In", "values": ["d"]}],
}
_SOURCE: Manifest = {
    "nets": ["10.0.0.0/8"],
    "notNets": ["10.1.0.0/16"],
    "selector": "a == 'b'",
    "notSelector": "has(c)",
    "namespaceSelector": "all()",
    "serviceAccounts": {"names": ["default"], "selector": "has(d)"},
    "ports": [80],
    "notPorts": [81],
}
_CALICO_RULES: list[Manifest] = [
    {
        "action": "Allow",
        "metadata": {"annotations": {"a": "b"}},
        "ipVersion": 4,
        "protocol": "TCP",
        "notProtocol": "UDP",
        "source": _SOURCE,
        "destination": {"ports": ["http"]},
    },
    {
        "action": "Deny",
        "protocol": "ICMP",
        "icmp": {"type": 8, "code": 0},
        "notICMP": {"type": 8, "code": 1},
    },
    {"action": "Allow", "source": {"services": {"name": "web", "namespace": "x"}}},
]


def _calico(kind: str, spec: Manifest, **metadata: Any) -> Manifest:
    return {"apiVersion": _CALICO, "kind": kind, "metadata": {"name": "p", **metadata}, "spec": spec}


def _admin(kind: str, **spec: Any) -> Manifest:
    return {"kind": kind, "metadata": {"name": "p"}, "spec": spec}


_PODS: Manifest = {"pods": {"namespaceSelector": _LABELS, "podSelector": _LABELS}}
_EVERYWHERE: Manifest = {"namespaces": _LABELS}
_PORTS: list[Manifest] = [
    {"portNumber": {"protocol": "TCP", "port": 80}},
    {"portRange": {"protocol": "UDP", "start": 80, "end": 90}},
    {"namedPort": "http"},
]
_PROTOCOLS: list[Manifest] = [
    {"tcp": {"destinationPort": {"number": 80}}},
    {"udp": {"destinationPort": {"range": {"start": 80, "end": 90}}}},
    {"destinationNamedPort": "http"},
]


def _rules(action: str, **ports: Any) -> Manifest:
    beyond = [{"nodes": _LABELS}, {"networks": ["10.0.0.0/8"]}]
    return {
        "ingress": [{"name": "in", "action": action, "from": [_PODS, _EVERYWHERE], **ports}],
        "egress": [{"name": "out", "action": action, "to": beyond}],
    }


NETWORK_POLICIES: tuple[Manifest, ...] = (
    {
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "x"},
        "spec": {
            "podSelector": _LABELS,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [
                        {"podSelector": _LABELS, "namespaceSelector": _LABELS},
                        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                    ],
                    "ports": [{"protocol": "TCP", "port": 80, "endPort": 90}],
                }
            ],
            "egress": [{"to": [{"podSelector": {}}]}],
        },
    },
)
ADMIN_POLICIES: tuple[Manifest, ...] = (
    _admin(
        "ClusterNetworkPolicy",
        tier="Admin",
        priority=1,
        subject=_PODS,
        **_rules("Accept", protocols=_PROTOCOLS),
    ),
    _admin("ClusterNetworkPolicy", tier="Baseline", priority=1, subject=_EVERYWHERE, **_rules("Deny")),
    _admin("AdminNetworkPolicy", priority=1, subject=_PODS, **_rules("Allow", ports=_PORTS)),
    _admin("BaselineAdminNetworkPolicy", subject=_PODS, **_rules("Allow", ports=_PORTS)),
)
CALICO_POLICIES: tuple[Manifest, ...] = (
    _calico(
        "NetworkPolicy",
        {
            "tier": "default",
            "order": 1,
            "selector": "a == 'b'",
            "serviceAccountSelector": "has(a)",
            "types": ["Ingress", "Egress"],
            "performanceHints": ["AssumeNeededOnEveryNode"],
            "ingress": _CALICO_RULES,
            "egress": _CALICO_RULES[:2],
        },
        namespace="x",
    ),
    _calico(
        "GlobalNetworkPolicy",
        {
            "tier": "default",
            "order": 1,
            "selector": "a == 'b'",
            "namespaceSelector": "has(a)",
            "types": ["Ingress"],
            "applyOnForward": True,
            "doNotTrack": True,
            "preDNAT": False,
            "ingress": _CALICO_RULES,
        },
    ),
)
OTHERS: tuple[Manifest, ...] = (
    _calico("Tier", {"order": 1, "defaultAction": "Pass"}),
    _calico("NetworkSet", {"nets": ["10.0.0.0/8"]}, namespace="x", labels={"a": "b"}),
    _calico("GlobalNetworkSet", {"nets": ["10.0.0.0/8"]}, labels={"a": "b"}),
    _calico(
        "HostEndpoint",
        {
            "node": "n1",
            "interfaceName": "eth0",
            "expectedIPs": ["10.0.0.1"],
            "profiles": ["projectcalico-default-allow"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        },
        labels={"a": "b"},
    ),
)
REFUSED: tuple[Manifest, ...] = (
    _calico("GlobalNetworkPolicy", {"ingress": [{"action": "Allow", "http": {"methods": ["GET"]}}]}),
    _admin(
        "ClusterNetworkPolicy",
        tier="Admin",
        priority=1,
        subject=_EVERYWHERE,
        egress=[{"action": "Accept", "to": [{"domainNames": ["example.org"]}]}],
    ),
)
