"""Elements sent straight to the kernel are what libnftables would have made of them."""

import os
from collections.abc import Iterator
from errno import EEXIST, ENOENT
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network

import pytest
from msgspec.structs import replace

from towpath.desired.ruleset import SETS as RULESET
from towpath.kernel import nft_dump
from towpath.kernel.libnftables import STATELESS, NftContext, NftError
from towpath.kernel.netns import new_netns, run_in
from towpath.kernel.nft import Nft
from towpath.kernel.nft_elements import messages
from towpath.kernel.nft_socket import NftSocket, Refused
from towpath.kernel.nft_text import commands
from towpath.kernel.nft_types import NotPlain
from towpath.kernel.port import KernelRefused
from towpath.kernel.wire import attributes
from towpath.model.nft import Hook, Key, NftChain, NftSet, NftTable
from towpath.model.op import NftUpdate

pytestmark = pytest.mark.kernel

V4, V6 = IPv4Address("10.42.0.2"), IPv6Address("fd00::2")
SETS = RULESET | {
    decl.name: decl
    for decl in (
        NftSet(name="by_class", key=("classid",), data=("verdict",), counter=True),
        NftSet(name="class_of", key=("ipv6_addr",), data=("classid",)),
        NftSet(name="net_class", key=("ipv4_addr",), data=("classid",), interval=True),
        NftSet(name="net_class6", key=("ipv6_addr",), data=("classid",), interval=True),
        NftSet(name="ports", key=("inet_service",), interval=True),
        NftSet(name="class_port", key=("classid", "inet_proto", "inet_service")),
        NftSet(name="class_ports", key=("classid", "inet_proto", "inet_service"), interval=True),
        NftSet(name="marks", key=("mark",), data=("mark",)),
    )
}
ELEMENTS: dict[str, dict[Key, Key]] = {
    "pod_src4": {("cali0123456789a", V4): (), ("califfffffffff0", V4): ()},
    "pod_src6": {("cali0123456789a", V6): ()},
    "pod_from": {("cali0123456789a",): ("return",), ("b",): ("goto pol",), ("c",): ("jump pol",)},
    "pod_to": {("cali0123456789a",): ("accept",), ("b",): ("drop",), ("c",): ("continue",)},
    "hostport4": {("tcp", 8080): (V4, 80), ("udp", 53): (V4, 5353), ("icmp", 1): (V4, 1)},
    "hostport6": {("sctp", 65535): (V6, 1)},
    "hostport_ip4": {(IPv4Address("127.0.0.1"), "tcp", 443): (V4, 8443)},
    "hostport_ip6": {(IPv6Address("::1"), "udp", 443): (V6, 8443)},
    "net4": {
        (ip_network("10.0.0.0/9"),): (),
        (ip_network("10.128.0.0/9"),): (),
        (ip_network("192.0.2.1/32"),): (),
        (ip_network("255.255.255.254/31"),): (),
    },
    "by_class": {(0,): ("return",), (5,): ("goto pol",), (0x10005,): ("goto pol",), (0xFFFFFFFF,): ("drop",)},
    "class_of": {(V6,): (0x10005,)},
    "net_class": {(ip_network("0.0.0.0/1"),): (1,), (ip_network("128.0.0.0/1"),): (0x20002,)},
    "net_class6": {(ip_network("::/0"),): (7,)},
    "ports": {(80,): (), ((1000, 2000),): (), ((2001, 65535),): ()},
    "class_port": {(5, "tcp", 80): (), (0x10005, "udp", 53): ()},
    "class_ports": {(5, "tcp", (80, 90)): (), (5, "udp", 53): (), (6, "sctp", (1, 65535)): ()},
    "marks": {(1,): (0x4000,)},
}
HOOK = Hook(type="filter", hook="forward", priority=0)
TABLES = ("straight", "library")
# Of a listed set: its name; its table, its handle and the number of its elements.
_SET_NAME, _ITS_OWN = 2, {1, 16, 19, 20}


