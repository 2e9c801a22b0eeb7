"""Whose flows are cut, what a change may concern, and what is read of conntrack's entries."""

import struct
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.agent.revocation_scope import RevocationScope, Touched, touched
from towpath.api.core import Namespace, Pod
from towpath.desired.policy_chains import Verdicts
from towpath.desired.revocation import ANNOTATION, SETS, Flow, cut, flow_of, keys, lifted
from towpath.kernel.conntrack_flows import tracked
from towpath.kernel.nft_elements import messages
from towpath.kernel.nft_text import commands
from towpath.kernel.wire import attr, nested, u32
from towpath.model.nft import NftChain
from towpath.model.op import NftUpdate
from towpath.model.policy import CLASS4, NET_CLASS6, POD_TO
from towpath.policy.policy_book import PolicyKey

A, B = ip_address("10.42.1.2"), ip_address("10.42.1.3")
A6, B6 = ip_address("fd00::2"), ip_address("fd00::3")
POLICY: PolicyKey = ("NetworkPolicy", "shop", "p")


def annotated(value: str | None) -> dict[str, Any]:
    return {ANNOTATION: value} if value is not None else {}


class World:
    def __init__(self, default: str = "survive") -> None:
        self.pods: dict[tuple[str, str], Pod] = {}
        self.namespaces: dict[tuple[str, str], Namespace] = {}
        self.scope = RevocationScope(default, lambda: self.pods, lambda: self.namespaces)

    def put(self, *, pod: str | None = None, namespace: str | None = None, policy: str | None = None) -> None:
        metadata = {"name": "web", "namespace": "shop", "annotations": annotated(pod)}
        self.pods["shop", "web"] = msgspec.convert({"metadata": metadata}, Pod)
        metadata = {"name": "shop", "annotations": annotated(namespace)}
        self.namespaces["", "shop"] = msgspec.convert({"metadata": metadata}, Namespace)
        self.scope.policy("source", {"metadata": {"annotations": annotated(policy)}}, [POLICY])

    def cuts(self) -> bool:
        return bool(self.scope.enforced(["Pod/shop/web"], lambda _: frozenset({POLICY})))


def test_the_nearest_annotation_counts() -> None:
    world = World()
    world.put()
    assert not world.cuts()
    world.put(policy="enforce")
    assert world.cuts()
    world.put(policy="enforce", namespace="survive")
    assert not world.cuts()
    world.put(pod="enforce", namespace="survive")
    assert world.cuts()
    strict = World("enforce")
    strict.put()
    assert strict.cuts()
    strict.put(policy="survive")  # one policy does not speak for the others
    assert strict.cuts()
    strict.put(pod="survive", namespace="enforce")
    assert not strict.cuts()


def test_what_is_gone_asks_for_nothing() -> None:
    world = World()
    world.put(policy="enforce")
    world.scope.policy("source", None, [])
    assert not world.cuts()
    assert not world.scope.enforced(["Pod/x/not-known-yet"], lambda _: frozenset())


def test_what_means_nothing_is_told_and_does_not_count() -> None:
    world = World()
    world.put(pod="yes", namespace="enforce", policy="Enforce")
    assert world.cuts()
    assert [(f.code, f.object) for f in world.scope.findings()] == [
        ("TP5161", "NetworkPolicy/shop/p"),
        ("TP5161", "Pod/shop/web"),
    ]
    world.put(namespace="enforce")
    assert world.cuts() and not world.scope.findings()


@pytest.mark.parametrize("odd", [None, {}, {"metadata": 1}, {"metadata": {"annotations": []}}])
def test_odd_policies_are_without_annotation(odd: Any) -> None:
    world = World()
    world.put()
    world.scope.policy("other", odd, [POLICY])
    assert not world.cuts()


NAMES = {"cali1": "Pod/x/one", "cali2": "Pod/x/two", "cali3": "Pod/x/three"}
VERDICTS: dict[str, Verdicts] = {
    "cali1": (("goto pe-1",), ("return",)),
    "cali2": (("return",), ("goto pi-1",)),
    "cali3": (None, ("goto pd-1",)),
}


