"""Addresses for pods from Calico's blocks (``ipam_mode: blocks``): follows them, keeps the node's stock."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from ipaddress import ip_network
from time import monotonic
from typing import Protocol

from towpath.agent.block_api import BlockApi
from towpath.agent.block_figures import BlockFigures
from towpath.agent.block_retirement import Lost, clear_away
from towpath.agent.block_stock import Stock
from towpath.agent.pod_wishes import Wishes, read_wishes
from towpath.api.core import Namespace, Node
from towpath.api.flannel import PREFIX, annotations_of
from towpath.api.report import BY_BLOCKS, IPAM_MODE, LEAVING
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Request
from towpath.desired.ownership import Holdings
from towpath.ipam.affinity import Config, read_config
from towpath.ipam.block_plan import Demand, handle_of
from towpath.ipam.block_writes import Plural
from towpath.ipam.errors import AddressUnavailable, BadBlock, BlocksExhausted
from towpath.ipam.pools import Labels, Pool, check_pools, eligible, read_pool
from towpath.ipam.store import Choice, LeaseStore
from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.errors import KubeError, NotFound
from towpath.kube.kinds import BLOCK_AFFINITIES, IP_POOLS, IPAM_BLOCKS, IPAM_CONFIGS, Raw
from towpath.kube.reflector import Reflector, Selection
from towpath.log import get_logger
from towpath.model.finding import Finding
from towpath.model.net import Addr, Family, Net
from towpath.policy.selector_parse import parse_selector

log = get_logger("towpath.ipam")

_SETTLE_EVERY = 30.0
_REST = 0.5
_ABSENT = "kubectl apply -f manifests/calico-ipam.yaml (or let Calico bring its kinds)"


class Surroundings(Protocol):
    """What of the cluster decides on addresses."""

    @property
    def own(self) -> Node | None:
        """This node."""
        ...

    def nodes(self) -> Mapping[str, Node]:
        """All, by name."""
        ...

    def namespace(self, name: str) -> Namespace | None:
        """One of them."""
        ...

    def reserved(self) -> tuple[Net, ...]:
        """What is given to those alone who ask for it."""
        ...

    def inhabited(self) -> Collection[str] | None:
        """The nodes that a pod that is not over is said to be on; None while that is not known."""
        ...


class Blocks:
    """``changed`` is called when some of the network is another node's than before; ``in_force`` brings the
    kernel to what is whose now. ``store`` is the node's own, to be set before a pod comes.
    """

    def __init__(
        self,
        client: Client,
        node_name: str,
        networks: tuple[Net, ...],
        around: Surroundings,
        changed: Callable[[], None],
        silence: float,
    ) -> None:
        self._client, self._node, self._networks, self._around = client, node_name, networks, around
        self._changed = changed
        self.store: LeaseStore | None = None
        self.in_force: Callable[[], Awaitable[object]] | None = None
        self.api = BlockApi(client, node_name)
        self.stock = Stock(
            self.api,
            self._leased,
            self._rested,
            around.reserved,
            self._lengths,
            self._home,
            self._closed,
            self.leaving,
        )
        self.figures = BlockFigures(
            node_name, self.stock, self._leased, self._rested, around.reserved, self._lengths, around.nodes
        )
        self._lost = Lost(monotonic)
        self._poked = asyncio.Event()
        self._loaded = False
        self.adopted = False
        """Whether what this node has leased is marked in blocks, so that others may use the rest."""
        self._unmarked = ""
        self._bad: tuple[BadBlock, ...] = ()
        self._bad_config: BadBlock | None = None
        self._follow: dict[str, Reflector[Raw]] = {
            kind.plural: Reflector(client, Selection(kind=kind), self._hearer(kind.plural), silence=silence)
            for kind in (IP_POOLS, IPAM_CONFIGS, IPAM_BLOCKS, BLOCK_AFFINITIES)
        }
        self._known: Holdings = {}

    # Following.

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._follow.values():
                tasks.create_task(reflector.run())
            tasks.create_task(self._keep())

    @property
    def is_listed(self) -> bool:
        """Whether it is known which blocks are whose; where there is no such kind, there are none."""
        return all(r.listed.is_set() or isinstance(r.problem, NotFound) for r in self._follow.values())

    def problem(self) -> str:
        """Why no address can be had at all; empty when they can."""
        for plural, reflector in self._follow.items():
            if not reflector.listed.is_set():
                why = reflector.problem
                if isinstance(why, NotFound):
                    return f"there is no kind {plural}.{IP_POOLS.group}: {_ABSENT}; TP4030"
                return f"{plural} not listed yet: {why or 'no answer yet'}"
        if not self._loaded:
            return "this node's IPAMHandle is not known yet"
        if not self.adopted:
            return f"leases from before are being marked in blocks: {self._unmarked or 'not begun'}"
        return str(self._bad_config) + "; TP4031" if self._bad_config is not None else ""

    def poke(self) -> None:
        """An address was released: look soon whether something is to be given back."""
        self._poked.set()

    def _hearer(self, plural: str) -> Callable[[Key | None], None]:
        def heard(key: Key | None) -> None:
            if key is None or plural not in ("ipamblocks", "blockaffinities"):
                self._reread()
            else:
                typed: Plural = "ipamblocks" if plural == "ipamblocks" else "blockaffinities"
                obj = self._follow[plural].objects.get(key)
                if obj is None:
                    self.api.mirror.gone(typed, key[1])
                else:
                    self.api.mirror.take(typed, obj)
            if (now := self.holdings()) != self._known:
                self._known = now
                self._changed()
            self._poked.set()

        return heard

    def _reread(self) -> None:
        """Pools and configuration: whatever is wrong with one spoils no other."""
        bad: list[BadBlock] = []
        pools: list[Pool] = []
        for obj in self._follow[IP_POOLS.plural].objects.values():
            try:
                if (pool := read_pool(obj, _selects)) is not None:
                    pools.append(pool)
            except BadBlock as error:
                bad.append(error)
        self.stock.pools, more = check_pools(pools, self._networks)
        self._bad = (*bad, *more)
        try:
            found = self._follow[IPAM_CONFIGS.plural].objects.get(("", "default"))
            self.stock.config, self._bad_config = read_config(found), None
        except BadBlock as error:
            self.stock.config, self._bad_config = Config(strict=True, claims=False), error

    async def _keep(self) -> None:
        """Finish what was begun, and give back what is not needed: soon after something happened."""
        while True:
            if all(reflector.listed.is_set() for reflector in self._follow.values()):
                try:
                    if not self._loaded:
                        await self.api.look("ipamhandles", handle_of(self._node))
                        self._loaded = True
                        self._changed()
                    if self.store is not None and not self.store.problem:
                        await self._adopt(self.store)
                        while await self.stock.settle():
                            pass
                    await self._clear_away()
                except KubeError as error:
                    log.warning("blocks_not_settled", error=str(error))
            try:
                async with asyncio.timeout(_SETTLE_EVERY if self._loaded else _REST):
                    await self._poked.wait()
            except TimeoutError:
                continue
            self._poked.clear()
            await asyncio.sleep(_REST)

    async def _adopt(self, store: LeaseStore) -> None:
        """Mark what was leased without blocks: from before the node had them. Raises KubeError.

        Where somebody else has one of them the node takes no pods, and says so, until that is settled.
        """
        if self.adopted:
            return
        left = []
        for address in list(store.leased()):
            pools = tuple(p for p in self.stock.pools if p.family == address.version and address in p.cidr)
            if not pools or self.stock.has(address):
                continue
            try:
                await self.stock.obtain(
                    Demand(pools=pools, address=address), partial(self.stock.has, address)
                )
            except (AddressUnavailable, BlocksExhausted) as error:
                left.append(str(error))
        if (text := "; ".join(left)) != self._unmarked:
            log.warning("leases_not_marked", problems=left)
        self._unmarked, self.adopted = text, not left
        if self.adopted:
            self._changed()

    async def _clear_away(self) -> None:
        """What nodes have that are no more. Raises KubeError."""
        nodes, inhabited = self._around.nodes(), self._around.inhabited()
        if not nodes or inhabited is None:
            return
        for node in self._lost.due(self._node, self.api.mirror, nodes.keys(), inhabited):
            objects: dict[Plural, list[Raw]] = {
                "ipamblocks": list(self._follow[IPAM_BLOCKS.plural].objects.values()),
                "blockaffinities": list(self._follow[BLOCK_AFFINITIES.plural].objects.values()),
            }
            await clear_away(self._client, node, objects, self.stock.config)

    # What is whose.

    def holdings(self) -> Holdings:
        """By node, its blocks, and what it has of others'. Blocks of nobody lead nowhere."""
        found: dict[str, list[Net]] = {}
        for block in self.api.mirror.blocks.values():
            if block.node:
                found.setdefault(block.node, []).append(block.cidr)
            for ordinal, index in enumerate(block.allocations):
                holder = block.owners[index].about.get("node", "") if index is not None else ""
                if holder and holder != block.node:
                    net = type(block.cidr)(block.address(ordinal))
                    found.setdefault(holder, []).append(net)
        return {node: tuple(sorted(nets, key=str)) for node, nets in found.items()}

    def here(self) -> tuple[Net, ...]:
        """This node's."""
        return self.holdings().get(self._node, ())

    def findings(self) -> list[Finding]:
        """What cannot be read or used, and what it keeps from working."""
        found = []
        for bad in self._bad:
            fix = f"kubectl edit ippools.{IP_POOLS.group} {bad.name}"
            found.append(_finding("TP4032", f"IPPool/{bad.name}", bad.problem, fix))
        for (plural, name), bad in sorted(self.api.mirror.unreadable.items()):
            fix = f"put {plural}.{IP_POOLS.group} {name} right, from a backup or by hand; its pods run on"
            found.append(_finding("TP4031", f"{plural}/{name}", bad.problem, fix))
        if self._bad_config is not None:
            fix = f"kubectl edit ipamconfigs.{IP_POOLS.group} default"
            found.append(_finding("TP4031", "IPAMConfig/default", self._bad_config.problem, fix))
        return found

    # For pods.

    def check(self, r: Request) -> None:
        """Raises CniError where no pod can have an address."""
        if r.config.runtime_config.ip_ranges or r.config.ipam.ranges:
            raise CniError(
                ErrorCode.UNSUPPORTED_FIELD,
                "ranges of a network's own are not given out while blocks are (ipam_mode: blocks)",
                "make an IPPool, and name it in the annotation cni.projectcalico.org/ipv4pools",
            )
        if why := self.problem():
            raise CniError(ErrorCode.TRY_LATER, "no addresses to give out", why)

    def wishes(self, r: Request) -> Wishes:
        """What the pod's annotations and its namespace's say. Raises BadWish."""
        if r.pod is None:
            return Wishes()
        space = self._around.namespace(r.pod.metadata.namespace)
        notes = space.metadata.annotations if space is not None else None
        return read_wishes(r.pod.metadata.annotations or {}, notes or {})

    async def choose(
        self, r: Request, asked: Sequence[Addr], foreign: Callable[[Addr], bool]
    ) -> tuple[Choice, ...]:
        """An address of each family that there are pools of, marked as this node's in the API already.

        Nothing else may run between this and the lease. Raises AddressError, CniError.
        """
        wishes = self.wishes(r)
        if wishes.unmanaged:
            for address in wishes.unmanaged:
                if any(address in pool.cidr for pool in self.stock.pools if pool.family == address.version):
                    raise AddressUnavailable(address, "it is a pool's: ask for it with ipAddrs")
                self._check_free(address, foreign)
            return tuple(Choice(address, None) for address in wishes.unmanaged)
        wanted = {address.version: address for address in (*wishes.addresses, *asked)}
        demands = self._demands(r, wishes, wanted)
        before = self.here()
        for demand in demands:
            await self._obtain(demand, foreign)
        if self.here() != before and self.in_force is not None:
            await self.in_force()  # else the pod's first packets would be taken for a stranger's
        while True:
            choices = [self._picked(demand, foreign) for demand in demands]
            missing = [d for d, address in zip(demands, choices, strict=True) if address is None]
            if not missing:
                return tuple(Choice(address, None) for address in choices if address is not None)
            for demand in missing:
                await self._obtain(demand, foreign)

    def _demands(self, r: Request, wishes: Wishes, wanted: Mapping[Family, Addr]) -> list[Demand]:
        labels, namespace = self._labels(r)
        open_ones = [pool for pool in self.stock.pools if not pool.closed]
        families = sorted({pool.family for pool in open_ones} | set(wanted) | set(wishes.pools))
        if wanted and not set(families) - set(wanted) - set(wishes.pools):
            families = sorted(wanted)
        demands = []
        for family in families:
            named = wishes.pools.get(family)
            pools = eligible(self.stock.pools, family, labels, namespace, _selects, named)
            address = wanted.get(family)
            if address is not None and named is None:  # by name it may be of any pool that is open
                pools = tuple(pool for pool in open_ones if pool.family == family)
            if pools or named is not None or address is not None:
                demands.append(Demand(pools=pools, address=address))
        if not demands:
            known = ", ".join(pool.name for pool in self.stock.pools) or "there is none"
            raise BlocksExhausted(
                f"no IPPool that can be used selects this node and the pod's namespace ({known})"
            )
        return demands

    async def _obtain(self, demand: Demand, foreign: Callable[[Addr], bool]) -> None:
        if demand.address is not None:
            self._check_free(demand.address, foreign)
        try:
            await self.stock.obtain(demand, lambda: self._picked(demand, foreign) is not None)
        except KubeError as error:
            raise CniError(
                ErrorCode.TRY_LATER, "no address can be marked as this node's", f"{error}; TP4033"
            ) from error

    def _picked(self, demand: Demand, foreign: Callable[[Addr], bool]) -> Addr | None:
        if demand.address is None:
            return self.stock.pick(demand.pools, foreign, self._around.reserved())
        return demand.address if self.stock.has(demand.address) else None

    def _check_free(self, address: Addr, foreign: Callable[[Addr], bool]) -> None:
        if self.stock.is_overlay(address):
            raise AddressUnavailable(address, "it is, or may become, a node's own in the overlay")
        if (owner := self._leased().get(address)) is not None:
            raise AddressUnavailable(address, f"container {owner[0]} ({owner[1]}) has it", temporary=True)
        if foreign(address):
            raise AddressUnavailable(address, "somebody uses it without a lease", temporary=True)

    def _labels(self, r: Request) -> tuple[Labels, Labels]:
        own = self._around.own
        space = self._around.namespace(r.pod.metadata.namespace) if r.pod is not None else None
        return (
            (own.metadata.labels or {}) if own is not None else {},
            (space.metadata.labels or {}) if space is not None else {},
        )

    def _leased(self) -> Mapping[Addr, tuple[str, str]]:
        return self.store.leased() if self.store is not None else {}

    def _rested(self) -> Sequence[Addr]:
        return self.store.held() if self.store is not None else ()

    def _lengths(self) -> Mapping[Family, int]:
        """The least prefix lengths of podCIDRs in use: others have their network addresses where these do."""
        found: dict[Family, int] = {}
        for node in self._around.nodes().values():
            for net in _pod_cidrs(node):
                found[net.version] = max(found.get(net.version, 0), net.prefixlen)
        return found

    def _closed(self) -> tuple[Net, ...]:
        """The podCIDRs of other nodes of the overlay that do not say that they use blocks."""
        return tuple(
            net
            for name, node in self._around.nodes().items()
            if name != self._node and _keeps_to_pod_cidr(node)
            for net in _pod_cidrs(node)
        )

    def leaving(self) -> bool:
        """Whether this node is to go back to its podCIDRs, and so takes nothing else."""
        own = self._around.own
        return own is not None and annotations_of(own).get(IPAM_MODE) == LEAVING

    def _home(self) -> tuple[Net, ...]:
        own = self._around.own
        return _pod_cidrs(own) if own is not None else ()


def _keeps_to_pod_cidr(node: Node) -> bool:
    notes = annotations_of(node)
    return notes.get(IPAM_MODE) != BY_BLOCKS and any(key.startswith(PREFIX) for key in notes)


def _pod_cidrs(node: Node) -> tuple[Net, ...]:
    found = []
    for text in node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else []):
        try:
            found.append(ip_network(text))
        except ValueError:
            continue  # told as TP3010
    return tuple(found)


def _selects(text: str, labels: Labels) -> bool:
    return parse_selector(text).matches(labels)


def _finding(code: str, what: str, message: str, fix: str) -> Finding:
    return Finding(code=code, object=what, message=message, fix=fix, severity="warning")
