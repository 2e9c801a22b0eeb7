"""From tables of rules to what is judged: how many in which back end, and what masquerades. Pure."""

import re
from collections.abc import Iterator, Mapping

from towpath.inventory.node_report import UNSEEN, Postrouting, Rules
from towpath.migrate.iptables import Table, closed
from towpath.migrate.ownership import owned
from towpath.node_reader.listing import Key, is_iptables

_FAMILIES = {4: "ip", 6: "ip6"}
_FLANNEL = "FLANNEL-POSTRTG"
_FLANNEL_TABLES = {("ip", "flannel-ipv4"): 4, ("ip6", "flannel-ipv6"): 6}
_OURS: Key = ("inet", "towpath")


def legacy(saved: Mapping[int, Mapping[str, Table]], network: str) -> tuple[list[Rules], list[Postrouting]]:
    """Of iptables-legacy-save's tables by family."""
    rules: list[Rules] = []
    translating: list[Postrouting] = []
    for family, tables in saved.items():
        rules.append(_rules("legacy", family, tables, network))
        translating += _iptables("iptables-legacy", family, tables)
    return [one for one in rules if one.total], translating


def nft(
    tables: Mapping[Key, Table], saved: Mapping[int, Mapping[str, Table]], network: str
) -> tuple[list[Rules], list[Postrouting]]:
    """Of nftables' listing: iptables-nft's tables, flannel's own, and Towpath's.

    ``saved``: iptables-nft's as its own program shows them, by family; what libnftables shows of them lacks
    some targets.
    """
    rules: list[Rules] = []
    translating: list[Postrouting] = []
    for family, name in _FAMILIES.items():
        seen = {key[1]: table for key, table in tables.items() if key[0] == name and is_iptables(key)}
        of = saved.get(family) or seen
        rules.append(_rules("nft", family, of, network))
        translating += _iptables("iptables-nft", family, of)
    for key, table in tables.items():
        if key in _FLANNEL_TABLES:
            translating.append(_own("flannel", _FLANNEL_TABLES[key], table, "postrtg"))
        elif key == _OURS and "masq" in table.chains:
            translating += [_ours(table, family) for family in _FAMILIES]
    return [one for one in rules if one.total], translating


def _rules(backend: str, family: int, tables: Mapping[str, Table], network: str) -> Rules:
    canals = owned(tables, network).removals
    proxy = sum(rule.chain.startswith("KUBE-") for table in tables.values() for rule in table.rules)
    canal = sum(
        len(removal.rules) + sum(len(tables[removal.table].of(chain)) for chain in removal.chains)
        for removal in canals
    )
    return Rules(
        backend=backend,
        family=family,
        total=sum(len(table.rules) for table in tables.values()),
        canal=canal,
        proxy=proxy,
        closed=closed(tables, "FORWARD"),
    )


def _iptables(place: str, family: int, tables: Mapping[str, Table]) -> Iterator[Postrouting]:
    """flannel's chain, where there is one."""
    table = tables.get("nat")
    if table is None or _FLANNEL not in table.chains:
        return
    hook = [rule.target for rule in table.of("POSTROUTING")]
    first = hook.index(_FLANNEL) if _FLANNEL in hook else len(hook)
    yield Postrouting(
        place=place,
        family=family,
        hooks=hook.count(_FLANNEL),
        rules=tuple((rule.target or UNSEEN, rule.bare) for rule in table.of(_FLANNEL)),
        behind=tuple(hook[:first]),
    )


def _own(place: str, family: int, table: Table, chain: str) -> Postrouting:
    rules = tuple((rule.target, rule.bare) for rule in table.of(chain))
    return Postrouting(place=place, family=family, hooks=int(chain in table.chains), rules=rules)


def _ours(table: Table, family: int) -> Postrouting:
    word = re.compile(rf"\b{_FAMILIES[family]} ")
    hooked = any(rule.target == "masq" for rule in table.of("nat_postrouting"))
    rules = tuple((rule.target, rule.bare) for rule in table.of("masq") if word.search(rule.bare))
    return Postrouting(place="towpath", family=family, hooks=int(hooked), rules=rules)
