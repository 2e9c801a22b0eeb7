"""Attaches pods to extra networks: the steps of it, each of which can be undone from the journal."""

from collections.abc import Callable, Container, Iterable, Sequence
from ipaddress import ip_address

from towpath.agent.network_chains import Chains
from towpath.agent.network_telling import Telling
from towpath.agent.pod_devices import PodDevices
from towpath.api.core import Pod
from towpath.cni.request import PodDescriptors, Request
from towpath.cni.result import Result
from towpath.kernel.port import Kernel, KernelRefused
from towpath.model.attachment import PodRef
from towpath.model.net import Net, Route
from towpath.multinet.choose import Wanted
from towpath.multinet.default_route import brought_back, moved, not_moved
from towpath.multinet.derive import call
from towpath.multinet.devices import described
from towpath.multinet.journal import Journal, Key, Row
from towpath.multinet.refusal import NetworkRefused
from towpath.multinet.status import Attached, network_status


class Attacher:
    """``inside`` gives a pod's namespace; ``routed`` are the pod networks, which stay reachable by the
    default network whoever has the default route.
    """

    def __init__(
        self,
        journal: Journal,
        chains: Chains,
        telling: Telling,
        inside: Callable[[PodDescriptors], Kernel],
        routed: Sequence[Net],
        boot_id: str,
        devices: PodDevices,
    ) -> None:
        self._devices = devices
        self._journal, self._chains, self._telling = journal, chains, telling
        self._inside, self._routed, self._boot_id = inside, routed, boot_id

    def row(self, r: Request, pod: Pod | None, wanted: Wanted, place: int) -> Row:
        """What is journalled of an attachment that is to be made."""
        made = described(call(wanted.definition, wanted.selection, wanted.ifname, r.environment), wanted)
        meta = pod.metadata if pod is not None else None
        return Row(
            call=made,
            place=place,
            main=r.ifname,
            runtime_network=r.config.name,
            reference=wanted.definition.reference,
            boot_id=self._boot_id,
            request_id=r.request_id,
            pod=PodRef(
                namespace=r.args.get("K8S_POD_NAMESPACE", ""),
                name=r.args.get("K8S_POD_NAME", ""),
                uid=meta.uid,
            )
            if meta is not None
            else None,
            gateways=tuple(map(str, wanted.selection.gateways)),
            instead=wanted.ifname == r.ifname,
            own=self._chains.own(made.plugins),
            general=wanted.general,
        )

    async def attach(self, r: Request, row: Row) -> Row:
        """Its ADD; the row with its result. Raises PluginFailed, ConnectionError, JournalError."""
        return await self._journal.done(row, await self._chains.add(r, row))

    def move_default_route(self, r: Request, rows: Sequence[Row]) -> None:
        """Where one of them is to have it. Raises NetworkRefused, KernelRefused."""
        gateways = [(row.call.ifname, ip_address(gateway)) for row in rows for gateway in row.gateways]
        if not gateways:
            return
        assert r.descriptors is not None  # noqa: S101 - ADD has them
        ifname, kernel = gateways[0][0], self._inside(r.descriptors)
        wanted = [gateway for _, gateway in gateways]
        try:
            kernel.apply(moved(kernel.observe(), ifname, wanted, self._routed))
            problem = not_moved(kernel.observe(), ifname, wanted)
        except KernelRefused as error:
            problem = str(error)
        if problem:
            fix = "name a gateway in the network of that interface"
            raise NetworkRefused("TP6011", f"default-route of {ifname}", problem, fix)

    def bring_back_default_route(self, r: Request, routes: Iterable[Route]) -> None:
        """The default network's own, of ``routes``, in each family that has none. Raises KernelRefused."""
        assert r.descriptors is not None  # noqa: S101 - it was asked for by a call that brings them
        kernel = self._inside(r.descriptors)
        kernel.apply(brought_back(kernel.observe(), routes))

    async def tell(
        self,
        r: Request,
        pod: Pod,
        result: Result | None,
        rows: Sequence[Row],
        new: Container[Key] | None = None,
    ) -> None:
        """Events on the pod of those that are ``new`` (all), and its network-status. ``result`` is the
        default network's.
        """
        attached = (
            []
            if result is None
            else [Attached(name=r.config.name, ifname=r.ifname, result=result, default=True)]
        )
        mtus = self._mtus(r)
        for row in rows:
            parsed = Result.from_object(row.result, row.call.version)
            one = Attached(
                name=row.reference,
                ifname=row.call.ifname,
                result=parsed,
                default=row.instead,
                gateways=row.gateways,
                mtu=mtus.get(row.call.ifname, 0),
                device=self._devices.info(row.call.device_info),
            )
            attached.append(one)
            if new is not None and row.key not in new:
                continue
            ips = ", ".join(str(ip.address) for ip in parsed.ips)
            message = f"Add {row.call.ifname} [{ips}] from {row.reference}"
            self._telling.event(pod, "AddedInterface", message, warning=False)
        ref = PodRef(namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid)
        await self._telling.status(ref, network_status(attached))

    def _mtus(self, r: Request) -> dict[str, int]:
        """By interface; results tell them from CNI 1.1.0 on only."""
        try:
            links = self._inside(r.descriptors).observe().links if r.descriptors is not None else {}
        except KernelRefused:
            return {}
        return {name: link.mtu for name, link in links.items()}
