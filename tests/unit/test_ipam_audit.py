"""The audit of leases: what each kind of evidence means; garbage needs two witnesses whatever else is so."""

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attachments import attachment
from towpath.ipam.audit import Evidence, RunningPod, Stored, audit
from towpath.model.attachment import Attachment

HERE = (ip_network("10.42.1.0/24"),)


def stored(*attachments: Attachment, **fields: Any) -> Stored:
    leased = {a: (att.container_id, att.ifname) for att in attachments for a in att.addresses}
    return Stored(**({"attachments": attachments, "leased": leased} | fields))


def evidence(*attachments: Attachment, **fields: Any) -> Evidence:
    """By which all is well."""
    links = frozenset(att.host_ifname for att in attachments)
    values: dict[str, Any] = {"node": "n1", "boot_id": "boot", "links": links, "here": HERE}
    return Evidence(**(values | {"networks": (ip_network("10.42.0.0/16"),)} | fields))


def key(att: Attachment) -> tuple[str, str]:
    return att.container_id, att.ifname


A = attachment("a", "10.42.1.2")
B = attachment("b", "10.42.1.3")


def codes(store: Stored, said: Evidence) -> list[tuple[str, str, str]]:
    return [(p.finding.code, p.finding.object, p.mend) for p in audit(store, said)]


def test_nothing_is_wrong() -> None:
    pods = (RunningPod(name="default/a", uid="", node="n1", addresses=A.addresses),)
    assert codes(stored(A, B), evidence(A, B, pods=pods, routed={A.addresses[0]: (A.host_ifname,)})) == []


@given(
    rebooted=st.booleans(), link=st.booleans(), unlisted=st.booleans(), over=st.booleans(), old=st.booleans()
)
def test_a_lease_is_garbage_on_two_proofs_only(
    rebooted: bool, link: bool, unlisted: bool, over: bool, old: bool
) -> None:
    said = evidence(
        *([A] if link else []),
        boot_id="another" if rebooted else "boot",
        unlisted=frozenset([key(A)] if unlisted else []),
        over={key(A): "pod default/a is gone"} if over else {},
        lingering=frozenset([key(A)] if over and old else []),
    )
    here = rebooted or unlisted or not link
    found = codes(stored(A), said)
    if here and over:
        assert found == [("TP4010", "Pod/default/a", "release")]
    elif here:
        assert found == ([] if rebooted else [("TP4011", "Pod/default/a", "")])
    else:
        assert found == ([("TP4012", "Pod/default/a", "")] if over and old else [])
    assert codes(stored(A), evidence(over=said.over, links=said.links, busy=frozenset([key(A)]))) == []


def test_rows_that_do_not_fit_together() -> None:
    (address,) = A.addresses
    other = ip_address("10.42.1.9")
    lost = stored(A, leased={})
    assert codes(lost, evidence(A)) == [("TP4014", "Pod/default/a", "relist")]
    orphan = stored(leased={address: key(A)})
    assert codes(orphan, evidence()) == [("TP4013", "address 10.42.1.2", "forget")]
    assert codes(orphan, evidence(routed={address: ("cali0",)})) == [("TP4013", "address 10.42.1.2", "")]
    pods = (RunningPod(name="default/x", uid="", node="n2", addresses=A.addresses),)
    assert codes(orphan, evidence(pods=pods)) == [("TP4013", "address 10.42.1.2", "")]
    unread = stored(leased={address: key(A)}, damaged=(key(A),))
    assert codes(unread, evidence()) == [("TP4005", "address 10.42.1.2", "forget")]
    extra = stored(A, leased={address: key(A), other: key(A)})
    assert codes(extra, evidence(A)) == [("TP4013", "address 10.42.1.9", "forget")]
    twice = stored(A, attachment("b", "10.42.1.2"), leased={address: key(A)})
    assert codes(twice, evidence(A, B)) == [("TP4015", "Pod/default/b", "")]


def test_strangers_and_pods_of_one_address() -> None:
    (address,) = A.addresses
    assert codes(stored(), evidence(routed={address: ("cali0",)})) == [("TP4002", "address 10.42.1.2", "")]
    old = RunningPod(name="default/old", uid="1", node="n2", addresses=A.addresses, created="2026-01-01")
    new = RunningPod(name="default/new", uid="2", node="n1", addresses=A.addresses, created="2026-01-02")
    assert codes(stored(), evidence(pods=(new,))) == [("TP4017", "Pod/default/new", "")]
    leaving = RunningPod(name="default/new", uid="2", node="n1", addresses=A.addresses, leaving=True)
    assert codes(stored(), evidence(pods=(leaving, old))) == []
    mine = stored(leased={address: key(A)}, attachments=(A,))
    assert codes(mine, evidence(A, pods=(new, old))) == [("TP4015", "Pod/default/new", "")]
    assert codes(mine, evidence(A, pods=(new, old), node="n2")) == []  # told by n1, where it is to be deleted
    assert codes(mine, evidence(A, pods=(new, old), node="n3")) == []
    routed = {address: (A.host_ifname, "cali0")}
    assert codes(mine, evidence(A, routed=routed)) == [("TP4015", "Pod/default/a", "")]
    assert codes(mine, evidence(A, routed=routed, busy=frozenset([key(A)]))) == []
    astray = attachment("c", "10.42.2.2")
    assert codes(stored(astray), evidence(astray)) == [("TP4016", "Pod/default/c", "")]
