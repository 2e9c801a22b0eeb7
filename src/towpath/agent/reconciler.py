"""One step of the loop: observe, compute what should be, apply the difference; under the kernel lock."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import msgspec

from towpath.agent.metrics import Metrics
from towpath.agent.underlay import UnderlayUnknown, discover, on_link
from towpath.api.core import Node
from towpath.api.flannel import FAMILIES, parse_peer, random_mac
from towpath.desired.annotations import own_annotations
from towpath.desired.identity import Identity, device, own_identity
from towpath.desired.node import Desired, node_state
from towpath.desired.ruleset import TABLE
from towpath.desired.snapshot import Snapshot
from towpath.kernel.port import Kernel, KernelRefused
from towpath.log import get_logger
from towpath.model.attachment import Attachment
from towpath.model.finding import Finding
from towpath.model.net import Addr, Vxlan
from towpath.model.network import ClusterNetwork, Underlay
from towpath.model.op import Add, AddLink, Delete, NftUpdate, Op, SetLink
from towpath.model.state import NetState
from towpath.reconcile.check import missing_devices
from towpath.reconcile.diff import diff

log = get_logger("towpath.reconcile")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a step found and did. ``planned`` the operations of the first comparison, ``failed`` what is still
    to be done, with the kernel's words; ``repair`` that nothing but the kernel had changed.
    """

    desired: Desired
    snapshot: Snapshot
    identity: Identity
    planned: tuple[Op, ...] = ()
    failed: tuple[tuple[Op, KernelRefused], ...] = ()
    missing: tuple[str, ...] = ()
    repair: bool = False

    @property
    def annotations(self) -> dict[str, str]:
        """flannel's annotations, once the devices they speak of exist."""
        if any(isinstance(op, AddLink | SetLink) for op, _ in self.failed):
            return {}
        return own_annotations(self.snapshot)

    @property
    def firewall(self) -> bool:
        """Whether the table is as desired, so that pods can be attached."""
        return self.desired.state.nft is not None and not any(
            isinstance(op, NftUpdate) for op, _ in self.failed
        )

    @property
    def drift(self) -> tuple[str, ...]:
        """What is not as it should be and could not be mended, one line each."""
        lines = [f"{op.describe()}: {error.reason}" for op, error in self.failed]
        return (*lines, *(f"link {name} is gone: its pod must be recreated" for name in self.missing))


