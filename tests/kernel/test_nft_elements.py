"""Elements sent straight to the kernel are what libnftables would have made of them."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from towpath.desired.ruleset import SETS
from towpath.kernel.nft import Nft
from towpath.kernel.nft_elements import ElementSocket, NotPlain, messages
from towpath.kernel.nft_text import commands
from towpath.model.nft import Key, NftSet
from towpath.model.op import NftUpdate

V4, V6 = IPv4Address("10.42.0.2"), IPv6Address("fd00::2")
ELEMENTS: dict[str, dict[Key, Key]] = {
    "pod_src4": {("cali0123456789a", V4): (), ("califfffffffff0", V4): ()},
    "pod_src6": {("cali0123456789a", V6): ()},
    "pod_from": {("cali0123456789a",): ("return",), ("b",): ("goto pol",), ("c",): ("jump pol",)},
    "pod_to": {("cali0123456789a",): ("accept",), ("b",): ("drop",), ("c",): ("continue",)},
    "hostport4": {("tcp", 8080): (V4, 80), ("udp", 53): (V4, 5353)},
    "hostport6": {("sctp", 65535): (V6, 1)},
    "hostport_ip4": {(IPv4Address("127.0.0.1"), "tcp", 443): (V4, 8443)},
    "hostport_ip6": {(IPv6Address("::1"), "udp", 443): (V6, 8443)},
}
TABLES = ("straight", "library")


def update(table: str, elements: dict[str, dict[Key, Key]], *, remove: bool = False) -> NftUpdate:
    listed = tuple((SETS[name], members) for name, members in elements.items())
    return (
        NftUpdate(table=table, del_elements=listed) if remove else NftUpdate(table=table, add_elements=listed)
    )


@pytest.fixture
def nft() -> Iterator[Nft]:
    nft = Nft()
    sets = tuple(SETS.values())
    for table in TABLES:
        nft.apply(NftUpdate(table=table, add_sets=sets, add_chains=(("pol", None),)))
    yield nft
    for table in TABLES:
        nft._send([(f"delete table inet {table}",)])
    nft.close()


def test_both_ways_lead_to_the_same_sets(nft: Nft) -> None:
    sock = ElementSocket()
    assert sock.execute(messages(update("straight", ELEMENTS)))
    nft._send(commands(update("library", ELEMENTS)))
    straight, library = nft.observe("straight"), nft.observe("library")
    assert straight is not None and library is not None
    assert straight.sets == library.sets
    assert {name: s.elements for name, s in straight.sets.items() if s.elements} == ELEMENTS
    assert sock.execute(messages(update("straight", ELEMENTS)))  # what is there already is no error
    other_data: dict[str, dict[Key, Key]] = {
        name: {key: ("accept",) if SETS[name].data == ("verdict",) else data for key, data in members.items()}
        for name, members in ELEMENTS.items()
    }
    assert not sock.execute(messages(update("straight", other_data)))  # a key has one value
    assert sock.execute(messages(update("straight", other_data, remove=True)))  # and goes by the key alone
    emptied = nft.observe("straight")
    assert emptied is not None and not any(s.elements for s in emptied.sets.values())
    sock.close()


def test_a_refused_transaction_leaves_nothing(nft: Nft) -> None:
    sock = ElementSocket()
    some = {"pod_src4": ELEMENTS["pod_src4"]}
    gone = NftUpdate(
        table="straight",
        add_elements=((SETS["pod_src4"], some["pod_src4"]),),
        del_elements=((SETS["pod_from"], ELEMENTS["pod_from"]),),
    )
    assert not sock.execute(messages(gone))
    assert not sock.execute(messages(update("no such table", some)))
    seen = nft.observe("straight")
    assert seen is not None and not seen.sets["pod_src4"].elements
    nft.apply(gone)  # the library's way: what is gone already is no error
    seen = nft.observe("straight")
    assert seen is not None and seen.sets["pod_src4"].elements == some["pod_src4"]
    sock.close()


@pytest.mark.parametrize(
    "odd",
    [
        NftUpdate(table="t"),
        NftUpdate(table="t", add_sets=(SETS["pod_to"],)),
        update("t", {"net4": {(ip_network("10.0.0.0/8"),): ()}}),
        update("t", {"pod_from": {("a name of sixteen",): ("return",)}}),
        update("t", {"pod_from": {("a",): ("goto",)}}),
        update("t", {"pod_from": {("a",): ("explode",)}}),
        update("t", {"hostport4": {("icmp", 1): (V4, 1)}}),
        update("t", {"hostport4": {("tcp", 70000): (V4, 1)}}),
        update("t", {"pod_src4": {("a",): ()}}),
        NftUpdate(table="t", add_elements=((NftSet(name="m", key=("mark",)), {(1,): ()}),)),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(odd: NftUpdate) -> None:
    with pytest.raises(NotPlain):
        messages(odd)
