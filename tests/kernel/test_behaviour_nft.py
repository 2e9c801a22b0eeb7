"""What ``port.Kernel`` promises of the nftables table, asked of the fake and of the running kernel alike."""

from collections.abc import Iterator
from errno import EBUSY, EEXIST, EINVAL, ENOENT, EOPNOTSUPP
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from kernels import BOTH, Pair
from msgspec.structs import replace

from towpath.kernel.port import KernelRefused
from towpath.model.nft import Hook, Key, NftChain, NftSet, NftTable
from towpath.model.op import NftUpdate

pytestmark = pytest.mark.kernel

V4, V6 = IPv4Address("10.42.0.5"), IPv6Address("fd00::5")
SETS: dict[str, NftSet] = {
    s.name: s
    for s in (
        NftSet(name="pods", key=("ifname", "ipv4_addr"), elements={("cali1", V4): (), ("cali2", V4): ()}),
        NftSet(name="pods6", key=("ifname", "ipv6_addr"), elements={("cali1", V6): ()}),
        NftSet(
            name="verdicts",
            key=("ifname",),
            data=("verdict",),
            elements={("cali1",): ("return",), ("cali2",): ("goto pol",), ("cali3",): ("drop",)},
        ),
        NftSet(
            name="nets",
            key=("ipv4_addr",),
            interval=True,
            elements={
                (ip_network("10.0.0.0/9"),): (),
                (ip_network("10.128.0.0/9"),): (),
                (ip_network("192.0.2.1/32"),): (),
                (ip_network("224.0.0.0/4"),): (),
            },
        ),
        NftSet(name="all4", key=("ipv4_addr",), interval=True, elements={(ip_network("0.0.0.0/0"),): ()}),
        NftSet(
            name="nets6",
            key=("ipv6_addr",),
            interval=True,
            elements={(ip_network("fd00::/8"),): (), (ip_network("2001:db8::1/128"),): ()},
        ),
        NftSet(
            name="ports",
            key=("inet_service",),
            interval=True,
            elements={(80,): (), ((1000, 2000),): (), ((2001, 2002),): (), (65535,): ()},
        ),
        NftSet(
            name="hostport4",
            key=("inet_proto", "inet_service"),
            data=("ipv4_addr", "inet_service"),
            elements={("tcp", 80): (V4, 8080), ("sctp", 80): (V4, 81), ("udp", 65535): (V4, 1)},
        ),
        NftSet(
            name="hostport6",
            key=("ipv6_addr", "inet_proto", "inet_service"),
            data=("ipv6_addr", "inet_service"),
            elements={(V6, "tcp", 80): (V6, 8080)},
        ),
        NftSet(name="marks", key=("mark",), elements={(16,): (), (0x10000,): ()}),
        NftSet(name="empty", key=("ipv4_addr", "inet_proto", "inet_service")),
    )
}
HOOK = Hook(type="filter", hook="forward", priority=-5, policy="drop")
NAT = Hook(type="nat", hook="postrouting", priority=110)
CHAINS: dict[str, NftChain] = {
    c.name: c
    for c in (
        NftChain(name="pol", rules=("ip saddr @nets tcp dport @ports counter accept", "drop")),
        NftChain(
            name="forward",
            hook=HOOK,
            rules=(
                "ct state established,related accept",
                "meta mark and 0x4000 == 0x4000 return",
                "iifname . ip saddr @pods counter return",
                'iifname "cali*" jump pol',
                "iifname vmap @verdicts",
                "ip saddr { 10.0.0.0/8, 192.0.2.0/24 } meta l4proto { tcp, udp } th dport 1-1024 drop",
                "ct state established,related accept",
            ),
        ),
        NftChain(name="nat_post", hook=NAT, rules=("ip saddr 10.42.0.0/16 masquerade fully-random",)),
        NftChain(name="empty_chain"),
    )
}
TABLE = NftTable(name="towpath", sets=SETS, chains=CHAINS)


@pytest.fixture(params=BOTH)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with request.param() as made:
        yield made


def creation(table: NftTable = TABLE) -> NftUpdate:
    return NftUpdate(
        table=table.name,
        add_sets=tuple(replace(s, elements={}) for s in table.sets.values()),
        add_chains=tuple((c.name, c.hook) for c in table.chains.values()),
        add_elements=tuple((s, s.elements) for s in table.sets.values() if s.elements),
        set_chains=tuple(c for c in table.chains.values() if c.rules),
    )