class Reconciler:
    """``attachments`` is read, and the kernel observed and changed, under ``lock``."""

    def __init__(
        self,
        kernel: Kernel,
        network: ClusterNetwork,
        node_name: str,
        iface: str,
        lock: asyncio.Lock,
        attachments: Callable[[], tuple[Attachment, ...]],
        metrics: Metrics,
    ) -> None:
        self._kernel, self._network = kernel, network
        self._node_name, self._iface = node_name, iface
        self._lock, self._attachments, self._metrics = lock, attachments, metrics
        self._macs: dict[str, str] = {}
        self._underlay: Underlay | None = None
        self._last: Step | None = None
        self.findings: tuple[Finding, ...] = ()
        """What the last step had to say about its input, also if it could not be carried out."""

    async def step(self, nodes: Mapping[str, Node]) -> Step | None:
        """Bring the kernel to what ``nodes`` and the attachments ask for.

        None while this node's place in the network cannot be told: nothing is changed then. Raises
        KernelRefused when the kernel cannot even be looked at.
        """
        begun = perf_counter()
        async with self._lock:
            step = self._step(dict(nodes))
        self._account(step, perf_counter() - begun)
        return step

    def _step(self, nodes: dict[str, Node]) -> Step | None:
        sysctls = self._last.desired.state.sysctls.keys() if self._last else ()
        observed = self._kernel.observe(sysctls, TABLE)
        underlay, findings = self._find_underlay(nodes, observed)
        if underlay is None:
            self.findings = findings
            return None
        snapshot = Snapshot(
            node_name=self._node_name,
            network=self._network,
            nodes=nodes,
            underlay=underlay,
            attachments=self._attachments(),
            vtep_macs=self._vtep_macs(observed),
        )
        desired = node_state(snapshot)
        if desired.state.sysctls.keys() != sysctls:
            observed = self._kernel.observe(desired.state.sysctls, TABLE)
        planned = diff(observed, desired.state, desired.scope)
        unchanged = self._last is not None and self._last.desired.state == desired.state
        step = Step(
            desired=desired,
            snapshot=snapshot,
            identity=own_identity(snapshot),
            planned=planned,
            failed=self._carry_out(planned, desired),
            missing=tuple(missing_devices(observed, desired.state)),
            repair=bool(planned) and unchanged and self._last is not None and not self._last.failed,
        )
        self._last = step
        self.findings = (*findings, *desired.findings)
        return step

    def _find_underlay(
        self, nodes: Mapping[str, Node], observed: NetState
    ) -> tuple[Underlay | None, tuple[Finding, ...]]:
        """The underlay; the last known one while a new answer would be worse than none.

        A NIC that loses its address for a moment must not move the tunnels of a whole node.
        """
        node = nodes.get(self._node_name)
        findings: tuple[Finding, ...] = ()
        fresh: Underlay | None = None
        if node is not None:
            try:
                fresh, findings = discover(node, observed, self._network, self._iface)
            except UnderlayUnknown as e:
                findings = (e.finding,)
        last = self._underlay
        if last is not None and last.dev in observed.links and (fresh is None or findings):
            fresh = msgspec.structs.replace(last, mtu=observed.links[last.dev].mtu)
        if fresh is None:
            return None, findings or (_unknown(self._node_name),)
        if self._network.direct_routing or self._network.backend == "host-gw":
            fresh = msgspec.structs.replace(fresh, on_link=self._on_link(nodes, observed))
        self._underlay = fresh
        return fresh, findings

    def _on_link(self, nodes: Mapping[str, Node], observed: NetState) -> frozenset[Addr]:
        peers = (parse_peer(node, self._network)[0] for node in nodes.values())
        addresses = [link.public for peer in peers if peer is not None for link in peer.links.values()]
        return on_link(addresses, observed)

    def _vtep_macs(self, observed: NetState) -> dict[str, str]:
        """Of existing devices their own, else made up once and kept."""
        for family in FAMILIES:
            name = device(self._network, family)
            link = observed.links.get(name)
            if link is not None and isinstance(link.kind, Vxlan) and link.mac:
                self._macs[name] = link.mac
            self._macs.setdefault(name, random_mac(os.urandom(6)))
        return dict(self._macs)

    def _carry_out(self, planned: Sequence[Op], desired: Desired) -> tuple[tuple[Op, KernelRefused], ...]:
        """All at once; if the kernel refuses anything, look again and go on with the rest one by one."""
        try:
            self._kernel.apply(planned)
        except KernelRefused as e:
            log.warning("operation_refused", operation=e.op, error=e.reason, hint=e.hint)
        else:
            return ()
        failed = []
        observed = self._kernel.observe(desired.state.sysctls, TABLE)
        for op in diff(observed, desired.state, desired.scope):
            try:
                self._kernel.apply([op])
            except KernelRefused as e:
                failed.append((op, e))
        return tuple(failed)

    def _account(self, step: Step | None, seconds: float) -> None:
        self._metrics.count("towpath_reconcile_runs")
        self._metrics.observe("towpath_reconcile_seconds", seconds)
        if step is None or not step.planned:
            return
        for op in step.planned:
            kind = operation_name(op)
            self._metrics.count("towpath_operations", kind)
            if step.repair:
                self._metrics.count("towpath_repairs", kind)
        log.info(
            "repaired" if step.repair else "applied",
            operations=[op.describe() for op in step.planned[:20]],
            more=max(0, len(step.planned) - 20),
            failed=len(step.failed),
            ms=round(seconds * 1e3, 1),
        )
        if step.failed:
            self._metrics.count("towpath_reconcile_failures")


def _unknown(node_name: str) -> Finding:
    return Finding(
        code="TP3010",
        object=f"Node/{node_name}",
        message="is not known to the API server",
        fix="see that the kubelet has registered the node under this name, or correct node_name",
    )


def operation_name(op: Op) -> str:
    """A few words that make good metric labels: "AddLink", "Add Route", "NftUpdate"."""
    name = type(op).__name__
    return f"{name} {type(op.item).__name__}" if isinstance(op, Add | Delete) else name
