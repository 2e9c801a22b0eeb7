"""What forbids a takeover, from what was found on the node. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from towpath.migrate.iptables import Table, closed
from towpath.migrate.ownership import NFT_TABLES, Owned
from towpath.migrate.steps import Backend, Family
from towpath.model.finding import Finding
from towpath.model.state import NetState

Source = tuple[Backend, Family]

_FOREIGN_LINKS = {
    "vxlan.calico": "Calico's own VXLAN",
    "vxlan-v6.calico": "Calico's own VXLAN",
    "wireguard.cali": "Calico's WireGuard",
    "wg-v6.cali": "Calico's WireGuard",
    "bpfin.cali": "Calico's eBPF mode",
    "bpfout.cali": "Calico's eBPF mode",
    "bpfnatin": "Calico's eBPF mode",
    "bpfnatout": "Calico's eBPF mode",
    "flannel-wg": "flannel's WireGuard",
    "flannel-wg-v6": "flannel's WireGuard",
    "flannel.ipip": "flannel's ipip",
    "flannel0": "flannel's udp",
}
_PROXY_TABLES = ("kube-proxy", "towpath-lab-proxy")


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. ``tables`` of iptables by backend and family; ``listing`` nftables' tables and chains,
    without rules; ``unreadable`` kinds of iptables rules that are there and that no program can change;
    ``nft_chains`` chains of Canal's own tables; ``other_config`` a file in force before Canal's.
    """

    kernel: NetState = NetState()
    tables: dict[Source, dict[str, Table]] = {}
    owned: dict[Source, Owned] = {}
    nft_tables: tuple[tuple[str, str], ...] = ()
    nft_chains: dict[tuple[str, str], tuple[str, ...]] = {}
    unreadable: tuple[Source, ...] = ()
    sets_unreadable: bool = False
    other_config: str = ""
    installed: bool = True


def refusals(found: Evidence) -> tuple[Finding, ...]:
    """Everything that forbids it, at once."""
    return (
        *_config(found),
        *_foreign_network(found.kernel),
        *_proxy(found),
        *_strangers(found),
        *_tools(found),
        *_closed(found),
    )


def _config(found: Evidence) -> Iterable[Finding]:
    if found.other_config:
        yield Finding(
            code="TP7102",
            object=found.other_config,
            message="is what the runtime loads, before Canal's configuration",
            fix="remove that plugin from the node first",
        )
    if not found.installed:
        yield Finding(
            code="TP7120",
            object="CNI program",
            message="towpath-cni is not in the runtime's folder",
            fix="label the Node towpath.dev/network=takeover and wait for Towpath's pod there",
        )


def _foreign_network(kernel: NetState) -> Iterable[Finding]:
    for name, what in _FOREIGN_LINKS.items():
        if name in kernel.links:
            yield _foreign(f"link {name}", f"{what} is in use")
    tunnel = kernel.links.get("tunl0")
    if tunnel is not None and any(route.dev == "tunl0" for route in kernel.routes):
        yield _foreign("link tunl0", "routes lead through Calico's ipip")


def _foreign(what: str, message: str) -> Finding:
    fix = "change the cluster to flannel's vxlan or host-gw, and Calico to iptables or nftables, first"
    return Finding(code="TP7103", object=what, message=message, fix=fix)


def _proxy(found: Evidence) -> Iterable[Finding]:
    by_chain = any(
        "KUBE-SERVICES" in table.chains for tables in found.tables.values() for table in tables.values()
    )
    by_table = any(name in _PROXY_TABLES for _, name in found.nft_tables)
    if not (by_chain or by_table or "kube-ipvs0" in found.kernel.links):
        yield Finding(
            code="TP7104",
            object="kube-proxy",
            message="has no chain KUBE-SERVICES, no table kube-proxy and no device kube-ipvs0 here",
            fix="run kube-proxy on this node: Towpath does not replace it",
        )


def _strangers(found: Evidence) -> Iterable[Finding]:
    for (backend, family), owned in found.owned.items():
        for what in owned.strange:
            yield _stranger(what, f"{'ip6tables' if family == 6 else 'iptables'}-{backend}")
    for key, chains in found.nft_chains.items():
        for chain in chains:
            if not NFT_TABLES[key].fullmatch(chain):
                yield _stranger(f"chain {chain} of table {' '.join(key)}", "nft")


def _stranger(what: str, program: str) -> Finding:
    return Finding(
        code="TP7105",
        object=what,
        message=f"is nobody's that Canal consists of, and stands among Canal's ({program})",
        fix="move or delete it, whoever made it",
    )


def _tools(found: Evidence) -> Iterable[Finding]:
    for backend, family in found.unreadable:
        program = f"{'ip6tables' if family == 6 else 'iptables'}-{backend}"
        yield _missing(program, f"there are rules that only {program} can show and change", "iptables")
    if found.sets_unreadable:
        yield _missing("ipset", "Felix's rules refer to IP sets", "ipset")


def _missing(program: str, why: str, package: str) -> Finding:
    return Finding(
        code="TP7107", object=program, message=f"is not installed, and {why}", fix=f"install {package}"
    )


def _closed(found: Evidence) -> Iterable[Finding]:
    """Only chains in which Canal has something to say: elsewhere nothing changes when Canal goes."""
    for (backend, family), owned in found.owned.items():
        hooks = {
            rule.chain for removal in owned.removals if removal.table == "filter" for rule in removal.rules
        }
        for chain in sorted(hooks & {"FORWARD", "INPUT"}):
            if why := closed(found.tables[backend, family], chain):
                program = f"{'ip6tables' if family == 6 else 'iptables'}-{backend}"
                yield _shut(f"{program} {chain}", why)


def _shut(what: str, why: str) -> Finding:
    fix = "accept the pod network there by a rule of your own, or set the policy to ACCEPT"
    return Finding(
        code="TP7108",
        object=what,
        message=f"{why}, and only Canal's accepts keep pods' packets from it",
        fix=fix,
    )


def summary(owned: Mapping[Source, Owned]) -> list[str]:
    """How much of Canal's there is, for people."""
    lines = []
    for (backend, family), of in owned.items():
        chains = sum(len(removal.chains) for removal in of.removals)
        rules = sum(len(removal.rules) for removal in of.removals)
        if chains or rules:
            name = f"{'ip6tables' if family == 6 else 'iptables'}-{backend}"
            lines.append(f"{name}: {chains} chains, and {rules} rules in chains of others")
    return lines
