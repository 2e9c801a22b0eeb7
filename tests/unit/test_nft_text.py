"""The commands of an update, and the order that makes it safe to cut."""

from ipaddress import IPv4Address, ip_network

from towpath.kernel.nft_steps import CHUNK
from towpath.kernel.nft_text import commands, comment_of
from towpath.model.nft import Hook, Key, NftChain, NftSet
from towpath.model.op import NftUpdate

HOOK = Hook(type="nat", hook="postrouting", priority=110)
PODS = NftSet(name="pods", key=("ifname", "ipv4_addr"))
VERDICTS = NftSet(name="verdicts", key=("ifname",), data=("verdict",))
NETS = NftSet(name="nets", key=("ipv4_addr",), interval=True)
POD: dict[Key, Key] = {("cali1", IPv4Address("10.42.0.5")): ()}


def test_every_part_in_order() -> None:
    update = NftUpdate(
        table="towpath",
        add_sets=(PODS, VERDICTS, NETS),
        add_chains=(("pol", None), ("nat_post", HOOK)),
        del_elements=((PODS, POD), (NETS, {(ip_network("10.0.0.0/8"),): ()})),
        add_elements=((NETS, {(ip_network("10.0.0.0/9"),): ()}), (VERDICTS, {("cali1",): ("goto pol",)})),
        set_chains=(
            NftChain(name="nat_post", hook=HOOK, rules=("masquerade",)),
            NftChain(name="pol", rules=("tcp dport 22 accept", "drop")),
        ),
        del_chains=("old",),
        del_sets=("old_set",),
    )
    assert commands(update) == [
        ("add table inet towpath",),
        ("add set inet towpath pods { type ifname . ipv4_addr; }",),
        ("add map inet towpath verdicts { type ifname : verdict; }",),
        ("add set inet towpath nets { type ipv4_addr; flags interval; }",),
        ("add chain inet towpath pol",),
        ("add chain inet towpath nat_post { type nat hook postrouting priority 110; policy accept; }",),
        (
            "add chain inet towpath pol",
            "flush chain inet towpath pol",
            f'add rule inet towpath pol tcp dport 22 accept comment "{comment_of("tcp dport 22 accept")}"',
            f'add rule inet towpath pol drop comment "{comment_of("drop")}"',
        ),
        ("delete element inet towpath nets { 10.0.0.0/8 }",),
        ("add element inet towpath nets { 10.0.0.0/9 }",),
        ('add element inet towpath verdicts { "cali1" : goto pol }',),
        (
            "add chain inet towpath nat_post { type nat hook postrouting priority 110; policy accept; }",
            "flush chain inet towpath nat_post",
            f'add rule inet towpath nat_post masquerade comment "{comment_of("masquerade")}"',
        ),
        ('delete element inet towpath pods { "cali1" . 10.42.0.5 }',),
        ("flush chain inet towpath old",),
        ("delete chain inet towpath old",),
        ("delete set inet towpath old_set",),
    ]


def test_a_replaced_value_goes_and_comes_in_one_step() -> None:
    update = NftUpdate(
        table="t",
        del_elements=((VERDICTS, {("a",): ("drop",), ("b",): ("drop",)}),),
        add_elements=((VERDICTS, {("a",): ("accept",)}),),
    )
    assert commands(update)[1:] == [
        ('delete element inet t verdicts { "a" }', 'add element inet t verdicts { "a" : accept }'),
        ('delete element inet t verdicts { "b" }',),
    ]


def test_many_elements_are_cut() -> None:
    base = int(IPv4Address("10.0.0.0"))
    many: dict[Key, Key] = {("a", IPv4Address(base + i)): () for i in range(2 * CHUNK + 1)}
    steps = commands(NftUpdate(table="t", add_elements=((PODS, many),)))
    assert [step[0].count(" . ") for step in steps] == [0, CHUNK, CHUNK, 1]


def test_a_recreation_is_one_step() -> None:
    assert commands(NftUpdate(table="t", recreate=True)) == [
        ("add table inet t", "delete table inet t", "add table inet t")
    ]


def test_a_comment_tells_one_rule_from_another() -> None:
    assert comment_of("accept") != comment_of("drop")
    assert len(comment_of("accept")) < 128  # NFTNL_UDATA_COMMENT_MAXLEN