def update(table: str, elements: dict[str, dict[Key, Key]], *, remove: bool = False) -> NftUpdate:
    listed = tuple((SETS[name], members) for name, members in elements.items())
    return (
        NftUpdate(table=table, del_elements=listed) if remove else NftUpdate(table=table, add_elements=listed)
    )


@pytest.fixture
def netns() -> Iterator[int]:
    made = new_netns()
    yield made
    os.close(made)


@pytest.fixture
def nft(netns: int) -> Iterator[Nft]:
    nft = run_in(netns, Nft)
    sets = tuple(SETS.values())
    for table in TABLES:
        nft.apply(NftUpdate(table=table, add_sets=sets, add_chains=(("pol", None),)))
    yield nft
    nft.close()


@pytest.fixture
def sock(netns: int) -> Iterator[NftSocket]:
    made = run_in(netns, NftSocket)
    yield made
    made.close()


@pytest.fixture
def library(netns: int) -> NftContext:
    return run_in(netns, NftContext)


def refused(sock: NftSocket, bad: NftUpdate) -> int:
    with pytest.raises(Refused) as caught:
        sock.execute(messages(bad))
    return caught.value.errno


def table(nft: Nft, name: str = "straight") -> NftTable:
    found = nft.observe(name)
    assert found is not None
    return found


def by_another(netns: int, name: str = "straight") -> NftTable:
    """As one sees it who knows nothing yet."""
    nft = run_in(netns, Nft)
    found = table(nft, name)
    nft.close()
    return found


def test_both_ways_lead_to_the_same_sets(nft: Nft, sock: NftSocket, library: NftContext) -> None:
    assert sock.execute(messages(update("straight", ELEMENTS))) == 1
    nft._send(commands(update("library", ELEMENTS)))
    texts = [library.run(f"list table inet {t}", flags=STATELESS).splitlines()[1:] for t in TABLES]
    assert sorted(texts[0]) == sorted(texts[1]), "as nft itself reads them"
    assert table(nft).sets == table(nft, "library").sets
    assert {name: s.elements for name, s in table(nft).sets.items() if s.elements} == ELEMENTS
    sock.execute(messages(update("straight", ELEMENTS)))  # what is there already is no error


def test_what_one_way_made_the_other_takes_away(nft: Nft, sock: NftSocket) -> None:
    sock.execute(messages(update("straight", ELEMENTS)))
    nft._send(commands(update("library", ELEMENTS)))
    nft._send(commands(update("straight", ELEMENTS, remove=True)))
    sock.execute(messages(update("library", ELEMENTS, remove=True)))
    for name in TABLES:
        assert not any(s.elements for s in table(nft, name).sets.values())


def test_a_key_has_one_value_and_goes_by_itself(nft: Nft, sock: NftSocket) -> None:
    sock.execute(messages(update("straight", ELEMENTS)))
    other: dict[str, dict[Key, Key]] = {"pod_from": {("b",): ("accept",)}, "class_of": {(V6,): (3,)}}
    for name, members in other.items():
        assert refused(sock, update("straight", {name: members})) == EEXIST
    sock.execute(messages(update("straight", other, remove=True)))
    assert not table(nft).sets["class_of"].elements
    other["class_of"] = {}
    nft.apply(
        NftUpdate(
            table="straight",
            del_elements=(
                (SETS["pod_to"], {("b",): ("drop",)}),
                (SETS["net_class6"], ELEMENTS["net_class6"]),
            ),
            add_elements=(
                (SETS["pod_to"], {("b",): ("accept",)}),
                (SETS["net_class6"], {(ip_network("::/1"),): (8,)}),
            ),
        )
    )
    after = table(nft).sets
    assert after["pod_to"].elements[("b",)] == ("accept",)
    assert after["net_class6"].elements == {(ip_network("::/1"),): (8,)}


