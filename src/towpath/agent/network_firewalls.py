"""Puts policy in force inside pods, on their interfaces in other networks, by sockets that shims hand over.

A socket of nftables keeps to the namespace it was opened in: with one of each pod, NET_ADMIN is all it takes.
The pod's own call brings them, before any plugin runs; after a restart of the agent the calls of any pod do,
STATUS above all, which runtimes ask for every few seconds. Meanwhile the rules stay as they are.
"""

from collections.abc import Callable, Coroutine, Iterable
from socket import socket
from typing import Any, Protocol

from towpath.agent.network_policies import Judged, NetworkPolicies, Tag
from towpath.api.core import Pod
from towpath.cni.request import Request
from towpath.desired.pod_table import NOTHING, no_table, pod_table, table_name
from towpath.kernel.port import KernelRefused
from towpath.log import get_logger
from towpath.model.attachment import PodRef
from towpath.model.finding import Finding
from towpath.model.nft import NftTable, Owner
from towpath.model.op import NftUpdate
from towpath.model.policy import Program
from towpath.multinet.journal import Row
from towpath.multinet.refusal import NetworkRefused
from towpath.reconcile.tables import diff_table

log = get_logger("towpath.networks")

CODE = "TP6025"
_AT_ONCE = 32


class Tables(Protocol):
    """``kernel.nft.Nft``, of a pod's namespace."""

    def observe(self, table: str) -> NftTable | None: ...
    def apply(self, update: NftUpdate) -> None: ...
    def close(self) -> None: ...


Open = Callable[[tuple[socket, socket]], Tables]