def test_what_a_change_concerns() -> None:
    def found(**update: Any) -> Touched:
        return touched([NftUpdate(table="t", **update)], NAMES, VERDICTS.__getitem__)

    assert not found()
    assert found(recreate=True).everything
    assert found(add_elements=((NET_CLASS6, {}),)).everything
    assert found(del_elements=((CLASS4, {(A,): (1,)}),)).peers == {A}
    assert found(add_elements=((POD_TO, {("cali2",): ("return",), ("gone",): ("return",)}),)).endpoints == {
        "Pod/x/two"
    }
    # What is behind a chain that tells addresses apart may be any.
    for chain, who in (("pe-1", {"one", "three"}), ("pi-1", {"two", "three"}), ("cs-1", {"three"})):
        assert found(set_chains=(NftChain(name=chain),)).endpoints == {f"Pod/x/{name}" for name in who}


def test_elements_of_flows() -> None:
    tcp = Flow(A, B, 6, 40000, 80)
    ((decl, elements),) = cut([(tcp, 5000)], "t").add_elements
    assert decl == SETS["revoked4"]
    assert elements == {(A, B, "tcp", 40000, 80): (5000,), (B, A, "tcp", 80, 40000): (5000,)}
    assert [flow_of(key) for _, key in keys(tcp)] == [tcp, Flow(B, A, 6, 80, 40000)]
    ((decl, elements),) = lifted([Flow(A6, B6, 58, 128, 0, 129)], "t").del_elements
    assert (decl.name, set(elements)) == ("revoked_icmp6", {(A6, B6, 128), (B6, A6, 129)})
    assert cut([(Flow(A, B, 47), 5000)], "t").add_elements == ()


def test_elements_are_the_same_to_both_ways_to_the_kernel() -> None:
    update = cut([(Flow(A, B, 17, 1, 2), 5000), (Flow(A6, B6, 58, 128, 0, 129), 1)], "t")
    assert len(messages(update)) == 2
    text = "\n".join(command for step in commands(update) for command in step)
    assert "10.42.1.2 . 10.42.1.3 . 17 . 1 . 2 timeout 5000ms" in text
    assert "fd00::3 . fd00::2 . 129 timeout 1ms" in text


def tuple_of(kind: int, source: bytes, destination: bytes, *proto: bytes) -> bytes:
    first = 1 if len(source) == 4 else 3
    ip = nested(1, attr(first, source) + attr(first + 1, destination))
    return nested(kind, ip + nested(2, b"".join(proto)))


def entry(*more: bytes, protocol: int = 6) -> bytes:
    def ports(one: int, other: int) -> tuple[bytes, ...]:
        return attr(1, bytes((protocol,))), attr(2, struct.pack(">H", one)), attr(3, struct.pack(">H", other))

    service, node = ip_address("10.43.0.1").packed, ip_address("172.30.0.11").packed
    original = tuple_of(1, A.packed, service, *ports(40000, 80))
    reply = tuple_of(2, B.packed, node, *ports(8080, 50000))
    timeout = attr(7, (432000).to_bytes(4, "big"))
    return bytes((2, 0, 0, 0)) + original + reply + timeout + u32(12, 1) + b"".join(more)


def test_an_entry_is_read_as_it_is_judged() -> None:
    found = tracked(entry())
    assert found is not None
    assert (found.flow, found.seconds) == (Flow(A, B, 6, 40000, 8080), 432000)
    assert tracked(entry(attr(3, (0x1 | 0x8).to_bytes(4, "big")))) is None  # related to another
    assert tracked(entry(attr(18, b"\0\5"))) is None  # of a zone
    assert tracked(b"\2\0\0\0") is None


@given(st.data())
def test_damaged_entries(data: st.DataObject) -> None:
    whole = bytearray(entry())
    for _ in range(data.draw(st.integers(0, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    payload = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found = tracked(payload)
    assert found is None or found.flow.source.version == found.flow.destination.version
