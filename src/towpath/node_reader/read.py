"""One look at the node this process is on, as a value. Nothing is changed; what cannot be read is said."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from towpath.inventory.node_report import Churn, Flow, Kept, Leases, NodeReport, Tunnel
from towpath.ipam.errors import LeaseStoreError
from towpath.ipam.host_local import HostLocalFolder
from towpath.ipam.reading import read_leases
from towpath.kernel.libnftables import HANDLES, STATELESS, TERSE, NftContext, NftError
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.port import KernelRefused
from towpath.migrate import conflist
from towpath.migrate.iptables import Table, parse_save
from towpath.migrate.pods import Known, adoption
from towpath.model.net import Vxlan
from towpath.model.state import NetState
from towpath.node_reader import firewall, listing
from towpath.node_reader.counters import Counters
from towpath.node_reader.host import Host

_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/conf/all/proxy_arp",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_count",
)
CONFIG, PROGRAMS, NETWORKS, STORE = (
    "/etc/cni/net.d",
    "/opt/cni/bin",
    "/var/lib/cni/networks",
    "/var/lib/towpath/leases.db",
)
_FOLDERS = ("/", "/var/lib/kubelet", "/var/lib/rancher", "/var/log")
_EVERY = 1.0  # seconds between two looks at the rules
_LEGACY_NAMES = {4: "ip_tables_names", 6: "ip6_tables_names"}
_T = TypeVar("_T")


class Reader:
    """Of the network namespace that the calling thread is in."""

    def __init__(self, host: Host) -> None:
        self._host, self._problems = host, list[str]()

    def report(self, *, churn: float, keep: bool) -> NodeReport:
        """Look at everything; for ``churn`` seconds at the rules; ``keep``: with all that a backup wants."""
        host, kernel = self._host, os.uname().release
        # First: what is judged afterwards is what stays, and not what was so for a moment.
        began, counted = time.monotonic(), self._try("traffic", host.counters)
        churned = self._churn(churn) if churn > 0 else None
        flow = self._flow(counted, began) if churn > 0 else None
        state = self._try("the kernel's network", self._observe) or NetState()
        listed = self._try("nftables", self._listing) or ""
        saved = self._legacy()
        network, config, text, canal = self._config()
        tables = listing.tables(listed)
        rules, translating = firewall.nft(tables, self._iptables_nft(tables), network)
        legacy_rules, legacy_translating = firewall.legacy(
            {family: parse_save(said) for family, said in saved.items()}, network
        )
        return NodeReport(
            taken=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            kernel=kernel,
            os=host.release(),
            modules=host.modules(kernel),
            programs=self._programs(),
            rules=(*rules, *legacy_rules),
            postrouting=(*translating, *legacy_translating),
            listeners=host.listeners(),
            services=host.services(),
            unmanaged=host.unmanaged(),
            sysctls=state.sysctls,
            tunnels=tunnels(state),
            leases=self._leases(state),
            files=host.hashes(PROGRAMS, CONFIG),
            image_files=host.image_files(),
            config=config,
            config_text=text,
            canal_config=canal,
            free_mb=host.free(_FOLDERS),
            churn=churned,
            flow=flow,
            kept=self._keep(state, listed, saved) if keep else None,
            problems=tuple(self._problems),
        )

    def _try(self, what: str, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except (OSError, KernelRefused, NftError, LeaseStoreError) as refused:
            self._problems.append(f"{what}: {refused}")
            return None

    def _programs(self) -> dict[str, str]:
        found = self._try("programs", self._host.programs) or {}
        if "ipset" in found and (said := self._host.sets_problem()):
            self._problems.append(f"ipset: {said}")
        return found

    @staticmethod
    def _observe() -> NetState:
        kernel = LinuxKernel(nft=False)
        try:
            links = kernel.observe().links
            own = [
                f"net/ipv4/conf/{name}/rp_filter" for name in links if name.startswith(("cali", "flannel"))
            ]
            return kernel.observe([*_SYSCTLS, *own])
        finally:
            kernel.close()

    @staticmethod
    def _listing() -> str:
        context = NftContext()
        try:
            return context.run("list ruleset", flags=STATELESS | TERSE | HANDLES).decode(errors="replace")
        finally:
            context.close()

    def _legacy(self) -> dict[int, str]:
        """iptables-legacy-save by family, where there are such tables at all."""
        found = {}
        for family, names in _LEGACY_NAMES.items():
            try:
                there = bool(Path("/proc/thread-self/net", names).read_text().split())
            except OSError:
                continue
            if not there:
                continue
            program = f"{'ip6tables' if family == 6 else 'iptables'}-legacy-save"
            said = self._host.run(program, "-c")
            if said is None:
                self._problems.append(
                    f"iptables: there are tables that only {program} can show; it is nowhere"
                )
            else:
                found[family] = said
        return found

    def _iptables_nft(self, listed: Mapping[listing.Key, Table]) -> dict[int, dict[str, Table]]:
        """iptables-nft's tables by its own program, where there are any and it can be found."""
        found = {}
        for family, name in ((4, "ip"), (6, "ip6")):
            if any(listing.is_iptables(key) and key[0] == name for key in listed):
                said = self._host.run(f"{name}tables-nft-save")
                if said is not None:
                    found[family] = parse_save(said)
        return found

    def _config(self) -> tuple[str, str, str, str]:
        """Network's name; file and text of the CNI configuration in force; text of Canal's."""
        texts = self._host.texts(CONFIG)
        name = conflist.in_force(list(texts))
        text = texts.get(name, "")
        canal = next((conf for conf in map(_canal, sorted(texts.items())) if conf is not None), None)
        if canal is None:
            return "k8s-pod-network", name, text, ""
        return canal.network, name, text, canal.text

    def _leases(self, state: NetState) -> tuple[Leases, ...]:
        """host-local's folders. What Towpath has adopted needs no file any more, and is not leaked."""
        adopted = self._try("Towpath's leases", lambda: read_leases(self._host.path(STORE)).attachments) or ()
        folders = self._host.path(NETWORKS)
        found = []
        for folder in sorted(folders.iterdir()) if folders.is_dir() else ():
            tree = self._try(str(folder), HostLocalFolder(folder).read)
            if tree is None or not tree.leases or not folder.is_dir():
                continue
            known = adoption(tree, state, Known(), {}, network="", boot_id="", adopted=adopted)
            leaked = tuple(sorted(str(lease.address) for lease in known.leaked))
            found.append(Leases(network=folder.name, total=len(tree.leases), leaked=leaked))
        return tuple(found)

    def _churn(self, seconds: float) -> Churn:
        end = time.monotonic() + seconds
        began, samples = time.monotonic(), 1
        before, changed = self._fingerprints(), dict[str, int]()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(_EVERY, left))
            now = self._fingerprints()
            for chain in before.keys() | now.keys():
                if before.get(chain) != now.get(chain):
                    changed[chain] = changed.get(chain, 0) + 1
            before, samples = now, samples + 1
        return Churn(seconds=round(time.monotonic() - began, 1), samples=samples, changed=changed)

    def _flow(self, before: Counters | None, began: float) -> Flow | None:
        after = self._try("traffic", self._host.counters)
        return before.until(after, time.monotonic() - began) if before and after else None

    def _fingerprints(self) -> dict[str, int]:
        found = listing.fingerprints(self._try("nftables", self._listing) or "")
        for family, said in self._legacy().items():
            for name, table in parse_save(said).items():
                for chain in table.chains:
                    found[f"{'ip6' if family == 6 else 'ip'} {name} {chain}"] = _digest(table, chain)
        return found

    def _keep(self, state: NetState, listed: str, saved: dict[int, str]) -> Kept:
        host = self._host
        folders = host.path(NETWORKS)
        return Kept(
            nft=listed,
            legacy={str(family): said for family, said in saved.items()},
            routes=tuple(sorted(map(_route, state.routes))),
            neighbours=tuple(sorted(f"{n.addr} {n.mac} dev {n.dev}" for n in state.neighbours)),
            fdb=tuple(sorted(f"{f.mac} dst {f.dst} dev {f.dev}" for f in state.fdb)),
            leases={
                folder.name: host.texts(f"{NETWORKS}/{folder.name}")
                for folder in (sorted(folders.iterdir()) if folders.is_dir() else ())
                if folder.is_dir()
            },
            conflists=host.texts(CONFIG),
        )


def tunnels(state: NetState) -> tuple[Tunnel, ...]:
    """flannel's devices, with the entries that lead through them."""
    found = []
    for name, link in sorted(state.links.items()):
        if not name.startswith("flannel") or not isinstance(link.kind, Vxlan):
            continue
        below = state.links.get(link.kind.underlay)
        found.append(
            Tunnel(
                name=name,
                mac=link.mac or "",
                mtu=link.mtu,
                vni=link.kind.vni,
                port=link.kind.port,
                local=str(link.kind.local),
                underlay_mtu=below.mtu if below else 0,
                fdb={str(entry.dst): entry.mac for entry in state.fdb if entry.dev == name},
                neighbours={str(entry.addr): entry.mac for entry in state.neighbours if entry.dev == name},
            )
        )
    return tuple(found)


def _canal(named: tuple[str, str]) -> conflist.CanalConf | None:
    try:
        return conflist.parse(*named)
    except conflist.NotCanal:
        return None


def _digest(table: Table, chain: str) -> int:
    text = "\n".join(rule.text for rule in table.of(chain))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _route(route: object) -> str:
    fields = ("dst", "via", "dev", "src", "table")
    return " ".join(f"{name} {getattr(route, name)}" for name in fields if getattr(route, name) is not None)