class PodFirewalls:
    """``rows`` are the attachments there are; ``pod_of`` a pod as it is known.

    ``owner`` of the tables: with "own" nobody in the pod can change them while this process lives.
    """

    def __init__(
        self,
        policies: NetworkPolicies,
        open_tables: Open,
        rows: Callable[[], Iterable[Row]],
        pod_of: Callable[[PodRef], Pod | None],
        owner: Owner,
    ) -> None:
        self._policies, self._open, self._owner = policies, open_tables, owner
        self._rows, self._pod_of = rows, pod_of
        self._tables: dict[str, Tables] = {}
        self._ifnames: dict[str, set[str]] = {}
        self._problems: dict[Tag, str] = {}

    def changed(self, poke: Callable[[], None]) -> None:
        """Have ``poke`` called when policy may be another."""
        self._policies.changed = poke

    def run(self) -> Coroutine[Any, Any, None]:
        """What has to run."""
        return self._policies.run()

    def close(self) -> None:
        """All that is in pods stays."""
        for tables in self._tables.values():
            tables.close()
        self._tables.clear()

    async def prepare(self, r: Request, rows: Iterable[Row], pod: Pod | None) -> None:
        """Put in force what is for interfaces that are about to be made. Raises NetworkRefused: then they
        must not be.
        """
        if not self._policies.served or pod is None:
            return
        for row in rows:
            self._attach(row, pod)
            try:
                if row.call.container_id not in self._tables:
                    self._reach(row.call.container_id, await r.netfilter(r.netns))
                self._put(row.key, self._policies.judged([row.key])[row.key], new=True)
            except (OSError, ConnectionError, KernelRefused) as error:
                fix = "install the shim of the agent's release, and nftables in the kernel"
                raise NetworkRefused(CODE, f"policy for {row.call.ifname}", str(error), fix) from error

    def forget(self, container_id: str) -> None:
        """It is gone, and its namespace with all rules."""
        for ifname in self._ifnames.pop(container_id, ()):
            self._policies.detach((container_id, ifname))
            self._problems.pop((container_id, ifname), None)
        tables = self._tables.pop(container_id, None)
        if tables is not None:
            tables.close()

    def leave(self, key: Tag) -> None:
        """An interface of a pod that runs on is gone, and its rules with it. Raises nothing: rules for an
        interface that is not there do no harm.
        """
        container_id, ifname = key
        self._ifnames.get(container_id, set()).discard(ifname)
        self._policies.detach(key)
        self._problems.pop(key, None)
        try:
            tables = self._tables.get(container_id)
            seen = tables.observe(table_name(ifname)) if tables is not None else None
            update = diff_table(seen, no_table(ifname, self._owner)) if seen is not None else None
            if tables is not None and update is not None:
                tables.apply(update)
        except (OSError, KernelRefused) as error:
            log.warning("network_policy_left", container=container_id, ifname=ifname, error=str(error))

    async def catch_up(self, r: Request) -> None:
        """Reach pods that were attached before this process began, or that have not been reached yet."""
        if not self._policies.served:
            return
        reached = 0
        for row in self._rows():
            container_id = row.call.container_id
            pod = self._pod_of(row.pod) if row.pod is not None else None
            if container_id in self._tables or row.failures or not row.done or pod is None:
                continue
            if reached == _AT_ONCE:
                break
            reached += 1
            try:
                sockets = await r.netfilter(row.call.netns)
                if container_id in self._tables or row.key not in {one.key for one in self._rows()}:
                    _close(sockets)
                    continue
                self._reach(container_id, sockets)
            except ConnectionError:
                return
            except (OSError, KernelRefused) as error:
                self._problems[row.key] = str(error)
                continue
            for one in self._rows():
                if one.call.container_id == container_id:
                    self._attach(one, pod)
        if reached:
            self.enforce()

    def enforce(self) -> bool:
        """Have every pod that can be reached hold what it should. False: not all did."""
        well = True
        reachable = [
            (one, name) for one, names in self._ifnames.items() for name in names if one in self._tables
        ]
        for tag, judged in self._policies.judged(reachable).items():
            try:
                self._put(tag, judged, new=False)
                self._problems.pop(tag, None)
            except (OSError, KernelRefused) as error:
                well = False
                log.error("network_policy_not_enforced", container=tag[0], ifname=tag[1], error=str(error))
                self._problems[tag] = str(error)
        return well

    def findings(self) -> list[Finding]:
        """Pods whose rules may be old."""
        pods = {row.key: row.pod for row in self._rows()}
        found = [
            Finding(
                code=CODE,
                object=f"Pod/{pod.namespace}/{pod.name}",
                message=f"policy for {tag[1]} could not be brought up to date: {problem}",
                fix="it is tried again with the runtime's next call; else recreate the pod",
            )
            for tag, problem in self._problems.items()
            if (pod := pods.get(tag)) is not None
        ]
        return [*self._policies.findings(), *found]

    def _reach(self, container_id: str, sockets: tuple[socket, socket]) -> None:
        """Raises KernelRefused, OSError."""
        try:
            self._tables[container_id] = self._open(sockets)
        except BaseException:
            _close(sockets)
            raise

    def _attach(self, row: Row, pod: Pod) -> None:
        self._ifnames.setdefault(row.call.container_id, set()).add(row.call.ifname)
        key = (pod.metadata.namespace, pod.metadata.name)
        self._policies.attach(row.key, row.reference, key, pod)

    def _put(self, tag: Tag, judged: Judged | None, *, new: bool) -> None:
        """Raises KernelRefused, OSError."""
        container_id, ifname = tag
        tables = self._tables[container_id]
        seen = tables.observe(table_name(ifname))
        if judged is None:  # what is in force stays; what is new gets nothing through yet
            wanted = pod_table(ifname, Program(), NOTHING, self._owner) if new else None
        elif judged.program is not None:
            wanted = pod_table(ifname, judged.program, judged.verdicts, self._owner)
        else:
            wanted = no_table(ifname, self._owner) if seen is not None else None
        update = diff_table(seen, wanted)
        if update is not None:
            tables.apply(update)


def _close(sockets: Iterable[socket]) -> None:
    for one in sockets:
        one.close()
