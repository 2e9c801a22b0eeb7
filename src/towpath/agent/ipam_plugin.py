"""``type: towpath-ipam``: addresses for extra networks, whichever plugin makes their interfaces.

A range is shared by all nodes without a lock, as pods' addresses are in block mode: nodes take parts of it
and mark addresses before they give them out. The objects are of a group of their own, because nothing routes
these addresses: they live on a segment that the nodes share. Who has which is in a lease store of the node's.

What is asked of the API server is asked once a network that wants it is there: a cluster that uses none of
this pays nothing.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_interface
from time import monotonic
from typing import Protocol

import msgspec

from towpath.agent.attach_plan import requested
from towpath.agent.attach_pods import PodDirectory, identify, why_over
from towpath.agent.block_api import NETWORKS, BlockApi
from towpath.agent.block_retirement import Lost, clear_away
from towpath.agent.block_stock import Stock
from towpath.agent.ipam_ranges import RangeRefused, Ranges
from towpath.api.core import Node
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Request
from towpath.cni.result import Dns, IPConfig, Result, RouteConf
from towpath.ipam.affinity import Config
from towpath.ipam.block_plan import Demand, handle_of
from towpath.ipam.block_writes import Plural
from towpath.ipam.errors import AddressError, AlreadyLeased, LeaseStoreError
from towpath.ipam.pools import Pool
from towpath.ipam.secondary import BadSection, Section, Span, read_section
from towpath.ipam.store import Choice, Key, LeaseStore
from towpath.kube.client import Client
from towpath.kube.codec import Key as ObjectKey
from towpath.kube.errors import KubeError, NotFound
from towpath.kube.kinds import NETWORK_AFFINITIES, NETWORK_BLOCKS, NETWORK_RANGES, Raw
from towpath.kube.reflector import Reflector, Selection
from towpath.log import get_logger
from towpath.model.attachment import Attachment
from towpath.model.finding import Finding
from towpath.model.net import Addr, Net

log = get_logger("towpath.ipam")

FILE = "network-leases.db"
_PATIENCE = 20.0
_SETTLE_EVERY = 30.0
_REST = 0.5
_SHUNNED = 600.0
_KINDS = "kubectl apply -f manifests/towpath-ipam.yaml"
_FOLLOWED = {"ipamblocks": NETWORK_BLOCKS, "blockaffinities": NETWORK_AFFINITIES, "": NETWORK_RANGES}


class Around(Protocol):
    """What of the cluster decides on addresses."""

    def nodes(self) -> Mapping[str, Node]:
        """All, by name."""
        ...

    def inhabited(self) -> Collection[str] | None:
        """The nodes that a pod that is not over is said to be on; None while that is not known."""
        ...


class IpamPlugin:
    """Answers an IPAM plugin's calls. ``containers`` are those that have a network of ours still: with the
    boot, the node's proof that a lease is needed; ``grace`` for how long both proofs must stand, in seconds.
    """

    def __init__(
        self,
        client: Client,
        node: str,
        around: Around,
        pods: PodDirectory,
        containers: Callable[[], Collection[str]],
        networks: Sequence[Net],
        store: LeaseStore,
        grace: float,
        silence: float,
    ) -> None:
        self._client, self._node, self._around, self._pods = client, node, around, pods
        self._containers, self._store, self._grace = containers, store, grace
        self._ranges = Ranges(client, networks)
        self._api = BlockApi(client, node, NETWORKS)
        self._stock = Stock(self._api, store.leased, store.held)
        self._lost = Lost(monotonic)
        self._wanted, self._loaded, self._poked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._busy: set[Key] = set()
        self._since: dict[Key, float] = {}
        self._shunned: dict[Addr, float] = {}
        self._follow: dict[str, Reflector[Raw]] = {
            plural: Reflector(client, Selection(kind=kind), self._hearer(plural), silence=silence)
            for plural, kind in _FOLLOWED.items()
        }
        if store.attachments():
            self._wanted.set()

    # Following.

    async def run(self) -> None:
        """For ever; nothing is asked before it is wanted."""
        await self._wanted.wait()
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._follow.values():
                tasks.create_task(reflector.run())
            tasks.create_task(self._keep())

    def _hearer(self, plural: str) -> Callable[[ObjectKey | None], None]:
        def heard(key: ObjectKey | None) -> None:
            if key is not None and plural:
                typed: Plural = "ipamblocks" if plural == "ipamblocks" else "blockaffinities"
                obj = self._follow[plural].objects.get(key)
                if obj is None:
                    self._api.mirror.gone(typed, key[1])
                else:
                    self._api.mirror.take(typed, obj)
            self._poked.set()

        return heard

    async def _keep(self) -> None:
        """Finish what was begun, give back what is not needed, clear away what lost nodes have."""
        while True:
            try:
                if all(reflector.listed.is_set() for reflector in self._follow.values()):
                    if not self._loaded.is_set():
                        await self._api.look("ipamhandles", handle_of(self._node))
                        self._loaded.set()
                    self._stock.pools = tuple(self._pools())
                    while await self._stock.settle():
                        pass
                    await self._clear_away()
            except KubeError as error:
                log.warning("network_blocks_not_settled", error=str(error))
            try:
                async with asyncio.timeout(_SETTLE_EVERY if self._loaded.is_set() else _REST):
                    await self._poked.wait()
            except TimeoutError:
                continue
            self._poked.clear()
            await asyncio.sleep(_REST)

    def _pools(self) -> list[Pool]:
        found = []
        for obj in self._follow[""].objects.values():
            spec = obj.get("spec") or {}
            try:
                span = read_section({"range": spec.get("cidr"), "block_size": spec.get("blockSize")}).spans[0]
            except BadSection:
                continue  # whoever wants to use it is told
            found.append(span.pool)
        return found

    async def _clear_away(self) -> None:
        nodes, inhabited = self._around.nodes(), self._around.inhabited()
        if not nodes or inhabited is None:
            return
        for node in self._lost.due(self._node, self._api.mirror, nodes.keys(), inhabited):
            objects: dict[Plural, list[Raw]] = {
                "ipamblocks": list(self._follow["ipamblocks"].objects.values()),
                "blockaffinities": list(self._follow["blockaffinities"].objects.values()),
            }
            await clear_away(self._client, node, objects, Config(), NETWORKS)

    async def _known(self) -> None:
        """Returns when it is known what is whose. Raises CniError."""
        self._wanted.set()
        try:
            async with asyncio.timeout(_PATIENCE):
                while not self._loaded.is_set():
                    if self._absent():
                        raise CniError(ErrorCode.TRY_LATER, "no address can be given out", self._absent())
                    self._poked.set()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_REST):
                            await self._loaded.wait()
        except TimeoutError as error:
            why = next((str(r.problem) for r in self._follow.values() if r.problem), "no answer yet")
            text = f"the API server does not say what is taken: {why}; TP4033"
            raise CniError(ErrorCode.TRY_LATER, "no address can be given out", text) from error

    def _absent(self) -> str:
        for reflector in self._follow.values():
            if isinstance(reflector.problem, NotFound):
                return f"there are no kinds of {NETWORK_RANGES.group}: {_KINDS}; TP4050"
        return ""

    # CNI.

    async def add(self, r: Request) -> Result:
        """An address of each range, leased. Raises CniError."""
        section = _section(r)
        key = (r.container_id, r.ifname)
        known = self._store.get(*key)
        if known is not None and known.request_id == r.request_id and known.boot_id == self._store.boot_id:
            return _result(section, known.addresses)  # the shim asks again after a restart
        self._busy.add(key)
        try:
            await self._known()
            pod = await identify(r, self._pods)
            addresses = await self._choose(section, requested(r))
            att = Attachment(
                container_id=r.container_id,
                ifname=r.ifname,
                network=r.config.name,
                netns=r.netns,
                host_ifname="",
                addresses=addresses,
                mac="",
                mtu=0,
                boot_id=self._store.boot_id,
                request_id=r.request_id,
                pod=pod,
            )
            await self._store.add(att, [Choice(address, None) for address in addresses])
        except AlreadyLeased as error:
            raise CniError(ErrorCode.BAD_ENVIRONMENT, "it has addresses", f"{error}; TP2003") from error
        except RangeRefused as error:
            raise CniError(ErrorCode.BAD_CONFIG, "the range cannot be used", f"{error}; TP4051") from error
        except AddressError as error:
            raise CniError(ErrorCode.TRY_LATER, "no address can be given out", f"{error}; TP4034") from error
        except KubeError as error:
            text = f"{error}; TP4033"
            raise CniError(ErrorCode.TRY_LATER, "no address can be marked as this node's", text) from error
        except LeaseStoreError as error:
            raise CniError(ErrorCode.IO_FAILURE, "no lease can be written", str(error)) from error
        finally:
            self._busy.discard(key)
        log.info(
            "network_address_leased", container=r.container_id, ifname=r.ifname, addresses=str(addresses)
        )
        return _result(section, addresses)

    async def _choose(self, section: Section, asked: Sequence[Addr]) -> tuple[Addr, ...]:
        """Marked as this node's already; nothing may run between this and the lease. Raises AddressError,
        RangeRefused, KubeError.
        """
        objects = self._follow[""].objects
        pools = [await self._ranges.use(span, objects) for span in section.spans]
        self._stock.pools = tuple({p.name: p for p in (*self._stock.pools, *pools)}.values())
        named = _named(section, asked)
        while True:
            picked = [
                self._picked(span, pool, address)
                for span, pool, address in zip(section.spans, pools, named, strict=True)
            ]
            if all(address is not None for address in picked):
                return tuple(address for address in picked if address is not None)
            for span, pool, address in zip(section.spans, pools, named, strict=True):

                def there(span: Span = span, pool: Pool = pool, address: Addr | None = address) -> bool:
                    return self._picked(span, pool, address) is not None

                def unwanted(found: Addr, span: Span = span) -> bool:
                    return self._unwanted(found, span)

                if address is not None and (owner := self._store.leased().get(address)) is not None:
                    raise AddressError(f"{address}: container {owner[0]} ({owner[1]}) has it")
                demand = Demand(pools=(pool,), address=address, skip=unwanted)
                await self._stock.obtain(demand, there)

    def _picked(self, span: Span, pool: Pool, address: Addr | None) -> Addr | None:
        if address is None:
            return self._stock.pick((pool,), lambda found: self._unwanted(found, span))
        return address if self._stock.has(address) and address not in self._store.leased() else None

    def _unwanted(self, found: Addr, span: Span) -> bool:
        return not span.allows(found) or self._shunned.get(found, 0.0) > self._store.clock()

    def shun(self, address: Addr) -> None:
        """Give it out to those alone who ask for it by name: for a while, as somebody else uses it."""
        now = self._store.clock()
        self._shunned = {a: until for a, until in self._shunned.items() if until > now}
        self._shunned[address] = now + _SHUNNED

    async def delete(self, r: Request) -> None:
        """Free what the interface has; success whatever there is. Raises CniError."""
        try:
            await self._store.release(r.container_id, r.ifname)
        except LeaseStoreError as error:
            raise CniError(ErrorCode.IO_FAILURE, "the lease cannot be freed", str(error)) from error
        self._poked.set()

    async def check(self, r: Request) -> None:
        """Raises CniError where the interface does not have the addresses that it was given."""
        known = self._store.get(r.container_id, r.ifname)
        if known is None:
            raise CniError(ErrorCode.CHECK_FAILED, f"{r.ifname} of {r.container_id} has no address")
        given = {ip.address.ip for ip in r.config.prev_result.ips} if r.config.prev_result else set()
        if missing := [str(address) for address in known.addresses if given and address not in given]:
            text = f"{', '.join(missing)} is leased, and not in prevResult"
            raise CniError(ErrorCode.CHECK_FAILED, f"{r.ifname} of {r.container_id} changed", text)

    async def status(self, r: Request) -> None:
        """Raises CniError where ADD could not work."""
        _section(r)
        problem = self._store.problem or (self._absent() if self._wanted.is_set() else "")
        if problem:
            raise CniError(ErrorCode.UNAVAILABLE, "no address can be given out", problem)

    async def gc(self, r: Request) -> None:
        """Free what the runtime does not list and the API server has no pod for. Raises CniError."""
        if r.config.valid_attachments is None:
            return
        listed = set(r.config.valid_attachments) | self._busy
        for att in self._store.attachments():
            key = (att.container_id, att.ifname)
            if att.network == r.config.name and key not in listed and await self._why_over(att):
                await self._free(att, "the runtime does not list it")

    # Garbage.

    async def collect(self) -> None:
        """Free leases whose DEL never came, on the node's proof and the API's, after the grace period."""
        now, containers, since = self._store.clock(), set(self._containers()), {}
        for att in self._store.attachments():
            key = (att.container_id, att.ifname)
            rebooted = att.boot_id != self._store.boot_id
            if key in self._busy or not (rebooted or att.container_id not in containers):
                continue
            if not await self._why_over(att):
                continue
            since[key] = self._since.get(key, now)
            if now - since[key] >= self._grace:
                await self._free(att, "the node was booted since" if rebooted else "its container is gone")
                del since[key]
        self._since = since

    async def _why_over(self, att: Attachment) -> str:
        if att.pod is None:
            return "it is no pod's" if att.boot_id != self._store.boot_id else ""
        return await why_over(att.pod, self._pods)

    async def _free(self, att: Attachment, why: str) -> None:
        try:
            await self._store.release(att.container_id, att.ifname)
        except LeaseStoreError as error:
            raise CniError(ErrorCode.IO_FAILURE, "the lease cannot be freed", str(error)) from error
        log.info(
            "network_lease_collected",
            container=att.container_id,
            pod=str(att.pod),
            addresses=[str(address) for address in att.addresses],
            node_says=why,
        )
        self._poked.set()

    def findings(self) -> list[Finding]:
        """Why no address can be given out, while one is wanted."""
        if not self._wanted.is_set() or not (text := self._absent()):
            return []
        return [Finding(code="TP4050", object=NETWORK_RANGES.plural, message=text, fix=_KINDS)]


def _section(r: Request) -> Section:
    """Raises CniError."""
    try:
        return read_section(msgspec.json.decode(r.config.raw).get("ipam"))
    except BadSection as error:
        raise CniError(ErrorCode.BAD_CONFIG, f"network {r.config.name}", f"{error}; TP4052") from error


def _named(section: Section, asked: Sequence[Addr]) -> list[Addr | None]:
    """For each range the address that is asked for of it. Raises AddressError."""
    found: list[Addr | None] = [None] * len(section.spans)
    for address in asked:
        place = next((n for n, span in enumerate(section.spans) if span.may_name(address)), None)
        if place is None or found[place] is not None:
            known = ", ".join(f"{span.first}-{span.last}" for span in section.spans)
            raise AddressError(f"{address} is asked for, and the network gives one address each of {known}")
        found[place] = address
    return found


def _result(section: Section, addresses: Sequence[Addr]) -> Result:
    ips = tuple(
        IPConfig(address=ip_interface((address, span.cidr.prefixlen)), gateway=span.gateway)
        for span, address in zip(section.spans, addresses, strict=True)
    )
    dns = Dns(
        nameservers=section.nameservers,
        domain=section.domain,
        search=section.search,
        options=section.options,
    )
    return Result(ips=ips, routes=tuple(RouteConf(dst=dst, gw=gw) for dst, gw in section.routes), dns=dns)