def elements(
    name: str, *, add: dict[Key, Key] | None = None, delete: dict[Key, Key] | None = None
) -> NftUpdate:
    decl = replace(SETS[name], elements={})
    return NftUpdate(
        table="towpath",
        add_elements=((decl, add),) if add else (),
        del_elements=((decl, delete),) if delete else (),
    )


def table(pair: Pair) -> NftTable:
    found = pair.node.observe(table="towpath").nft
    assert found is not None
    return found


def refused(pair: Pair, update: NftUpdate) -> KernelRefused:
    before = pair.node.observe(table="towpath").nft
    with pytest.raises(KernelRefused) as caught:
        pair.node.apply([update])
    assert pair.node.observe(table="towpath").nft == before, "all or nothing"
    return caught.value


def test_no_table_is_none(pair: Pair) -> None:
    assert pair.node.observe(table="towpath").nft is None
    pair.node.apply([NftUpdate(table="towpath")])
    assert pair.node.observe(table="towpath").nft == NftTable(name="towpath")


def test_a_whole_table_is_told_again(pair: Pair) -> None:
    pair.node.apply([creation()])
    assert table(pair) == TABLE
    pair.node.apply([creation()])
    assert table(pair) == TABLE, "once more changes nothing"


def test_elements_come_and_go(pair: Pair) -> None:
    pair.node.apply([creation()])
    for name, decl in SETS.items():
        pair.node.apply([elements(name, delete=decl.elements)])
        assert not table(pair).sets[name].elements
        pair.node.apply([elements(name, delete=decl.elements)])
        pair.node.apply([elements(name, add=decl.elements), elements(name, add=decl.elements)])
    assert table(pair) == TABLE


def test_absent_elements_do_not_stop_the_rest_of_a_transaction(pair: Pair) -> None:
    pair.node.apply([creation()])
    pods = replace(SETS["pods"], elements={})
    unknown = NftSet(name="unknown", key=("mark",))
    update = NftUpdate(
        table="towpath",
        del_elements=(
            (pods, {("cali9", V4): (), ("cali1", V4): ()}),
            (SETS["verdicts"], {("cali9",): ("return",)}),
            (SETS["nets"], {(ip_network("172.16.0.0/12"),): ()}),
            (unknown, {(1,): ()}),
        ),
        add_elements=((pods, {("cali3", V4): ()}),),
        del_chains=("unknown", "empty_chain"),
        del_sets=("unknown", "empty"),
    )
    pair.node.apply([update])
    after = table(pair)
    assert after.sets["pods"].elements == {("cali2", V4): (), ("cali3", V4): ()}
    assert "empty" not in after.sets
    assert "empty_chain" not in after.chains


def test_a_map_is_deleted_from_by_key(pair: Pair) -> None:
    pair.node.apply([creation()])
    pair.node.apply([elements("verdicts", delete={("cali3",): ("accept",)})])
    assert ("cali3",) not in table(pair).sets["verdicts"].elements


def test_a_value_is_replaced_in_one_transaction(pair: Pair) -> None:
    pair.node.apply([creation()])
    assert refused(pair, elements("verdicts", add={("cali1",): ("drop",)})).errno == EEXIST
    pair.node.apply([elements("verdicts", add={("cali1",): ("drop",)}, delete={("cali1",): ("return",)})])
    assert table(pair).sets["verdicts"].elements[("cali1",)] == ("drop",)
    wide, low = (ip_network("10.0.0.0/8"),), (ip_network("10.0.0.0/9"),)
    assert refused(pair, elements("nets", add={wide: ()})).errno == EEXIST
    pair.node.apply([elements("nets", add={wide: ()}, delete={low: (), (ip_network("10.128.0.0/9"),): ()})])
    assert wide in table(pair).sets["nets"].elements


def test_chains_are_refilled(pair: Pair) -> None:
    pair.node.apply([creation()])
    chain = replace(CHAINS["forward"], rules=("counter accept", *CHAINS["forward"].rules[:3]))
    pair.node.apply([NftUpdate(table="towpath", set_chains=(chain, replace(CHAINS["pol"], rules=())))])
    assert table(pair).chains["forward"] == chain
    assert table(pair).chains["pol"].rules == ()


