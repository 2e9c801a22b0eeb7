"""The lab's kube-proxy: follows Services and EndpointSlices and keeps one nftables table per node.

Changes are differences in one transaction; nothing is ever flushed, and nothing removed on exit.
"""

import asyncio
from collections.abc import Iterable
from socket import IPPROTO_UDP

from towpath.agent.runner import Runner
from towpath.kernel.port import Kernel, KernelRefused
from towpath.kernel.watch import NetlinkWatch
from towpath.kube.backoff import Backoff
from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.discovery import served
from towpath.kube.errors import ApiError
from towpath.kube.kinds import Kind
from towpath.kube.reflector import Reflector, Selection
from towpath.lab.controllers.endpoints_plan import service_key
from towpath.lab.controllers.informers import Index
from towpath.lab.controllers.objects_core import EndpointSlice, Service
from towpath.lab.controllers.resources import ENDPOINT_SLICES, SERVICES
from towpath.lab.serviceproxy_backends import Address, addresses, cluster_ips, serves
from towpath.lab.serviceproxy_rules import TABLE, Fragment, fragment, proxy_table
from towpath.log import get_logger
from towpath.model.net import Net
from towpath.model.nft import NftTable
from towpath.model.op import FlushConntrack
from towpath.reconcile.tables import diff_table

RESYNC_SECONDS = 30.0
_ECHO, _ECHO_CHECK = 0.1, 1.0
_OTHERS_PROXY = "service.kubernetes.io/service-proxy-name"

log = get_logger("towpath.lab.serviceproxy")


async def run_service_proxy(
    client: Client, kernel: Kernel, node: str = "", pod_networks: Iterable[Net] = ()
) -> None:
    """Serve Services on this node until cancelled. To be called in the node's network namespace.

    ``kernel`` is the node's; ``node`` its name, for what must stay local; ``pod_networks`` is where traffic
    to a cluster address may come from without being masqueraded (kube-proxy's ``--cluster-cidr``).
    """
    slices = await _slices_served(client)
    proxy = ServiceProxy(client, kernel, node, tuple(pod_networks), slices)
    watch = NetlinkWatch(proxy.heard)
    watch.start()
    try:
        await proxy.run()
    finally:
        watch.close()


async def _slices_served(client: Client) -> Kind[EndpointSlice]:
    """EndpointSlices in the version the server has (v1 came with 1.21), asked until it answers."""
    backoff = Backoff(cap=1.0)
    while True:
        try:
            return await served(client, ENDPOINT_SLICES.api, ("v1", "v1beta1"))
        except ApiError as not_yet:
            log.info("endpointslices_not_found_yet", error=str(not_yet))
            await asyncio.sleep(backoff.next())


class ServiceProxy:
    """The proxy of one node."""

    def __init__(
        self,
        client: Client,
        kernel: Kernel,
        node: str,
        pod_networks: tuple[Net, ...],
        slices: Kind[EndpointSlice],
    ) -> None:
        self._kernel, self._node, self._networks = kernel, node, pod_networks
        self._services: Reflector[Service] = Reflector(
            client, Selection(kind=SERVICES.api), self._service_changed
        )
        self._slices: Reflector[EndpointSlice] = Reflector(
            client, Selection(kind=slices), self._slice_changed
        )
        self._slices_of: Index[EndpointSlice] = Index(service_key)
        self._known: dict[Key, EndpointSlice] = {}
        self._fragments: dict[str, Fragment] = {}
        self._datagrams: dict[str, frozenset[Address]] = {}
        self._dirty: set[str] = set()
        self._runner = Runner(self._sync, resync=RESYNC_SECONDS, backoff=Backoff(), rest=0.05)
        self._applied: NftTable | None = None
        self._observe_at = 0.0
        self._quiet_until = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._services.run(), name="services")
            group.create_task(self._slices.run(), name="endpointslices")
            await self._services.listed.wait()
            await self._slices.listed.wait()
            self._runner.poke()
            await self._runner.run()

    def heard(self, kind: str, name: str) -> None:
        """Of a change in the kernel. What comes right after a write of our own is taken for its echo, and
        looked into a little later; anything else at once."""
        if kind == "overrun" or (kind == "nft" and name == TABLE):
            now = asyncio.get_running_loop().time()
            delay = _ECHO_CHECK if now < self._quiet_until else 0.0
            self._observe_at = min(self._observe_at, now + delay)
            self._runner.poke(delay)

    async def _sync(self) -> bool:
        """Whether the kernel is now as it should be."""
        if not (self._services.listed.is_set() and self._slices.listed.is_set()):
            return True  # half a picture would take away what serves
        loop = asyncio.get_running_loop()
        stale = {address for key in self._dirty for address in self._recompute(key)}
        self._dirty.clear()
        desired = proxy_table(self._fragments, self._networks)
        try:
            if loop.time() >= self._observe_at:
                self._applied = self._kernel.observe(table=TABLE).nft
                self._observe_at = loop.time() + RESYNC_SECONDS
            update = diff_table(self._applied, desired)
            flushes = [FlushConntrack(a, IPPROTO_UDP) for a in sorted(stale, key=str)]
            if update or flushes:
                self._kernel.apply([*([update] if update else []), *flushes])
                self._quiet_until = loop.time() + _ECHO
        except KernelRefused as error:
            self._observe_at = 0.0
            log.warning("rules refused", error=str(error))
            return False
        self._applied = desired
        return True

    def _recompute(self, key: str) -> set[Address]:
        """One Service's part of the table. Answers the addresses whose UDP flows must be forgotten: conntrack
        would go on sending to a backend that is gone, or to nobody."""
        namespace, _, name = key.partition("/")
        service = self._services.objects.get((namespace, name))
        before = self._datagrams.pop(key, frozenset())
        if service is None or service.metadata.label(_OTHERS_PROXY) is not None:
            self._fragments.pop(key, None)
            return set(before)
        slices = self._slices_of.get(key)
        self._fragments[key] = fragment(service, slices, self._node, self._networks)
        if not any(p.protocol == "UDP" for p in service.spec.ports or ()):
            return set(before)
        after = frozenset(
            a for s in slices for e in s.endpoints or () if serves(e) for a in addresses(e.addresses)
        )
        self._datagrams[key] = after
        born = set(cluster_ips(service)) if after and not before else set()
        return set(before - after) | born

    def _service_changed(self, key: Key | None) -> None:
        if key is not None:
            self._dirty.add("/".join(key))
        self._runner.poke()

    def _slice_changed(self, key: Key | None) -> None:
        if key is not None:
            before, after = self._known.pop(key, None), self._slices.objects.get(key)
            if after is not None:
                self._known[key] = after
            self._slices_of.move(before, after)
            self._dirty |= {k for s in (before, after) if s for k in service_key(s)}
        self._runner.poke()
