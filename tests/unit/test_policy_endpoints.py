import json
from typing import Any

import msgspec
import pytest

from kube_policies import NAMESPACES
from towpath.api.core import Namespace, Node, Pod, ServiceAccount
from towpath.api.meta import ObjectMeta
from towpath.policy.endpoints import (
    namespace_labels,
    node_endpoint,
    pod_endpoint,
    same_endpoint,
    service_account_labels,
    with_inherited,
)
from towpath.policy.ir import SCTP, TCP, UDP, Endpoint, NamedPort

RED = namespace_labels(NAMESPACES["x"])
ACCOUNT = service_account_labels(
    ServiceAccount(metadata=ObjectMeta(name="robot", namespace="x", labels={"tier": "gold"}))
)


def pod(metadata: dict[str, Any] | None = None, **fields: dict[str, Any]) -> Pod:
    """As the API server sends it."""
    spec = {"nodeName": "n1", "serviceAccountName": "robot", "containers": [{"name": "c"}]}
    raw = {
        "metadata": {"name": "a", "namespace": "x", "labels": {"app": "web"}, **(metadata or {})},
        "spec": {**spec, **fields.get("spec", {})},
        "status": {"phase": "Running", "podIP": "10.0.0.1", **fields.get("status", {})},
    }
    return msgspec.json.decode(json.dumps(raw), type=Pod)


def endpoint(one: Pod, **inherited: dict[str, str]) -> Endpoint:
    found = pod_endpoint(one, inherited.get("namespace", RED), inherited.get("account", ACCOUNT))
    assert found is not None
    return found


def test_a_pods_labels() -> None:
    assert endpoint(pod()).labels == {
        "app": "web",
        "pcns.team": "red",
        "pcns.projectcalico.org/name": "x",
        "pcns.kubernetes.io/metadata.name": "x",
        "pcsa.tier": "gold",
        "pcsa.projectcalico.org/name": "robot",
        "projectcalico.org/namespace": "x",
        "projectcalico.org/serviceaccount": "robot",
        "projectcalico.org/orchestrator": "k8s",
        "towpath.io/kind": "pod",
    }
    assert endpoint(pod()).name == "Pod/x/a"
    assert endpoint(pod()).unmatched == "allow"


def test_nobody_gives_himself_the_labels_of_others() -> None:
    forged = {
        "pcns.team": "blue",
        "pcns.extra": "1",
        "pcsa.tier": "platinum",
        "pcsa.extra": "1",
        "towpath.io/kind": "node",
        "towpath.io/extra": "1",
        "projectcalico.org/namespace": "kube-system",
        "projectcalico.org/serviceaccount": "admin",
        "projectcalico.org/orchestrator": "none",
    }
    honest = endpoint(pod()).labels
    assert endpoint(pod({"labels": {"app": "web", **forged}})).labels == honest
    without = endpoint(pod({"labels": forged}, spec={"serviceAccountName": ""})).labels
    assert not [key for key in without if key.startswith("pcsa.")]
    assert "projectcalico.org/serviceaccount" not in without


def test_a_namespaces_name_is_not_its_labels_to_say() -> None:
    forged = {"projectcalico.org/name": "kube-system", "kubernetes.io/metadata.name": "kube-system"}
    labels = namespace_labels(Namespace(metadata=ObjectMeta(name="x", labels=forged)))
    assert labels == {"pcns.projectcalico.org/name": "x", "pcns.kubernetes.io/metadata.name": "x"}
    account = ServiceAccount(metadata=ObjectMeta(name="robot", labels={"projectcalico.org/name": "admin"}))
    assert service_account_labels(account) == {"pcsa.projectcalico.org/name": "robot"}


def test_the_service_accounts_name_holds_before_its_labels_are_known() -> None:
    found = pod_endpoint(pod(), RED)
    assert found is not None
    assert {key: value for key, value in found.labels.items() if key.startswith("pcsa.")} == {
        "pcsa.projectcalico.org/name": "robot"
    }


def test_a_change_of_what_is_inherited_needs_no_pod() -> None:
    blue = namespace_labels(Namespace(metadata=ObjectMeta(name="x", labels={"colour": "blue"})))
    silver = service_account_labels(
        ServiceAccount(metadata=ObjectMeta(name="robot", labels={"metal": "silver"}))
    )
    one = pod(spec={"containers": [{"ports": [{"name": "http", "containerPort": 80}]}]})
    assert with_inherited(endpoint(one), blue, silver) == pod_endpoint(one, blue, silver)
    assert with_inherited(endpoint(one), RED) == pod_endpoint(one, RED)
    assert with_inherited(endpoint(one), RED, ACCOUNT) == endpoint(one)


