"""Annotations as flanneld writes them, and what becomes of those that somebody else wrote."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodes import DUAL, UNDERLAY, V4_ONLY, V6_ONLY, mac, node, snapshot, telling
from towpath.api.core import Condition, Node, NodeSpec, NodeStatus
from towpath.api.flannel import PREFIX, format_vtep, parse_peer, parse_vtep, random_mac
from towpath.api.meta import ObjectMeta
from towpath.api.report import REFUSED
from towpath.desired.annotations import node_patch, own_annotations
from towpath.desired.node import node_state
from towpath.model.codes import CODES

MACS = {"flannel.1": mac(1), "flannel-v6.1": mac(1, 6)}
FRESH = replace(node(1), metadata=ObjectMeta(name="n1"))


def test_annotations_byte_for_byte() -> None:
    assert own_annotations(snapshot(FRESH, vtep_macs=MACS)) == {
        "flannel.alpha.coreos.com/backend-data": '{"VNI":1,"VtepMAC":"0e:00:00:00:04:01"}',
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-v6-data": '{"VNI":1,"VtepMAC":"0e:00:00:00:06:01"}',
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": "172.30.0.11",
        "flannel.alpha.coreos.com/public-ipv6": "fd00:172:30::11",
        "towpath.dev/pods-by-wire": "refused",
    }


def test_flanneld_finds_its_mac_again() -> None:
    # It splits on `:"` rather than parsing.
    assert format_vtep(1, mac(1)).split(':"')[1].removesuffix('"}') == mac(1)
    assert format_vtep(70_000, mac(1)).startswith('{"VNI":4464,')  # its VNI has 16 bits there


@pytest.mark.parametrize(
    ("network", "keys"),
    [
        (V4_ONLY, {"backend-data", "public-ip"}),
        (V6_ONLY, {"backend-v6-data", "public-ipv6"}),
    ],
)
def test_a_family_that_is_off_is_not_mentioned(network: Any, keys: set[str]) -> None:
    notes = own_annotations(snapshot(FRESH, network=network, vtep_macs=MACS))
    flannels = {k.removeprefix(PREFIX) for k in notes if k.startswith(PREFIX)}
    assert flannels == {"backend-type", "kube-subnet-manager", *keys}


def test_host_gw_says_null() -> None:
    notes = own_annotations(snapshot(FRESH, network=replace(DUAL, backend="host-gw")))
    assert (notes[PREFIX + "backend-data"], notes[PREFIX + "backend-v6-data"]) == ("null", "null")
    notes = own_annotations(snapshot(FRESH, network=replace(V6_ONLY, backend="host-gw")))
    assert (notes[PREFIX + "backend-data"], notes[PREFIX + "public-ip"]) == ("null", "0.0.0.0")


def test_nothing_is_said_before_there_is_a_mac_to_name() -> None:
    assert own_annotations(snapshot(FRESH)) == {}
    assert own_annotations(snapshot()) == {}


def test_overwrite_is_announced_in_place_of_the_interfaces_address() -> None:
    mine = node(1, public_ip_overwrite="203.0.113.5")
    notes = own_annotations(snapshot(mine))
    assert notes[PREFIX + "public-ip"] == "203.0.113.5"
    link = node_state(snapshot(mine)).state.links["flannel.1"]
    assert link.kind is not None and str(getattr(link.kind, "local")) == "172.30.0.11"  # noqa: B009
    broken = snapshot(node(1, public_ip_overwrite="nowhere"))
    assert own_annotations(broken)[PREFIX + "public-ip"] == "172.30.0.11"
    assert [f.code for f in node_state(broken).findings] == ["TP3017"]


def test_the_patch_is_what_differs_and_the_condition_once() -> None:
    now = datetime(2026, 11, 23, 9, 0, tzinfo=timezone(timedelta(hours=1)))
    notes = own_annotations(snapshot(FRESH, vtep_macs=MACS))
    patch = node_patch(FRESH, notes, now, network_up=True)
    assert json.dumps(patch) == json.dumps(
        {
            "metadata": {"annotations": notes},
            "status": {
                "conditions": [
                    {
                        "type": "NetworkUnavailable",
                        "status": "False",
                        "lastHeartbeatTime": "2026-11-23T08:00:00Z",
                        "lastTransitionTime": "2026-11-23T08:00:00Z",
                        "reason": "FlannelIsUp",
                        "message": "Flannel is running on this node",
                    }
                ]
            },
        }
    )
    up = Condition(type="NetworkUnavailable", status="False", reason="FlannelIsUp")
    told = replace(telling(node(1), REFUSED), status=NodeStatus(conditions=[up]))
    assert node_patch(told, notes, now, network_up=True) is None
    assert node_patch(FRESH, {}, now, network_up=False) is None
    moved = {**notes, PREFIX + "public-ip": "172.30.0.99"}
    assert node_patch(told, moved, now, network_up=True) == {
        "metadata": {"annotations": {PREFIX + "public-ip": "172.30.0.99"}}
    }
    other = replace(told, status=NodeStatus(conditions=[replace(up, status="True")]))
    patch = node_patch(other, notes, now, network_up=True)
    assert patch is not None and list(patch) == ["status"]


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ('{"VNI":1,"VtepMAC":"0e:00:00:00:04:02"}', True),
        ('{"vtepmac": "0E-00-00-00-04-02", "vni": 1, "more": [1]}', True),
        ('{"VtepMAC":"0e00.0000.0402"}', True),
        ('{"VNI":1,"VtepMAC":"0f:00:00:00:04:02"}', False),
        ('{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}', False),
        ('{"VNI":65536,"VtepMAC":"0e:00:00:00:04:02"}', False),
        ('{"VNI":true,"VtepMAC":"0e:00:00:00:04:02"}', False),
        ('{"VNI":1,"VtepMAC":"0e:00:00:00:04"}', False),
        ('{"VNI":1,"VtepMAC":17}', False),
        ('{"VNI":1}', False),
        ("null", False),
        ("[]", False),
        ("", False),
        ("[" * 100_000, False),
        ('{"VNI":1,"VtepMAC":"\ud800"}', False),
    ],
)
def test_backend_data(text: str, ok: bool) -> None:
    if ok:
        assert parse_vtep(text).mac == "0e:00:00:00:04:02"
    else:
        with pytest.raises(ValueError):
            parse_vtep(text)


def test_random_macs_are_local_and_unicast() -> None:
    assert random_mac(b"\xff" * 6) == "fe:ff:ff:ff:ff:ff"
    assert random_mac(b"\x00" * 6) == "02:00:00:00:00:00"


BAD: list[tuple[str, dict[str, str | None], set[int]]] = [
    ("TP3001", {"public_ip": "not-an-address"}, {6}),
    ("TP3001", {"public_ip": "fd00::1"}, {6}),
    ("TP3001", {"public_ip": "127.0.0.1"}, {6}),
    ("TP3001", {"public_ip": None}, {6}),
    ("TP3001", {"public_ipv6": "fe80::1%eth0"}, {4}),
    ("TP3001", {"public_ipv6": "ff02::1"}, {4}),
    ("TP3002", {"backend_type": "wireguard"}, set()),
    ("TP3002", {"backend_type": None}, set()),
    ("TP3003", {"backend_data": '{"VNI":1}'}, {6}),
    ("TP3003", {"backend_v6_data": None}, {4}),
    ("TP3007", {"public_ip": "172.30.0.11"}, {6}),
    ("TP3006", {"backend_data": f'{{"VNI":1,"VtepMAC":"{mac(1)}"}}'}, {6}),
    ("TP3009", {"backend_data": f'{{"VNI":2,"VtepMAC":"{mac(2)}"}}'}, {4, 6}),
]


@pytest.mark.parametrize(("code", "notes", "families"), BAD)
def test_a_bad_peer_is_named_and_served_where_it_is_good(
    code: str, notes: dict[str, str | None], families: set[int]
) -> None:
    desired = node_state(snapshot(node(1), garbled(2, notes, None), node(3)))
    assert [(f.code, f.object) for f in desired.findings] == [(code, "Node/n2")]
    assert {
        r.dst.version for r in desired.state.routes if str(r.dst).startswith(("10.42.2.", "fd00:10:42:2:"))
    } == (families)
    assert len([r for r in desired.state.routes if str(r.dst).startswith(("10.42.3.", "fd00:10:42:3:"))]) == 2


def test_a_node_flannel_does_not_manage_takes_no_part() -> None:
    for value in (None, "false"):
        assert parse_peer(node(2, kube_subnet_manager=value), DUAL) == (None, ())
    assert parse_peer(Node(metadata=ObjectMeta(name="n2")), DUAL) == (None, ())


def subnets(*cidrs: str) -> Node:
    return replace(node(2), spec=NodeSpec(pod_cidr=cidrs[0] if cidrs else "", pod_cidrs=list(cidrs)))


@pytest.mark.parametrize(
    ("peer", "code", "count"),
    [
        (subnets(), "TP3004", 0),
        (subnets("10.42.2.0/24"), "TP3004", 1),
        (subnets("10.42.2.9/24", "fd00:10:42:2::/64"), None, 2),
        (subnets("0.0.0.0/0", "fd00:10:42:2::/64"), "TP3004", 1),
        (subnets("10.42.2.0/255.255.255.0", "fd00:10:42:2::/64"), "TP3004", 0),
        (subnets("10.42.2.0", "fd00:10:42:2::/64"), "TP3004", 0),
        (subnets("10.42.2.0/24", "10.42.4.0/24", "fd00:10:42:2::/64"), "TP3004", 0),
        (subnets("10.42.1.0/25", "fd00:10:42:2::/64"), "TP3005", 1),
        (subnets("10.42.0.0/16", "fd00:10:42:2::/64"), "TP3005", 1),
        (subnets("10.42.3.0/24", "fd00:10:42:2::/64"), None, 2),
    ],
)
def test_pod_cidrs(peer: Node, code: str | None, count: int) -> None:
    desired = node_state(snapshot(node(1), peer))
    assert {f.code for f in desired.findings} == ({code} if code else set())
    assert len(desired.state.routes) == count


def test_of_two_that_claim_one_subnet_the_first_by_name_is_served() -> None:
    twin = replace(node(3), spec=node(2).spec)
    desired = node_state(snapshot(node(1), twin, node(2)))
    assert [(f.code, f.object) for f in desired.findings] == [("TP3005", "Node/n3")] * 2
    assert {f.mac for f in desired.state.fdb} == {mac(2), mac(2, 6)}


def test_every_code_is_explained() -> None:
    assert {code for code, _, _ in BAD} <= CODES.keys()


SAID = st.sampled_from(
    [
        mac(1),
        mac(3),
        "172.30.0.11",
        "172.30.0.13",
        "::ffff:1.2.3.4",
        "true",
        "null",
        "vxlan",
        "9" * 5000,
        "\ud800",
    ]
)
garbage = st.one_of(
    st.none(),
    st.text(max_size=40),
    st.text(alphabet='0123456789abcdef.:/%{}"[]nul', max_size=40),
    SAID,
    st.dictionaries(st.text(max_size=8), st.recursive(st.integers(), st.lists, max_leaves=4)).map(json.dumps),
)
CIDRS = ["10.42.1.0/24", "10.42.3.128/25", "fd00:10:42:3::/64", "::/0", "10.42.0.0/16", "1.2.3.4/٣"]
cidr_garbage = st.one_of(st.text(alphabet="0123456789abcdef.:/", max_size=24), st.sampled_from(CIDRS))
KEYS = ("backend_data", "backend_v6_data", "backend_type", "public_ip", "public_ipv6", "kube_subnet_manager")


def garbled(number: int, notes: dict[str, str | None], cidrs: list[str] | None) -> Node:
    base = node(number, "vxlan", **notes)
    return base if cidrs is None else replace(base, spec=NodeSpec(pod_cidrs=cidrs))


@settings(max_examples=300, deadline=None)
@given(
    notes=st.dictionaries(st.sampled_from(KEYS), garbage),
    cidrs=st.one_of(st.none(), st.lists(cidr_garbage, max_size=3)),
)
@example(notes={"backend_data": f'{{"VNI":1,"VtepMAC":"{mac(3)}"}}'}, cidrs=["10.42.3.0/24"])
def test_one_nodes_garbage_stays_its_own_affair(
    notes: dict[str, str | None], cidrs: list[str] | None
) -> None:
    fine, bad = node(3), garbled(5, notes, cidrs)
    alone, both = node_state(snapshot(node(1), fine)), node_state(snapshot(node(1), fine, bad))
    assert alone.state.routes <= both.state.routes
    assert alone.state.fdb <= both.state.fdb
    assert alone.state.neighbours <= both.state.neighbours
    assert all(f.object == "Node/n5" and f.code in CODES for f in both.findings)
    assert all(str(r.dst).startswith(("10.42.", "fd00:10:42:")) for r in both.state.routes)


@settings(max_examples=100, deadline=None)
@given(
    notes=st.dictionaries(st.sampled_from([*KEYS, "public_ip_overwrite"]), garbage),
    cidrs=st.lists(cidr_garbage),
)
def test_the_own_nodes_garbage_ends_in_findings(notes: dict[str, str | None], cidrs: list[str]) -> None:
    mine = garbled(1, notes, cidrs)
    seen = snapshot(mine, node(2), vtep_macs=MACS, underlay=UNDERLAY)
    assert all(f.code in CODES for f in node_state(seen).findings)
    assert node_patch(mine, own_annotations(seen), datetime.now(UTC), network_up=True) is not None