def test_a_policy_changes_in_place_and_a_hook_does_not(pair: Pair) -> None:
    pair.node.apply([creation()])
    open_hook = replace(HOOK, policy="accept")
    pair.node.apply([NftUpdate(table="towpath", add_chains=(("forward", open_hook),))])
    assert table(pair).chains["forward"].hook == open_hook
    assert table(pair).chains["forward"].rules == CHAINS["forward"].rules
    moved = NftUpdate(table="towpath", add_chains=(("forward", replace(HOOK, priority=7)),))
    assert refused(pair, moved).errno == EOPNOTSUPP


def test_a_set_of_another_type_is_refused(pair: Pair) -> None:
    pair.node.apply([creation()])
    for other in (
        NftSet(name="pods", key=("ifname",)),
        NftSet(name="marks", key=("mark",), data=("verdict",)),
        NftSet(name="nets", key=("ipv4_addr",)),
    ):
        assert refused(pair, NftUpdate(table="towpath", add_sets=(other,))).errno == EEXIST


def test_what_is_in_use_stays(pair: Pair) -> None:
    pair.node.apply([creation()])
    assert refused(pair, NftUpdate(table="towpath", del_sets=("pods",))).errno == EBUSY
    assert refused(pair, NftUpdate(table="towpath", del_chains=("pol",))).errno == EBUSY


def test_chains_that_call_each_other_go_together(pair: Pair) -> None:
    pair.node.apply([creation()])
    update = NftUpdate(
        table="towpath",
        del_chains=("pol", "forward"),
        del_sets=("pods", "verdicts"),
        del_elements=((SETS["verdicts"], {("cali2",): ("goto pol",)}),),
    )
    pair.node.apply([update])
    assert set(table(pair).chains) == {"nat_post", "empty_chain"}


def test_what_does_not_exist_cannot_be_used(pair: Pair) -> None:
    pair.node.apply([creation()])
    for rule in ("ip saddr @absent drop", "jump absent"):
        chain = NftChain(name="pol", rules=(rule,))
        assert refused(pair, NftUpdate(table="towpath", set_chains=(chain,))).errno == ENOENT
    assert refused(pair, elements("verdicts", add={("cali7",): ("goto absent",)})).errno == ENOENT
    absent = NftSet(name="absent", key=("mark",))
    error = refused(pair, NftUpdate(table="towpath", add_elements=((absent, {(1,): ()}),)))
    assert error.errno == ENOENT


def test_recreation_replaces_everything_at_once(pair: Pair) -> None:
    pair.node.apply([creation()])
    retyped = NftSet(name="pods", key=("mark",), elements={(5,): ()})
    small = NftTable(
        name="towpath", sets={"pods": retyped}, chains={"c": NftChain(name="c", rules=("drop",))}
    )
    pair.node.apply([replace(creation(small), recreate=True)])
    assert table(pair) == small


@pytest.mark.parametrize(
    "bad",
    [
        NftUpdate(table="a b"),
        NftUpdate(table="towpath", add_sets=(NftSet(name="x { }", key=("mark",)),)),
        NftUpdate(table="towpath", add_sets=(NftSet(name="x", key=("mark; }",)),)),
        NftUpdate(table="towpath", add_chains=(("x; drop", None),)),
        NftUpdate(table="towpath", del_chains=("x y",)),
        NftUpdate(table="towpath", set_chains=(NftChain(name="pol", rules=("accept; drop",)),)),
        NftUpdate(table="towpath", set_chains=(NftChain(name="pol", rules=("accept\nflush ruleset",)),)),
        elements("pods", add={("cali*", V4): ()}),
        elements("pods", add={('a" }', V4): ()}),
        elements("pods", add={("cali1", "300.1.1.1"): ()}),
        elements("pods", add={("cali1", V6): ()}),
        elements("verdicts", add={("cali1",): ("jump x; drop",)}),
        elements("hostport4", add={("gre", 1): (V4, 1)}),
        elements("ports", add={("http",): ()}),
        elements("pods", add={("cali1",): ()}),
    ],
)
def test_nothing_unparsed_reaches_nftables(pair: Pair, bad: NftUpdate) -> None:
    pair.node.apply([creation()])
    assert refused(pair, bad).errno == EINVAL
