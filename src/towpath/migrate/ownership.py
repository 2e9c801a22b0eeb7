"""Which iptables rules, nftables tables and sets are Canal's: those three programs' and nobody else's.

Felix marks every rule with a comment that begins ``cali:`` and names its chains ``cali-…``; flanneld has two
chains and comments; portmap's top chains are shared by all who use it, so that a container's chains are told
by the network and the ID in the comment of the rule that leads to them.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

import msgspec

from towpath.migrate.iptables import Removal, Rule, Table

FELIX = "cali-"
FELIX_SETS = re.compile(r"cali[46][0-9a-zA-Z].*|felix-.*")
_FLANNEL_CHAINS = frozenset({"FLANNEL-POSTRTG", "FLANNEL-FWD"})
_FLANNEL_COMMENT = "flanneld "
DNAT_TOP = "CNI-HOSTPORT-DNAT"
_SHARED = frozenset({DNAT_TOP, "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SNAT"})
_OF_CONTAINER = re.compile(r"CNI-(DN|SN)-[0-9a-f]+")
_PORTMAP_COMMENT = re.compile(r'^(?:dnat|snat) name: "(?P<network>[^"]*)" id: "(?P<id>[^"]*)"?')

# Tables of nftables' own that are wholly Canal's, with what chains they may have.
NFT_TABLES: dict[tuple[str, str], re.Pattern[str]] = {
    ("ip", "calico"): re.compile(r"(filter|nat|mangle|raw)-.+"),
    ("ip6", "calico"): re.compile(r"(filter|nat|mangle|raw)-.+"),
    ("ip", "flannel-ipv4"): re.compile(r"forward|postrtg"),
    ("ip6", "flannel-ipv6"): re.compile(r"forward|postrtg"),
}
PORTMAP_NFT = "cni_hostport"


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """What of one family and backend is Canal's, by table, and what stands in the way of removing it."""

    removals: tuple[Removal, ...] = ()
    strange: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(self.removals)


def owned(tables: Mapping[str, Table], network: str) -> Owned:
    """Canal's part. ``network`` is the name in Canal's conflist: other networks' host ports stay."""
    removals, strange = [], list[str]()
    for table in tables.values():
        removal = _removal(table, network)
        strange += _strange(table, set(removal.chains), removal.rules)
        if removal:
            removals.append(removal)
    return Owned(removals=tuple(removals), strange=tuple(strange))


def _removal(table: Table, network: str) -> Removal:
    chains = {name for name in table.chains if name.startswith(FELIX) or name in _FLANNEL_CHAINS}
    chains |= _container_chains(table, network)
    others = {name for name in table.chains if _OF_CONTAINER.fullmatch(name)} - chains
    if not others and _only_canal(table, network):
        chains |= _SHARED & table.chains.keys()
    rules = tuple(r for r in table.rules if r.chain not in chains and _ours(r, chains))
    return Removal(table=table.name, rules=rules, chains=tuple(sorted(chains)))


def _only_canal(table: Table, network: str) -> bool:
    """Whether portmap's top chain leads to no other network's containers."""
    said = [portmap_comment(rule) for rule in table.of(DNAT_TOP)]
    return all(of is not None and of[0] == network for of in said)


def _container_chains(table: Table, network: str) -> set[str]:
    found = set()
    for rule in table.rules:
        said = portmap_comment(rule)
        if said is not None and said[0] == network and _OF_CONTAINER.fullmatch(rule.target):
            found.add(rule.target)
    return found & table.chains.keys()


def portmap_comment(rule: Rule) -> tuple[str, str] | None:
    """Network and container ID of a rule of portmap's that leads to a container's chain."""
    for comment in rule.comments:
        if (said := _PORTMAP_COMMENT.match(comment)) is not None:
            return said["network"], said["id"]
    return None


def publishes(tables: Mapping[str, Table], network: str) -> bool:
    """Whether portmap serves containers of ``network`` by these rules."""
    table = tables.get("nat")
    said = [portmap_comment(rule) for rule in table.of(DNAT_TOP)] if table is not None else []
    return any(of is not None and of[0] == network for of in said)


def _ours(rule: Rule, chains: Collection[str]) -> bool:
    """Whether a rule in somebody else's chain is one of Canal's hooks."""
    if rule.target in chains:
        return _marked(rule) or rule.target in _SHARED or _OF_CONTAINER.fullmatch(rule.target) is not None
    return _felix(rule)


def _felix(rule: Rule) -> bool:
    return any(comment.startswith("cali:") for comment in rule.comments)


def _marked(rule: Rule) -> bool:
    return _felix(rule) or any(comment.startswith(_FLANNEL_COMMENT) for comment in rule.comments)


def _strange(table: Table, chains: set[str], hooks: Iterable[Rule]) -> list[str]:
    """Rules and chains that somebody else has put where only Canal's should be."""
    known = set(hooks)
    found = [
        f"chain {name} of table {table.name}"
        for name in table.chains
        if name.startswith("FLANNEL-") and name not in chains
    ]
    for rule in table.rules:
        marked_chain = rule.chain in chains and (
            rule.chain.startswith(FELIX) or rule.chain in _FLANNEL_CHAINS
        )
        if (marked_chain and not _marked(rule)) or (
            rule.chain not in chains and rule.target in chains and rule not in known
        ):
            found.append(f"rule in {table.name}: {rule.text}")
    return found


def container_hash(network: str, container_id: str) -> str:
    """What portmap and bandwidth name a container's chains and device after
    (``pkg/utils.MustFormatHash…``).
    """
    return hashlib.sha512(f"{network}{container_id}".encode()).hexdigest()


def ifb_name(network: str, container_id: str) -> str:
    """The bandwidth plugin's device for what a container sends; since plugins 0.8.7 "bwp", 15 characters."""
    return f"bwp{container_hash(network, container_id)}"[:15]


def endpoints_in_force(tables: Mapping[str, Table]) -> frozenset[str]:
    """Host interfaces whose two chains of Felix's are there and reached: ``cali-tw-`` and ``cali-fw-``."""
    table = tables.get("filter")
    if table is None or not any(rule.chain == "FORWARD" and _felix(rule) for rule in table.rules):
        return frozenset()
    reached = {rule.target for rule in table.rules}
    to = {t.removeprefix("cali-tw-") for t in reached if t.startswith("cali-tw-")}
    return frozenset(to & {t.removeprefix("cali-fw-") for t in reached if t.startswith("cali-fw-")})


def masquerades(tables: Mapping[str, Table]) -> bool:
    """Whether flanneld's masquerading is in force."""
    table = tables.get("nat")
    if table is None:
        return False
    hooked = any(r.chain == "POSTROUTING" and r.target == "FLANNEL-POSTRTG" for r in table.rules)
    return hooked and any(r.target == "MASQUERADE" for r in table.of("FLANNEL-POSTRTG"))