@pytest.mark.parametrize(
    ("status", "addresses"),
    [
        ({}, ["10.0.0.1"]),
        ({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}, ["10.0.0.1", "fd00::1"]),
        ({"podIPs": [{"ip": "fd00:0::1"}, {"ip": "fd00::1"}]}, ["fd00::1"]),
        ({"podIP": ""}, []),
        ({"podIPs": [{"ip": "10.0.0.256"}, {"ip": "010.0.0.1"}, {"ip": "10.0.0.0/8"}, {"ip": "x"}]}, []),
        ({"podIPs": [{"ip": "::ffff:10.0.0.1"}, {"ip": "fe80::1%eth0"}]}, ["10.0.0.1"]),
    ],
)
def test_addresses(status: dict[str, Any], addresses: list[str]) -> None:
    assert list(map(str, endpoint(pod(status=status)).addresses)) == addresses


@pytest.mark.parametrize(
    "gone",
    [
        pod(spec={"hostNetwork": True}),
        pod(status={"phase": "Succeeded"}),
        pod(status={"phase": "Failed"}),
        pod(
            {"deletionTimestamp": "2026-01-01T00:00:00Z", "annotations": {"cni.projectcalico.org/podIP": ""}}
        ),
    ],
)
def test_whose_address_is_not_theirs(gone: Pod) -> None:
    assert pod_endpoint(gone, RED) is None


def test_a_pod_that_is_being_deleted_has_its_address_until_it_ends() -> None:
    leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    annotated = {**leaving, "annotations": {"cni.projectcalico.org/podIP": "10.0.0.1/32"}}
    for metadata in (leaving, annotated, {"annotations": {"cni.projectcalico.org/podIP": ""}}):
        assert endpoint(pod(metadata)).addresses == endpoint(pod()).addresses != ()


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (pod(), True),
        (pod({"resourceVersion": "7", "annotations": {"a": "b"}}), True),
        (pod(status={"conditions": [{"type": "Ready", "status": "True"}]}), True),
        (pod(status={"phase": "Pending"}), True),
        (pod(status={"phase": "Succeeded"}), False),
        (pod(status={"podIP": "10.0.0.2"}), False),
        (pod(status={"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}), False),
        (pod({"labels": {"app": "db"}}), False),
        (pod({"deletionTimestamp": "now"}), True),
        (pod({"deletionTimestamp": "now", "annotations": {"cni.projectcalico.org/podIP": ""}}), False),
        (pod(spec={"serviceAccountName": "other"}), False),
        (pod(spec={"nodeName": "n2"}), False),
        (pod(spec={"hostNetwork": True}), False),
        (pod(spec={"containers": [{"ports": [{"name": "web", "containerPort": 80}]}]}), False),
    ],
)
def test_what_of_a_pod_makes_another_endpoint(other: Pod, same: bool) -> None:
    assert same_endpoint(pod(), other) == same
    made = [pod_endpoint(one, RED, ACCOUNT) for one in (pod(), other)]
    assert (made[0] == made[1]) == same


def test_named_ports() -> None:
    main = [
        {"name": "http", "containerPort": 80},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"name": "s", "containerPort": 9, "protocol": "SCTP"},
        {"containerPort": 81},
        {"name": "none", "containerPort": 0},
        {"name": "big", "containerPort": 65536},
        {"name": "odd", "containerPort": 7, "protocol": "QUIC"},
        {"name": "plain", "containerPort": 8, "protocol": ""},
    ]
    first = [{"name": "http", "containerPort": 80}, {"name": "metrics", "containerPort": 9100}]
    one = pod(
        spec={
            "containers": [{"ports": main}, {"ports": None}],
            "initContainers": [
                {"restartPolicy": "Always", "ports": first},
                {"ports": [{"name": "i", "containerPort": 1}]},
            ],
        }
    )
    assert endpoint(one).ports == (
        NamedPort("http", TCP, 80),
        NamedPort("dns", UDP, 53),
        NamedPort("s", SCTP, 9),
        NamedPort("plain", TCP, 8),
        NamedPort("metrics", TCP, 9100),
        NamedPort("i", TCP, 1),
    )


def test_a_node() -> None:
    raw = {
        "metadata": {
            "name": "n1",
            "labels": {"role": "worker", "towpath.io/kind": "pod", "pcns.team": "red"},
        },
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.11"},
                {"type": "ExternalIP", "address": "198.51.100.11"},
                {"type": "InternalIP", "address": "fd02::11"},
                {"type": "Hostname", "address": "192.0.2.99"},
                {"type": "InternalIP", "address": "n1.example"},
            ]
        },
    }
    found = node_endpoint(msgspec.json.decode(json.dumps(raw), type=Node))
    assert (found.name, found.labels) == ("Node/n1", {"role": "worker", "towpath.io/kind": "node"})
    assert list(map(str, found.addresses)) == ["192.0.2.11", "198.51.100.11", "fd02::11"]
    assert found.unmatched == "allow"
    assert node_endpoint(Node(metadata=ObjectMeta(name="n2"))).addresses == ()