def test_a_refused_transaction_leaves_nothing(nft: Nft, sock: NftSocket) -> None:
    some = {"pod_src4": ELEMENTS["pod_src4"]}
    gone = NftUpdate(
        table="straight",
        add_elements=((SETS["pod_src4"], some["pod_src4"]),),
        del_elements=((SETS["pod_from"], ELEMENTS["pod_from"]), (SETS["net4"], ELEMENTS["net4"])),
    )
    assert refused(sock, gone) == ENOENT
    assert refused(sock, update("none", some)) == ENOENT
    assert not table(nft).sets["pod_src4"].elements
    nft.apply(gone)  # what is gone already is no error
    assert table(nft).sets["pod_src4"].elements == some["pod_src4"]


@pytest.mark.parametrize(
    "odd",
    [
        NftUpdate(table="t"),
        NftUpdate(table="t", add_sets=(SETS["pod_to"],)),
        NftUpdate(table="t", add_sets=(SETS["net4"],)),
        NftUpdate(table="t", add_sets=(SETS["class_port"],)),
        NftUpdate(table="t", add_chains=(("forward", HOOK),)),
        NftUpdate(table="t", set_chains=(NftChain(name="c", rules=("tcp dport 80 accept",)),)),
        NftUpdate(table="t", set_chains=(NftChain(name="c", rules=("meta l4proto 256 accept",)),)),
        NftUpdate(table="t", set_chains=(NftChain(name="c", rules=("th dport 65536 accept",)),)),
        NftUpdate(table="t", set_chains=(NftChain(name="c", hook=HOOK),)),
        update("t", {"net4": {("10.0.0.0/8",): ()}}),
        update("t", {"pod_from": {("a name of sixteen",): ("return",)}}),
        update("t", {"pod_from": {("a",): ("goto",)}}),
        update("t", {"pod_from": {("a",): ("explode",)}}),
        update("t", {"hostport4": {("gre", 1): (V4, 1)}}),
        update("t", {"hostport4": {("tcp", 70000): (V4, 1)}}),
        update("t", {"by_class": {(1 << 32,): ("drop",)}}),
        update("t", {"class_of": {(V6,): (-1,)}}),
        update("t", {"ports": {((9, 8),): ()}}),
        update("t", {"pod_src4": {("a",): ()}}),
        NftUpdate(table="t", add_elements=((NftSet(name="m", key=("ether_addr",)), {(1,): ()}),)),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(odd: NftUpdate) -> None:
    with pytest.raises(NotPlain):
        messages(odd)


def test_elements_that_lead_to_a_new_chain_come_after_it(nft: Nft) -> None:
    base = NftChain(name="forward", hook=HOOK, rules=("iifname vmap @pod_from",))
    nft.apply(NftUpdate(table="straight", add_chains=(("forward", HOOK),), set_chains=(base,)))
    extra = NftSet(name="extra", key=("classid",), data=("verdict",))
    chain = NftChain(name="pe-1", rules=("meta priority vmap @extra", "drop"))
    new = NftUpdate(
        table="straight",
        add_sets=(extra,),
        add_chains=(("pe-1", None),),
        add_elements=((extra, {(5,): ("goto pol",)}), (SETS["pod_from"], {("x",): ("goto pe-1",)})),
        set_chains=(chain,),
    )
    nft.apply(new)
    assert table(nft).chains["pe-1"] == chain
    assert table(nft).sets["extra"].elements == {(5,): ("goto pol",)}
    old = NftUpdate(
        table="straight",
        del_elements=((SETS["pod_from"], {("x",): ("goto pe-1",)}), (extra, {(5,): ("goto pol",)})),
        del_chains=("pe-1",),
        del_sets=("extra",),
    )
    assert messages(old)
    nft.apply(old)
    assert "pe-1" not in table(nft).chains
    assert "extra" not in table(nft).sets


def test_if_the_elements_are_refused_their_chains_are_gone_again(nft: Nft) -> None:
    before = table(nft)
    bad = NftUpdate(
        table="straight",
        add_sets=(NftSet(name="extra", key=("classid",)),),
        add_chains=(("pe-1", None),),
        add_elements=((SETS["pod_from"], {("x",): ("goto pe-1",), ("y",): ("goto absent",)}),),
        set_chains=(NftChain(name="pe-1", rules=("meta priority @extra drop",)),),
    )
    with pytest.raises(KernelRefused) as caught:
        nft.apply(bad)
    assert caught.value.errno == ENOENT
    assert table(nft) == before


@pytest.mark.parametrize("limit", [0, 150_000], ids=["as much as is needed", "little"])
def test_many_elements_go_in_as_few_transactions_as_the_socket_takes(
    netns: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = int(V4)
    classes = NftSet(name="class4", key=("ipv4_addr",), data=("classid",))
    nets = NftSet(name="net4", key=("ipv4_addr",), data=("classid",), interval=True)
    old: dict[Key, Key] = {(IPv4Address(base + i),): (i % 9,) for i in range(10_000)}
    new: dict[Key, Key] = {(IPv4Address(base + i),): (i % 7,) for i in range(5_000, 15_000)}
    old_nets: dict[Key, Key] = {(IPv4Network((8 * i, 30)),): (i % 9,) for i in range(2000)}
    new_nets: dict[Key, Key] = {(IPv4Network((8 * i, 29)),): (i % 7,) for i in range(1000, 2000)}
    kernel, sock = run_in(netns, Nft), run_in(netns, NftSocket)
    kernel.apply(NftUpdate(table="t", add_sets=(classes, nets)))
    if limit:  # as in an unprivileged user namespace
        monkeypatch.setattr(kernel._socket, "_room", lambda wanted: limit)

    def refuse(*commands: str, flags: int = 0) -> bytes:
        raise AssertionError("libnftables lists the whole table")

    monkeypatch.setattr(kernel._nft, "run", refuse)
    before = sock.generation()
    for gone, come, gone_nets, come_nets in (({}, old, {}, old_nets), (old, new, old_nets, new_nets)):
        kernel.apply(
            NftUpdate(
                table="t",
                add_elements=((classes, come), (nets, come_nets)),
                del_elements=((classes, gone), (nets, gone_nets)),
            )
        )
        for seen in (table(kernel, "t"), by_another(netns, "t")):
            assert seen.sets["class4"].elements == come
            assert seen.sets["net4"].elements == come_nets
    took = sock.generation() - before
    assert took > 5 if limit else took == 2
    kernel.close()
    sock.close()


RULES = (
    "jump src_class",
    "meta priority vmap @by_class",
    "meta nfproto ipv4 goto pol",
    "meta nfproto ipv6 counter goto denied",
    "meta l4proto 47 return",
    "meta l4proto 6 th dport 8080 return",
    "meta l4proto 17 th sport 1-1023 return",
    "meta l4proto 132 th sport 5 goto pol",
    "meta l4proto 6 th dport 0-65535 counter goto denied",
    "counter drop",
    "accept",
    "return",
)


def test_a_plain_chain_changes_together_with_its_elements(nft: Nft, library: NftContext, netns: int) -> None:
    names = ("src_class", "denied", "pi-1")
    new = tuple((name, None) for name in names)
    for name in TABLES:
        nft.apply(NftUpdate(table=name, add_chains=new))
    filled = NftChain(name="pi-1", rules=RULES)
    refill = {t: NftUpdate(table=t, set_chains=(filled,)) for t in TABLES}
    nft._send(commands(refill["library"]))
    generation = nft._socket.generation()
    verdicts: dict[Key, Key] = {(5,): ("goto pi-1",)}
    nft.apply(replace(refill["straight"], add_elements=((SETS["by_class"], verdicts),)))
    assert nft._socket.generation() == generation + 1, "one transaction"
    assert table(nft).chains["pi-1"] == filled
    assert by_another(netns).chains["pi-1"] == by_another(netns, "library").chains["pi-1"]
    texts = [library.run(f"list chain inet {t} pi-1", flags=STATELESS).splitlines()[1:] for t in TABLES]
    assert texts[0] == texts[1]
    changed = NftUpdate(
        table="straight",
        set_chains=(NftChain(name="pi-1", rules=("goto denied",)),),
        del_elements=((SETS["by_class"], verdicts),),
    )
    nft.apply(changed)
    assert table(nft).chains["pi-1"].rules == ("goto denied",)
    assert not table(nft).sets["by_class"].elements


def test_new_sets_and_chains_come_in_the_same_transaction(nft: Nft, netns: int, library: NftContext) -> None:
    new_sets = (
        NftSet(name="pi-2", key=("classid",), data=("verdict",), counter=True),
        NftSet(name="plain", key=("ipv4_addr",)),
        NftSet(name="to_class", key=("ipv6_addr",), data=("classid",)),
        NftSet(name="to_port", key=("inet_proto",), data=("inet_service",)),
    )
    chains = (
        NftChain(name="pi-2", rules=("jump src_class", "meta priority vmap @pi-2", "goto cs-1")),
        NftChain(name="cs-1", rules=("meta l4proto 6 th dport 80 return", "counter goto pol")),
    )

    def made(name: str) -> NftUpdate:
        return NftUpdate(
            table=name,
            add_sets=new_sets,
            add_chains=tuple((chain.name, None) for chain in chains),
            set_chains=chains,
            add_elements=(
                (new_sets[0], {(5,): ("goto cs-1",)}),
                (SETS["pod_from"], {("x",): ("goto pi-2",)}),
            ),
        )

    for name in TABLES:
        nft.apply(NftUpdate(table=name, add_chains=(("src_class", None),)))
    generation = nft._socket.generation()
    nft.apply(made("straight"))
    assert nft._socket.generation() == generation + 1
    nft._send(commands(made("library")))
    by_name = [
        {found[_SET_NAME]: {kind: found[kind] for kind in found.keys() - _ITS_OWN} for found in listed}
        for listed in ([attributes(m, 4) for m in nft._dump(nft_dump.GET_SET, name)] for name in TABLES)
    ]
    assert by_name[0] == by_name[1]
    texts = [library.run(f"list table inet {t}", flags=STATELESS).splitlines()[1:] for t in TABLES]
    assert sorted(texts[0]) == sorted(texts[1])
    assert {chain.name: chain for chain in chains}.items() <= table(nft).chains.items()
    assert by_another(netns).chains == by_another(netns, "library").chains
    assert by_another(netns).sets == by_another(netns, "library").sets


def test_a_new_chain_with_other_rules_comes_before_the_elements(nft: Nft) -> None:
    base = NftChain(name="forward", hook=HOOK, rules=("iifname vmap @pod_from",))
    nft.apply(NftUpdate(table="straight", add_chains=(("forward", HOOK),), set_chains=(base,)))
    chain = NftChain(name="cs-2", rules=("meta l4proto 6 th dport { 80, 443 } return", "drop"))
    generation = nft._socket.generation()
    nft.apply(
        NftUpdate(
            table="straight",
            add_chains=(("cs-2", None),),
            set_chains=(chain,),
            add_elements=((SETS["pod_from"], {("x",): ("goto cs-2",)}),),
        )
    )
    assert nft._socket.generation() == generation + 2
    assert table(nft).chains["cs-2"] == chain


@pytest.mark.parametrize("name", ["net4", "net_class", "net_class6", "ports"])
def test_a_dump_amid_a_change_that_shows_elements_twice_is_read_as_once(nft: Nft, name: str) -> None:
    """Removed and added anew by one transaction: the kernel's walk can meet both."""
    nft.apply(update("straight", {name: ELEMENTS[name]}))
    dump = nft._elements("straight", name)
    assert nft_dump.elements(SETS[name], [*dump, *dump]) == nft_dump.elements(SETS[name], dump)
    assert nft_dump.elements(SETS[name], dump) == ELEMENTS[name]


def test_the_library_says_what_is_wrong(library: NftContext) -> None:
    with pytest.raises(NftError):
        library.run("list table inet absent")
