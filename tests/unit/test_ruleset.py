from ipaddress import ip_address, ip_network
from itertools import pairwise

from msgspec.structs import replace

from attachments import attachment
from nodes import DUAL, V4_ONLY
from towpath.desired.ruleset import SETS, TABLE, bind, chains, pod_elements, ruleset, unbind
from towpath.model.attachment import PortMapping
from towpath.model.op import NftUpdate
from towpath.reconcile.tables import diff_table

A = attachment("a", "10.42.1.2", "fd00:10:42:1::2", ports=(PortMapping(host_port=8080, container_port=80),))
B = attachment("b", "10.42.1.3")
LOCAL = (ip_network("10.42.1.0/24"), ip_network("fd00:10:42:1::/64"))


def test_a_pod_is_elements_and_no_rule() -> None:
    dev = A.host_ifname
    assert pod_elements(A) == {
        "pod_src4": {(dev, ip_address("10.42.1.2")): ()},
        "pod_src6": {(dev, ip_address("fd00:10:42:1::2")): ()},
        "pod_from": {(dev,): ("return",)},
        "pod_to": {(dev,): ("return",)},
        "hostport4": {("tcp", 8080): (ip_address("10.42.1.2"), 80)},
        "hostport6": {("tcp", 8080): (ip_address("fd00:10:42:1::2"), 80)},
    }
    assert ruleset(DUAL, LOCAL, (A, B)).chains == ruleset(DUAL, (), ()).chains


def test_bind_and_unbind_are_the_difference() -> None:
    without, with_a = ruleset(DUAL, LOCAL, (B,)), ruleset(DUAL, LOCAL, (B, A))
    added, removed = diff_table(without, with_a), diff_table(with_a, without)
    assert added is not None and removed is not None
    assert set(names(added)) == set(names(bind(A))) == set(pod_elements(A))
    assert {d.name: e for d, e in added.add_elements} == {d.name: e for d, e in bind(A).add_elements}
    assert {d.name: e for d, e in removed.del_elements} == {d.name: e for d, e in unbind(A).del_elements}
    assert bind(A).table == unbind(A).table == TABLE


def names(update: NftUpdate) -> list[str]:
    return [decl.name for decl, _ in update.add_elements]


def test_every_set_a_rule_speaks_of_is_declared_and_every_chain_is_there() -> None:
    static = chains(DUAL)
    for chain in static.values():
        for rule in chain.rules:
            words = rule.split()
            assert {w[1:] for w in words if w.startswith("@")} <= SETS.keys()
            called = {after for verb, after in pairwise(words) if verb in {"jump", "goto"}}
            assert called <= static.keys()


def test_priorities_are_tied_with_nobodys() -> None:
    hooks = [chain.hook for chain in chains(DUAL).values() if chain.hook is not None]
    assert not {h.priority for h in hooks if h.type == "nat"} & {-100, 100, 0}


def test_masquerade_can_be_left_to_others_and_ports_still_work() -> None:
    static = chains(replace(V4_ONLY, masquerade=False))
    assert static["masq"].rules == ()
    assert any("ct status dnat masquerade" in rule for rule in static["nat_postrouting"].rules)
