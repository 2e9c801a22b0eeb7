"""The expected table of a lab, and the judgement of what was seen."""

import msgspec

from towpath.api.core import (
    Container,
    ContainerPort,
    Node,
    NodeAddress,
    NodeStatus,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
)
from towpath.api.meta import ObjectMeta
from towpath.lab import matrix
from towpath.lab.matrix_policy import by_policy
from towpath.policy.ir import World
from towpath.policy.world import assemble

NODES = [
    Node(metadata=ObjectMeta(name=n), status=NodeStatus(addresses=[NodeAddress("InternalIP", a)]))
    for n, a in (("n1", "172.30.0.11"), ("n2", "172.30.0.12"))
]


def pod(name: str, node: str, *ips: str, phase: str = "Running", host: bool = False) -> Pod:
    ports = [ContainerPort(container_port=8080), ContainerPort(container_port=53, protocol="UDP")]
    return Pod(
        metadata=ObjectMeta(name=name, namespace="d"),
        spec=PodSpec(node_name=node, host_network=host, containers=[Container(ports=ports)]),
        status=PodStatus(phase=phase, pod_ips=[PodIP(ip) for ip in ips]),
    )


def test_every_pair_family_and_protocol_once() -> None:
    pods = [
        pod("a", "n1", "10.42.0.2", "fd00::2"),
        pod("b", "n1", "10.42.0.3"),
        pod("c", "n2", "10.42.1.2", "fd00::12"),
    ]
    cells = matrix.expected(NODES, pods, ["198.51.100.10", "2001:db8:51::10"])
    assert len(set(cells)) == len(cells)
    pairs = {(c.origin[1], c.target) for c in cells if c.relation in (matrix.SAME_NODE, matrix.CROSS_NODE)}
    assert len(pairs) == 6
    cross = [c for c in cells if (c.origin, c.target) == (("pod", "d/a"), "d/c")]
    assert {(c.family, c.protocol) for c in cross} == {(f, p) for f in (4, 6) for p in ("tcp", "udp", "icmp")}
    assert {c.client for c in cross if c.family == 6} == {frozenset({"fd00::2"})}
    one_family = [c for c in cells if (c.origin, c.target) == (("pod", "d/b"), "d/a")]
    assert {c.family for c in one_family} == {4}


def test_only_running_pods_with_a_network_of_their_own_count() -> None:
    pods = [
        pod("a", "n1", "10.42.0.2"),
        pod("b", "n1", "10.42.0.3", phase="Pending"),
        pod("h", "n1", "172.30.0.11", host=True),
    ]
    assert {c.relation for c in matrix.expected(NODES, pods, [])} == {matrix.NODE_LOCAL, matrix.NODE_REMOTE}


def test_an_answer_is_judged_by_whom_the_target_saw() -> None:
    cells = [
        c
        for c in matrix.expected(NODES, [pod("a", "n1", "10.42.0.2")], ["198.51.100.10"])
        if c.protocol == "tcp"
    ]
    cells = [c for c in cells if c.relation == matrix.OUTSIDE]
    questions = matrix.questions(cells)
    assert questions == [
        {"from": {"pod": "d/a"}, "to": [{"addr": "198.51.100.10", "port": 8080, "proto": "tcp"}]}
    ]

    def judged(**outcome: object) -> str:
        answers = [
            {"from": {"pod": "d/a"}, "to": [{"ok": True, "ms": 1.0, "error": "", "answer": "", **outcome}]}
        ]
        return matrix.judge(cells, answers)[0].why

    assert judged(answer="outside from 172.30.0.11:4711") == ""
    assert judged(answer="outside from 10.42.0.2:4711").startswith(
        "the target saw 10.42.0.2 instead of 172.30.0.11"
    )
    assert judged(ok=False, error="Connection refused") == "Connection refused"
    assert matrix.judge(cells, [])[0].why == "the prober gave no answer"
    assert matrix.seen_client("x from [fd00::2]:99") == "fd00::2"


def test_policies_say_what_must_not_get_through() -> None:
    pods = [pod("a", "n1", "10.42.0.2"), pod("b", "n2", "10.42.1.2")]
    raws = [
        {"apiVersion": "v1", "kind": "Pod", **msgspec.to_builtins(one)}
        | {"status": {"podIPs": [{"ip": ip.ip} for ip in one.status.pod_ips or ()]}}
        for one in pods
    ]
    spec = {"podSelector": {}, "ingress": [{"ports": [{"port": 8080}]}]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec}
    policy["metadata"] = {"name": "p", "namespace": "d"}
    cells = matrix.expected(NODES, pods, ["198.51.100.10"])
    world = assemble([*raws, policy]).world
    assert by_policy(cells, World(), NODES, pods) == cells
    judged = {(c.relation, c.protocol): c.allowed for c in by_policy(cells, world, NODES, pods)}
    for relation in (matrix.CROSS_NODE, matrix.NODE_REMOTE):
        assert [judged[relation, p] for p in ("tcp", "udp", "icmp")] == [True, False, False]
    for relation in (matrix.NODE_LOCAL, matrix.OUTSIDE):
        assert all(judged[relation, p] for p in ("tcp", "udp", "icmp"))


def test_a_denied_cell_must_stay_silent() -> None:
    (cell, *_) = matrix.expected(NODES, [pod("a", "n1", "10.42.0.2")], [])
    denied = msgspec.structs.replace(cell, allowed=False)

    def why(**outcome: object) -> str:
        answers = [{"from": dict([cell.origin]), "to": [{"ms": 1.0, "answer": "", **outcome}]}]
        return matrix.judge([denied], answers)[0].why

    assert why(ok=False, error="timeout") == ""
    assert "got through (answered)" in why(ok=True, error="")
    assert "got through (Connection refused)" in why(ok=False, error="Connection refused")
