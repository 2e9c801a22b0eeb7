"""A node in the middle of a migration: everything a step may look at or change, and what was found on it."""

import asyncio
import time
from collections.abc import Callable

import msgspec

from towpath.desired.names import POD_PREFIX
from towpath.ipam.host_local import HostLocalFolder
from towpath.ipam.reading import Leases, read_leases
from towpath.kernel.linux import LinuxKernel
from towpath.migrate import hostports
from towpath.migrate.checks import Evidence, Source
from towpath.migrate.cluster import Cluster
from towpath.migrate.conflist import CanalConf
from towpath.migrate.firewall import BACKENDS, FAMILIES, Firewall
from towpath.migrate.hostports import Ports
from towpath.migrate.iptables import Table
from towpath.migrate.ownership import owned
from towpath.migrate.place import Place
from towpath.migrate.pods import Adoption, Known, adoption
from towpath.migrate.steps import Family
from towpath.model.attachment import Attachment, PodRef
from towpath.model.finding import Finding

_POLL_SECONDS = 0.1
OUR_NETWORK = "towpath"
"""The name in Towpath's conflist, which the runtime will call by from now on."""


class Stopped(Exception):
    """A step could not be carried out. Everything before it stays done, and the command may be given
    again.
    """

    def __init__(self, *findings: Finding) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = findings


class Node:
    """The node this process is on. ``tell`` hears of what is waited for."""

    def __init__(
        self,
        place: Place,
        cluster: Cluster,
        boot_id: str,
        *,
        masquerade: bool = True,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.place, self.cluster, self.boot_id = place, cluster, boot_id
        self.masquerade, self.tell = masquerade, tell
        self.kernel, self.firewall = LinuxKernel(), Firewall()

    def close(self) -> None:
        """Close what was opened."""
        self.kernel.close()
        self.firewall.close()

    # What is there.

    def tables(self) -> dict[Source, dict[str, Table]]:
        """iptables' rules of every kind that can be read. Raises ToolFailed, KernelRefused."""
        return {
            (backend, family): self.firewall.tables(backend, family)
            for backend in BACKENDS
            for family in FAMILIES
            if self.firewall.available(backend, family)
        }

    def ports(self, network: str) -> dict[Family, Ports]:
        """What portmap serves for containers of ``network``, by family."""
        tables, listed = self.tables(), self.firewall.portmap_tables()
        return {
            family: hostports.merged(
                [
                    *(hostports.from_iptables(of, network) for (_, f), of in tables.items() if f == family),
                    hostports.from_nft(listed.get("ip" if family == 4 else "ip6", "")),
                ]
            )
            for family in FAMILIES
        }

    def evidence(self, conf: CanalConf) -> Evidence:
        """What ``checks`` wants to know. Raises ToolFailed, KernelRefused."""
        tables = self.tables()
        sources = [(backend, family) for backend in BACKENDS for family in FAMILIES]
        unreadable = [
            source
            for source in sources
            if source not in tables and self.firewall.in_use(*source) and self._canals(source)
        ]
        needs_sets = any(
            "--match-set cali" in r.text for of in tables.values() for t in of.values() for r in t.rules
        )
        first, between = self.place.in_force(), self.place.multus_conf()
        if between is not None and first == between.file:
            first = conf.file
        return Evidence(
            kernel=self.kernel.observe(),
            tables=tables,
            owned={source: owned(of, conf.network) for source, of in tables.items()},
            nft_tables=self.firewall.table_names(),
            nft_chains=self.firewall.nft_tables(),
            unreadable=tuple(unreadable),
            sets_unreadable=needs_sets and not self.firewall.sets_available(),
            other_config=first if first < conf.file else "",
            installed=self.place.installed(),
        )

    def _canals(self, source: Source) -> bool:
        """Whether tables nobody can read may hold something of Canal's: of legacy ones that is not known."""
        return source[0] == "legacy" or self.firewall.iptables_without_program()

    async def known(self, network: str) -> Known:
        """Who pods are. Raises ClusterUnknown."""
        return Known(
            containers=self.place.identities(network),
            pods=await self.cluster.pods(),
        )

    def adoption(self, conf: CanalConf, known: Known) -> Adoption:
        """Canal's pods as they are now. To be asked with host-local's lock held, where it must be exact."""
        tree = HostLocalFolder(self.place.leases_of(conf)).read()
        return adoption(
            tree,
            self.kernel.observe(),
            known,
            hostports.merged(self.ports(conf.network).values()),
            network=OUR_NETWORK,
            boot_id=self.boot_id,
            adopted=self.wired(),
        )

    def leases(self) -> Leases:
        """What Towpath's store says. Raises LeaseStoreError."""
        return read_leases(self.place.store)

    def wired(self) -> tuple[Attachment, ...]:
        """Attachments of this boot whose link is there. Raises LeaseStoreError, KernelRefused."""
        links = {name for name in self.kernel.observe().links if name.startswith(POD_PREFIX)}
        return tuple(
            att
            for att in self.leases().attachments
            if att.boot_id == self.boot_id and att.host_ifname in links
        )

    async def alive(self) -> frozenset[PodRef]:
        """Pods the API knows, without their UID."""
        return frozenset(msgspec.structs.replace(pod, uid="") for pod in await self.cluster.pods())

    # Waiting.

    async def until(self, missing: Callable[[], list[str]], patience: float, quiet: float = 0.0) -> list[str]:
        """Wait until ``missing`` has been empty for ``quiet`` seconds; what is missing when patience ends."""
        deadline = time.monotonic() + patience
        since: float | None = None
        while True:
            lacking, now = missing(), time.monotonic()
            if not lacking:
                since = now if since is None else since
                if now - since >= quiet:
                    return []
            else:
                since = None
                if now >= deadline:
                    return lacking
                more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
                self.tell(f"waiting: {lacking[0]}{more}")
            await asyncio.sleep(_POLL_SECONDS)
